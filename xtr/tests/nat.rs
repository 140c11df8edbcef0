//! NAT traversal from end to end (draft-ermagan-lisp-nat-traversal): an xTR behind a NAT, RTRs, and a Map-Server, under one clock.
//!
//! ```text
//!   xTR 192.168.1.2 --- NAT 198.51.100.99 --- 198.51.100.1, 198.51.100.4 RTRs --- 198.51.100.2 Map-Server
//! ```
//! The NAT is of the strictest kind: a binding for every destination, through which nobody else gets in.
use mapping::auth::{self, Covered};
use mapping::config::{
    Algorithm, MappingConfig, Profile, Rtr, RtrKey, Secret, Site, SiteKey, SitePrefix,
};
use mapping::discard::Discard;
use mapping::eid::{Eid, EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::timers;
use mapping::transmit::{SourcePort, Transmit};
use mapping::wire::{
    CONTROL_PORT, EidRecord, EncapsulatedControlMessage, LocatorRecord, MapNotify, MapRegister,
    MapReply, Message, XtrIdentity,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use xtr::config::{
    ControlConfig, Endpoint, LocalEid, Nat, NatRtr, NatXtr, OwnRloc, Role, RtrMapServer,
};
use xtr::control::{ControlPlane, Event};
use xtr::fib::{Adjacency, FibUpdate, Ports, Verdict};
use xtr::punt::Punt;

const XTR: &str = "192.168.1.2";
const OUTSIDE: &str = "198.51.100.99";
const RTR: &str = "198.51.100.1";
const RTR_2: &str = "198.51.100.4";
const SERVER: &str = "198.51.100.2";
const SITE: &str = "203.0.113.0/26";
const SITE_6: &str = "2001:db8:e001::/48";
const EPHEMERAL: u16 = 40_000;
const KEEPALIVE: Duration = Duration::from_secs(20);
const XTR_ID: u128 = 0x0011_2233;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn rtr_key() -> RtrKey {
    RtrKey {
        id: 5,
        secret: Secret::new(b"of the RTRs".to_vec()),
        algorithm: Algorithm::HmacSha256,
        profile: Profile::Rfc9301,
    }
}

fn control(role: Role, rloc: &str, nat: Nat) -> ControlConfig {
    ControlConfig {
        rlocs: vec![OwnRloc::new("core4", ip(rloc), 3, 70)],
        map_resolvers: vec![Endpoint::Address(ip(SERVER))],
        probe: Some(Default::default()),
        nat: Some(nat),
        ..ControlConfig::of(role)
    }
}

fn xtr() -> ControlConfig {
    let server = xtr::config::MapServer {
        endpoint: Endpoint::Address(ip(SERVER)),
        key_id: 1,
        secret: Secret::new(b"of the site".to_vec()),
        algorithm: Algorithm::HmacSha256Hkdf,
        profile: Profile::Rfc9301,
        covers: Covered::Message,
    };
    let eids = [SITE, SITE_6];
    ControlConfig {
        map_servers: vec![server],
        eids: eids.map(|eid| LocalEid { prefix: prefix(eid), locator_set: Vec::new() }).to_vec(),
        identity: Some(XtrIdentity { xtr_id: XTR_ID, site_id: 9 }),
        ..control(Role::Xtr, XTR, Nat::Xtr(NatXtr { keepalive: KEEPALIVE }))
    }
}

fn rtr(rloc: &str) -> ControlConfig {
    let map_servers = vec![RtrMapServer { address: ip(SERVER), key: rtr_key() }];
    let eid_prefixes = ["203.0.113.0/24", "2001:db8:e000::/36"];
    let eid_prefixes = eid_prefixes.map(|text| text.parse().expect("prefix")).to_vec();
    let timeout = timers::REGISTRATION_TIMEOUT;
    let instance_id = InstanceId::DEFAULT;
    let nat = NatRtr { map_servers, instance_id, eid_prefixes, timeout };
    control(Role::Proxy, rloc, Nat::Rtr(nat))
}

/// A tunnel router, and what it told its data plane.
struct Router {
    control: ControlPlane,
    fib: BTreeMap<EidPrefix, Verdict>,
    events: Vec<Event>,
}

impl Router {
    fn new(config: ControlConfig, now: Instant) -> Self {
        let control = ControlPlane::new(config, now, [7; 32], 1_000);
        Self { control, fib: BTreeMap::new(), events: Vec::new() }
    }

    fn collect(&mut self) -> Vec<Transmit> {
        while let Some(update) = self.control.poll_fib_update() {
            match update {
                FibUpdate::Insert(prefix, verdict) => drop(self.fib.insert(prefix, verdict)),
                FibUpdate::Remove(prefix) => drop(self.fib.remove(&prefix)),
            }
        }
        while let Some(event) = self.control.poll_event() {
            self.events.push(event);
        }
        std::iter::from_fn(|| self.control.poll_transmit()).collect()
    }

    /// Where packets for an EID-prefix go.
    fn way(&self, eid: &str) -> Option<(SocketAddr, Ports)> {
        let adjacency = |a: &Adjacency| (SocketAddr::new(a.destination, port_of(a.ports)), a.ports);
        match self.fib.get(&prefix(eid)) {
            Some(Verdict::Encapsulate(set)) => set.adjacencies.first().map(adjacency),
            _ => None,
        }
    }

    fn discarded(&self, reason: Discard) -> u64 {
        self.control.discards().get(reason)
    }
}

fn port_of(ports: Ports) -> u16 {
    match ports {
        Ports::Translated(port) => port,
        Ports::ByFlow | Ports::Static => 4341,
    }
}

/// One datagram on the public side.
#[derive(Clone, Debug)]
struct Seen {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

struct World {
    now: Instant,
    server: MapServer,
    xtr: Router,
    rtrs: Vec<(IpAddr, Router)>,
    /// Inside and remote end, to the outside.
    bindings: BTreeMap<(SocketAddr, SocketAddr), u16>,
    next_port: u16,
    is_translating: bool,
    dead: Vec<IpAddr>,
    /// Everything that went by on the public side.
    seen: Vec<Seen>,
}

impl World {
    fn new() -> Self {
        Self::with(true, &[RTR])
    }

    fn with(is_translating: bool, rtrs: &[&str]) -> Self {
        let now = Instant::now();
        let key = SiteKey {
            id: 1,
            secret: Secret::new(b"of the site".to_vec()),
            algorithms: vec![Algorithm::HmacSha256Hkdf],
        };
        let prefixes = [SITE, SITE_6]
            .map(|eid| SitePrefix { prefix: prefix(eid), accept_more_specifics: false });
        let mut mapping = MappingConfig::new("ms", vec![ip(SERVER)]);
        mapping.sites = vec![Site::new("a", vec![key], prefixes.to_vec())];
        mapping.rtrs =
            rtrs.iter().map(|rtr| Rtr { address: ip(rtr), key: Some(rtr_key()) }).collect();
        let mut world = Self {
            now,
            server: MapServer::new(mapping, [3; 32]),
            xtr: Router::new(xtr(), now),
            rtrs: rtrs.iter().map(|text| (ip(text), Router::new(rtr(text), now))).collect(),
            bindings: BTreeMap::new(),
            next_port: 20_000,
            is_translating,
            dead: Vec::new(),
            seen: Vec::new(),
        };
        world.run(seconds(3));
        world
    }

    fn rtr(&mut self) -> &mut Router {
        &mut self.rtrs[0].1
    }

    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            self.exchange();
            let routers = self.rtrs.iter().map(|(_, router)| router.control.poll_timeout());
            let timers =
                routers.chain([self.server.poll_timeout(), self.xtr.control.poll_timeout()]);
            let Some(next) = timers.flatten().min().filter(|at| *at <= end) else { break };
            // Whatever goes by takes a while.
            self.now = self.now.max(next) + Duration::from_millis(1);
            self.server.handle_timeout(self.now);
            self.xtr.control.handle_timeout(self.now);
            for (_, router) in &mut self.rtrs {
                router.control.handle_timeout(self.now);
            }
        }
        self.now = self.now.max(end);
    }

    /// Delivers until nothing is under way.
    fn exchange(&mut self) {
        loop {
            let mut public = VecDeque::new();
            for transmit in self.xtr.collect() {
                let inside = SocketAddr::new(transmit.source, port(transmit.source_port));
                let outside = self.translate(inside, transmit.destination);
                public.push_back(Seen {
                    from: outside,
                    to: transmit.destination,
                    payload: transmit.payload,
                });
            }
            for (_, router) in &mut self.rtrs {
                public.extend(router.collect().into_iter().map(seen));
            }
            while let Some(transmit) = self.server.poll_transmit() {
                public.push_back(seen(transmit));
            }
            while self.server.poll_event().is_some() {}
            if public.is_empty() {
                return;
            }
            for datagram in public {
                self.seen.push(datagram.clone());
                self.deliver(&datagram);
            }
        }
    }

    fn translate(&mut self, inside: SocketAddr, remote: SocketAddr) -> SocketAddr {
        if !self.is_translating {
            return inside;
        }
        let next = &mut self.next_port;
        let port = *self.bindings.entry((inside, remote)).or_insert_with(|| {
            *next += 1;
            *next
        });
        SocketAddr::new(ip(OUTSIDE), port)
    }

    /// The NAT loses its memory.
    fn rebind(&mut self) {
        self.bindings.clear();
    }

    fn deliver(&mut self, datagram: &Seen) {
        let Seen { from, to, payload } = datagram;
        if self.dead.contains(&to.ip()) || self.dead.contains(&from.ip()) {
            return;
        }
        let now = self.now;
        if to.ip() == ip(SERVER) {
            self.server.handle_input(now, *to, *from, payload);
        } else if let Some((_, router)) = self.rtrs.iter_mut().find(|(rtr, _)| *rtr == to.ip()) {
            router.control.handle_input(now, *to, *from, payload);
        } else if to.ip() == ip(OUTSIDE) {
            let binding = self
                .bindings
                .iter()
                .find(|((_, remote), port)| remote == from && **port == to.port());
            if let Some((&(inside, _), _)) = binding {
                self.arrive(inside, *from, payload);
            }
        } else if to.ip() == ip(XTR) {
            self.arrive(*to, *from, payload);
        }
    }

    fn arrive(&mut self, local: SocketAddr, from: SocketAddr, payload: &[u8]) {
        if local.port() != 4341 {
            return self.xtr.control.handle_input(self.now, local, from, payload);
        }
        assert_eq!(payload[..8], [0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0], "I-bit and Instance ID");
        let (local, rloc, packet) = (local.ip(), from.ip(), payload[8..].into());
        self.xtr.control.handle_punt(self.now, &Punt::ControlInData { local, rloc, packet });
    }

    /// The port of the NAT that the RTR sees port 4341 as.
    fn data_binding(&self) -> SocketAddr {
        let key = (at(XTR, 4341), at(RTR, CONTROL_PORT));
        SocketAddr::new(ip(OUTSIDE), self.bindings[&key])
    }

    fn registered(&self) -> usize {
        self.server.registrations_view(self.now).len()
    }

    /// The last ECM-ed Map-Register that went by to `to`.
    fn last_register(&self, to: &str) -> (Seen, EncapsulatedControlMessage, MapRegister) {
        let found = self.seen.iter().rev().find_map(|seen| {
            let Ok(Message::Encapsulated(ecm)) = Message::parse(&seen.payload) else { return None };
            let Ok(Message::MapRegister(register)) = Message::parse(&ecm.message) else {
                return None;
            };
            (seen.to.ip() == ip(to)).then(|| (seen.clone(), ecm, register))
        });
        found.expect("a Map-Register")
    }

    fn state(&self) -> String {
        self.xtr.control.nat_view(self.now).expect("on").rlocs[0].state.clone()
    }
}

fn seen(transmit: Transmit) -> Seen {
    let from = SocketAddr::new(transmit.source, port(transmit.source_port));
    Seen { from, to: transmit.destination, payload: transmit.payload }
}

fn port(port: SourcePort) -> u16 {
    match port {
        SourcePort::Control => CONTROL_PORT,
        SourcePort::Ephemeral => EPHEMERAL,
        SourcePort::Data => 4341,
    }
}

#[test]
fn nt_01_nt_03_an_info_request_per_rloc_tells_whether_there_is_a_nat() {
    let world = World::new();
    let Some(Seen { from, to, payload }) = world.seen.first() else { panic!("nothing was sent") };
    assert_eq!((from.ip(), *to), (ip(OUTSIDE), at(SERVER, CONTROL_PORT)));
    let Ok(Message::InfoRequest(request)) = Message::parse(payload) else { panic!("{payload:?}") };
    assert_ne!(request.nonce, 0);
    let secret = Secret::new(b"of the site".to_vec());
    assert!(auth::verify(payload, &secret, &[Algorithm::HmacSha256Hkdf]).is_ok());
    let view = world.xtr.control.nat_view(world.now).expect("on");
    assert_eq!(view.rlocs[0].seen_as, Some(*from), "how the Map-Server saw it");
    assert_eq!((view.rlocs[0].rtr, view.rlocs[0].rtrs.len()), (Some(ip(RTR)), 1));
    assert_eq!(world.state(), "registered");
}

#[test]
fn nt_03_without_a_nat_nothing_changes() {
    let mut world = World::with(false, &[RTR]);
    assert_eq!((world.state().as_str(), world.registered()), ("outside", 2));
    assert!(world.rtr().way(SITE).is_none());
    assert!(world.xtr.way("0.0.0.0/0").is_none());
    let plain = |seen: &Seen| matches!(Message::parse(&seen.payload), Ok(Message::MapRegister(_)));
    assert!(world.seen.iter().any(plain), "a Map-Register of the usual kind");
}

#[test]
fn nt_04_nt_05_the_map_register_goes_through_the_rtr_with_the_rtrs_locators() {
    let world = World::new();
    let (seen, ecm, register) = world.last_register(RTR);
    assert_eq!((seen.from, seen.to), (world.data_binding(), at(RTR, CONTROL_PORT)), "from 4341");
    assert!(ecm.to_rtr && !ecm.relayed);
    assert_eq!((ecm.source.ip(), ecm.destination), (ip(XTR), at(SERVER, CONTROL_PORT)));
    assert!(register.proxy_reply && register.want_map_notify);
    assert_eq!(register.identity, Some(XtrIdentity { xtr_id: XTR_ID, site_id: 9 }));
    for record in &register.records {
        let locators: Vec<_> = record
            .locators
            .iter()
            .map(|l| (l.address.rloc(), l.reachable, l.local, l.priority, l.weight))
            .collect();
        let own = (Some(ip(XTR)), false, true, 3, 70);
        assert_eq!(locators, [own, (Some(ip(RTR)), true, false, 3, 70)]);
    }
}

#[test]
fn nt_06_the_rtr_relays_it_as_it_is() {
    let mut world = World::new();
    let (_, inside, _) = world.last_register(RTR);
    let (seen, ecm, _) = world.last_register(SERVER);
    assert_eq!((seen.from, seen.to), (at(RTR, CONTROL_PORT), at(SERVER, CONTROL_PORT)));
    assert!(ecm.relayed && !ecm.to_rtr && ecm.security.is_none());
    assert_eq!((ecm.source, &ecm.message), (inside.source, &inside.message));
    assert_eq!(world.registered(), 2);
    let now = world.now;
    let view = world.rtr().control.nat_view(now).expect("on");
    assert_eq!((view.sites.len(), view.unverified), (2, 0));
}

#[test]
fn nt_06_what_is_not_verified_opens_no_way_and_is_forgotten() {
    let mut world = World::new();
    let (_, ecm, mut register) = world.last_register(RTR);
    let before = world.rtr().way(SITE);
    // A stranger registers the site for himself: it goes on, but the Map-Server knows better.
    register.nonce += 1_000;
    let forged =
        EncapsulatedControlMessage { message: Message::MapRegister(register).to_vec(), ..ecm };
    let stranger = at("198.51.100.66", 4341);
    world.deliver(&Seen {
        from: stranger,
        to: at(RTR, CONTROL_PORT),
        payload: Message::Encapsulated(forged).to_vec(),
    });
    let now = world.now;
    assert_eq!(world.rtr().control.nat_view(now).expect("on").unverified, 1);
    world.run(seconds(12));
    let now = world.now;
    assert_eq!(world.rtr().control.nat_view(now).expect("on").unverified, 0);
    assert_eq!(world.rtr().way(SITE), before);
}

#[test]
fn nt_06_a_recorded_map_register_sent_again_moves_nothing() {
    let mut world = World::new();
    let (mut seen, ..) = world.last_register(RTR);
    let before = world.rtr().way(SITE);
    seen.from = at("198.51.100.66", 4341);
    world.deliver(&seen);
    world.run(seconds(1));
    assert_eq!(world.rtr().discarded(Discard::Replayed), 1);
    assert_eq!(world.rtr().way(SITE), before);
}

#[test]
fn nt_06_only_for_known_map_servers_own_eids_and_named_xtrs() {
    let mut world = World::new();
    let (seen, ecm, register) = world.last_register(RTR);
    let send = |world: &mut World, ecm: EncapsulatedControlMessage| {
        let payload = Message::Encapsulated(ecm).to_vec();
        world.deliver(&Seen { payload, ..seen.clone() });
        world.seen.clear();
        world.exchange();
        assert!(world.seen.is_empty(), "relayed");
    };
    let of = |register: MapRegister| EncapsulatedControlMessage {
        message: Message::MapRegister(register).to_vec(),
        ..ecm.clone()
    };
    let elsewhere = at("198.51.100.77", CONTROL_PORT);
    send(&mut world, EncapsulatedControlMessage { destination: elsewhere, ..ecm.clone() });
    send(&mut world, of(MapRegister { identity: None, ..register.clone() }));
    let foreign = EidRecord::new(prefix("192.0.2.0/24"), 3, Vec::new());
    send(&mut world, of(MapRegister { records: vec![foreign], ..register.clone() }));
    send(&mut world, of(MapRegister { records: Vec::new(), ..register }));
    let rtr = world.rtr();
    assert_eq!(rtr.discarded(Discard::RelayRefused), 1);
    assert_eq!(rtr.discarded(Discard::XtrUnidentified), 1);
    assert_eq!(rtr.discarded(Discard::NatEidRefused), 2);
}

#[test]
fn nt_06_a_flood_of_map_registers_is_bounded() {
    let mut world = World::new();
    let (_, ecm, register) = world.last_register(RTR);
    for number in 0..20_000u32 {
        let from =
            SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0b00_0000 + number).into(), 4341);
        let register = MapRegister { nonce: u64::from(number) + 1_000_000, ..register.clone() };
        let message = Message::MapRegister(register).to_vec();
        let payload =
            Message::Encapsulated(EncapsulatedControlMessage { message, ..ecm.clone() }).to_vec();
        let now = world.now;
        world.rtr().control.handle_input(now, at(RTR, CONTROL_PORT), from, &payload);
        world.rtr().collect();
    }
    let now = world.now;
    let unverified = world.rtr().control.nat_view(now).expect("on").unverified;
    assert!(unverified <= timers::RTR_PENDING_LIMIT as u64, "{unverified}");
    assert!(world.rtr().discarded(Discard::NatFull) > 0);
}

