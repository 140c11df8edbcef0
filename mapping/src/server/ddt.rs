//! The Delegated Database Tree at a Map-Server and Map-Resolver (RFC 8111 §7): what it answers itself, and what it follows.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::ddt::DdtConfig;
use crate::ddt::cache::{Entry, Origin};
use crate::ddt::client::{Client, Negative};
use crate::ddt::node::{Node, Place, Service, encode, not_authoritative};
use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::resolver::Lookup;
use crate::resolver::negative::{Occupied, least_specific};
use crate::timers::NEGATIVE_TTL_MINUTES;
use crate::transmit::{SourcePort, Transmit};
use crate::view::{
    AuthoritativePrefixView, DelegationView, DelegationsView, PendingReferralView, ReferralView,
    ReferralsView,
};
use crate::wire::{
    Action, CONTROL_PORT, EidField, MapReferral, ReferralAction, ReferralRecord, RequestedEid,
};

use super::request::Told;
use super::views::seconds;
use super::{Count, Event, MapServer};

/// This node's part of the tree.
#[derive(Debug)]
pub(super) struct Tree {
    node: Node,
    /// When lookups are followed through the tree.
    client: Option<Client>,
    /// Whether there is a tree at all; else this is a mapping system of its own.
    planted: bool,
}

impl Tree {
    pub(super) fn new(config: &DdtConfig, own: &[IpAddr]) -> Self {
        Self {
            node: Node::new(config, own.to_vec()),
            client: config.resolver.then(|| Client::new(config, own.to_vec())),
            planted: !config.is_empty(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.client.as_ref()?.poll_timeout()
    }

    /// Names and values for `show counters`.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let Some(client) = &self.client else { return Vec::new() };
        let tally = client.tally();
        vec![
            ("ddt_map_requests_sent", tally.sent),
            ("ddt_map_requests_retransmitted", tally.retransmitted),
            ("ddt_map_requests_held_back", tally.held_back),
            ("map_referrals_received", tally.received),
            ("ddt_lookups_completed", tally.completed),
            ("ddt_lookups_pending", client.pending().len() as u64),
            ("referrals_cached", client.cache().len() as u64),
        ]
    }
}

impl MapServer {
    /// Answers a DDT Map-Request to where it came from (DD-02), all records in one Map-Referral: whoever spoofs its source gains little.
    /// What is registered here is served besides (DD-06), unless LISP-SEC forbids to: then the client may come back with what it kept
    /// (DD-14).
    pub(super) fn handle_ddt_request(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        serve: bool,
    ) {
        self.count(Count::DdtMapRequests);
        self.admission.asked(now, from.ip());
        let mut records = Vec::new();
        for (at, requested) in lookup.request.records.iter().enumerate() {
            // The first was paid for when the message was admitted.
            if at > 0
                && let Err(reason) = self.admission.record(now, from.ip())
            {
                self.discard(from.ip(), reason);
                break;
            }
            let record = match requested.eid.prefix() {
                Some(asked) => {
                    self.review_around(now, &asked);
                    self.referral(&asked)
                }
                None => not_authoritative(requested.eid.clone()),
            };
            if serve && record.action == ReferralAction::MsAck {
                self.handle_lookup(now, from, &lookup.of_record(requested));
            }
            records.push(record);
        }
        self.count(Count::MapReferrals);
        self.transmits.push_back(Transmit {
            source: lookup.local,
            source_port: SourcePort::Control,
            destination: from,
            payload: encode(lookup.request.nonce, records, from.ip()),
        });
    }

    /// Whether the tree takes care of `asked`, a record of `lookup`: it is in no EID-prefix of a site here.
    pub(super) fn resolve(
        &mut self,
        now: Instant,
        from: SocketAddr,
        lookup: &Lookup,
        requested: &RequestedEid,
        asked: &EidPrefix,
    ) -> bool {
        if !self.tree.planted {
            return false;
        }
        let configured = self.sites.configured(asked);
        let place = self.tree.node.place(asked);
        let delegated = matches!(place, Place::Delegated(prefix, _)
            if configured.is_none_or(|configured| configured.mask_len() < prefix.mask_len()));
        if configured.is_some() && !delegated {
            return false;
        }
        if let Place::Authoritative(..) = place {
            let occupied: [&dyn Occupied; 2] = [&self.sites, &self.registry];
            if let Some(hole) = self.tree.node.hole(asked, &occupied) {
                self.reply_negative(now, lookup, hole, NEGATIVE_TTL_MINUTES);
                return true;
            }
            let first = asked.first().host_prefix();
            // A prefix with something inside: the site with its first EID answers, else the tree is searched for that.
            if self.sites.configured(&first).is_some() {
                return false;
            }
        }
        let Some(client) = &mut self.tree.client else {
            self.discard(from.ip(), Discard::NotAResolver);
            return true;
        };
        if let Err(reason) =
            client.handle_request(now, from.ip(), lookup.of_record(requested), *asked)
        {
            self.discard(from.ip(), reason);
        }
        self.drain_tree(now);
        true
    }

