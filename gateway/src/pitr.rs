//! Proxy ITR (RFC 6832 §5): which native packets may be encapsulated, and why not.

use std::net::IpAddr;

use ipnet::IpNet;
use xtr::drops::DropReason;
use xtr::policy::PrefixSet;

/// What a PITR is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PitrConfig {
    /// The only destinations that are ever looked up and encapsulated (PI-03); announced natively.
    pub eid_aggregates: Vec<IpNet>,
    /// Who may use it: sources from the native side (PI-09); empty = any.
    pub accept_from: Vec<IpNet>,
    /// Drop packets from the native side whose source lies in an aggregate (PI-08).
    pub reject_source_in_aggregates: bool,
}

/// The rules of a PITR: no state per flow (PI-10), nothing but the two addresses decides.
#[derive(Clone, Debug)]
pub struct Pitr {
    aggregates: PrefixSet,
    /// `None` = any.
    sources: Option<PrefixSet>,
    reject_source_in_aggregates: bool,
}

impl Pitr {
    /// The rules of `config`.
    pub fn new(config: &PitrConfig) -> Self {
        let sources: PrefixSet = config.accept_from.iter().copied().collect();
        Self {
            sources: (!sources.is_empty()).then_some(sources),
            aggregates: config.eid_aggregates.iter().copied().collect(),
            reject_source_in_aggregates: config.reject_source_in_aggregates,
        }
    }

    /// Whether a packet is looked up, or why it goes no further.
    pub fn admit(&self, source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
        if !self.aggregates.contains(destination) {
            return Err(DropReason::DestinationNotAggregate);
        }
        if self.reject_source_in_aggregates && self.aggregates.contains(source) {
            return Err(DropReason::SourceInAggregate);
        }
        if self.sources.as_ref().is_some_and(|sources| !sources.contains(source)) {
            return Err(DropReason::PitrSourceNotAccepted);
        }
        Ok(())
    }

    /// Which rule decides in [`Self::admit`], as a phrase.
    pub fn rule(&self, source: IpAddr, destination: IpAddr) -> String {
        let Some(aggregate) = self.aggregates.covering(destination) else {
            return format!("{destination} is in none of pitr.eid-aggregates");
        };
        match self.aggregates.covering(source) {
            Some(own) if self.reject_source_in_aggregates => {
                format!("source {source} is in EID aggregate {own}")
            }
            _ if self.sources.as_ref().is_some_and(|sources| !sources.contains(source)) => {
                format!("source {source} is in none of pitr.accept-from")
            }
            _ => format!("{destination} is in EID aggregate {aggregate}"),
        }
    }

    /// Whether `address` lies in an aggregate.
    pub fn is_eid(&self, address: IpAddr) -> bool {
        self.aggregates.contains(address)
    }
}
