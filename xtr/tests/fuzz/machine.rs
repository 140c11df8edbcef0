//! A forwarding path with its table, and everything that comes out of it.
use crate::craft::ip;
use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::counters::{CounterSnapshot, Traffic, WorkerCounters};
use xtr::drops::DropReason;
use xtr::fib::{Adjacency, FibReader, FibUpdate, FibWriter, LocatorSet, Verdict};
use xtr::forward::{Forwarder, HoldLimits, Outer, Output, Settings};
use xtr::packet::icmp::Rate;
use xtr::packet::{Inner, Marking, OuterFields};
use xtr::policy::{Onward, Policy};
use xtr::punt::{self, Punt, PuntReceiver};

pub(crate) const OWN: [&str; 2] = ["198.51.100.1", "2001:db8:c0::1"];
pub(crate) const SOURCE_PORTS: u16 = 64;
/// Of what comes in from the site with an odd source; the others are of instance 0.
pub(crate) const INSTANCE: u32 = 0x00ab_cdef;
/// L of the sixteen kinds of mapping, by the last four bits of the destination.
pub(crate) const MTUS: [u16; 16] =
    [1500, 1500, 1500, 1500, 1280, 9000, 65_535, 1400, 576, 300, 100, 68, 1500, 1500, 1500, 1500];
/// Beyond the MTUs: what the last kinds do.
const NATIVE: u8 = 12;
const DROP: u8 = 13;
const MISS: u8 = 14;
/// Known in turns.
pub(crate) const FLAPPING: u8 = 15;

/// Lets everything through; destinations with bit 6 are on the other side of a re-encapsulation.
#[derive(Debug)]
struct Rules;

impl Policy for Rules {
    fn admit_native(&self, source: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        Ok(instance(source))
    }

    fn admit_decapsulated(
        &self,
        outer_source: IpAddr,
        _: InstanceId,
        _: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        if last_octet(outer_source) == 66 {
            Err(DropReason::PetrRlocNotAccepted)
        } else if last_octet(destination) & 0x40 != 0 {
            Ok(Onward::Reencapsulate)
        } else {
            Ok(Onward::Deliver)
        }
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }
}

pub(crate) fn instance(source: IpAddr) -> InstanceId {
    let number = if last_octet(source) % 2 == 1 { INSTANCE } else { 0 };
    InstanceId::new(number).expect("24 bits")
}

pub(crate) fn last_octet(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// One thing that came out.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    /// Where in [`Sink::octets`].
    range: std::ops::Range<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Encapsulated(Outer),
    Forwarded,
    Delivered { hash: u64, inner: Inner },
}

/// Keeps what came out until the next packet; refuses every so-manieth if told to.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) items: Vec<Item>,
    octets: Vec<u8>,
    refuse_every: u64,
    calls: u64,
    pub(crate) refused: u64,
    packets: u64,
}

impl Sink {
    pub(crate) fn octets(&self, item: &Item) -> &[u8] {
        &self.octets[item.range.clone()]
    }

    fn take(&mut self, kind: Kind, parts: [&[u8]; 2], packets: u64) -> Result<(), DropReason> {
        self.calls += 1;
        if self.refuse_every > 0 && self.calls.is_multiple_of(self.refuse_every) {
            self.refused += 1;
            return Err(DropReason::BuffersExhausted);
        }
        let start = self.octets.len();
        parts.iter().for_each(|part| self.octets.extend_from_slice(part));
        self.items.push(Item { kind, range: start..self.octets.len() });
        self.packets += packets;
        Ok(())
    }
}

impl Output for Sink {
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        self.take(Kind::Encapsulated(*outer), [headers, payload], 1)
    }

    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        self.take(Kind::Forwarded, [frame, &[]], traffic.packets)
    }

    fn delivered(&mut self, hash: u64, inner: &Inner, packet: &[u8]) -> Result<(), DropReason> {
        self.take(Kind::Delivered { hash, inner: *inner }, [packet, &[]], 1)
    }
}

pub(crate) struct Machine {
    forwarder: Forwarder<Rules>,
    counters: Arc<WorkerCounters>,
    fib: FibWriter,
    reader: FibReader,
    punts: PuntReceiver,
    now: Instant,
    pub(crate) out: Sink,
    known: bool,
    pub(crate) misses: u64,
    pub(crate) icmp_errors: u64,
}

impl Machine {
    pub(crate) fn new(refuse_every: u64) -> Self {
        let (fib, factory) = FibWriter::new();
        let (sender, punts) = punt::queue(64);
        let counters = Arc::<WorkerCounters>::default();
        let now = Instant::now();
        let settings = Settings {
            rlocs: OWN.map(ip).to_vec(),
            source_ports: SOURCE_PORTS,
            marking: Marking::default(),
            hold: HoldLimits::default(),
            seed: [7; 32],
            icmp_rate: Rate::default(),
            control_in_data: false,
            started: now,
        };
        let forwarder = Forwarder::new(
            settings,
            Arc::new(Rules),
            Arc::clone(&counters),
            Arc::default(),
            sender,
        );
        let mut machine = Self {
            forwarder,
            counters,
            fib,
            reader: factory.reader(),
            punts,
            now,
            out: Sink { refuse_every, ..Sink::default() },
            known: false,
            misses: 0,
            icmp_errors: 0,
        };
        (0..=255).filter(|last| last & 15 != FLAPPING).for_each(|last| machine.map(last));
        machine
    }

