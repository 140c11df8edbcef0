//! Proxy ETR (RFC 6832 §6): whose packets are decapsulated and forwarded natively, and why not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use xtr::drops::DropReason;
use xtr::policy::PrefixSet;

/// What a PETR is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PetrConfig {
    /// RLOCs that may send here (PE-04); empty = any.
    pub accept_from_rlocs: Vec<IpNet>,
    /// EID-prefixes of the LISP sites served (PE-02); empty = nothing is forwarded (PE-03), or any registered EID.
    pub accept_from_eids: Vec<IpNet>,
    /// Only from a locator of the inner source's mapping, as the mapping system tells it (PE-04).
    pub registered: bool,
    /// Forward to private and shared destinations too (PE-07).
    pub allow_private_destinations: bool,
}

/// The rules of a PETR. Inner and outer family are independent of each other (PE-05).
#[derive(Clone, Debug)]
pub struct Petr {
    /// `None` = any.
    rlocs: Option<PrefixSet>,
    eids: PrefixSet,
    registered: bool,
    allow_private_destinations: bool,
}

impl Petr {
    /// The rules of `config`.
    pub fn new(config: &PetrConfig) -> Self {
        let rlocs: PrefixSet = config.accept_from_rlocs.iter().copied().collect();
        Self {
            rlocs: (!rlocs.is_empty()).then_some(rlocs),
            eids: config.accept_from_eids.iter().copied().collect(),
            registered: config.registered,
            allow_private_destinations: config.allow_private_destinations,
        }
    }

    /// Whether a packet of the inner source `source` is taken from the RLOC `outer_source`.
    pub fn admit_source(&self, outer_source: IpAddr, source: IpAddr) -> Result<(), DropReason> {
        if self.rlocs.as_ref().is_some_and(|rlocs| !rlocs.contains(outer_source)) {
            return Err(DropReason::PetrRlocNotAccepted);
        }
        let any_registered = self.registered && self.eids.is_empty();
        if !any_registered && !self.eids.contains(source) {
            return Err(DropReason::PetrSourceNotAccepted);
        }
        Ok(())
    }

    /// Whether the data plane is to look every inner source up.
    pub fn checks_registration(&self) -> bool {
        self.registered
    }

    /// Which rule decides in [`Self::admit_source`], as a phrase.
    pub fn source_rule(&self, outer_source: IpAddr, source: IpAddr) -> String {
        let rloc = match self.rlocs.as_ref().map(|rlocs| rlocs.covering(outer_source)) {
            None => "any RLOC may send".to_owned(),
            Some(Some(prefix)) => format!("RLOC {outer_source} is in {prefix}"),
            Some(None) => {
                return format!("RLOC {outer_source} is in none of petr.accept-from.rlocs");
            }
        };
        match self.eids.covering(source) {
            Some(prefix) => format!("{rloc}, source {source} in {prefix}"),
            None if self.registered && self.eids.is_empty() => {
                format!("{rloc}, any registered source")
            }
            None => format!("{rloc}, but source {source} is in none of petr.accept-from.eids"),
        }
    }

    /// Whether a packet may leave natively to `destination`, which is no EID.
    pub fn admit_destination(&self, destination: IpAddr) -> Result<(), DropReason> {
        if !self.allow_private_destinations && is_private(destination) {
            return Err(DropReason::PetrDestinationPrivate);
        }
        Ok(())
    }

    /// Whether `address` is an EID of a site served.
    pub fn is_eid(&self, address: IpAddr) -> bool {
        self.eids.contains(address)
    }
}

/// Private-Use, Shared and Unique-Local addresses (RFC 6890 §2.2.2).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || is_shared(address),
        IpAddr::V6(address) => embedded(address).map_or(address.is_unique_local(), |inner| {
            is_private(IpAddr::V4(inner)) || inner.is_loopback()
        }),
    }
}

/// 100.64.0.0/10 (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}

/// The IPv4 address inside an IPv4-mapped one, which must not be a way around the rule.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped()
}