#[test]
fn nt_08_the_map_notify_comes_back_through_the_nat() {
    let world = World::new();
    let to_nat = |seen: &&Seen| seen.to == world.data_binding();
    let Some(Seen { from, payload, .. }) = world.seen.iter().find(to_nat) else { panic!("none") };
    assert_eq!(*from, at(RTR, CONTROL_PORT));
    assert_eq!(payload[..8], [0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    let Ok(Message::Encapsulated(ecm)) =
        Message::parse(&[&[0x80, 0, 0, 0], &payload[8..]].concat())
    else {
        panic!("IP, UDP and a message")
    };
    assert_eq!((ecm.source, ecm.destination), (at(SERVER, CONTROL_PORT), at(XTR, CONTROL_PORT)));
    assert!(matches!(Message::parse(&ecm.message), Ok(Message::MapNotify(_))));
}

#[test]
fn nt_08_a_map_notify_that_is_not_proved_is_dropped() {
    let mut world = World::new();
    let before = world.rtr().way(SITE);
    let notify = world.seen.iter().rev().find(|seen| {
        let message = Message::parse(&seen.payload);
        matches!(message, Ok(Message::Encapsulated(ecm)) if ecm.to_rtr)
            && seen.from == at(SERVER, CONTROL_PORT)
    });
    let notify = notify.expect("a Map-Notify").clone();
    let Ok(Message::Encapsulated(ecm)) = Message::parse(&notify.payload) else { panic!() };
    let with = |ecm: EncapsulatedControlMessage| Seen {
        payload: Message::Encapsulated(ecm).to_vec(),
        ..notify.clone()
    };
    let mut altered = ecm.clone();
    *altered.message.last_mut().expect("octets") ^= 1;
    for (datagram, reason) in [
        (with(EncapsulatedControlMessage { security: None, ..ecm.clone() }), Discard::NatUnproved),
        (with(altered), Discard::AuthenticationFailed),
        (
            Seen { from: at("198.51.100.66", CONTROL_PORT), ..notify.clone() },
            Discard::MapServerUnknown,
        ),
    ] {
        let count = world.rtr().discarded(reason);
        world.deliver(&datagram);
        world.exchange();
        assert_eq!(world.rtr().discarded(reason), count + 1, "{reason}");
    }
    // One that is proved, but recorded: the xTR may look at it.
    world.deliver(&notify);
    world.exchange();
    assert_eq!(world.xtr.control.counters_view()["map_notifies_received"], 1);
    assert_eq!(world.rtr().way(SITE), before);
}

#[test]
fn nt_09_a_map_notify_of_another_xtr_is_logged_and_dropped() {
    let mut world = World::new();
    let binding = world.data_binding();
    let notify = world.seen.iter().rev().find(|seen| seen.to == binding).expect("one").clone();
    let Ok(Message::Encapsulated(mut ecm)) =
        Message::parse(&[&[0x80, 0, 0, 0], &notify.payload[8..]].concat())
    else {
        panic!()
    };
    let Ok(Message::MapNotify(inner)) = Message::parse(&ecm.message) else { panic!() };
    let other = XtrIdentity { xtr_id: 77, site_id: 9 };
    ecm.message = Message::MapNotify(MapNotify { identity: Some(other), ..inner }).to_vec();
    let packet: Box<[u8]> = Message::Encapsulated(ecm).to_vec()[4..].into();
    let punt = |rloc, packet| Punt::ControlInData { local: ip(XTR), rloc, packet };
    world.xtr.control.handle_punt(world.now, &punt(ip(RTR), packet));
    world.xtr.collect();
    assert_eq!(world.xtr.discarded(Discard::XtrOther), 1);
    let told = Event::NotifyOfOther { rtr: ip(RTR), identity: other };
    assert!(world.xtr.events.contains(&told));
    // And one that comes from somebody else, and what is no message.
    world
        .xtr
        .control
        .handle_punt(world.now, &punt(ip("198.51.100.66"), notify.payload[8..].into()));
    assert_eq!(world.xtr.discarded(Discard::NatBindingUnknown), 1);
    for len in 0..60 {
        world.xtr.control.handle_punt(world.now, &punt(ip(RTR), notify.payload[8..8 + len].into()));
    }
}

#[test]
fn nt_10_map_registers_keep_the_binding() {
    let mut world = World::new();
    let count = |world: &World| {
        let register = |seen: &&Seen| {
            seen.from.ip() == ip(OUTSIDE)
                && matches!(Message::parse(&seen.payload), Ok(Message::Encapsulated(ecm)) if ecm.to_rtr)
        };
        world.seen.iter().filter(register).count()
    };
    world.run(seconds(400));
    let before = count(&world);
    world.run(seconds(600));
    assert_eq!(count(&world) - before, 600 / KEEPALIVE.as_secs() as usize, "not every 60 s");
}

#[test]
fn nt_10_a_nat_that_forgets_is_passed_again_within_one_keepalive() {
    let mut world = World::new();
    world.run(seconds(47));
    let before = world.data_binding();
    world.rebind();
    world.run(KEEPALIVE + seconds(1));
    let after = world.data_binding();
    assert_ne!(before, after);
    let way = Some((after, Ports::Translated(after.port())));
    assert_eq!(world.rtr().way(SITE), way);
    assert_eq!(world.rtr().way(SITE_6), way);
    let moved = Event::NatSiteMoved { prefix: prefix(SITE), from: before, to: after };
    assert!(world.rtr().events.contains(&moved));
    assert_eq!(world.state(), "registered");
}

#[test]
fn nt_11_everything_goes_to_the_rtr_from_one_port() {
    let world = World::new();
    for everything in ["0.0.0.0/0", "::/0"] {
        assert_eq!(world.xtr.way(everything), Some((at(RTR, 4341), Ports::Static)));
    }
    assert!(matches!(world.xtr.fib.get(&prefix(SITE)), Some(Verdict::Native)), "own EIDs stay");
}

#[test]
fn nt_11_behind_a_nat_no_rloc_is_probed_and_none_goes_down() {
    let mut world = World::new();
    world.seen.clear();
    world.run(seconds(600));
    let probe = |seen: &&Seen| matches!(Message::parse(&seen.payload), Ok(Message::MapRequest(_)));
    assert_eq!(world.seen.iter().find(probe).map(|seen| (seen.from, seen.to)), None);
    assert!(world.xtr.way("::/0").is_some());
    assert!(world.rtr().way(SITE).is_some());
}

#[test]
fn nt_12_packets_for_a_registered_eid_go_to_the_translated_port() {
    let mut world = World::new();
    let binding = world.data_binding();
    for eid in [SITE, SITE_6] {
        let way = world.rtr().way(eid);
        assert_eq!(way, Some((binding, Ports::Translated(binding.port()))));
    }
}

#[test]
fn nt_12_what_is_registered_at_an_rtr_is_not_cleared_with_the_map_cache() {
    let mut world = World::new();
    let way = world.rtr().way(SITE);
    assert!(way.is_some());
    let now = world.now;
    for which in [None, Some(prefix(SITE)), Some(prefix("203.0.113.7/32"))] {
        let rtr = world.rtr();
        assert_eq!(rtr.control.clear_map_cache(now, which.as_ref()), 0, "{which:?}");
        rtr.collect();
        assert_eq!(rtr.way(SITE), way, "{which:?}");
    }
    // Nobody has to be asked, and the next keepalive goes on as ever.
    world.run(KEEPALIVE * 2);
    assert_eq!(world.rtr().way(SITE), way);
    assert!(!world.rtr().events.contains(&Event::NatSiteGone(prefix(SITE))));
}

#[test]
fn nt_12_without_keepalives_the_way_ends() {
    let mut world = World::new();
    world.dead.push(ip(OUTSIDE));
    world.run(timers::REGISTRATION_TIMEOUT + seconds(2));
    assert_eq!(world.rtr().way(SITE), None);
    assert!(world.rtr().events.contains(&Event::NatSiteGone(prefix(SITE))));
    world.dead.clear();
    world.run(seconds(70));
    assert!(world.rtr().way(SITE).is_some(), "and begins again");
}

#[test]
fn nt_12_an_xtr_that_leaves_takes_its_way_with_it() {
    let mut world = World::new();
    world.xtr.control.shutdown(world.now);
    world.run(seconds(1));
    assert!(world.xtr.control.is_deregistered());
    assert_eq!((world.rtr().way(SITE), world.registered()), (None, 0));
}

#[test]
fn nt_13_a_map_reply_with_the_rtrs_locator_changes_nothing() {
    let mut world = World::new();
    let binding = world.data_binding();
    // Somebody who was asked about the prefix from before it was registered answers late.
    let reply = |world: &mut World, rloc: &str| {
        let now = world.now;
        let rtr = &mut world.rtrs[0].1;
        let (destination, source) =
            (Eid::new(InstanceId::DEFAULT, ip("203.0.113.70")), ip("192.0.2.1"));
        rtr.control.handle_punt(now, &Punt::Miss { destination, source });
        let nonce = rtr.collect().iter().find_map(|transmit| {
            let Ok(Message::Encapsulated(ecm)) = Message::parse(&transmit.payload) else {
                return None;
            };
            ecm.map_request().ok().map(|request| request.nonce)
        });
        let mut record =
            EidRecord::new(prefix(SITE), 3, vec![LocatorRecord::new(ip(rloc), 1, 100)]);
        record.authoritative = true;
        let mut covering = EidRecord::new(
            prefix("203.0.113.64/26"),
            3,
            vec![LocatorRecord::new(ip(rloc), 1, 100)],
        );
        covering.authoritative = true;
        let reply = MapReply::new(nonce.expect("a lookup"), vec![covering, record]);
        let payload = Message::MapReply(reply).to_vec();
        rtr.control.handle_input(now, at(RTR, CONTROL_PORT), at(SERVER, CONTROL_PORT), &payload);
        rtr.collect();
    };
    reply(&mut world, RTR);
    assert_eq!(world.rtr().way(SITE), Some((binding, Ports::Translated(binding.port()))));
}

#[test]
fn an_rtr_that_is_silent_is_left_for_another() {
    let mut world = World::with(true, &[RTR, RTR_2]);
    assert!(world.rtrs[0].1.way(SITE).is_some() && world.rtrs[1].1.way(SITE).is_none());
    world.dead.push(ip(RTR));
    world.run(seconds(60));
    assert!(world.rtrs[1].1.way(SITE).is_some(), "through the other");
    assert_eq!(world.xtr.way("::/0"), Some((at(RTR_2, 4341), Ports::Static)));
    let (_, _, register) = world.last_register(RTR_2);
    let rlocs: Vec<_> = register.records[0].locators.iter().map(|l| l.address.rloc()).collect();
    assert_eq!(rlocs, [Some(ip(XTR)), Some(ip(RTR_2))]);
    assert_eq!(world.state(), "registered");
}

#[test]
fn a_map_server_that_says_nothing_is_asked_on_and_nothing_is_registered() {
    let mut world = World::with(true, &[]);
    world.run(seconds(120));
    assert_eq!((world.state().as_str(), world.registered()), ("unknown", 0));
    assert!(world.xtr.events.contains(&Event::NatUnknown(ip(XTR))));
    let asked = world
        .seen
        .iter()
        .filter(|seen| matches!(Message::parse(&seen.payload), Ok(Message::InfoRequest(_))));
    assert!((5..=12).contains(&asked.count()));
}

#[test]
fn an_rloc_that_leaves_its_nat_is_registered_as_it_is() {
    let mut world = World::new();
    world.run(seconds(30));
    world.is_translating = false;
    world.run(seconds(600));
    assert_eq!(world.state(), "outside");
    assert!(world.xtr.way("::/0").is_none(), "looked up again");
    let rlocs = |world: &World| -> Vec<IpAddr> {
        let view = world.server.registrations_view(world.now);
        view[0].locators.iter().map(|locator| locator.rloc).collect()
    };
    assert_eq!(rlocs(&world), [ip(XTR)]);
    assert!(world.xtr.events.contains(&Event::NatGone(ip(XTR))));
}

#[test]
fn nt_05_map_registers_through_an_rtr_fit_any_path() {
    let mut config = xtr();
    config.eids = (0..64u8)
        .map(|n| LocalEid { prefix: prefix(&format!("203.0.113.{n}/32")), locator_set: Vec::new() })
        .collect();
    let mut world = World::new();
    world.xtr = Router::new(config, world.now);
    world.seen.clear();
    world.run(seconds(5));
    let registers = world.seen.iter().filter(|seen| seen.to == at(RTR, CONTROL_PORT));
    let lengths: Vec<usize> = registers.map(|seen| seen.payload.len()).collect();
    assert!(lengths.len() > 4 && lengths.iter().all(|&len| len <= 548), "{lengths:?}");
}
