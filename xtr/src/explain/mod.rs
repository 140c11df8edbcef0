//! What would become of a packet: the forwarding path itself, run once with an output that only takes notes.
//!
//! The path of an explanation is its own: its counters, hold and punts are nobody else's, and what it gives to its output is no traffic
//! of any locator. It shares what only is read: policy, forwarding table, path MTUs, seed of the flow hash.
use crate::config::TrustedCore;
use crate::counters::WorkerCounters;
use crate::fib::FibReaderFactory;
use crate::forward::{Forwarder, PathMtus, Settings};
use crate::marks::SharedMarks;
use crate::packet::{OuterFields, VirtioNetHeader, lisp};
use crate::policy::Policy;
use crate::punt;
use crate::view::MapCacheEntryView;
use mapping::admin::{ExplainQuery, Side};
use mapping::eid::{Eid, EidPrefix, InstanceId};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use zerocopy::IntoBytes;

mod packet;
mod recorder;
pub mod view;

pub(crate) use recorder::Recorder;
use view::{ExplainView, Outcome};

/// What the control plane knows of an EID beyond what the forwarding table says.
pub trait Background {
    /// Of a destination.
    fn mapping_of(&self, eid: Eid) -> Mapping;
}

/// Where the verdict on an EID comes from.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// The map-cache entry that matches.
    pub entry: Option<MapCacheEntryView>,
    /// The own EID-prefix that matches better than any entry.
    pub own: Option<EidPrefix>,
    /// Whether it is being looked up already.
    pub asking: bool,
    /// The Map-Resolver that is asked next.
    pub resolver: Option<IpAddr>,
}

/// Explains packets as the workers of one data plane would treat them.
#[derive(Clone)]
pub struct Explainer {
    settings: Settings,
    source_ports: Box<[u16]>,
    policy: Arc<dyn Policy>,
    path_mtus: Arc<PathMtus>,
    readers: FibReaderFactory,
    sources: Option<FibReaderFactory>,
    trusted: Option<(TrustedCore, Arc<SharedMarks>)>,
}

impl Explainer {
    /// An explainer with all that the workers have; `source_ports` are the numbers of the pool's ports.
    pub fn new(
        settings: Settings,
        source_ports: impl Iterator<Item = u16>,
        policy: Arc<dyn Policy>,
        path_mtus: Arc<PathMtus>,
        readers: FibReaderFactory,
    ) -> Self {
        let source_ports = source_ports.collect();
        Self { settings, source_ports, policy, path_mtus, readers, sources: None, trusted: None }
    }

    /// As workers do that take packets only from locators of their inner source's mapping in this table, if there is one.
    #[must_use]
    pub fn check_sources(mut self, sources: Option<&FibReaderFactory>) -> Self {
        self.sources = sources.cloned();
        self
    }

    /// From now on by this policy, as the workers.
    pub fn set_policy(&mut self, policy: Arc<dyn Policy>) {
        self.policy = policy;
    }

    /// As workers do that put marks on headers in this core, if there is one.
    #[must_use]
    pub fn trust_core(mut self, core: Option<&TrustedCore>, marks: &Arc<SharedMarks>) -> Self {
        self.trusted = core.map(|core| (core.clone(), Arc::clone(marks)));
        self
    }

    /// What the workers forward by.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The numbers of the pool's ports.
    pub(crate) fn source_ports(&self) -> &[u16] {
        &self.source_ports
    }

    /// What would become of the packet.
    ///
    /// # Errors
    /// There can be no such packet, in words.
    pub fn explain(
        &self,
        now: Instant,
        question: &ExplainQuery,
        background: &dyn Background,
    ) -> Result<ExplainView, String> {
        let packet = packet::build(question)?;
        let mut recorder = self.recorder(background);
        match question.from {
            Side::Native => self.run_native(now, &packet, &mut recorder),
            Side::Core => {
                let rloc = question.rloc.ok_or("a packet from the core has an outer source")?;
                let instance_id =
                    InstanceId::new(question.instance_id).ok_or("an Instance ID has 24 bits")?;
                let datagram = [&lisp::encode(instance_id)[..], &packet].concat();
                let fields = OuterFields { ttl: question.ttl, tos: question.tos };
                self.run_core(now, rloc, fields, &datagram, &mut recorder);
            }
        }
        recorder.finish();
        let reason = recorder.dropped;
        Ok(ExplainView {
            packet: question.clone(),
            verdict: recorder.outcome.unwrap_or(Outcome::Drop),
            reason: reason.map(|reason| reason.name().to_owned()),
            help: reason.map(|reason| reason.help().to_owned()),
            steps: recorder.steps,
            entry: recorder.entry,
            locator: recorder.locator,
            outer: recorder.outer,
            size: recorder.size,
            delivered: recorder.delivered,
            icmp: recorder.icmp,
        })
    }

    /// Somewhere to take notes.
    pub(crate) fn recorder<'a>(&'a self, background: &'a dyn Background) -> Recorder<'a> {
        Recorder::new(background, &self.policy, &self.source_ports)
    }

    pub(crate) fn run_native(&self, now: Instant, packet: &[u8], notes: &mut Recorder<'_>) {
        let mut frame = [VirtioNetHeader::default().as_bytes(), packet].concat();
        let mut reader = self.readers.reader();
        self.forwarder(now).from_native(now, &mut reader.enter(), &mut frame, notes);
    }

    pub(crate) fn run_core(
        &self,
        now: Instant,
        outer_source: IpAddr,
        outer: OuterFields,
        datagram: &[u8],
        notes: &mut Recorder<'_>,
    ) {
        let mut datagram = datagram.to_vec();
        let mut reader = self.readers.reader();
        let mut view = reader.enter();
        self.forwarder(now).from_core(now, &mut view, outer_source, outer, &mut datagram, notes);
    }

    /// A path with its own counters and hold, whose punts nobody takes.
    fn forwarder(&self, now: Instant) -> Forwarder<Arc<dyn Policy>> {
        // Room for the ICMP error and the miss of one packet.
        let (punts, _) = punt::queue(2);
        let forwarder = Forwarder::new(
            self.settings.clone(),
            Arc::new(Arc::clone(&self.policy)),
            Arc::<WorkerCounters>::default(),
            Arc::clone(&self.path_mtus),
            punts,
        );
        let forwarder = match &self.sources {
            Some(sources) => forwarder.check_sources(sources.reader()),
            None => forwarder,
        };
        let mut forwarder = match &self.trusted {
            Some((core, marks)) => forwarder.trust_core(core, Arc::clone(marks)),
            None => forwarder,
        };
        forwarder.handle_timeout(now);
        forwarder
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
