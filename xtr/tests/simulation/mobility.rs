//! A host that moves among three sites, in any weather (DY-01 to DY-05): wherever it ends, all agree, and no packet goes in a circle.
//!
//! The home of the range is the first site; the third one has no EID-prefix of its own.
use super::*;
use xtr::config::DynamicRange;
use xtr::control::{Detection, HostChange, HostSeen};

const SITES: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
const RANGE: &str = "172.16.4.0/24";
const HOST: &str = "172.16.4.7/32";
const LAN: &str = "lan0";

/// What the host does by itself; each one makes itself heard when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It answers ARP, no more.
    Silent,
    /// It sends a packet now and then.
    Talks,
}

struct World {
    network: Network,
    manner: Manner,
    /// Index of the site where the host is, if it runs.
    at: Option<usize>,
    /// Whether others send packets to it.
    has_traffic: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It came to the host's link at this site.
    Delivered(usize),
    /// It was to go back to where it came from.
    Returned,
    Dropped,
    /// It went in a circle.
    Circled,
}

fn dynamic_range() -> DynamicRange {
    DynamicRange {
        range: prefix(RANGE),
        locator_set: Vec::new(),
        interfaces: vec![LAN.to_owned()],
        timeout: DynamicRange::TIMEOUT,
        limit: 10,
        extended_subnet: false,
    }
}

impl World {
    fn new(seed: u8, weather: Weather, proxy_reply: bool, manner: Manner) -> Self {
        let server = |config: &mut MappingConfig| {
            let key = SiteKey { id: 1, secret: key(), algorithms: vec![Algorithm::HmacSha256Hkdf] };
            let range = SitePrefix { prefix: prefix(RANGE), accept_more_specifics: true };
            let other =
                SitePrefix { prefix: prefix("172.16.9.0/24"), accept_more_specifics: false };
            config.sites = vec![Site::new("dc", vec![key], vec![range, other])];
        };
        let router = |number: u64, config: &mut ControlConfig| {
            let address = config.rlocs[0].address;
            let eid = if number == 1 { RANGE } else { "172.16.9.0/24" };
            *config = router_config(Role::Xtr, address, Some(eid), proxy_reply, 1440);
            config.eids.truncate(if number == 3 { 0 } else { 1 });
            // Which locators answer is not the question.
            config.probe = None;
        };
        let mut network = Network::with(seed, weather, proxy_reply, 1440, server, router);
        let now = network.now;
        for site in SITES {
            network.router(site).0.set_dynamic_ranges(now, &[dynamic_range()]);
        }
        let mut world = Self { network, manner, at: None, has_traffic: false };
        world.pass(Duration::from_secs(10));
        world
    }

    fn arrive(&mut self, site: usize) {
        self.at = Some(site);
        self.show_up(site, Detection::Arp);
    }

    fn show_up(&mut self, site: usize, how: Detection) {
        let host = HostSeen {
            interface: Some(LAN.to_owned()),
            address: prefix(HOST).prefix().addr(),
            how,
        };
        let now = self.network.now;
        self.network.router(SITES[site]).0.handle_host(now, &host);
        self.network.collect();
    }

    /// Lets time pass; the host answers, talks, and gets packets.
    fn pass(&mut self, by: Duration) {
        let end = self.network.now + by;
        while self.network.now < end {
            let step = if by > Duration::from_secs(5) { 250 } else { 20 };
            self.network.run(Duration::from_millis(step).min(end.duration_since(self.network.now)));
            for (site, router) in SITES.iter().enumerate() {
                let control = self.network.router(router).0;
                let changes = std::iter::from_fn(|| control.poll_host_change());
                let probed = changes.filter(|one| matches!(one, HostChange::Probe { .. })).count();
                if probed > 0 && self.at == Some(site) {
                    self.show_up(site, Detection::Arp);
                }
            }
            if let (Manner::Talks, Some(site)) = (self.manner, self.at)
                && !matches!(self.verdict(site), Some((_, Verdict::Native)))
            {
                self.show_up(site, Detection::Data);
            }
            if self.has_traffic {
                for site in 0..SITES.len() {
                    self.send(site);
                }
            }
        }
    }

    fn verdict(&mut self, site: usize) -> Option<(EidPrefix, Verdict)> {
        let fib = self.network.router(SITES[site]).1;
        let covering = fib.iter().filter(|(known, _)| known.covers(&prefix(HOST)));
        covering.max_by_key(|(known, _)| known.mask_len()).map(|(p, v)| (*p, v.clone()))
    }

