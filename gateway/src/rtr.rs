//! Re-encapsulating Tunnel Router (RFC 9300 §3): joins sites whose RLOCs share no address family.

use std::net::IpAddr;

use ipnet::IpNet;
use xtr::policy::PrefixSet;

/// What an RTR is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtrConfig {
    /// Destinations that go out encapsulated again after decapsulation.
    pub eid_prefixes: Vec<IpNet>,
}

/// The rules of an RTR; whose packets it takes is the PETR's part.
#[derive(Clone, Debug)]
pub struct Rtr {
    eids: PrefixSet,
}

impl Rtr {
    /// The rules of `config`.
    pub fn new(config: &RtrConfig) -> Self {
        Self { eids: config.eid_prefixes.iter().copied().collect() }
    }

    /// Whether a decapsulated packet for `destination` is encapsulated again.
    pub fn serves(&self, destination: IpAddr) -> bool {
        self.eids.contains(destination)
    }
}
