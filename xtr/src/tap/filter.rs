//! Which packets a tap shows: a few words joined by `and`.
use crate::drops::DropReason;
use crate::packet::Inner;
use crate::packet::headers::protocol;
use ipnet::IpNet;
use mapping::admin::Side;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Terms that all must hold; none holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Box<[Term]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Source(IpNet),
    Destination(IpNet),
    Host(IpNet),
    Icmp,
    Protocol(u8),
    Port(u16),
    /// Dropped, for this reason or any.
    Drop(Option<DropReason>),
    Rloc(IpAddr),
    From(Side),
}

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) side: Side,
    /// `None` if it is no packet.
    pub(super) inner: Option<&'a Inner>,
    /// The other end of the tunnel, if it has one.
    pub(super) rloc: Option<IpAddr>,
    pub(super) dropped: Option<DropReason>,
}

impl Filter {
    /// Whether all terms hold. No allocation.
    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|term| term.matches(facts))
    }
}

impl Term {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let inner = |holds: &dyn Fn(&Inner) -> bool| facts.inner.is_some_and(holds);
        match self {
            Self::Source(net) => inner(&|inner| net.contains(&inner.source)),
            Self::Destination(net) => inner(&|inner| net.contains(&inner.destination)),
            Self::Host(net) => {
                inner(&|inner| net.contains(&inner.source) || net.contains(&inner.destination))
            }
            Self::Icmp => {
                inner(&|inner| matches!(inner.protocol, protocol::ICMP | protocol::ICMPV6))
            }
            Self::Protocol(number) => inner(&|inner| inner.protocol == *number),
            Self::Port(port) => inner(&|inner| {
                inner
                    .ports
                    .is_some_and(|(source, destination)| source == *port || destination == *port)
            }),
            Self::Drop(None) => facts.dropped.is_some(),
            Self::Drop(reason) => facts.dropped == *reason,
            Self::Rloc(address) => facts.rloc == Some(*address),
            Self::From(side) => facts.side == *side,
        }
    }
}

/// Why a filter is not understood, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut words = text.split_whitespace();
        let mut terms = Vec::new();
        while let Some(word) = words.next() {
            terms.push(term(word, &mut words)?);
            match words.next() {
                None => break,
                Some("and") => {
                    // Something must follow.
                    if words.clone().next().is_none() {
                        return Err(FilterError("nothing follows the last `and`".to_owned()));
                    }
                }
                Some(other) => {
                    return Err(FilterError(format!("`{other}`: terms are joined by `and`")));
                }
            }
        }
        Ok(Self(terms.into_boxed_slice()))
    }
}

const WORDS: &str =
    "src, dst, host, proto, port, rloc, drop, drop=REASON, native and core can be filtered by";

fn term<'a>(word: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<Term, FilterError> {
    let mut value = |what: &str| {
        let missing = || FilterError(format!("`{word}` needs {what} after it"));
        words.next().filter(|next| *next != "and").ok_or_else(missing)
    };
    Ok(match word {
        "src" => Term::Source(net(value("an address or prefix")?)?),
        "dst" => Term::Destination(net(value("an address or prefix")?)?),
        "host" => Term::Host(net(value("an address or prefix")?)?),
        "proto" => of_protocol(value("tcp, udp, icmp or a number")?)?,
        "port" => {
            let text = value("a port")?;
            let wrong = |_| FilterError(format!("`{text}` is no port: 0 to 65535"));
            Term::Port(text.parse().map_err(wrong)?)
        }
        "rloc" => {
            let text = value("an address")?;
            let wrong = |_| FilterError(format!("`{text}` is no address"));
            Term::Rloc(text.parse().map_err(wrong)?)
        }
        "drop" => Term::Drop(None),
        "native" => Term::From(Side::Native),
        "core" => Term::From(Side::Core),
        _ => match word.strip_prefix("drop=") {
            Some(name) => Term::Drop(Some(reason(name)?)),
            None => return Err(FilterError(format!("`{word}` is not known: {WORDS}"))),
        },
    })
}

