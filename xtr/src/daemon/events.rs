//! What the control plane tells, in the log.
use super::{Daemon, LOG_INTERVAL, nat};
use crate::control::Event;
use std::time::Instant;

impl Daemon {
    /// One line for an event, at a bounded rate where others could bring it about.
    pub(super) fn log(&mut self, event: &Event) {
        match event {
            Event::LocatorAdded(rloc) => tracing::debug!(%rloc, "locator in use"),
            Event::LocatorUp(rloc) => tracing::info!(%rloc, "locator answers RLOC-probes"),
            Event::LocatorDown(rloc) => {
                tracing::info!(%rloc, "locator is down: RLOC-probes unanswered");
            }
            Event::LocatorRerouted { rloc, source } => {
                tracing::info!(%rloc, %source, "locator is reached from another own RLOC");
            }
            Event::Registered { prefix, map_server } => {
                tracing::info!(%prefix, %map_server, "registered");
            }
            Event::RegistrationUnanswered { prefix, map_server } => tracing::warn!(
                %prefix, %map_server,
                "registration unanswered: is the Map-Server running and is there a path to it? If so, compare key, key-id, algorithm and \
                 EID-prefix with its site"
            ),
            Event::RegistrationRefused { prefix, map_server } => {
                tracing::warn!(%prefix, %map_server, "the Map-Server does not accept this EID-prefix");
            }
            Event::LookupUnanswered(prefix) => {
                // Whoever scans EID space must not fill the log with it (CW-38).
                let now = Instant::now();
                if self.quiet_until.is_some_and(|until| now < until) {
                    return;
                }
                self.quiet_until = Some(now + LOG_INTERVAL);
                tracing::warn!(%prefix, "no Map-Resolver answers; next try in 30 s");
            }
            Event::ReplyRefused { prefix, from, reason } => {
                tracing::warn!(%prefix, %from, %reason, "Map-Reply refused: {}", reason.help());
            }
            Event::SubscriptionRefused(prefix) => {
                tracing::warn!(%prefix, "the Map-Server refuses the subscription; looked up without");
            }
            Event::PublicationReplayed { prefix, map_server } => {
                tracing::warn!(%prefix, %map_server, "a publication is not newer than the last one: replayed?");
            }
            Event::PathMtu { rloc, mtu } => tracing::info!(%rloc, mtu, "path MTU changed"),
            Event::EchoMissing(rloc) => {
                tracing::warn!(%rloc, "sends packets, but does not echo nonces: the path to it may be down");
            }
            Event::ImpossibleMapVersion { prefix, rloc, version, own } => {
                let (version, own) = (version.get(), own.get());
                tracing::warn!(%prefix, %rloc, version, own, "packets with a newer version of our mapping than there is are dropped");
            }
            Event::NatFound { .. }
            | Event::NatGone(_)
            | Event::NatUnknown(_)
            | Event::RtrAnswered { .. }
            | Event::RtrUnanswered { .. }
            | Event::NotifyOfOther { .. }
            | Event::NatSiteMoved { .. }
            | Event::NatSiteGone(_) => nat::log(event),
            Event::HostHeldDown(prefix) => tracing::warn!(
                %prefix,
                "seen here and elsewhere in turns: do two hosts have this address? It stays where it is for 10 s"
            ),
            Event::LocatorNoRoute(rloc) => {
                tracing::info!(%rloc, "the underlay has no route to this locator");
            }
            Event::LocatorRouted(rloc) => tracing::info!(%rloc, "the underlay has a route again"),
            Event::SmrReceived { prefix, from } => tracing::debug!(%prefix, %from, "solicited"),
            Event::SmrSent { prefix, rloc } => tracing::debug!(%prefix, %rloc, "SMR sent"),
            Event::HostArrived { prefix, how } => {
                tracing::debug!(%prefix, how = how.name(), "host is here");
            }
            Event::HostLeft(prefix) => tracing::debug!(%prefix, "host is gone"),
            Event::HostAway(prefix) => tracing::debug!(%prefix, "host is at another site"),
            Event::MapCacheFull => {
                tracing::debug!("map-cache full: the least recently used entries made room");
            }
        }
    }
}
