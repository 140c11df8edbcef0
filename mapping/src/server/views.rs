//! What `show` sees of a Map-Server.

use std::time::Instant;

use crate::admin::DropCount;
use crate::eid::EidPrefix;
use crate::view::{
    CountersView, RefusalView, RegisteredLocatorView, RegistrationView, SitePrefixView, SiteView,
};

use super::MapServer;
use super::refusals::Refused;
use super::registry::Registration;
use super::site::{SiteIndex, SiteState};

crate::named! {
    /// What a Map-Server counts beside what it discards.
    Count;

    MessagesReceived "messages_received" "Datagrams received.";
    MapRegisters "map_registers_received" "Map-Registers received, refused ones included.";
    RecordsAccepted "records_accepted" "Records of Map-Registers that were accepted.";
    Retransmissions "map_register_retransmissions" "Map-Registers received again and acknowledged again (AU-18).";
    Withdrawn "registrations_withdrawn" "Registrations withdrawn by their ETR (TTL 0).";
    Expired "registrations_expired" "Registrations that were not refreshed in time.";
    MapNotifies "map_notifies_sent" "Acknowledging Map-Notifies sent.";
    UnsolicitedMapNotifies "unsolicited_map_notifies_sent" "Unsolicited Map-Notifies sent, without retransmissions.";
    MapNotifyRetransmissions "map_notify_retransmissions" "Retransmissions of unsolicited Map-Notifies.";
    MapNotifiesTooLong "map_notifies_too_long" "Unsolicited Map-Notifies not sent because the record exceeds what may be sent without knowing the path MTU (CW-06).";
    MapNotifyAcks "map_notify_acks_received" "Map-Notify-Acks that ended a retransmission.";
    NeedlessMapNotifyAcks "needless_map_notify_acks_received" "Map-Notify-Acks of acknowledgements, as lispers.net sends them.";
    JsonLengthsMended "json_lengths_mended" "Map-Registers of lispers.net whose JSON LCAFs have a wrong Length, read by the length of their parts.";
    Subscriptions "subscriptions_accepted" "Subscriptions accepted or renewed.";
    SubscriptionsRemoved "subscriptions_removed" "Subscriptions removed by their xTR, or ended with their lifetime.";
    SubscriptionsLost "subscriptions_lost" "Subscriptions removed because their xTR acknowledges nothing (PS-08).";
    Publications "publications_sent" "Publications sent, without retransmissions.";
    PublicationRetransmissions "publication_retransmissions" "Retransmissions of publications and of acknowledged subscriptions.";
    PublicationAcks "publication_acks_received" "Map-Notify-Acks of publications and of acknowledged subscriptions.";
    MapRequests "map_requests_received" "Lookups received in Encapsulated Control Messages.";
    ProtectedMapRequests "protected_map_requests_received" "Lookups protected by LISP-SEC among those received.";
    ProtectedForwards "protected_map_requests_forwarded" "Protected Map-Requests forwarded to an ETR.";
    ProtectedReplies "protected_map_replies_sent" "Map-Replies, negative ones too, that were protected by LISP-SEC.";
    MapReplies "map_replies_sent" "Map-Replies sent with a mapping.";
    NegativeMapReplies "negative_map_replies_sent" "Negative Map-Replies sent.";
    MapRequestsForwarded "map_requests_forwarded" "Map-Requests forwarded to an ETR.";
    DdtMapRequests "ddt_map_requests_received" "DDT Map-Requests received.";
    InfoRequests "info_requests_received" "Info-Requests received, refused ones included.";
    InfoReplies "info_replies_sent" "Info-Replies sent.";
    RelayedMapRegisters "relayed_map_registers_received" "Map-Registers that an RTR relayed, among those received.";
    MapReferrals "map_referrals_sent" "Map-Referrals sent in answer to DDT Map-Requests.";
}

impl MapServer {
    /// Clients whose profile relaxes rules, and which those are.
    pub fn loose_clients(&self) -> Vec<String> {
        self.clients.loosened()
    }

    /// One counter.
    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Counters by name, and the sizes of the tables.
    pub fn counters_view(&self) -> CountersView {
        let mut view: CountersView =
            Count::ALL.iter().map(|&count| (count.name().to_owned(), self.get(count))).collect();
        let sizes = [
            ("eid_prefixes_registered", self.registry.prefix_count()),
            ("registrations", self.registry.len()),
            ("names_registered", self.names.len()),
            ("nonces", self.replay.len()),
            ("map_notifies_pending", self.notifier.len()),
            ("subscriptions", self.subscriptions.len()),
            ("publications_queued", self.subscriptions.queued()),
            ("publications_pending", self.subscriptions.pending()),
        ];
        view.extend(sizes.map(|(name, size)| (name.to_owned(), size as u64)));
        view.extend(self.tree.counters().into_iter().map(|(name, value)| (name.to_owned(), value)));
        view.insert("messages_discarded".to_owned(), self.discards.total());
        view
    }

    /// What was discarded, reasons with a count above zero.
    pub fn drops_view(&self) -> Vec<DropCount> {
        self.discards.non_zero()
    }

    /// How many sites are configured, and how many of them have no registration.
    pub fn site_counts(&self) -> (usize, usize) {
        let silent = self.sites.iter().filter(|(index, _)| self.registrations_of(*index) == 0);
        (self.sites.iter().count(), silent.count())
    }

