//! The flight recorder of a tunnel router: what of its life is kept for `isthmus history`, `isthmus events` and monitoring.
use super::{Daemon, unix_nanos};
use crate::control::Event;
use crate::drops::DropReason;
use crate::host::udp_errors::UdpErrors;
use mapping::admin::DropCount;
use mapping::recorder::{Recorder, Told};
use mapping::telemetry::{Histogram, INSIDE, MetricsView};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The recorder, and what the daemon itself measures.
#[derive(Debug)]
pub(super) struct Record {
    recorder: Recorder,
    /// From hearing of something to the forwarding table that knows it.
    convergence: Histogram,
    /// When the input came that is being handled.
    heard: Instant,
    /// Whether no Map-Resolver answered when it was looked at last.
    silent: bool,
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            recorder: Recorder::new(now, Duration::from_nanos(unix_nanos())),
            convergence: Histogram::new(INSIDE),
            heard: now,
            silent: false,
        }
    }

    /// When [`Daemon::keep_record`] is due.
    pub(super) fn next_timeout(&self) -> Instant {
        self.recorder.poll_timeout()
    }

    /// Something that may change the forwarding table came now.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The forwarding table has what came of it.
    pub(super) fn converged(&mut self) {
        self.convergence.observe(self.heard.elapsed());
    }

    pub(super) fn tell(&mut self, told: Told) {
        self.recorder.tell(Instant::now(), told);
    }

    pub(super) const fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl Daemon {
    /// Takes a sample of every counter when it is time, and looks whether any Map-Resolver answers.
    pub(super) fn keep_record(&mut self, now: Instant) {
        if self.record.next_timeout() > now {
            return;
        }
        let mut counters = self.counters();
        counters.extend(self.control.discards().as_counters());
        self.record.recorder.handle_timeout(now, || counters);
        let silent = self.control.resolvers_silent_since(now).is_some();
        if std::mem::replace(&mut self.record.silent, silent) != silent {
            self.record.tell(match silent {
                true => Told::warning("map-resolvers-silent", "", "none answers"),
                false => Told::info("map-resolver-answers", "", "one answers again"),
            });
        }
    }

    /// Keeps what the control plane tells.
    pub(super) fn keep(&mut self, event: &Event) {
        if let Some(told) = self.told(event) {
            self.record.tell(told);
        }
    }

    /// The answer to [`Query::Metrics`](mapping::admin::Query::Metrics).
    pub(super) fn metrics(&mut self, now: Instant) -> MetricsView {
        let (series, left_out) = self.control.series(now);
        let convergence = self.record.convergence.view();
        MetricsView {
            status: self.status(now),
            counters: self.counters(),
            drops: self.all_drops(),
            discards: self.control.discards().all(),
            histograms: BTreeMap::from([
                ("map_request_resolution".to_owned(), self.control.resolution_view()),
                ("forwarding_convergence".to_owned(), convergence),
            ]),
            series,
            left_out,
        }
    }

    /// Packets dropped, by the data plane and by the kernel before it; reasons that never happened too.
    pub(super) fn all_drops(&self) -> Vec<DropCount> {
        let counters = self.engine.counters();
        let of_reason = |&reason: &DropReason| DropCount {
            reason: reason.name().to_owned(),
            count: counters.dropped(reason),
            help: reason.help().to_owned(),
        };
        let kernel = UdpErrors::read().since(self.udp_errors);
        let kernel = [
            ("kernel_udp_checksum", kernel.checksum, KERNEL_CHECKSUM_HELP),
            ("kernel_udp_buffer", kernel.buffer, KERNEL_BUFFER_HELP),
        ]
        .map(|(reason, count, help)| DropCount {
            reason: reason.to_owned(),
            count,
            help: help.to_owned(),
        });
        DropReason::ALL.iter().map(of_reason).chain(kernel).collect()
    }

    /// What is kept of an event; of those that say what others tell better, nothing.
    fn told(&self, event: &Event) -> Option<Told> {
        let trouble = |rloc| self.control.trouble_of(rloc).unwrap_or_default();
        Some(match event {
            Event::LocatorAdded(_) => return None,
            Event::LocatorUp(rloc) => Told::info("rloc-up", rloc, "answers RLOC-probes"),
            Event::LocatorDown(rloc) => Told::warning("rloc-down", rloc, trouble(*rloc)),
            Event::LocatorNoRoute(rloc) => Told::warning("rloc-no-route", rloc, trouble(*rloc)),
            Event::LocatorRouted(rloc) => {
                Told::info("rloc-routed", rloc, "the underlay has a route to it again")
            }
            Event::LocatorRerouted { rloc, source } => {
                Told::info("rloc-rerouted", rloc, format!("reached from own RLOC {source} now"))
            }
            Event::EchoMissing(rloc) => {
                Told::warning("rloc-echo-missing", rloc, "sends packets, but does not echo nonces")
            }
            Event::PathMtu { rloc, mtu } => {
                Told::info("path-mtu", rloc, format!("{mtu} octets now"))
            }
            Event::Registered { prefix, map_server } => {
                Told::info("registered", prefix, format!("by Map-Server {map_server}"))
            }
            Event::RegistrationUnanswered { prefix, map_server } => Told::warning(
                "registration-unanswered",
                prefix,
                format!("Map-Server {map_server} does not answer"),
            ),
            Event::RegistrationRefused { prefix, map_server } => Told::warning(
                "registration-refused",
                prefix,
                format!("Map-Server {map_server} does not accept it"),
            ),
            Event::LookupUnanswered(prefix) => {
                Told::warning("lookup-unanswered", prefix, "no Map-Resolver answers")
            }
            Event::ReplyRefused { prefix, from, reason } => {
                Told::warning("map-reply-refused", prefix, format!("from {from}: {reason}"))
            }
            Event::SubscriptionRefused(prefix) => {
                Told::warning("subscription-refused", prefix, "by its Map-Server")
            }
            Event::PublicationReplayed { prefix, map_server } => Told::warning(
                "publication-replayed",
                prefix,
                format!("from {map_server}, not newer than the last one"),
            ),
            Event::ImpossibleMapVersion { prefix, rloc, version, own } => {
                let (version, own) = (version.get(), own.get());
                let cause = format!("packets from {rloc} say {version}, the newest is {own}");
                Told::warning("map-version-impossible", prefix, cause)
            }
            Event::SmrReceived { prefix, from } => {
                Told::info("smr-received", prefix, format!("from {from}"))
            }
            Event::SmrSent { prefix, rloc } => Told::info("smr-sent", prefix, format!("to {rloc}")),
            Event::HostArrived { prefix, how } => {
                Told::info("host-arrived", prefix, format!("seen by {}", how.name()))
            }
            Event::HostLeft(prefix) => Told::info("host-left", prefix, "no sign of life"),
            Event::HostAway(prefix) => Told::info("host-away", prefix, "registered elsewhere"),
            Event::HostHeldDown(prefix) => {
                Told::warning("host-held-down", prefix, "seen here and elsewhere in turns")
            }
            Event::MapCacheFull => {
                Told::warning("map-cache-full", "", "the least recently used entries made room")
            }
            _ => told_of_nat(event)?,
        })
    }
}