    /// A packet for the host comes from an ITR to a site, and on from there as the data plane has it.
    fn send(&mut self, first: usize) -> Fate {
        let (mut at, mut from) = (first, ip("192.0.2.99"));
        for _ in 0..8 {
            let set = match self.verdict(at) {
                Some((_, Verdict::Native)) => return Fate::Delivered(at),
                Some((_, Verdict::Encapsulate(set))) => set,
                Some((_, Verdict::Drop(_))) => return Fate::Dropped,
                Some((_, Verdict::Miss)) | None => {
                    self.network.miss(SITES[at], "172.16.4.7");
                    return Fate::Dropped;
                }
            };
            let to = set.adjacencies[0].destination;
            let (host, source) = (prefix(HOST).first(), ip("203.0.113.9"));
            let left = Punt::Left { destination: host, source, rloc: from, returns: to == from };
            let now = self.network.now;
            self.network.router(SITES[at]).0.handle_punt(now, &left);
            self.network.collect();
            if to == from {
                return Fate::Returned;
            }
            let next = SITES.iter().position(|site| ip(site) == to);
            (at, from) = (next.expect("a site"), ip(SITES[at]));
        }
        Fate::Circled
    }

    /// The sites that say the host is there.
    fn here(&mut self) -> Vec<usize> {
        let says = |world: &mut Self, site: usize| {
            let control = world.network.router(SITES[site]).0;
            control.own_mappings().any(|own| own.eid.prefix == prefix(HOST))
        };
        (0..SITES.len()).filter(|&site| says(self, site)).collect()
    }

    /// The sites that say it is away, with the locators they name.
    fn away(&mut self) -> Vec<(usize, Vec<IpAddr>)> {
        let now = self.network.now;
        let mut found = Vec::new();
        for (number, site) in SITES.iter().enumerate() {
            let hosts = self.network.router(site).0.mobility_view(now);
            found
                .extend(hosts.into_iter().filter(|h| h.place == "away").map(|h| (number, h.rlocs)));
        }
        found
    }

    /// Who has registered it at the Map-Server.
    fn registrants(&mut self) -> Vec<IpAddr> {
        let now = self.network.now;
        let Some(Node::Server(server)) = self.network.nodes.get(&ip(SERVER)) else {
            return Vec::new();
        };
        let views = server.registrations_view(now).into_iter();
        views.filter(|view| view.prefix == Some(prefix(HOST))).map(|view| view.source).collect()
    }

    /// All agree that the host is where it is.
    fn assert_settled(&mut self, what: &str) {
        let at = self.at.expect("it runs");
        assert_eq!(self.here(), [at], "{what}: who has it");
        assert_eq!(self.registrants(), [ip(SITES[at])], "{what}: who has registered it");
        for (site, rlocs) in self.away() {
            assert_ne!(site, at, "{what}: away from where it is");
            assert_eq!(rlocs, [ip(SITES[at])], "{what}: away at {}", SITES[site]);
        }
        for site in 0..SITES.len() {
            // The first packet may have to ask.
            self.send(site);
            self.pass(Duration::from_secs(15));
            let fate = self.send(site);
            assert_eq!(fate, Fate::Delivered(at), "{what}: a packet to site {site}");
        }
    }

    /// Nobody knows it any more.
    fn assert_forgotten(&mut self, what: &str) {
        assert_eq!(self.here(), Vec::<usize>::new(), "{what}: who has it");
        assert_eq!(self.registrants(), Vec::<IpAddr>::new(), "{what}: who has registered it");
        assert_eq!(self.away(), [], "{what}: who says that it is away");
    }

    fn random(&mut self, below: u32) -> u32 {
        self.network.rng.random_range(0..below)
    }

    /// The host moves about; `first` is where to, if that matters.
    fn wander(&mut self, moves: u32) {
        for _ in 0..moves {
            // At home it is only noticed after having been elsewhere.
            let site = self.random(SITES.len() as u32) as usize;
            self.arrive(site);
            let pause = [0, 1, 40, 300, 1_000, 5_000, 20_000][self.random(7) as usize];
            self.pass(Duration::from_millis(pause));
        }
        let last = 1 + self.random(2) as usize;
        self.arrive(last);
    }
}

/// Every mixture of weather, proxy replies, manner and traffic.
fn worlds(seed: u8) -> impl Iterator<Item = (String, World)> {
    (0..16u8).map(move |mixture| {
        let is = |bit: u8| mixture >> bit & 1 == 1;
        let weather = if is(0) { FOUL } else { FAIR };
        let manner = if is(1) { Manner::Talks } else { Manner::Silent };
        let mut world = World::new(seed, weather, is(2), manner);
        world.has_traffic = is(3);
        let what = format!(
            "seed {seed}, foul {}, proxy-reply {}, {manner:?}, traffic {}",
            is(0),
            is(2),
            is(3)
        );
        (what, world)
    })
}

#[test]
fn dy_03_dy_04_wherever_a_host_ends_all_agree() {
    for seed in 0..SEEDS {
        for (what, mut world) in worlds(seed) {
            let moves = 1 + world.random(6);
            world.wander(moves);
            if !what.contains("foul true") {
                // Without losses it takes no time.
                world.pass(Duration::from_secs(1));
                let at = world.at.expect("it runs");
                assert_eq!(world.here(), [at], "{what}: who has it");
                assert_eq!(world.registrants(), [ip(SITES[at])], "{what}: who has registered it");
            }
            world.pass(SETTLED);
            world.assert_settled(&what);
        }
    }
}

