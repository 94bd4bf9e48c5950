//! Which of the addresses that a configuration names cannot be listened on together.
//!
//! Port 0 clashes with nothing: the system chooses. Deliberately absent: what other processes listen on, which shows when an
//! address is bound.

use crate::config::Problem;
use std::net::{IpAddr, SocketAddr};

/// What is wrong with addresses for TCP, listed under the keys that name them: each that one before it takes already.
#[must_use]
pub fn clashes(listed: &[(&str, &[SocketAddr])]) -> Vec<Problem> {
    let all =
        || listed.iter().flat_map(|(key, addresses)| addresses.iter().map(move |address| (*key, *address)));
    let problem = |(at, (key, address)): (usize, (&str, SocketAddr))| {
        let (before, taken) = all().take(at).find(|(_, taken)| clash(*taken, address))?;
        let allowed = format!("another port: {taken} in {before} takes this one");
        Some(Problem::new(key, address, allowed))
    };
    all().enumerate().filter_map(problem).collect()
}

/// Whether only one of them can be listened on. [`Bound::bind`](crate::listener::Bound::bind) leaves it to the system whether
/// `[::]` is IPv4 too; on Linux it is.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_listened_on_once() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ] {
            let (one, other): (SocketAddr, SocketAddr) = (one.parse().unwrap(), other.parse().unwrap());
            for (first, second) in [(one, other), (other, one)] {
                let found = clashes(&[("http.bind", &[first]), ("ops.bind", &[second])]);
                let allowed = format!("another port: {first} in http.bind takes this one");
                let problem = Problem::new("ops.bind", second, allowed);
                assert_eq!(found, if expected { vec![problem] } else { vec![] }, "{first} and {second}");
            }
        }
    }

    #[test]
    fn within_one_key_too_and_each_once() {
        let [a, b]: [SocketAddr; 2] = ["127.0.0.1:80", "[::]:80"].map(|text| text.parse().unwrap());
        let found = clashes(&[("http.bind", &[a, b, a]), ("tls.bind", &[])]);
        let expected = [(b, a), (a, a)].map(|(ip, taken)| {
            Problem::new("http.bind", ip, format!("another port: {taken} in http.bind takes this one"))
        });
        assert_eq!(found, expected);
    }
}
