//! Whole tunnel routers, control plane and forwarding path, without I/O: what one sends the other receives at once; one clock that we move.
use mapping::config::{Algorithm, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::{CONTROL_PORT, Message};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::config::{ControlConfig, Endpoint, LocalEid, OwnRloc, Role, TrustedCore};
use xtr::control::ControlPlane;
use xtr::counters::{CounterSnapshot, Traffic, WorkerCounters};
use xtr::drops::DropReason;
use xtr::fib::{FibReader, FibWriter};
use xtr::forward::{Forwarder, HoldLimits, Outer, Output, Settings};
use xtr::marks::{HeaderMarks, SharedMarks};
use xtr::packet::icmp::Rate;
use xtr::packet::{Inner, Marking, OuterFields, lisp};
use xtr::policy::{Onward, Policy, SitePolicy};
use xtr::punt::{self, PuntReceiver};

pub(crate) const SERVER: &str = "198.51.100.2";
/// A site with two locators, a site with one, a proxy.
pub(crate) const A: &str = "192.0.2.1";
pub(crate) const A2: &str = "192.0.2.11";
pub(crate) const B: &str = "192.0.2.2";
pub(crate) const PROXY: &str = "192.0.2.3";
const EIDS_A: &str = "10.1.0.0/16";
pub(crate) const EIDS_B: &str = "10.2.0.0/16";
const STEP: Duration = Duration::from_millis(20);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub(crate) fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

/// A packet that left a router.
pub(crate) struct Sent {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    datagram: Vec<u8>,
}

impl Sent {
    pub(crate) fn marks(&self) -> HeaderMarks {
        lisp::marks(&self.datagram)
    }
}

#[derive(Default)]
struct Out {
    rlocs: Vec<IpAddr>,
    sent: Vec<Sent>,
    delivered: u64,
}

impl Output for Out {
    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let (from, to) = (self.rlocs[outer.own_rloc], outer.destination);
        self.sent.push(Sent { from, to, datagram: [headers, payload].concat() });
        Ok(())
    }

    fn forwarded(&mut self, _: &[u8], _: Traffic) -> Result<(), DropReason> {
        Ok(())
    }

    fn delivered(&mut self, _: u64, _: &Inner, _: &[u8]) -> Result<(), DropReason> {
        self.delivered += 1;
        Ok(())
    }
}

/// A proxy lets everything in; nothing leaves natively.
#[derive(Debug)]
struct Proxy;

impl Policy for Proxy {
    fn admit_native(&self, _: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        Ok(InstanceId::DEFAULT)
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        _: IpAddr,
        _: IpAddr,
    ) -> Result<Onward, DropReason> {
        Ok(Onward::Deliver)
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Err(DropReason::NativeWouldLoop)
    }
}

pub(crate) struct Router {
    pub(crate) control: ControlPlane,
    forwarder: Forwarder<Arc<dyn Policy>>,
    fib: FibWriter,
    reader: FibReader,
    marks: Arc<SharedMarks>,
    punts: PuntReceiver,
    counters: Arc<WorkerCounters>,
    out: Out,
    /// Marks of all that it sent, with where that went.
    pub(crate) history: Vec<(IpAddr, HeaderMarks)>,
}

impl Router {
    fn new(config: ControlConfig, now: Instant, seed: u8) -> Self {
        let (fib, readers) = FibWriter::new();
        let (sender, punts) = punt::queue(64);
        let counters = Arc::<WorkerCounters>::default();
        let marks = Arc::<SharedMarks>::default();
        let rlocs: Vec<IpAddr> = config.rlocs.iter().map(|rloc| rloc.address).collect();
        let policy: Arc<dyn Policy> = match config.role {
            Role::Xtr => Arc::new(SitePolicy::new(&config.eids)),
            Role::Proxy => Arc::new(Proxy),
        };
        let settings = Settings {
            rlocs: rlocs.clone(),
            source_ports: 4,
            marking: Marking::default(),
            hold: HoldLimits::default(),
            seed: [seed; 32],
            icmp_rate: Rate::default(),
            started: now,
            control_in_data: false,
        };
        let shared = Arc::clone(&counters);
        let mut forwarder =
            Forwarder::new(settings, Arc::new(policy), shared, Arc::default(), sender);
        if let Some(core) = &config.trusted_core {
            forwarder = forwarder.trust_core(core, Arc::clone(&marks));
        }
        Self {
            control: ControlPlane::new(config, now, [seed; 32], 1_000_000),
            forwarder,
            fib,
            reader: readers.reader(),
            marks,
            punts,
            counters,
            out: Out { rlocs, ..Out::default() },
            history: Vec::new(),
        }
    }

