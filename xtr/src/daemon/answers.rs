//! Answers to the operator: what runs, what was counted, what was dropped and why.
use super::{Daemon, nat, role_name, time_of_day, unix_nanos};
use crate::config::{ControlConfig, HostConfig, Intake, Peer, Role};
use crate::host::lan::Lan;
use crate::host::sysctl;
use crate::host::udp_errors::UdpErrors;
use mapping::admin::{DropCount, PART, Part, Query, Request};
use mapping::eid::EidPrefix;
use mapping::view::{CountersView, StatusView};
use serde_json::Value;
use std::time::Instant;

/// Map-cache entries in a part of the migration report: each costs little.
const MIGRATION_PART: usize = 4_000;

impl Daemon {
    /// Answers one question.
    pub(super) fn answer(&mut self, request: Request) {
        if request.query == Query::Interfaces {
            return self.answer_interfaces(request);
        }
        let mut next = None;
        let view = self.view(&request.query, request.after, &mut next);
        // Whoever asked may be gone by now.
        let _ = request.reply.send(view.map(|view| Part { view, next }));
    }

    fn view(
        &mut self,
        query: &Query,
        after: Option<EidPrefix>,
        next: &mut Option<EidPrefix>,
    ) -> Result<Value, String> {
        let now = Instant::now();
        let json = match query {
            Query::Tap(query) => {
                serde_json::to_value(self.tapper.begin(now, time_of_day(), query)?)
            }
            Query::TapNext { session, stop } => {
                serde_json::to_value(self.tapper.fetch(now, *session, *stop)?)
            }
            Query::MapCache => {
                let (views, goes_on) = self.control.map_cache_part(now, after, PART);
                *next = goes_on;
                serde_json::to_value(views)
            }
            Query::Locators => serde_json::to_value(self.control.locators_view(now)),
            Query::Registrations if self.config.control.role == Role::Proxy => {
                return Err("a gateway registers no EID-prefixes and keeps no registrations: ask a tunnel router or a Map-Server".to_owned());
            }
            Query::Registrations => serde_json::to_value(self.control.registrations_view(now)),
            Query::Counters => serde_json::to_value(self.counters()),
            Query::Drops => serde_json::to_value(self.drops()),
            Query::Status => serde_json::to_value(self.status(now)),
            Query::Subscriptions => serde_json::to_value(self.control.subscriptions_view(now)),
            Query::Mobility if self.config.control.role == Role::Proxy => {
                return Err("a gateway has no hosts behind it: ask a site's tunnel router, with `--role xtr`".to_owned());
            }
            Query::Mobility => serde_json::to_value(self.control.mobility_view(now)),
            Query::Nat => serde_json::to_value(nat::view(&self.control, now)?),
            Query::Explain(question) => {
                let known = self.control.known(now);
                let explained = self.engine.explainer().explain(now, question, &known)?;
                serde_json::to_value(explained)
            }
            Query::Sites | Query::Refusals | Query::Referrals | Query::Delegations => {
                return Err(
                    "this daemon is no Map-Server: ask one, with `--role mapping`".to_owned()
                );
            }
            Query::Traffic => {
                serde_json::to_value(self.control.traffic_view(&self.engine.arrivals()))
            }
            Query::Migration => {
                let received = self.engine.counters().received;
                let (part, goes_on) = self.control.migration_part(after, MIGRATION_PART, &received);
                *next = goes_on;
                serde_json::to_value([part])
            }
            Query::RemoteRlocs => {
                let (views, goes_on) = self.control.remote_rlocs_part(now, after, PART);
                *next = goes_on;
                serde_json::to_value(views)
            }
            Query::FindMappings { within, rloc, most } => {
                let (asked, most) = ((*within, *rloc), (*most).clamp(1, PART));
                let (views, goes_on) = self.control.find_mappings(now, asked, after, most);
                *next = goes_on;
                serde_json::to_value(views)
            }
            Query::Metrics => serde_json::to_value(self.metrics(now)),
            Query::History { counters } => {
                serde_json::to_value(self.record.recorder().history_view(now, counters)?)
            }
            Query::Events { after } => {
                serde_json::to_value(self.record.recorder().events_view(*after))
            }
            Query::Keep(told) => {
                self.record.tell(told.clone());
                Ok(Value::Null)
            }
            Query::TopEids { most } => serde_json::to_value(self.control.top_eids(now, *most)),
            Query::ClearMapCache { eid } => {
                serde_json::to_value(self.control.clear_map_cache(now, eid.as_ref()))
            }
            // Answered before.
            Query::Interfaces => return Err("the interfaces are not known".to_owned()),
            Query::Config | Query::Reload | Query::Apply { .. } | Query::Confirm | Query::Undo => {
                return Err("the configuration did not come from a file".to_owned());
            }
        };
        json.map_err(|error| error.to_string())
    }