#[test]
fn dy_05_of_a_host_that_ends_nothing_stays() {
    for seed in 0..SEEDS {
        for (what, mut world) in worlds(seed) {
            let moves = 1 + world.random(6);
            world.wander(moves);
            world.at = None;
            world.pass(Duration::from_secs(400));
            world.assert_forgotten(&what);
        }
    }
}

/// Runs of each mixture.
const SEEDS: u8 = 4;
/// Everything that is lost has been said again by then, and hosts that are away were asked for twice.
const SETTLED: Duration = Duration::from_secs(150);

#[test]
fn dy_04_ten_moves_at_one_per_second_end_right_and_never_loop() {
    for proxy_reply in [false, true] {
        for manner in [Manner::Silent, Manner::Talks] {
            let mut world = World::new(7, FAIR, proxy_reply, manner);
            for round in 0..10 {
                world.arrive(1 - round % 2);
                world.pass(Duration::from_secs(1));
                for site in 0..SITES.len() {
                    let fate = world.send(site);
                    assert!(
                        !matches!(fate, Fate::Returned | Fate::Circled),
                        "move {round}, site {site}: {fate:?}"
                    );
                }
            }
            // It is at home now, and registered by itself as long as it has just come back.
            let what = format!("proxy-reply {proxy_reply}, {manner:?}");
            assert_eq!((world.at, world.here()), (Some(0), vec![0]), "{what}");
            // Whoever is no former site learns it by an SMR, of which there is one in three seconds.
            world.pass(Duration::from_secs(10));
            world.assert_settled(&what);
        }
    }
}

/// A router dies without a word, and starts anew with the configuration it had, knowing nothing.
fn restart(world: &mut World, site: usize, proxy_reply: bool, nonce_base: u64) {
    let network = &mut world.network;
    let (now, address) = (network.now, ip(SITES[site]));
    let eid = if site == 0 { RANGE } else { "172.16.9.0/24" };
    let mut config = router_config(Role::Xtr, address, Some(eid), proxy_reply, 1440);
    config.eids.truncate(if site == 2 { 0 } else { 1 });
    config.probe = None;
    let control = Box::new(ControlPlane::new(config, now, [77; 32], nonce_base));
    network.nodes.insert(address, Node::Router(control, BTreeMap::new()));
    network.router(SITES[site]).0.set_dynamic_ranges(now, &[dynamic_range()]);
    network.collect();
}

#[test]
fn dy_03_a_router_that_died_learns_at_once_who_left_its_site() {
    for (weather, settled) in [(FAIR, 1), (FOUL, 60)] {
        for proxy_reply in [false, true] {
            let what = format!("proxy-reply {proxy_reply}, settled in {settled} s");
            let mut world = World::new(11, weather, proxy_reply, Manner::Silent);
            world.arrive(1);
            world.pass(Duration::from_secs(60));
            assert_eq!(world.away(), [(0, vec![ip(SITES[1])])], "{what}: before");
            restart(&mut world, 0, proxy_reply, 2_000_000);
            world.pass(Duration::from_secs(settled));
            assert_eq!(world.away(), [(0, vec![ip(SITES[1])])], "{what}: after");
            world.assert_settled(&what);
            // It dies again, and meanwhile the host moves on.
            world.network.cut.push(ip(SITES[0]));
            world.arrive(2);
            world.pass(Duration::from_secs(100));
            world.network.cut.clear();
            restart(&mut world, 0, proxy_reply, 3_000_000);
            world.pass(Duration::from_secs(settled));
            assert!(world.away().contains(&(0, vec![ip(SITES[2])])), "{what}: moved meanwhile");
            world.assert_settled(&what);
        }
    }
}

#[test]
fn dy_03_two_hosts_with_one_address_make_no_storm() {
    let mut world = World::new(9, FAIR, true, Manner::Silent);
    let registers = |world: &mut World| -> u64 {
        let counters = |site: &&str, world: &mut World| {
            world.network.router(site).0.counters_view().get("map_registers_sent").copied()
        };
        SITES.iter().filter_map(|site| counters(site, world)).sum()
    };
    let before = registers(&mut world);
    for _ in 0..6_000 {
        for site in [1, 2] {
            world.show_up(site, Detection::Data);
        }
        world.network.run(Duration::from_millis(10));
    }
    let sent = registers(&mut world) - before;
    // In 60 s: the first ten at each site, then a few in ten seconds, besides what is refreshed.
    assert!((20..120).contains(&sent), "{sent}");
    let now = world.network.now;
    let views = [1, 2].map(|site| world.network.router(SITES[site]).0.mobility_view(now));
    let held = |view: &xtr::view::HostView| view.held_seconds.is_some() && view.place == "away";
    assert!(views.iter().flatten().any(held), "{views:?}");
    // One of the two goes: the other one has it.
    world.at = Some(2);
    world.pass(Duration::from_secs(60));
    world.assert_settled("the other has gone");
}
