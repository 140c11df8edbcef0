//! A network of Map-Servers, DDT nodes, Map-Resolvers, ETRs and ITRs under simulated time, that may lose packets.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::auth;
use crate::config::{self, Algorithm, MappingConfig, Secret, SiteKey, SitePrefix};
use crate::server::MapServer;
use crate::wire::{AuthenticationData, EidRecord, MapRegister, MapReply};

const SECRET: &[u8] = b"secret";
/// Between two registrations of an ETR.
const REGISTRATION: Duration = Duration::from_secs(60);
const ITR_RETRY: Duration = Duration::from_secs(1);
/// More than an ITR does at a stretch, so that only the network decides.
const ITR_TRIES: usize = 40;

/// A site of a Map-Server, and the ETR that registers all of its EID-prefix.
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) prefix: &'static str,
    pub(super) etr: &'static str,
}

/// The configuration of `sites`; all have the same secret.
pub(super) fn sites(sites: &[Site]) -> Vec<config::Site> {
    let site = |site: &Site| {
        let key = SiteKey {
            id: 1,
            secret: Secret::new(SECRET.to_vec()),
            algorithms: vec![Algorithm::HmacSha256],
        };
        let configured = SitePrefix { prefix: prefix(site.prefix), accept_more_specifics: false };
        config::Site::new(site.prefix, vec![key], vec![configured])
    };
    sites.iter().map(site).collect()
}

/// A signed Map-Register without want-map-notify.
pub(super) fn register(nonce: u64, registered: EidPrefix, etr: &str, proxy: bool) -> Vec<u8> {
    let message = MapRegister {
        proxy_reply: proxy,
        security_capable: false,
        eid_notify: false,
        use_ttl: false,
        merge: false,
        want_map_notify: false,
        nonce,
        authentication: AuthenticationData::zeroed(1, 2, auth::MAC_LEN),
        records: vec![mapping(registered, etr)],
        identity: None,
    };
    let mut octets = Vec::new();
    message.encode(&mut octets);
    auth::sign(&mut octets, &Secret::new(SECRET.to_vec()), Algorithm::HmacSha256).unwrap();
    octets
}

fn mapping(registered: EidPrefix, etr: &str) -> EidRecord {
    EidRecord::new(registered, 1_440, vec![LocatorRecord::new(ip(etr), 1, 100)])
}

/// A packet on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: Vec<u8>,
}

struct Node {
    config: MappingConfig,
    server: MapServer,
    up: bool,
}

/// One EID that an ITR looks for.
#[derive(Debug)]
struct Search {
    eid: EidPrefix,
    itr: &'static str,
    resolver: IpAddr,
    nonces: Vec<u64>,
    next: Instant,
    answer: Option<EidRecord>,
}

pub(super) struct World {
    pub(super) now: Instant,
    loss: f64,
    rng: StdRng,
    nodes: BTreeMap<IpAddr, Node>,
    etrs: Vec<(Site, Vec<IpAddr>)>,
    flight: BTreeMap<(Instant, u64), Datagram>,
    sequence: u64,
    next_registration: Instant,
    searches: Vec<Search>,
    /// Every packet sent, lost ones too.
    pub(super) sent: Vec<Datagram>,
}