fn told_of_nat(event: &Event) -> Option<Told> {
    Some(match event {
        Event::NatFound { rloc, global, rtr } => {
            let through = rtr.map_or_else(
                || "there is no RTR of its family".to_owned(),
                |rtr| format!("through RTR {rtr}"),
            );
            Told::info("nat-found", rloc, format!("seen as {global}; {through}"))
        }
        Event::NatGone(rloc) => Told::info("nat-gone", rloc, ""),
        Event::NatUnknown(rloc) => {
            Told::warning("nat-unknown", rloc, "no Map-Server answers Info-Requests")
        }
        Event::RtrAnswered { rloc, rtr } => Told::info("rtr-answered", rloc, format!("RTR {rtr}")),
        Event::RtrUnanswered { rloc, rtr } => {
            Told::warning("rtr-unanswered", rloc, format!("RTR {rtr}"))
        }
        Event::NotifyOfOther { rtr, identity } => {
            Told::error("map-notify-of-other", rtr, format!("for {identity}"))
        }
        Event::NatSiteMoved { prefix, from, to } => {
            Told::info("nat-site-moved", prefix, format!("from {from} to {to}"))
        }
        Event::NatSiteGone(prefix) => Told::info("nat-site-gone", prefix, "no keepalive"),
        _ => return None,
    })
}

const KERNEL_CHECKSUM_HELP: &str = "The kernel dropped datagrams whose UDP checksum is wrong (RFC 9300 §5.3): since the start, in this network \
    namespace, whatever their port.";
const KERNEL_BUFFER_HELP: &str = "The kernel dropped datagrams because the receive buffer of their socket was full: since the start, in \
    this network namespace, whatever their port.";