    /// Takes a Map-Referral that came to `local`.
    pub(super) fn handle_referral(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: IpAddr,
        referral: &MapReferral,
    ) {
        // To the port that DDT Map-Requests leave from, which is random.
        let shared = local.port() != CONTROL_PORT;
        let Some(client) = &mut self.tree.client else {
            return self.discard(from, Discard::UnexpectedMessage);
        };
        let refused = client.handle_referral(now, from, shared, referral);
        if refused.is_empty() {
            self.admission.asked(now, from);
        }
        for reason in refused {
            self.discard(from, reason);
        }
        self.drain_tree(now);
    }

    pub(super) fn handle_tree_due(&mut self, now: Instant) {
        if let Some(client) = &mut self.tree.client {
            client.handle_timeout(now);
            self.drain_tree(now);
        }
    }

    /// Whether this node has a place in the Delegated Database Tree.
    pub fn is_in_a_tree(&self) -> bool {
        self.tree.planted
    }

    /// The referral cache and the lookups under way.
    pub fn referrals_view(&self, now: Instant) -> ReferralsView {
        let Some(client) = &self.tree.client else { return ReferralsView::default() };
        let pending = client.pending().map(|pending| PendingReferralView {
            eid: pending.asked,
            itr: pending.lookup.itr_rlocs.first().copied(),
            asking: pending.step.current(),
            referral: pending.last,
            referrals: pending.referrals,
            tries: pending.step.tries(),
            age_seconds: seconds(now, pending.since),
        });
        ReferralsView {
            cache: client.cache().iter().map(|entry| referral_view(now, entry)).collect(),
            pending: pending.collect(),
        }
    }

    /// What this node is authoritative for, and what it has delegated.
    pub fn delegations_view(&self) -> DelegationsView {
        let authoritative = self.tree.node.authoritative().map(|own| AuthoritativePrefixView {
            prefix: own.prefix,
            instance_id: own.instance_id,
            peers: own.peers,
            complete: own.complete,
        });
        let delegations = self.tree.node.delegations().map(|delegation| DelegationView {
            prefix: delegation.prefix,
            rlocs: delegation.rlocs.clone(),
            map_server: delegation.map_server,
        });
        DelegationsView {
            authoritative: authoritative.collect(),
            delegations: delegations.collect(),
        }
    }

    /// The record about `asked`; of a prefix with something inside, about its first EID.
    fn referral(&self, asked: &EidPrefix) -> ReferralRecord {
        let occupied: [&dyn Occupied; 2] = [&self.sites, &self.registry];
        let about = |asked: &EidPrefix| {
            let service = match self.sites.configured(asked) {
                Some(configured) => Some(self.service(asked, configured)?),
                None => None,
            };
            self.tree.node.referral(asked, service, &occupied)
        };
        about(asked)
            .or_else(|| about(&asked.first().host_prefix()))
            .unwrap_or_else(|| not_authoritative(EidField::Prefix(*asked)))
    }

    /// A site that is shut down counts as registered: the Map-Server itself has an answer for it (MS-13).
    fn service(&self, asked: &EidPrefix, configured: EidPrefix) -> Option<Service> {
        let unregistered = match self.registered(asked) {
            _ if self.sites.is_down(&configured) => None,
            Some(_) => None,
            None => Some(least_specific(asked, configured.mask_len(), &[&self.registry])?),
        };
        Some(Service { configured, unregistered })
    }

    /// Sends on what the client wants sent.
    fn drain_tree(&mut self, now: Instant) {
        let Some(client) = &mut self.tree.client else { return };
        let mut negatives = Vec::new();
        let mut failures = Vec::new();
        self.transmits.extend(std::iter::from_fn(|| client.poll_transmit()));
        negatives.extend(std::iter::from_fn(|| client.poll_negative()));
        failures.extend(std::iter::from_fn(|| client.poll_failure()));
        for Negative { lookup, asked, prefix, ttl_minutes } in negatives {
            // Nobody's word covers what is here.
            let here: [&dyn Occupied; 3] = [&self.sites, &self.registry, &self.tree.node];
            let hole = least_specific(&asked, prefix.mask_len(), &here).unwrap_or(asked);
            self.reply_negative(now, &lookup, hole, ttl_minutes);
        }
        for failure in failures {
            self.discards.count(failure.reason);
            self.event(Event::LookupFailed {
                asked: failure.asked,
                node: failure.node,
                reason: failure.reason,
            });
        }
    }

    fn reply_negative(&mut self, now: Instant, lookup: &Lookup, hole: EidPrefix, minutes: u32) {
        let told = Told::negative(hole, Action::NativelyForward, minutes);
        if let Err(reason) = self.reply(now, lookup, vec![told]) {
            self.discard(lookup.itr_rlocs.first().copied().unwrap_or(lookup.local), reason);
        }
    }
}

fn referral_view(now: Instant, entry: &Entry) -> ReferralView {
    ReferralView {
        prefix: entry.prefix,
        action: entry.kind.name().to_owned(),
        rlocs: entry.rlocs.iter().map(|(_, rloc)| *rloc).collect(),
        expires_seconds: entry.expires.map(|expires| seconds(expires, now)),
        source: match entry.origin {
            Origin::Learned(source) => Some(source),
            Origin::Root | Origin::Hint => None,
        },
    }
}
