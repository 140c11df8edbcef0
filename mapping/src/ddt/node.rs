//! A DDT node: which Map-Referral answers a DDT Map-Request (RFC 8111 §7.1, §7.2, §8.3).

use std::net::IpAddr;

use super::config::{AuthoritativePrefix, DdtConfig, Delegation};
use crate::eid::{EidPrefix, EidTable, InstanceId};
use crate::resolver::negative::{Occupied, least_specific};
use crate::timers::{
    NEGATIVE_TTL_MINUTES, REFERRAL_TTL_MINUTES, UNREGISTERED_TTL_MINUTES, control_payload_limit,
};
use crate::wire::{EidField, LocatorRecord, MapReferral, ReferralAction, ReferralRecord};

/// The authoritative prefixes and delegations of this node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    own: Vec<IpAddr>,
    authoritative: EidTable<Authority>,
    /// Authoritative in every instance: kept in the default one.
    everywhere: EidTable<Authority>,
    delegations: EidTable<Delegation>,
    hints: EidTable<Delegation>,
}

/// Who else is authoritative for a prefix of ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authority {
    peers: Vec<IpAddr>,
    complete: bool,
}

/// What the node's configuration says about an XEID.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// In a prefix that is delegated to others.
    Delegated(EidPrefix, &'a Delegation),
    /// In an own prefix, delegated to nobody.
    Authoritative(EidPrefix, &'a Authority),
    /// Elsewhere in the tree, where a hint points to.
    Hinted(EidPrefix, &'a Delegation),
    /// Unknown.
    Foreign,
}

/// What the Map-Server says about an XEID in an EID-prefix of one of its sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// The configured EID-prefix.
    pub(crate) configured: EidPrefix,
    /// The prefix around the XEID that nobody registered; `None` when it is registered.
    pub(crate) unregistered: Option<EidPrefix>,
}

impl Occupied for Node {
    fn within(&self, prefix: &EidPrefix) -> bool {
        self.authoritative.within(prefix) || self.delegations.within(prefix)
    }
}

impl Node {
    /// The node of `config` at the addresses `own`.
    pub(crate) fn new(config: &DdtConfig, own: Vec<IpAddr>) -> Self {
        let mut node = Self { own, ..Self::default() };
        for AuthoritativePrefix { prefix, instance_id, peers, complete } in &config.authoritative {
            let authority = Authority { peers: peers.clone(), complete: *complete };
            let (table, instance_id) = match instance_id {
                Some(instance_id) => (&mut node.authoritative, *instance_id),
                None => (&mut node.everywhere, InstanceId::DEFAULT),
            };
            table.insert(EidPrefix::new(instance_id, *prefix), authority);
        }
        for delegation in &config.delegations {
            node.delegations.insert(delegation.prefix, delegation.clone());
        }
        for hint in &config.hints {
            node.hints.insert(hint.prefix, hint.clone());
        }
        node
    }

    /// Where `asked` is in the tree, seen from here: the longest match decides.
    pub(crate) fn place(&self, asked: &EidPrefix) -> Place<'_> {
        let authority = self.authority(asked);
        if let Some((prefix, delegation)) = self.delegations.longest_match(asked)
            && authority.is_none_or(|(own, _)| own.mask_len() <= prefix.mask_len())
        {
            return Place::Delegated(prefix, delegation);
        }
        match (authority, self.hints.longest_match(asked)) {
            (Some((prefix, authority)), _) => Place::Authoritative(prefix, authority),
            (None, Some((prefix, hint))) => Place::Hinted(prefix, hint),
            (None, None) => Place::Foreign,
        }
    }

    /// The least-specific prefix around `asked` that is ours and neither delegated nor `occupied` (DD-04); `None` when `asked` is
    /// not ours, or something lies within it.
    pub(crate) fn hole(&self, asked: &EidPrefix, occupied: &[&dyn Occupied]) -> Option<EidPrefix> {
        let (own, _) = self.authority(asked)?;
        self.free(asked, own.mask_len(), occupied)
    }

    /// The record about `asked`; `service` is what the Map-Server here says, `occupied` are its prefixes.
    ///
    /// `None` when `asked` is a prefix with something delegated or registered inside: then no single record fits.
    pub(crate) fn referral(
        &self,
        asked: &EidPrefix,
        service: Option<Service>,
        occupied: &[&dyn Occupied],
    ) -> Option<ReferralRecord> {
        match (self.place(asked), service) {
            (Place::Delegated(prefix, delegation), service)
                if service.is_none_or(|s| s.configured.mask_len() < prefix.mask_len()) =>
            {
                Some(refer(prefix, delegation, true))
            }
            (place, Some(service)) => self.served(asked, place, service),
            (Place::Authoritative(..), None) => {
                let hole = self.hole(asked, occupied)?;
                let action = ReferralAction::DelegationHole;
                let mut record = ReferralRecord::new(hole, action, NEGATIVE_TTL_MINUTES);
                record.authoritative = true;
                Some(record)
            }
            (Place::Delegated(prefix, hint) | Place::Hinted(prefix, hint), None) => {
                Some(refer(prefix, hint, false))
            }
            (Place::Foreign, None) => Some(not_authoritative(EidField::Prefix(*asked))),
        }
    }

    /// Every authoritative prefix: instance (`None` = all), prefix, peers, complete.
    pub(crate) fn authoritative(&self) -> impl Iterator<Item = AuthoritativePrefix> {
        let row = |prefix: EidPrefix, instance_id, authority: &Authority| AuthoritativePrefix {
            prefix: prefix.prefix(),
            instance_id,
            peers: authority.peers.clone(),
            complete: authority.complete,
        };
        self.everywhere.iter().map(move |(prefix, authority)| row(prefix, None, authority)).chain(
            self.authoritative
                .iter()
                .map(move |(prefix, authority)| row(prefix, Some(prefix.instance_id()), authority)),
        )
    }

    /// Every delegation, in the order of the prefixes.
    pub(crate) fn delegations(&self) -> impl Iterator<Item = &Delegation> {
        self.delegations.iter().map(|(_, delegation)| delegation)
    }

    /// MS-ACK or MS-NOT-REGISTERED (DD-06, DD-07): with the RLOCs of all Map-Servers of the prefix that are known (DD-09).
    ///
    /// The prefix is the configured one without what is delegated of it; it never reaches beyond what is ours, so that no parent's
    /// referral is longer than it.
    fn served(
        &self,
        asked: &EidPrefix,
        place: Place<'_>,
        service: Service,
    ) -> Option<ReferralRecord> {
        let (shortest, authority) = match place {
            Place::Authoritative(own, authority) => (own.mask_len(), Some(authority)),
            _ => match self.authority(asked) {
                Some((own, authority)) => (own.mask_len(), Some(authority)),
                None => (0, None),
            },
        };
        let (around, action, ttl_minutes) = match service.unregistered {
            None => (service.configured, ReferralAction::MsAck, REFERRAL_TTL_MINUTES),
            Some(hole) => (hole, ReferralAction::MsNotRegistered, UNREGISTERED_TTL_MINUTES),
        };
        let prefix = self.free(asked, shortest.max(around.mask_len()), &[])?;
        let mut record = ReferralRecord::new(prefix, action, ttl_minutes);
        record.authoritative = true;
        record.incomplete = authority.is_none_or(|authority| !authority.complete);
        let peers = authority.map_or(&[][..], |authority| &authority.peers);
        record.referrals = self.own.iter().chain(peers).copied().map(referral_rloc).collect();
        Some(record)
    }

    /// The longest authoritative prefix around `asked`.
    fn authority(&self, asked: &EidPrefix) -> Option<(EidPrefix, &Authority)> {
        let anywhere = EidPrefix::new(InstanceId::DEFAULT, asked.prefix());
        let everywhere = self.everywhere.longest_match(&anywhere).map(|(found, authority)| {
            (EidPrefix::new(asked.instance_id(), found.prefix()), authority)
        });
        let here = self.authoritative.longest_match(asked);
        everywhere.into_iter().chain(here).max_by_key(|(prefix, _)| prefix.mask_len())
    }

    fn free(
        &self,
        asked: &EidPrefix,
        shortest: u8,
        occupied: &[&dyn Occupied],
    ) -> Option<EidPrefix> {
        let mut taken: Vec<&dyn Occupied> = vec![&self.delegations];
        taken.extend_from_slice(occupied);
        least_specific(asked, shortest, &taken)
    }
}