    /// Every destination is mapped in both instances: even ones to an IPv4 locator, those with bit 5 to two.
    fn map(&mut self, last: u8) {
        let verdict = match last & 15 {
            NATIVE => Verdict::Native,
            DROP => Verdict::Drop(DropReason::NoUsableLocator),
            MISS => return,
            kind => Verdict::Encapsulate(Arc::new(locators(last, MTUS[usize::from(kind)]))),
        };
        for prefix in prefixes(last) {
            self.fib.apply([FibUpdate::Insert(prefix, verdict.clone())]);
        }
    }

    /// Makes the flapping destinations known or unknown, and releases what waits for them.
    pub(crate) fn flap(&mut self) {
        self.known = !self.known;
        for last in (0..=255).filter(|last| last & 15 == FLAPPING) {
            if self.known {
                self.map(last);
            } else {
                self.fib.apply(prefixes(last).map(FibUpdate::Remove));
            }
        }
        self.forwarder.handle_fib_change();
    }

    /// Forgets what came out.
    pub(crate) fn forget(&mut self) {
        self.out.items.clear();
        self.out.octets.clear();
        self.out.refused = 0;
    }

    /// Forgets what came out and lets a millisecond pass.
    pub(crate) fn tick(&mut self) {
        self.forget();
        self.now += Duration::from_millis(1);
        self.forwarder.handle_timeout(self.now);
    }

    /// Lets everything that is held expire.
    pub(crate) fn wait(&mut self) {
        self.now += Duration::from_secs(60);
        self.forwarder.handle_timeout(self.now);
    }

    pub(crate) fn native(&mut self, frame: &mut [u8]) {
        let mut view = self.reader.enter();
        self.forwarder.from_native(self.now, &mut view, frame, &mut self.out);
    }

    pub(crate) fn core(&mut self, source: IpAddr, fields: OuterFields, datagram: &mut [u8]) {
        let mut view = self.reader.enter();
        self.forwarder.from_core(self.now, &mut view, source, fields, datagram, &mut self.out);
    }

    /// Forwards one packet that was held; its frame as it went in.
    pub(crate) fn release(&mut self) -> Option<Vec<u8>> {
        let mut view = self.reader.enter();
        let (mut frame, resumed) = self.forwarder.next_released(&mut view)?.into_parts();
        let before = frame.to_vec();
        self.forwarder.resume(self.now, &mut view, resumed, &mut frame, &mut self.out);
        Some(before)
    }

    /// The next ICMP error for a source.
    pub(crate) fn icmp_error(&mut self) -> Option<(IpAddr, Box<[u8]>)> {
        loop {
            match self.punts.pop()? {
                Punt::IcmpError { destination, message } => {
                    self.icmp_errors += 1;
                    return Some((destination, message));
                }
                _ => self.misses += 1,
            }
        }
    }

    /// The books, with what came out put in as the engine does.
    pub(crate) fn counters(&self) -> CounterSnapshot {
        let mut snapshot = self.counters.snapshot();
        snapshot.core_out.packets = self.out.packets;
        snapshot
    }
}

fn locators(last: u8, mtu: u16) -> LocatorSet {
    let peer = |v4: bool, host: u8| {
        let (own, peer) = if v4 {
            (OWN[0], format!("198.51.100.{host}"))
        } else {
            (OWN[1], format!("2001:db8:c0::{host:x}"))
        };
        Adjacency {
            source: ip(own),
            destination: ip(&peer),
            weight: 50,
            mtu,
            traffic: Arc::default(),
            ports: Default::default(),
            used: Arc::default(),
        }
    };
    let v4 = last.is_multiple_of(2);
    let mut adjacencies = vec![peer(v4, 2)];
    if last & 0x20 != 0 {
        adjacencies.push(peer(v4, 3));
    }
    if last & 0x1f == 0 {
        // A mapping that leads back to us.
        adjacencies[0].destination = ip(OWN[0]);
    }
    LocatorSet::new(adjacencies, 0)
}

fn prefixes(last: u8) -> impl Iterator<Item = EidPrefix> {
    let hosts = [format!("203.0.113.{last}"), format!("2001:db8:2::{last:x}")];
    hosts.into_iter().flat_map(|host| {
        let prefix = IpNet::from(ip(&host));
        [0, INSTANCE]
            .map(|number| EidPrefix::new(InstanceId::new(number).expect("24 bits"), prefix))
    })
}
