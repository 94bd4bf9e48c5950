//! Who may connect: permits for connections, in total and per address.
//!
//! Invariants: a permit is held from accept to close, whatever the protocol (TCP or QUIC); the map holds addresses with
//! open connections only, so it is bounded by the total. IPv6 is counted by /64, which is what one customer gets; an
//! IPv4 address mapped into IPv6 is the IPv4 address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A range of addresses in CIDR form, such as `10.0.0.0/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: u128,
    mask: u128,
}

/// Text that is no range: the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: an IP address or a range such as 10.0.0.0/8 is expected")]
pub struct InvalidRange(String);

impl AddressRange {
    /// Whether `ip` is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        wide(ip) & self.mask == self.first
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.chars().take(60).collect());
        let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
        let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
        let bits: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), str::parse).map_err(|_| invalid())?;
        let free = bits.checked_sub(length).ok_or_else(invalid)?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Ok(Self { first: wide(ip) & mask, mask })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = InvalidRange;

    fn try_from(text: String) -> Result<Self, InvalidRange> {
        text.parse()
    }
}

impl<'de> serde::Deserialize<'de> for AddressRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Every address as an IPv6 address, so that there is one kind of arithmetic.
fn wide(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// What is counted as one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    V4(Ipv4Addr),
    /// The upper 64 bits.
    V6(u64),
}

impl Peer {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6((Ipv6Addr::to_bits(ip) >> 64) as u64),
        }
    }
}

/// How many connections are admitted.
#[derive(Debug, Clone)]
pub struct AdmissionLimits {
    /// Over all peers.
    pub total_max: usize,
    /// From one IPv4 address or one IPv6 /64.
    pub per_ip_max: usize,
    /// Peers that speak for many and are held to the total alone: proxies, load testers.
    pub exempt: Vec<AddressRange>,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The server is full.
    Total,
    /// This peer has enough.
    PerIp,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "the server has as many connections as it takes",
            Self::PerIp => "this address has as many connections as one may have",
        })
    }
}

/// The door of a server. Clones are the same door.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: AdmissionLimits,
    total: Arc<Semaphore>,
    by_peer: Mutex<HashMap<Peer, usize>>,
}

impl Inner {
    // A count that a panic interrupted is still a count: nothing in here can panic half-way.
    fn counts(&self) -> MutexGuard<'_, HashMap<Peer, usize>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted connection; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    _total: OwnedSemaphorePermit,
    counted: Option<(Arc<Inner>, Peer)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((inner, peer)) = &self.counted else { return };
        let mut counts = inner.counts();
        if let Some(count) = counts.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(peer);
            }
        }
    }
}

impl Admission {
    /// A door nobody went through yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let total = Arc::new(Semaphore::new(limits.total_max.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { limits, total, by_peer: Mutex::default() }))
    }

    /// Admits a connection from `ip`, or not; never waits.
    ///
    /// # Errors
    /// The server or the peer has as many as allowed; later there may be room.
    pub fn admit(&self, ip: IpAddr) -> Result<Permit, Refusal> {
        let inner = &self.0;
        let total = Arc::clone(&inner.total).try_acquire_owned().map_err(|_| Refusal::Total)?;
        let ip = ip.to_canonical();
        if inner.limits.exempt.iter().any(|range| range.contains(ip)) {
            return Ok(Permit { _total: total, counted: None });
        }
        let peer = Peer::of(ip);
        let mut counts = inner.counts();
        let count = counts.entry(peer).or_default();
        if *count >= inner.limits.per_ip_max {
            return Err(Refusal::PerIp);
        }
        *count += 1;
        Ok(Permit { _total: total, counted: Some((Arc::clone(inner), peer)) })
    }

    /// Waits until every connection is gone, or for `patience`; returns whether they are.
    pub async fn emptied(&self, patience: Duration) -> bool {
        let all = u32::try_from(self.0.limits.total_max).unwrap_or(u32::MAX);
        tokio::time::timeout(patience, self.0.total.acquire_many(all)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(total_max: usize, per_ip_max: usize) -> Admission {
        let exempt = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        Admission::new(AdmissionLimits { total_max, per_ip_max, exempt })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_peer_cannot_take_everything() {
        let door = door(10, 2);
        for (same, other) in [
            (["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
            (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"], "2001:db8:0:1::1"),
        ] {
            let one = door.admit(ip(same[0])).unwrap();
            let two = door.admit(ip(same[1])).unwrap();
            assert_eq!(door.admit(ip(same[2])).unwrap_err(), Refusal::PerIp);
            let three = door.admit(ip(other)).unwrap();
            drop(one);
            drop(door.admit(ip(same[2])).unwrap());
            drop((two, three));
        }
        assert!(door.0.counts().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn the_total_counts_everybody_and_refusals_cost_nothing() {
        let door = door(3, 1);
        let held: Vec<_> = (0..3).map(|_| door.admit(ip("127.0.0.1")).unwrap()).collect();
        assert_eq!(door.admit(ip("192.0.2.1")).unwrap_err(), Refusal::Total);
        drop(held);
        let _one = door.admit(ip("192.0.2.1")).unwrap();
        for _ in 0..10 {
            assert_eq!(door.admit(ip("192.0.2.1")).unwrap_err(), Refusal::PerIp);
        }
        let _two = (door.admit(ip("::1")).unwrap(), door.admit(ip("192.0.2.9")).unwrap());
    }

    #[test]
    fn ranges() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.9.8.7", "11.0.0.1"),
            ("10.1.2.3/8", "10.9.8.7", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert!(range.contains(ip(inside)) && !range.contains(ip(outside)));
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