fn net(text: &str) -> Result<IpNet, FilterError> {
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let prefix = text.parse::<IpNet>().ok().or_else(host);
    prefix.ok_or_else(|| FilterError(format!("`{text}` is no address or prefix")))
}

fn of_protocol(text: &str) -> Result<Term, FilterError> {
    let wrong = |_| FilterError(format!("`{text}` is no protocol: tcp, udp, icmp or 0 to 255"));
    Ok(match text {
        "icmp" => Term::Icmp,
        "tcp" => Term::Protocol(protocol::TCP),
        "udp" => Term::Protocol(protocol::UDP),
        _ => Term::Protocol(text.parse().map_err(wrong)?),
    })
}

fn reason(name: &str) -> Result<DropReason, FilterError> {
    let known = DropReason::ALL.iter().find(|reason| reason.name() == name);
    known.copied().ok_or_else(|| {
        let parts: Vec<&str> = name.split('_').filter(|part| part.len() > 2).collect();
        let similar = DropReason::ALL.iter().map(|reason| reason.name());
        let similar: Vec<&str> =
            similar.filter(|name| parts.iter().any(|part| name.contains(part))).take(5).collect();
        let hint = match similar.is_empty() {
            true => "see `isthmus show drops`".to_owned(),
            false => format!("perhaps {}", similar.join(", ")),
        };
        FilterError(format!("`{name}` is no drop reason: {hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::support::{Build, ip, payload, udp};

    fn filter(text: &str) -> Filter {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn terms_say_which_packets() {
        // UDP from 198.51.100.7 port 40000 to 203.0.113.5 port 443.
        let packet = Build::v4(udp(), payload(8)).bytes();
        let inner = Inner::parse(&packet).expect("a packet");
        let facts = Facts {
            side: Side::Native,
            inner: Some(&inner),
            rloc: Some(ip("192.0.2.1")),
            dropped: Some(DropReason::PacketTooBig),
        };
        for (text, expected) in [
            ("", true),
            ("src 198.51.100.7", true),
            ("src 198.51.100.0/24 and dst 203.0.113.0/24", true),
            ("src 203.0.113.5", false),
            ("dst 198.51.100.7", false),
            ("host 203.0.113.5", true),
            ("host 2001:db8::/32", false),
            ("proto udp and port 443", true),
            ("port 40000", true),
            ("port 53", false),
            ("proto 17", true),
            ("proto tcp", false),
            ("proto icmp", false),
            ("drop", true),
            ("drop=packet_too_big and native", true),
            ("drop=inner_malformed", false),
            ("core", false),
            ("rloc 192.0.2.1", true),
            ("rloc 192.0.2.2", false),
        ] {
            assert_eq!(filter(text).matches(&facts), expected, "{text}");
        }
        let no_packet = Facts { inner: None, rloc: None, dropped: None, ..facts };
        for (text, expected) in
            [("", true), ("drop", false), ("host ::/0", false), ("port 1", false)]
        {
            assert_eq!(filter(text).matches(&no_packet), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, words) in [
            ("from 192.0.2.1", "`from` is not known: src, dst,"),
            ("src", "`src` needs an address or prefix after it"),
            ("src and dst 192.0.2.1", "`src` needs an address"),
            ("src 192.0.2", "`192.0.2` is no address or prefix"),
            ("src 192.0.2.1/33", "is no address or prefix"),
            ("rloc 192.0.2.0/24", "is no address"),
            ("port 65536", "`65536` is no port"),
            ("proto gre", "`gre` is no protocol"),
            ("native core", "`core`: terms are joined by `and`"),
            ("native and", "nothing follows the last `and`"),
            ("drop=too_big", "`too_big` is no drop reason: perhaps"),
            ("drop=", "see `isthmus show drops`"),
        ] {
            let error = text.parse::<Filter>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn every_drop_reason_can_be_asked_for() {
        for reason in DropReason::ALL {
            assert_eq!(filter(&format!("drop={}", reason.name())).0.len(), 1);
        }
    }
}
