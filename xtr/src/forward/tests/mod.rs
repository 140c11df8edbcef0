//! The forwarding path against an output that only takes notes.

mod agreement;
mod arrivals;
mod conservation;
mod core;
mod follow;
mod hold;
mod marks;
mod native;
mod registered;
mod train;

use super::*;
use crate::counters::{CounterSnapshot, Traffic, TrafficCounters};
use crate::fib::{Adjacency, FibReader, FibReaderFactory, FibUpdate, FibWriter, LocatorSet};
use crate::packet::tests::support::{self, Build, Transport, ip, payload, tcp, udp};
use crate::punt::{self, PuntReceiver};
use ipnet::IpNet;
use mapping::eid::EidPrefix;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const OWN_V4: &str = "198.51.100.1";
const OWN_V6: &str = "2001:db8:c0::1";
const PEER_V4: &str = "198.51.100.2";
const PEER_V6: &str = "2001:db8:c0::2";

/// The number of the EID-prefixes whose hosts come and go.
const FOLLOWED: u32 = 3;

/// A policy of lists; everything not named is let through.
#[derive(Debug, Default)]
struct Rules {
    foreign_rlocs: Vec<IpAddr>,
    unknown_instances: BTreeSet<u32>,
    foreign_destinations: Vec<IpNet>,
    reencapsulate: Vec<IpNet>,
    /// Its hosts come and go.
    roaming: Vec<IpNet>,
    /// How often it was asked who does.
    asked: AtomicUsize,
    /// Delivered under their numbers.
    own: Vec<IpNet>,
    native_forward: bool,
    /// Whoever sends from here is refused for this reason, on both sides.
    refused_sources: Vec<(IpAddr, DropReason)>,
}

impl Rules {
    fn refusal(&self, source: IpAddr) -> Result<(), DropReason> {
        let found = self.refused_sources.iter().find(|(refused, _)| *refused == source);
        found.map_or(Ok(()), |&(_, reason)| Err(reason))
    }
}

impl Policy for Rules {
    fn admit_native(&self, source: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        self.refusal(source)?;
        if source == ip("192.0.2.66") {
            Err(DropReason::SourceNotEid)
        } else {
            Ok(InstanceId::DEFAULT)
        }
    }

    fn admit_decapsulated(
        &self,
        outer_source: IpAddr,
        instance_id: InstanceId,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        self.refusal(source)?;
        if self.foreign_rlocs.contains(&outer_source) {
            Err(DropReason::PetrRlocNotAccepted)
        } else if self.unknown_instances.contains(&instance_id.get()) {
            Err(DropReason::InstanceUnknown)
        } else if self.foreign_destinations.iter().any(|net| net.contains(&destination)) {
            Err(DropReason::DestinationNotLocalEid)
        } else if self.roams(destination) {
            Ok(Onward::Follow(FOLLOWED))
        } else if self.reencapsulate.iter().any(|net| net.contains(&destination)) {
            Ok(Onward::Reencapsulate)
        } else {
            let own = self.own.iter().position(|net| net.contains(&destination));
            Ok(own.map_or(Onward::Deliver, |number| Onward::DeliverOwn(number as u32)))
        }
    }

    fn roams(&self, address: IpAddr) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.roaming.iter().any(|net| net.contains(&address))
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        if self.native_forward { Ok(()) } else { Err(DropReason::NativeWouldLoop) }
    }
}

/// What came out.
#[derive(Debug, Default)]
struct Notes {
    sent: Vec<(Outer, Vec<u8>)>,
    forwarded: Vec<Vec<u8>>,
    delivered: Vec<Vec<u8>>,
    packets_out: u64,
    /// Refuse the packet numbered so, and every multiple.
    refuse_every: Option<u64>,
    calls: u64,
}

impl Notes {
    fn take(&mut self, packets: u64) -> Result<(), DropReason> {
        self.calls += 1;
        if self.refuse_every.is_some_and(|every| self.calls.is_multiple_of(every)) {
            return Err(DropReason::BuffersExhausted);
        }
        self.packets_out += packets;
        Ok(())
    }
}

impl Output for Notes {
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        self.take(1)?;
        self.sent.push((*outer, [headers, payload].concat()));
        Ok(())
    }

    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        self.take(traffic.packets)?;
        self.forwarded.push(frame.to_vec());
        Ok(())
    }

    fn delivered(&mut self, _: u64, _: &Inner, packet: &[u8]) -> Result<(), DropReason> {
        self.take(1)?;
        self.delivered.push(packet.to_vec());
        Ok(())
    }
}

/// A forwarding path with its table and everything around it.
struct Bench {
    forwarder: Forwarder<Rules>,
    counters: Arc<WorkerCounters>,
    fib: FibWriter,
    readers: FibReaderFactory,
    reader: FibReader,
    punts: PuntReceiver,
    now: Instant,
    out: Notes,
}

