//! Readers of single values: addresses, prefixes, durations, names. Each reports what it refuses.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use mapping::config::{Algorithm, Profile};
use mapping::eid::InstanceId;
use xtr::config::Endpoint;

use super::node::Node;

/// An IP address.
pub(crate) fn address(node: &Node<'_>) -> Option<IpAddr> {
    let text = node.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            node.error(
                &format!("{text:?} is no IP address"),
                "write an IPv4 or IPv6 address without length",
            );
            None
        }
    }
}

/// An address that can be a locator: global unicast, not link-local.
pub(crate) fn rloc(node: &Node<'_>) -> Option<IpAddr> {
    let address = address(node)?;
    let kind = special_kind(IpNet::from(address));
    if let Some(kind) = kind {
        node.error(
            &format!("{address} is {kind}"),
            "an RLOC is a unicast address that the core routes",
        );
        return None;
    }
    Some(address)
}

/// An IP prefix without host bits.
pub(crate) fn prefix(node: &Node<'_>) -> Option<IpNet> {
    parse_prefix(node, node.text()?)
}

/// A prefix that hosts can have addresses in: not multicast, loopback or link-local.
pub(crate) fn eid_prefix(node: &Node<'_>) -> Option<IpNet> {
    let prefix = prefix(node)?;
    if let Some(kind) = special_kind(prefix) {
        node.error(&format!("{prefix} is {kind}"), "an EID-prefix holds unicast host addresses");
        return None;
    }
    Some(prefix)
}

fn parse_prefix(node: &Node<'_>, text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let right = IpNet::from(address);
        node.error(&format!("{text:?} has no length"), &format!("write {right}"));
        return None;
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        node.error(&format!("{text:?} is no IP prefix"), "write ADDRESS/LENGTH");
        return None;
    };
    if prefix != prefix.trunc() {
        let right = prefix.trunc();
        node.error(&format!("{text:?} has host bits set"), &format!("write {right}"));
        return None;
    }
    Some(prefix)
}

/// What keeps the addresses of `prefix` from being a host's or a router's own; `None` = nothing.
fn special_kind(prefix: IpNet) -> Option<&'static str> {
    let address = prefix.network();
    let host = prefix.prefix_len() == prefix.max_prefix_len();
    let (loopback, link_local, broadcast) = match address {
        IpAddr::V4(a) => (a.octets()[0] == 127, a.is_link_local(), a.octets()[0] >= 240),
        IpAddr::V6(a) => (a.is_loopback(), a.is_unicast_link_local(), false),
    };
    match () {
        () if address.is_multicast() => Some("multicast"),
        () if address.is_unspecified() && host => Some("the unspecified address"),
        () if loopback => Some("loopback"),
        () if link_local => Some("link-local"),
        () if broadcast => Some("reserved or broadcast"),
        () => None,
    }
}

/// A peer: an address or a DNS name.
pub(crate) fn endpoint(node: &Node<'_>) -> Option<Endpoint> {
    let text = node.text()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        if address.is_unspecified() || address.is_multicast() {
            node.error(&format!("{address} is no host's address"), "write a unicast address");
            return None;
        }
        return Some(Endpoint::Address(address));
    }
    if is_dns_name(text) {
        return Some(Endpoint::Name(text.to_owned()));
    }
    node.error(&format!("{text:?} is neither an IP address nor a DNS name"), "write one of them");
    None
}

/// Whether `text` is the host part of a URL: a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok_and(|a| !a.is_unspecified()),
        None => match text.parse::<std::net::Ipv4Addr>() {
            Ok(address) => !address.is_unspecified() && !address.is_multicast(),
            Err(_) => is_dns_name(text),
        },
    }
}

/// Letters, digits and hyphens in labels, the last of them not all digits (so no mistyped IPv4 address).
fn is_dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|c| c.is_ascii_digit()))
}

/// A duration such as `"15s"`, `"500ms"`, `"3m"`, `"1h30m"`, within `range`.
pub(crate) fn duration(node: &Node<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
    let Some(text) = node.as_text() else {
        return node.wrong_type("write a duration in quotes, such as \"15s\"");
    };
    let Some(duration) = parse_duration(text) else {
        node.error(
            &format!("{text:?} is no duration"),
            "write a number with ms, s, m or h, such as \"15s\"",
        );
        return None;
    };
    if !range.contains(&duration) {
        let bounds = format!("write {:?} to {:?}", range.start(), range.end());
        node.error(&format!("{text:?} is out of range"), &bounds);
        return None;
    }
    Some(duration)
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let milliseconds = match &tail[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &tail[letters..];
    }
    Some(total)
}

/// A priority or weight, 0 to 255 (RFC 9301 §5.4).
pub(crate) fn octet(node: &Node<'_>) -> Option<u8> {
    node.integer(0..=255).and_then(|value| u8::try_from(value).ok())
}

/// An Instance ID.
pub(crate) fn instance_id(node: &Node<'_>) -> Option<InstanceId> {
    let value = node.integer(0..=i64::from(InstanceId::MAX))?;
    u32::try_from(value).ok().and_then(InstanceId::new)
}

/// A network interface's name, at most 15 octets (IFNAMSIZ less its NUL).
pub(crate) fn interface(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    let letters = text.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':');
    if text.len() > 15 || !letters || text == "." || text == ".." {
        node.error(
            &format!("{text:?} is no interface name"),
            "write 1 to 15 letters without space, '/' or ':'",
        );
        return None;
    }
    Some(text.to_owned())
}

/// How a peer deviates from RFC 9301.
pub(crate) fn profile(node: &Node<'_>) -> Option<Profile> {
    let text = node.text()?;
    let profile = Profile::ALL.into_iter().find(|profile| profile.name() == text);
    if profile.is_none() {
        let names = Profile::ALL.map(|profile| format!("{:?}", profile.name())).join(", ");
        node.error(&format!("{text:?} is no profile"), &format!("write one of {names}"));
    }
    profile
}

/// An authentication algorithm (RFC 9301 §12.5).
pub(crate) fn algorithm(node: &Node<'_>) -> Option<Algorithm> {
    match node.text()? {
        "hmac-sha-256-128-hkdf" => Some(Algorithm::HmacSha256Hkdf),
        "hmac-sha-256-128" => Some(Algorithm::HmacSha256),
        other => {
            node.error(
                &format!("{other:?} is no algorithm of this product"),
                "write \"hmac-sha-256-128-hkdf\" or \"hmac-sha-256-128\"",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("15s"), Some(Duration::from_secs(15)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        for wrong in ["", "15", "s", "15 s", "-1s", "1d", "99999999999999999999s", "1.5s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration("18446744073709551615h"), None);
    }

    #[test]
    fn dns_names_are_not_mistyped_addresses() {
        assert!(is_dns_name("mr.example.net"));
        assert!(is_dns_name("mr1"));
        assert!(is_dns_name("mr.example.net."));
        for wrong in ["198.51.100.300", "a..b", "-a.example", "a b", "", "2001:db8::g"] {
            assert!(!is_dns_name(wrong), "{wrong}");
        }
    }
}