/// What no node here is authoritative for (DD-05); an EID that is no IP prefix is nobody's.
pub(crate) fn not_authoritative(eid: EidField) -> ReferralRecord {
    let mut record = ReferralRecord::new(eid, ReferralAction::NotAuthoritative, 0);
    record.incomplete = true;
    record
}

/// A Map-Referral within what may be sent without knowing the path MTU (CW-06): records that do not fit are left out, and of the first
/// one its RLOCs that do not; their set is then incomplete (RFC 8111 §6.4).
pub(crate) fn encode(nonce: u64, records: Vec<ReferralRecord>, destination: IpAddr) -> Vec<u8> {
    let mut referral = MapReferral { nonce, records };
    loop {
        let mut payload = Vec::new();
        referral.encode(&mut payload);
        if payload.len() <= control_payload_limit(destination) {
            return payload;
        }
        if referral.records.len() > 1 {
            referral.records.pop();
            continue;
        }
        let only = referral.records.first_mut();
        let Some(record) = only.filter(|record| !record.referrals.is_empty()) else {
            return payload;
        };
        record.referrals.pop();
        record.incomplete = true;
    }
}

/// NODE-REFERRAL or MS-REFERRAL (DD-03).
fn refer(prefix: EidPrefix, delegation: &Delegation, authoritative: bool) -> ReferralRecord {
    let action = match delegation.map_server {
        true => ReferralAction::MsReferral,
        false => ReferralAction::NodeReferral,
    };
    let mut record = ReferralRecord::new(prefix, action, REFERRAL_TTL_MINUTES);
    record.authoritative = authoritative;
    record.referrals = delegation.rlocs.iter().copied().map(referral_rloc).collect();
    record
}

fn referral_rloc(rloc: IpAddr) -> LocatorRecord {
    LocatorRecord::new(rloc, 1, 100)
}