    /// Lets the control plane hear and say what there is to.
    fn settle(&mut self, now: Instant) -> Vec<Transmit> {
        while let Some(punt) = self.punts.pop() {
            self.control.handle_punt(now, &punt);
        }
        while self.control.poll_timeout().is_some_and(|due| due <= now) {
            self.control.handle_timeout(now);
        }
        self.fib.apply(std::iter::from_fn(|| self.control.poll_fib_update()));
        if let Some(marks) = self.control.poll_marks() {
            self.marks.store(marks);
        }
        while self.control.poll_event().is_some() {}
        let mut view = self.reader.enter();
        self.forwarder.handle_fib_change();
        while let Some(held) = self.forwarder.next_released(&mut view) {
            let (mut frame, resumed) = held.into_parts();
            self.forwarder.resume(now, &mut view, resumed, &mut frame, &mut self.out);
        }
        std::iter::from_fn(|| self.control.poll_transmit()).collect()
    }

    fn send(&mut self, now: Instant, source: &str, destination: &str, port: u16) {
        let mut frame = [vec![0; 10], udp(source, destination, port)].concat();
        let mut view = self.reader.enter();
        self.forwarder.from_native(now, &mut view, &mut frame, &mut self.out);
    }

    fn receive(&mut self, now: Instant, mut sent: Sent) {
        let mut view = self.reader.enter();
        let (from, fields) = (sent.from, OuterFields { ttl: 64, tos: 0 });
        let datagram = &mut sent.datagram;
        self.forwarder.from_core(now, &mut view, from, fields, datagram, &mut self.out);
    }

    pub(crate) fn counters(&self) -> CounterSnapshot {
        self.counters.snapshot()
    }

    pub(crate) const fn delivered(&self) -> u64 {
        self.out.delivered
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.control.counters_view().get(name).copied().unwrap_or_default()
    }
}

/// UDP over IPv4, 28 octets.
fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv4Addr>().expect("IPv4").octets();
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(octets(source));
    packet.extend(octets(destination));
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0x1b, 0x58, 0, 8, 0, 0]);
    packet
}

/// Which way packets flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    AToB,
    BToA,
    ProxyToA,
}

pub(crate) struct Network {
    pub(crate) now: Instant,
    server: MapServer,
    pub(crate) routers: BTreeMap<&'static str, Router>,
    pub(crate) flows: Vec<Flow>,
    /// Packets from one RLOC to another that get lost.
    pub(crate) lost: Vec<(&'static str, &'static str)>,
    /// Whether Solicit-Map-Requests get lost, so that only data tells of a change.
    pub(crate) smrs_lost: bool,
    rounds: u16,
}

impl Network {
    pub(crate) fn new(core: &TrustedCore, flows: &[Flow]) -> Self {
        let now = Instant::now();
        let key = || Secret::new(b"one key for all sites".to_vec());
        let site = |name: &str, eid: &str| {
            let key = SiteKey { id: 1, secret: key(), algorithms: vec![Algorithm::HmacSha256Hkdf] };
            let prefixes = vec![SitePrefix { prefix: prefix(eid), accept_more_specifics: false }];
            Site::new(name, vec![key], prefixes)
        };
        let mut mapping = MappingConfig::new("ms", vec![ip(SERVER)]);
        mapping.sites = vec![site("a", EIDS_A), site("b", EIDS_B)];
        let config = |rlocs: &[&str], eid: Option<&str>| {
            let server = xtr::config::MapServer {
                endpoint: Endpoint::Address(ip(SERVER)),
                key_id: 1,
                secret: key(),
                algorithm: Algorithm::HmacSha256Hkdf,
                covers: mapping::auth::Covered::Message,
                profile: Profile::Rfc9301,
            };
            config_of(rlocs, eid, server, core)
        };
        let configs = [
            (A, config(&[A, A2], Some(EIDS_A))),
            (B, config(&[B], Some(EIDS_B))),
            (PROXY, config(&[PROXY], None)),
        ];
        let routers = configs
            .into_iter()
            .zip(1..)
            .map(|((name, config), seed)| (name, Router::new(config, now, seed)))
            .collect();
        let server = MapServer::new(mapping, [9; 32]);
        let (flows, lost) = (flows.to_vec(), Vec::new());
        let mut network = Self { now, server, routers, flows, lost, smrs_lost: false, rounds: 0 };
        network.exchange();
        network
    }

