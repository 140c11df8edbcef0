//! Proxy ITR (RFC 6832 §5): which native packets may be encapsulated, and why not.

use std::net::IpAddr;

use ipnet::IpNet;
use mapping::eid::InstanceId;
use xtr::drops::DropReason;
use xtr::policy::PrefixSet;

/// What a PITR is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PitrConfig {
    /// The only destinations that are ever looked up and encapsulated (PI-03); announced natively.
    pub eid_aggregates: Vec<IpNet>,
    /// Drop packets from the native side whose source lies in an aggregate (PI-08).
    pub reject_source_in_aggregates: bool,
}

/// The rules of a PITR: no state per flow (PI-10), nothing but the two addresses decides.
#[derive(Clone, Debug)]
pub struct Pitr {
    aggregates: PrefixSet,
    reject_source_in_aggregates: bool,
}

impl Pitr {
    /// The rules of `config`.
    pub fn new(config: &PitrConfig) -> Self {
        Self {
            aggregates: config.eid_aggregates.iter().copied().collect(),
            reject_source_in_aggregates: config.reject_source_in_aggregates,
        }
    }

    /// In which instance to look `destination` up, or why the packet goes no further.
    pub fn admit(&self, source: IpAddr, destination: IpAddr) -> Result<InstanceId, DropReason> {
        if !self.aggregates.contains(destination) {
            return Err(DropReason::DestinationNotAggregate);
        }
        if self.reject_source_in_aggregates && self.aggregates.contains(source) {
            return Err(DropReason::SourceInAggregate);
        }
        Ok(InstanceId::DEFAULT)
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
            _ => format!("{destination} is in EID aggregate {aggregate}"),
        }
    }

    /// Whether `address` lies in an aggregate.
    pub fn is_eid(&self, address: IpAddr) -> bool {
        self.aggregates.contains(address)
    }
}
