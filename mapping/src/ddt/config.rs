//! What a DDT node and a DDT Map-Resolver are configured with, after validation.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::eid::{EidPrefix, InstanceId};

/// This node's place in the Delegated Database Tree; the default is none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdtConfig {
    /// Whether lookups for EIDs of no own site are followed through the tree.
    pub resolver: bool,
    /// Where such a lookup starts when nothing more specific is known.
    pub roots: Vec<IpAddr>,
    /// Referrals into any part of the tree, known beforehand (RFC 8111 §4.3).
    pub hints: Vec<Delegation>,
    /// What this node is authoritative for.
    pub authoritative: Vec<AuthoritativePrefix>,
    /// What it has delegated to others.
    pub delegations: Vec<Delegation>,
}

/// An XEID-prefix that was delegated to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritativePrefix {
    /// The EID-prefix.
    pub prefix: IpNet,
    /// Its instance; `None` = the prefix in every instance, as a root has it.
    pub instance_id: Option<InstanceId>,
    /// RLOCs of the other nodes that are authoritative for it.
    pub peers: Vec<IpAddr>,
    /// Whether `peers` names them all, so that a Map-Resolver may cache the referral set (RFC 8111 §6.3).
    pub complete: bool,
}

/// An XEID-prefix and the nodes that know more about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The XEID-prefix.
    pub prefix: EidPrefix,
    /// RLOCs of the nodes, at least one.
    pub rlocs: Vec<IpAddr>,
    /// Whether any of them is a DDT Map-Server: referrals are then MS-REFERRALs (RFC 8111 §7.1.1).
    pub map_server: bool,
}

impl DdtConfig {
    /// Whether there is nothing of the tree here.
    pub fn is_empty(&self) -> bool {
        !self.resolver
            && self.roots.is_empty()
            && self.hints.is_empty()
            && self.authoritative.is_empty()
            && self.delegations.is_empty()
    }
}