    pub(crate) fn router(&mut self, name: &str) -> &mut Router {
        self.routers.get_mut(name).expect("a router")
    }

    /// Fifty rounds of packets a second, of a few flows each.
    pub(crate) fn run(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now += STEP;
            self.rounds = self.rounds.wrapping_add(1);
            for router in self.routers.values_mut() {
                router.forwarder.handle_timeout(self.now);
            }
            for flow in self.flows.clone() {
                let (now, port) = (self.now, 1000 + self.rounds % 8);
                let (router, source, destination) = match flow {
                    Flow::AToB => (A, "10.1.0.5", "10.2.0.5"),
                    Flow::BToA => (B, "10.2.0.5", "10.1.0.5"),
                    Flow::ProxyToA => (PROXY, "203.0.113.5", "10.1.0.5"),
                };
                self.router(router).send(now, source, destination, port);
            }
            self.exchange();
        }
    }

    /// Until nobody has anything to say.
    pub(crate) fn exchange(&mut self) {
        for _ in 0..50 {
            let (mut messages, mut packets) = (Vec::new(), Vec::new());
            for router in self.routers.values_mut() {
                messages.extend(router.settle(self.now));
                let sent = std::mem::take(&mut router.out.sent);
                router.history.extend(sent.iter().map(|sent| (sent.to, sent.marks())));
                packets.extend(sent);
            }
            while self.server.poll_timeout().is_some_and(|due| due <= self.now) {
                self.server.handle_timeout(self.now);
            }
            messages.extend(std::iter::from_fn(|| self.server.poll_transmit()));
            if messages.is_empty() && packets.is_empty() {
                return;
            }
            messages.into_iter().for_each(|message| self.carry(message));
            packets.into_iter().for_each(|packet| self.deliver(packet));
        }
        panic!("they never stop");
    }

    fn carry(&mut self, message: Transmit) {
        let port = match message.source_port {
            SourcePort::Control => CONTROL_PORT,
            SourcePort::Data => 4341,
            SourcePort::Ephemeral => 40_000,
        };
        let (from, to) = (SocketAddr::new(message.source, port), message.destination);
        if to.ip() == ip(SERVER) {
            return self.server.handle_input(self.now, to, from, &message.payload);
        }
        if self.smrs_lost
            && matches!(Message::parse(&message.payload), Ok(Message::MapRequest(request)) if request.smr)
        {
            return;
        }
        let now = self.now;
        if let Some(router) = self.owner(to.ip()) {
            router.control.handle_input(now, to, from, &message.payload);
        }
    }

    fn deliver(&mut self, packet: Sent) {
        let is_lost = |&(from, to): &(&str, &str)| (ip(from), ip(to)) == (packet.from, packet.to);
        if self.lost.iter().any(is_lost) {
            return;
        }
        let now = self.now;
        if let Some(router) = self.owner(packet.to) {
            router.receive(now, packet);
        }
    }

    fn owner(&mut self, rloc: IpAddr) -> Option<&mut Router> {
        self.routers.values_mut().find(|router| router.out.rlocs.contains(&rloc))
    }
}

fn config_of(
    rlocs: &[&str],
    eid: Option<&str>,
    server: xtr::config::MapServer,
    core: &TrustedCore,
) -> ControlConfig {
    let own = |(address, name): (&&str, char)| OwnRloc::new(name, ip(address), 1, 100);
    let is_proxy = eid.is_none();
    // What the configuration of a gateway refuses.
    let core = TrustedCore { echo_nonce: core.echo_nonce && !is_proxy, ..core.clone() };
    let local = |eid| LocalEid { prefix: prefix(eid), locator_set: Vec::new() };
    let role = if is_proxy { Role::Proxy } else { Role::Xtr };
    ControlConfig {
        rlocs: rlocs.iter().zip('a'..).map(own).collect(),
        map_resolvers: vec![server.endpoint.clone()],
        map_servers: eid.map(|_| server).into_iter().collect(),
        eids: eid.map(local).into_iter().collect(),
        trusted_core: Some(core),
        ..ControlConfig::of(role)
    }
}