    /// The configured sites, in the order of the configuration.
    pub fn sites_view(&self, now: Instant) -> Vec<SiteView> {
        self.sites.iter().map(|(index, site)| self.site_view(now, index, site)).collect()
    }

    /// Every registration.
    pub fn registrations_view(&self, now: Instant) -> Vec<RegistrationView> {
        self.registrations_part(now, None, usize::MAX).0
    }

    /// About `most` registrations, in the order of their EID-prefixes; `after` which one to go on, as the part before said. Those of names
    /// come last.
    pub fn registrations_part(
        &self,
        now: Instant,
        after: Option<EidPrefix>,
        most: usize,
    ) -> (Vec<RegistrationView>, Option<EidPrefix>) {
        let mut views = Vec::new();
        for (prefix, entry) in self.registry.iter_after(after) {
            let registrations = entry.registrations().iter();
            views.extend(registrations.map(|r| self.registration_view(now, Some(prefix), r)));
            if views.len() >= most {
                return (views, Some(prefix));
            }
        }
        for (name, entry) in self.names.iter() {
            views.extend(entry.registrations().iter().map(|registration| RegistrationView {
                name: Some(name.to_string()),
                ..self.registration_view(now, None, registration)
            }));
        }
        (views, None)
    }

    /// The newest refused registrations, newest first.
    pub fn refusals_view(&self, now: Instant) -> Vec<RefusalView> {
        let view = |Refused { refusal, last, count }: &Refused| RefusalView {
            site: refusal.site.as_deref().map(str::to_owned),
            prefix: refusal.prefix,
            source: refusal.source,
            reason: refusal.reason.name().to_owned(),
            subject: refusal.subject.map(|subject| subject.to_string()),
            help: refusal.reason.help().to_owned(),
            age_seconds: seconds(now, *last),
            count: *count,
        };
        self.refusals.iter().map(view).collect()
    }

    fn site_view(&self, now: Instant, index: SiteIndex, site: &SiteState) -> SiteView {
        let registered = |prefix: &EidPrefix| {
            self.registry
                .covered_by(prefix)
                .filter(|(_, entry)| entry.registrations().iter().any(|r| r.site == index))
                .count()
        };
        let eid_prefixes: Vec<SitePrefixView> = site
            .config
            .eid_prefixes
            .iter()
            .map(|configured| SitePrefixView {
                prefix: configured.prefix,
                accept_more_specifics: configured.accept_more_specifics,
                registered: registered(&configured.prefix),
            })
            .collect();
        // A prefix within another one of the same site is counted there already.
        let outermost = |prefix: &EidPrefix| {
            !eid_prefixes.iter().any(|other| other.prefix != *prefix && other.prefix.covers(prefix))
        };
        let total =
            eid_prefixes.iter().filter(|p| outermost(&p.prefix)).map(|p| p.registered).sum();
        SiteView {
            name: site.name.to_string(),
            registered: total,
            accepted: site.accepted,
            refused: site.refused,
            refused_by: site
                .refused_by
                .iter()
                .map(|(reason, count)| (reason.name().to_owned(), *count))
                .collect(),
            profile: site.config.profile.name().to_owned(),
            notes: site_notes(site),
            last_register_seconds: site.last_register.map(|at| seconds(now, at)),
            last_refusal: site.last_refusal.as_ref().map(ToString::to_string),
            eid_names: site.config.eid_names.iter().map(|n| n.name.to_string()).collect(),
            eid_prefixes,
        }
    }

    fn registration_view(
        &self,
        now: Instant,
        prefix: Option<EidPrefix>,
        registration: &Registration,
    ) -> RegistrationView {
        let locators = registration.locators().filter_map(|locator| {
            Some(RegisteredLocatorView {
                rloc: locator.address.rloc()?,
                priority: locator.priority,
                weight: locator.weight,
                multicast_priority: locator.multicast_priority,
                multicast_weight: locator.multicast_weight,
                reachable: locator.reachable,
            })
        });
        let at = |second| self.registry.instant(second);
        RegistrationView {
            prefix,
            name: None,
            site: self.sites.get(registration.site).name.to_string(),
            source: registration.source,
            xtr_id: registration.registrant.identity().map(|id| format!("{:032x}", id.xtr_id)),
            uptime_seconds: at(registration.since).map_or(0, |since| seconds(now, since)),
            expires_seconds: at(registration.expires).map_or(0, |expires| seconds(expires, now)),
            ttl_minutes: registration.ttl_minutes,
            proxy_reply: registration.proxy_reply,
            merge: registration.merge,
            map_version: registration.map_version,
            action: registration.action.name().to_owned(),
            locators: locators.collect(),
        }
    }
}

fn site_notes(site: &SiteState) -> Vec<String> {
    let mut notes = Vec::new();
    if site.config.admin_down {
        notes.push("Shut down by admin-down: registers nothing, lookups are denied.".to_owned());
    }
    if site.allows_sha1() {
        notes.push(
            "HMAC-SHA-1 is allowed by its profile: not for the public Internet (RFC 9301 §1.1)."
                .to_owned(),
        );
    }
    notes
}

/// Whole seconds from `earlier` to `later`, 0 if that is backwards.
pub(super) fn seconds(later: Instant, earlier: Instant) -> u64 {
    later.saturating_duration_since(earlier).as_secs()
}