impl Bench {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        Self::configured(rules, Marking::default(), 64)
    }

    fn configured(rules: Rules, marking: Marking, punt_capacity: usize) -> Self {
        let (fib, factory) = FibWriter::new();
        let (sender, punts) = punt::queue(punt_capacity);
        let counters = Arc::<WorkerCounters>::default();
        let now = Instant::now();
        let settings = Settings {
            rlocs: vec![ip(OWN_V4), ip(OWN_V6)],
            source_ports: 64,
            marking,
            hold: HoldLimits::default(),
            seed: [7; 32],
            icmp_rate: Rate::default(),
            control_in_data: false,
            started: now,
        };
        let forwarder = Forwarder::new(
            settings,
            Arc::new(rules),
            Arc::clone(&counters),
            Arc::default(),
            sender,
        );
        Self {
            forwarder,
            counters,
            fib,
            reader: factory.reader(),
            readers: factory,
            punts,
            now,
            out: Notes::default(),
        }
    }

    /// Maps `prefix` to one locator, with the own RLOC of its family.
    fn map(&mut self, prefix: &str, destination: &str, mtu: u16) -> Arc<LocatorSet> {
        let set = Arc::new(LocatorSet::new([adjacency(destination, mtu)], 0));
        self.verdict(0, prefix, Verdict::Encapsulate(Arc::clone(&set)));
        set
    }

    fn verdict(&mut self, instance: u32, prefix: &str, verdict: Verdict) {
        let instance = InstanceId::new(instance).expect("small");
        let prefix = EidPrefix::new(instance, prefix.parse().expect("a prefix"));
        self.fib.apply([FibUpdate::Insert(prefix, verdict)]);
    }

    fn native(&mut self, packet: &[u8]) {
        self.native_frame(VirtioNetHeader::default(), packet);
    }

    fn native_frame(&mut self, virtio: VirtioNetHeader, packet: &[u8]) {
        let mut frame = [virtio.as_bytes(), packet].concat();
        let mut view = self.reader.enter();
        self.forwarder.from_native(self.now, &mut view, &mut frame, &mut self.out);
    }

    fn core(&mut self, outer_source: &str, fields: OuterFields, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        let mut view = self.reader.enter();
        let source = ip(outer_source);
        self.forwarder.from_core(self.now, &mut view, source, fields, &mut datagram, &mut self.out);
    }

    /// As the engine does after a wake-up, or at the end of a batch.
    fn release(&mut self, changed: bool) {
        let mut view = self.reader.enter();
        if changed {
            self.forwarder.handle_fib_change();
        }
        while let Some(held) = self.forwarder.next_released(&mut view) {
            let (mut frame, resumed) = held.into_parts();
            self.forwarder.resume(self.now, &mut view, resumed, &mut frame, &mut self.out);
        }
    }

    /// Adds what a role may ask for.
    fn change(&mut self, change: impl FnOnce(Forwarder<Rules>) -> Forwarder<Rules>) {
        let fresh = Bench::new().forwarder;
        self.forwarder = change(std::mem::replace(&mut self.forwarder, fresh));
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.forwarder.handle_timeout(self.now);
    }

    /// The books, with what came out put in as the engine does.
    fn counters(&self) -> CounterSnapshot {
        let mut snapshot = self.counters.snapshot();
        snapshot.core_out.packets = self.out.packets_out;
        assert!(snapshot.is_conserved(), "{snapshot:#?}");
        snapshot
    }

    /// Asserts that one packet was dropped, for this reason, and nothing came out.
    #[track_caller]
    fn assert_dropped(&self, reason: DropReason) {
        let counters = self.counters();
        assert_eq!(
            (counters.dropped(reason), counters.dropped_total()),
            (1, 1),
            "{reason:?}: {counters:#?}"
        );
        assert_eq!(self.out.packets_out, 0);
    }

    fn icmp_errors(&self) -> Vec<(IpAddr, Box<[u8]>)> {
        std::iter::from_fn(|| self.punts.pop())
            .filter_map(|punt| match punt {
                Punt::IcmpError { destination, message } => Some((destination, message)),
                _ => None,
            })
            .collect()
    }

    fn misses(&self) -> Vec<Eid> {
        std::iter::from_fn(|| self.punts.pop())
            .filter_map(|punt| match punt {
                Punt::Miss { destination, .. } => Some(destination),
                Punt::SourceUnknown { source, .. } => Some(source),
                _ => None,
            })
            .collect()
    }
}

fn adjacency(destination: &str, mtu: u16) -> Adjacency {
    let destination = ip(destination);
    let source = ip(if destination.is_ipv4() { OWN_V4 } else { OWN_V6 });
    let traffic = Arc::<TrafficCounters>::default();
    let ports = Default::default();
    Adjacency { source, destination, weight: 1, mtu, traffic, ports, used: Arc::default() }
}

/// `packet` behind a LISP header.
fn lisp(instance: u32, packet: &[u8]) -> Vec<u8> {
    let header = lisp::encode(InstanceId::new(instance).expect("small"));
    [&header[..], packet].concat()
}

const FIELDS: OuterFields = OuterFields { ttl: 64, tos: 0 };
