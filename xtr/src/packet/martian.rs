//! Addresses that no forwarded packet may carry (RFC 1812 §5.3.7, RFC 6890 §2.2).

use crate::drops::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Refuses an inner source that can be nobody's (DE-20). `own` are this node's addresses, which nobody else may use; on the
/// encapsulation side pass `&[]`.
#[inline]
pub fn inner_source(source: IpAddr, own: &[IpAddr]) -> Result<(), DropReason> {
    if is_martian_source(source) || own.contains(&source) {
        return Err(DropReason::InnerSourceMartian);
    }
    Ok(())
}

/// Refuses an inner destination that unicast forwarding has no business with (DE-22, EN-31). `own` are control addresses
/// of this node that no encapsulated packet may reach.
#[inline]
pub fn inner_destination(destination: IpAddr, own: &[IpAddr]) -> Result<(), DropReason> {
    let martian = match destination {
        IpAddr::V4(address) => {
            is_never_forwarded_v4(address) || address.is_multicast() || address.is_broadcast()
        }
        IpAddr::V6(address) => is_never_forwarded_v6(address),
    };
    if martian || own.contains(&destination) {
        return Err(DropReason::InnerDestinationMartian);
    }
    Ok(())
}

/// Refuses an outer source that is martian or one of our own RLOCs (DE-21).
#[inline]
pub fn outer_source(source: IpAddr, own_rlocs: &[IpAddr]) -> Result<(), DropReason> {
    if is_martian_source(source) || own_rlocs.contains(&source) {
        return Err(DropReason::OuterSourceMartian);
    }
    Ok(())
}

#[inline]
fn is_martian_source(source: IpAddr) -> bool {
    match source {
        // 224/4 and 240/4 are everything from 224 up.
        IpAddr::V4(address) => is_never_forwarded_v4(address) || address.octets()[0] >= 224,
        IpAddr::V6(address) => is_never_forwarded_v6(address),
    }
}

/// 0/8, 127/8, 169.254/16.
#[inline]
fn is_never_forwarded_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    octets[0] == 0 || octets[0] == 127 || (octets[0] == 169 && octets[1] == 254)
}

/// ::/96 (unspecified, loopback and IPv4-compatible), ::ffff:0:0/96 (IPv4-mapped), fe80::/10, ff00::/8.
#[inline]
fn is_never_forwarded_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let upper = bits >> 32;
    upper == 0 || upper == 0xffff || bits >> 118 == 0xfe80 >> 6 || bits >> 120 == 0xff
}

#[cfg(test)]
mod tests {
    use super::*;
    use DropReason::{InnerDestinationMartian, InnerSourceMartian, OuterSourceMartian};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const SOURCES: [&str; 16] = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.1.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:192.0.2.1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "ff0e::1",
    ];
    const GOOD: [&str; 8] = [
        "1.0.0.1",
        "10.0.0.1",
        "126.255.255.255",
        "169.253.0.1",
        "223.255.255.255",
        "64:ff9b::1",
        "2001:db8::1",
        "fd00::1",
    ];

    #[test]
    fn de_20_martian_inner_sources_are_refused() {
        for source in SOURCES {
            assert_eq!(inner_source(ip(source), &[]), Err(InnerSourceMartian), "{source}");
        }
        for source in GOOD {
            assert_eq!(inner_source(ip(source), &[]), Ok(()), "{source}");
        }
    }

    #[test]
    fn de_20_an_own_address_as_inner_source_is_refused() {
        let own = [ip("192.0.2.1"), ip("2001:db8::1")];
        assert_eq!(inner_source(own[0], &own), Err(InnerSourceMartian));
        assert_eq!(inner_source(own[1], &own), Err(InnerSourceMartian));
        assert_eq!(inner_source(ip("192.0.2.2"), &own), Ok(()));
    }

    #[test]
    fn de_21_martian_and_own_outer_sources_are_refused() {
        for source in SOURCES {
            assert_eq!(outer_source(ip(source), &[]), Err(OuterSourceMartian), "{source}");
        }
        for source in GOOD {
            assert_eq!(outer_source(ip(source), &[]), Ok(()), "{source}");
        }
        assert_eq!(outer_source(ip("192.0.2.1"), &[ip("192.0.2.1")]), Err(OuterSourceMartian));
    }

    #[test]
    fn de_22_martian_inner_destinations_are_refused() {
        for destination in ["127.0.0.1", "169.254.0.1", "::1", "fe80::1", "0.0.0.0", "::"] {
            let refused = inner_destination(ip(destination), &[]);
            assert_eq!(refused, Err(InnerDestinationMartian), "{destination}");
        }
        let control = [ip("192.0.2.1")];
        assert_eq!(inner_destination(control[0], &control), Err(InnerDestinationMartian));
        for destination in GOOD {
            assert_eq!(inner_destination(ip(destination), &[]), Ok(()), "{destination}");
        }
    }

    #[test]
    fn en_31_multicast_and_broadcast_destinations_are_refused() {
        for destination in ["224.0.0.1", "239.1.1.1", "255.255.255.255", "ff02::1", "ff0e::1"] {
            let refused = inner_destination(ip(destination), &[]);
            assert_eq!(refused, Err(InnerDestinationMartian), "{destination}");
        }
    }
}
