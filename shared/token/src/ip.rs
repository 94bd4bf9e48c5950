//! Address prefixes: what a token or a session is bound to.
//!
//! Invariants: an IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is the IPv4 address; host bits are zero.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

/// A network prefix: `203.0.113.0/24`, `2001:db8::/56`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    address: IpAddr,
    bits: u8,
}

/// Not a prefix: whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an address or ADDRESS/BITS is expected")]
pub struct InvalidPrefix;

/// How a prefix relates to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The address is inside.
    Inside,
    /// The address is outside.
    Outside,
    /// One is IPv4, the other IPv6: nothing can be said.
    OtherFamily,
}

impl IpPrefix {
    /// The first `bits` of an address. More bits than the address has are all of them.
    #[must_use]
    pub fn of(address: IpAddr, bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), bits }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), bits }
            }
        }
    }

    /// The lowest address of the prefix.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Where an address is.
    #[must_use]
    pub fn matches(&self, address: IpAddr) -> Match {
        let address = address.to_canonical();
        if address.is_ipv4() != self.address.is_ipv4() {
            return Match::OtherFamily;
        }
        if Self::of(address, self.bits).address == self.address { Match::Inside } else { Match::Outside }
    }
}

impl FromStr for IpPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| InvalidPrefix)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| InvalidPrefix)?
            }
            Some(_) => return Err(InvalidPrefix),
            None => most,
        };
        // `::ffff:203.0.113.0/120` is 24 bits of IPv4.
        let mapped = address.is_ipv6() && address.to_canonical().is_ipv4();
        match bits {
            bits if bits > most => Err(InvalidPrefix),
            bits if mapped => Ok(Self::of(address, bits.checked_sub(96).ok_or(InvalidPrefix)?)),
            bits => Ok(Self::of(address, bits)),
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_are_parsed_and_matched() {
        use Match::{Inside, OtherFamily, Outside};
        for (prefix, address, expected) in [
            ("203.0.113.0/24", "203.0.113.9", Some(Inside)),
            ("203.0.113.77/24", "203.0.113.9", Some(Inside)),
            ("203.0.113.0/24", "203.0.114.9", Some(Outside)),
            ("203.0.113.0/24", "::ffff:203.0.113.9", Some(Inside)),
            ("::ffff:203.0.113.0/120", "203.0.113.9", Some(Inside)),
            ("203.0.113.0/24", "2001:db8::1", Some(OtherFamily)),
            ("203.0.113.9", "203.0.113.9", Some(Inside)),
            ("203.0.113.9", "203.0.113.8", Some(Outside)),
            ("0.0.0.0/0", "1.2.3.4", Some(Inside)),
            ("::/0", "2001:db8::1", Some(Inside)),
            ("2001:db8:0:100::/56", "2001:db8:0:1ff::1", Some(Inside)),
            ("2001:db8:0:100::/56", "2001:db8:0:200::1", Some(Outside)),
            ("203.0.113.0/33", "1.2.3.4", None),
            ("2001:db8::/129", "1.2.3.4", None),
            ("::ffff:1.2.3.4/95", "1.2.3.4", None),
            ("203.0.113.0/", "1.2.3.4", None),
            ("203.0.113.0/+8", "1.2.3.4", None),
            ("203.0.113/24", "1.2.3.4", None),
            ("", "1.2.3.4", None),
            ("example", "1.2.3.4", None),
        ] {
            let parsed = prefix.parse::<IpPrefix>();
            let matched = parsed.map(|prefix| prefix.matches(address.parse().unwrap()));
            assert_eq!(matched.ok(), expected, "{prefix} {address}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_inside_its_own_prefixes(address: IpAddr, bits: u8) {
            let prefix = IpPrefix::of(address, bits);
            prop_assert_eq!(prefix.matches(address), Match::Inside);
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