impl World {
    pub(super) fn new(seed: u8, loss: f64) -> Self {
        let now = Instant::now();
        Self {
            now,
            loss,
            rng: StdRng::from_seed([seed; 32]),
            nodes: BTreeMap::new(),
            etrs: Vec::new(),
            flight: BTreeMap::new(),
            sequence: 0,
            next_registration: now,
            searches: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// A node with the sites and the place in the tree that `config` says; its own address is in `listen`.
    pub(super) fn add(&mut self, address: &str, served: &[Site], ddt: DdtConfig) {
        let mut config = MappingConfig::new(address, ips(&[address]));
        config.sites = sites(served);
        config.ddt = ddt;
        let server = MapServer::new(config.clone(), [1; 32]);
        self.nodes.insert(ip(address), Node { config, server, up: true });
        for site in served {
            match self.etrs.iter_mut().find(|(other, _)| other.prefix == site.prefix) {
                Some((_, map_servers)) => map_servers.push(ip(address)),
                None => self.etrs.push((*site, vec![ip(address)])),
            }
        }
    }

    /// The process at `address` dies, with all it knew.
    pub(super) fn crash(&mut self, address: &str) {
        let node = self.nodes.get_mut(&ip(address)).unwrap();
        node.server = MapServer::new(node.config.clone(), [2; 32]);
        node.up = false;
    }

    /// It is started again.
    pub(super) fn start(&mut self, address: &str) {
        self.nodes.get_mut(&ip(address)).unwrap().up = true;
    }

    pub(super) fn server(&self, address: &str) -> &MapServer {
        &self.nodes[&ip(address)].server
    }

    /// `itr` begins to look for `eid` at `resolver`.
    pub(super) fn look_for(&mut self, eid: &str, itr: &'static str, resolver: &str) {
        let eid = host(eid);
        let (resolver, next) = (ip(resolver), self.now);
        self.searches.push(Search { eid, itr, resolver, nonces: Vec::new(), next, answer: None });
    }

    /// What the ITRs were told, in the order of the questions, which are then forgotten.
    pub(super) fn answers(&mut self) -> Vec<Option<EidRecord>> {
        self.searches.drain(..).map(|search| search.answer).collect()
    }

    /// Runs for `period`.
    pub(super) fn run(&mut self, period: Duration) {
        let end = self.now + period;
        loop {
            let timeouts = self.nodes.values().filter(|node| node.up);
            let next = timeouts
                .filter_map(|node| node.server.poll_timeout())
                .chain(self.flight.keys().next().map(|(at, _)| *at))
                .chain(self.searches.iter().filter(|s| s.is_open()).map(|search| search.next))
                .chain([self.next_registration])
                .min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        if self.next_registration <= self.now {
            self.register_all();
        }
        self.ask();
        while let Some(entry) = self.flight.first_entry()
            && entry.key().0 <= self.now
        {
            let datagram = entry.remove();
            self.deliver(&datagram);
        }
        for address in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&address).unwrap();
            if node.up {
                node.server.handle_timeout(self.now);
                self.flush(address);
            }
        }
    }

    fn register_all(&mut self) {
        self.next_registration = self.now + REGISTRATION;
        for (site, map_servers) in self.etrs.clone() {
            for map_server in map_servers {
                self.sequence += 1;
                let octets = register(self.sequence, prefix(site.prefix), site.etr, false);
                self.post(ip(site.etr), 40_000, SocketAddr::new(map_server, CONTROL_PORT), octets);
            }
        }
    }

    fn ask(&mut self) {
        for at in 0..self.searches.len() {
            let search = &mut self.searches[at];
            if !search.is_open() || search.next > self.now {
                continue;
            }
            let nonce = self.rng.random();
            search.nonces.push(nonce);
            search.next = self.now + ITR_RETRY;
            let (itr, resolver) = (search.itr, search.resolver);
            let octets = octets(&ecm(nonce, search.eid, itr));
            self.post(ip(itr), 40_001, SocketAddr::new(resolver, CONTROL_PORT), octets);
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let to = datagram.to.ip();
        if let Some(node) = self.nodes.get_mut(&to) {
            if node.up {
                node.server.handle_input(self.now, datagram.to, datagram.from, &datagram.payload);
                self.flush(to);
            }
            return;
        }
        if let Some(site) = self.etrs.iter().map(|(site, _)| *site).find(|s| ip(s.etr) == to) {
            return self.answer_as_etr(site, datagram);
        }
        let Ok(reply) = MapReply::parse(&datagram.payload) else { return };
        let asked =
            |search: &&mut Search| ip(search.itr) == to && search.nonces.contains(&reply.nonce);
        if let Some(search) = self.searches.iter_mut().find(asked) {
            search.answer = reply.records.first().cloned();
        }
    }

    fn answer_as_etr(&mut self, site: Site, datagram: &Datagram) {
        let Ok(ecm) = EncapsulatedControlMessage::parse(&datagram.payload) else { return };
        let request = ecm.map_request().unwrap();
        let itr = request.rlocs().next().unwrap();
        let reply = MapReply::new(request.nonce, vec![mapping(prefix(site.prefix), site.etr)]);
        let mut octets = Vec::new();
        reply.encode(&mut octets);
        self.post(ip(site.etr), CONTROL_PORT, SocketAddr::new(itr, ecm.source.port()), octets);
    }

    fn flush(&mut self, address: IpAddr) {
        let server = &mut self.nodes.get_mut(&address).unwrap().server;
        let transmits: Vec<Transmit> = std::iter::from_fn(|| server.poll_transmit()).collect();
        while server.poll_event().is_some() {}
        for transmit in transmits {
            let port = match transmit.source_port {
                crate::transmit::SourcePort::Control => CONTROL_PORT,
                crate::transmit::SourcePort::Ephemeral | crate::transmit::SourcePort::Data => {
                    41_000
                }
            };
            self.post(transmit.source, port, transmit.destination, transmit.payload);
        }
    }

    fn post(&mut self, from: IpAddr, port: u16, to: SocketAddr, payload: Vec<u8>) {
        let datagram = Datagram { from: SocketAddr::new(from, port), to, payload };
        self.sent.push(datagram.clone());
        // An ETR repeats its Map-Registers until they are acknowledged: not simulated here.
        let registers = datagram.payload.first().is_some_and(|first| first >> 4 == 3);
        if self.loss > 0.0 && !registers && self.rng.random_bool(self.loss) {
            return;
        }
        self.sequence += 1;
        let delay = Duration::from_millis(self.rng.random_range(1..30));
        self.flight.insert((self.now + delay, self.sequence), datagram);
    }
}

impl Search {
    fn is_open(&self) -> bool {
        self.answer.is_none() && self.nonces.len() < ITR_TRIES
    }
}