    /// Of the data plane and the control plane; encapsulation and decapsulation are named after the role that does them.
    pub(super) fn counters(&self) -> CountersView {
        let mut counters = self.engine.counters().by_name();
        let names: &[_] = match self.config.control.role {
            Role::Xtr => &[("encapsulated", "itr_encap"), ("decapsulated", "etr_decap")],
            Role::Proxy => &[
                ("encapsulated", "pitr_encap"),
                ("decapsulated", "petr_decap"),
                ("reencapsulated", "rtr_reencap"),
            ],
        };
        for &(general, own) in names {
            if let Some(count) = counters.remove(general) {
                counters.insert(own.to_owned(), count);
            }
        }
        counters.extend(self.control.counters_view());
        counters.extend(self.lan.iter().flat_map(Lan::counters));
        let kernel = UdpErrors::read().since(self.udp_errors);
        counters.insert("kernel_udp_checksum_errors".to_owned(), kernel.checksum);
        counters.insert("kernel_udp_buffer_errors".to_owned(), kernel.buffer);
        counters
    }

    /// Packets dropped by the data plane, then what the kernel dropped before it, then control messages discarded (their names begin
    /// with `control_`).
    fn drops(&self) -> Vec<DropCount> {
        let messages = self.control.discards().non_zero().into_iter().map(|mut discard| {
            discard.reason.insert_str(0, "control_");
            discard
        });
        self.all_drops().into_iter().filter(|drop| drop.count > 0).chain(messages).collect()
    }

    pub(super) fn status(&self, now: Instant) -> StatusView {
        let mut notes = self.notes.clone();
        notes.extend(switch_notes(&self.config.host));
        notes.extend(
            self.watch
                .missing
                .iter()
                .map(|rloc| format!("RLOC {rloc} is down: its address or its link is gone.")),
        );
        notes.extend(self.announcement.note(now));
        let workers = self.engine.worker_views();
        notes.extend(workers.iter().filter_map(|worker| {
            let reason = worker.failure.as_ref()?;
            Some(format!(
                "Data-plane worker {} ended: {reason}. The others took its flows; restart the daemon to have it back.",
                worker.number
            ))
        }));
        notes.extend(self.nonces.notes(now, unix_nanos()));
        notes.extend(self.map_versions.notes());
        notes.extend(self.control.notes());
        notes.extend(self.lan.as_ref().and_then(Lan::note));
        StatusView {
            role: role_name(self.config.control.role).to_owned(),
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            healthy: notes.is_empty(),
            intake: Some(self.intake()),
            peers: profiles_of_peers(&self.config.control),
            notes,
            workers,
        }
    }

    fn intake(&self) -> String {
        let tun = format!("TUN {}", self.engine.tun_name());
        match &self.config.data.intake {
            Intake::Tun => tun,
            Intake::Ring(ring) => format!("ring on {}, else {tun}", ring.interfaces.join(", ")),
        }
    }
}

/// Who is put up with, and what of it.
pub(super) fn profiles_of_peers(control: &ControlConfig) -> Vec<String> {
    let told = |peer: &Peer| {
        let (prefix, profile) = (peer.prefix, peer.profile.name());
        peer.loosened().map(|loosened| format!("{prefix} has the profile {profile}: {loosened}"))
    };
    control.peers.iter().filter_map(told).collect()
}

/// Which switches of the host keep traffic from flowing now, although everything of ours is in place.
fn switch_notes(config: &HostConfig) -> Vec<String> {
    let prefixes = || config.announce.iter().chain(&config.site_prefixes);
    let ipv4 = prefixes().any(|prefix| prefix.addr().is_ipv4());
    let ipv6 = prefixes().any(|prefix| prefix.addr().is_ipv6());
    let both = !ipv4 && !ipv6;
    sysctl::check_host(ipv4 || both, ipv6 || both)
}
