//! Sites with traffic; what operators and fate do to them.
use super::movers::{Life, Mover};
use super::network::{Network, NodeId};
use super::node::{Config, Notice, Restart};
use super::plan::{self, Plan};
use super::report::{Report, Resolutions};
use super::storm::Mend;
use super::weather::Weather;
use mapping::eid::{Eid, EidPrefix};
use mapping::timers;
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xtr::config::{LocalEid, OwnRloc};
use xtr::control::OwnMapping;
use xtr::fib::{Verdict, select};
use xtr::forward::HEARD_AGAIN;
use xtr::punt::Punt;

#[derive(Debug)]
pub(super) enum Task {
    /// A site sends a packet.
    Packet(u32),
    /// Fate strikes.
    Strike,
    /// What it did is over.
    Mend(Mend),
    /// A host that moves does what it does.
    Host(Life),
}

/// A simulated LISP network.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) network: Network<Task>,
    pub(super) sites: Vec<Site>,
    pub(super) servers: Vec<NodeId>,
    pub(super) site_of: HashMap<NodeId, u32>,
    /// Strikes that a Map-Server suffers from.
    pub(super) server_strikes: u32,
    pub(super) movers: Vec<Mover>,
    /// Until when they move.
    pub(super) moving_until: Duration,
    /// When the data plane of a site told last that data came from an RLOC.
    heard: HashMap<(u32, IpAddr), Duration>,
    /// For what sites and fate do; the network has its own.
    pub(super) rng: StdRng,
    /// Until when fate strikes.
    pub(super) storm_until: Duration,
    pub(super) report: Report,
}

/// A site and its xTR.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) node: NodeId,
    prefix: EidPrefix,
    pub(super) host: Eid,
    pub(super) rlocs: Vec<OwnRloc>,
    /// Names of the locators in use; empty = all.
    locator_set: Vec<String>,
    /// Own RLOCs without a carrier.
    pub(super) down: BTreeSet<IpAddr>,
    correspondents: Vec<u32>,
    talked_to: usize,
    /// Lookups by the site asked for.
    pending: BTreeMap<u32, Pending>,
    /// Strikes that it suffers from.
    pub(super) strikes: u32,
}

/// Packets to a site wait for its mapping.
#[derive(Clone, Copy, Debug)]
struct Pending {
    since: Duration,
    /// By [`RULE`](super::report::RULE), so far.
    counts: bool,
}

impl World {
    /// Starts every node of `plan`.
    ///
    /// # Panics
    /// The plan has more correspondents than sites with EIDs of one family.
    pub fn new(plan: Plan) -> Self {
        assert!(plan.sites <= 4_096);
        let mut network = Network::new(plan.seed, plan.weather.clone());
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x5175_6573);
        let servers: Vec<NodeId> = (0..plan.servers)
            .map(|server| {
                let config = Config::Server(Box::new(plan.server_config(server)));
                network.add(config, vec![plan.server_address(server)])
            })
            .collect();
        let mut sites = Vec::new();
        for site in 0..plan.sites {
            let rlocs = plan::rlocs(site);
            let config = Box::new(plan.router_config(site));
            let config = Config::Router(config, plan::dynamic_ranges(site));
            let addresses = rlocs.iter().map(|rloc| rloc.address).collect();
            let kin: Vec<u32> =
                (0..plan.sites).filter(|other| plan::can_talk(site, *other)).collect();
            let others = index::sample(&mut rng, kin.len(), plan.correspondents as usize);
            sites.push(Site {
                node: network.add(config, addresses),
                prefix: plan::prefix(site),
                host: plan::host(site),
                rlocs,
                locator_set: Vec::new(),
                down: BTreeSet::new(),
                correspondents: others.into_iter().map(|other| kin[other]).collect(),
                talked_to: 0,
                pending: BTreeMap::new(),
                strikes: 0,
            });
        }
        for &server in &servers {
            network.observer.watch_server(server);
            network.start(server, Restart::Empty);
        }
        let site_of = sites.iter().zip(0..).map(|(site, number)| (site.node, number)).collect();
        for (site, number) in sites.iter().zip(0..) {
            network.start(site.node, Restart::Empty);
            let first = plan.quiet + random_below(&mut rng, plan.packet_interval);
            network.schedule(first, Task::Packet(number));
        }
        let report = Report { sites: plan.sites, ..Report::default() };
        let mut world = Self {
            plan,
            network,
            sites,
            servers,
            site_of,
            server_strikes: 0,
            movers: Vec::new(),
            moving_until: Duration::ZERO,
            heard: HashMap::new(),
            rng,
            storm_until: Duration::ZERO,
            report,
        };
        world.settle_movers();
        world
    }

    /// Lets time pass.
    pub fn run(&mut self, by: Duration) {
        let end = self.network.now + by;
        while let Some(task) = self.network.run_until(end) {
            self.notice();
            match task {
                Task::Packet(site) => self.next_packet(site),
                Task::Strike => self.strike(),
                Task::Mend(mend) => self.mend(mend),
                Task::Host(life) => self.host_lives(life),
            }
        }
        self.notice();
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.network.now
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.network.weather = weather;
    }

    /// A digest of every message sent so far, by whom, where to and when: equal for equal seeds.
    pub fn digest(&self) -> u64 {
        self.network.digest()
    }

    /// The figures so far.
    pub fn report(&self) -> Report {
        let observer = &self.network.observer;
        let mut report = self.report.clone();
        report.elapsed = self.network.now;
        report.messages = observer.sent.clone();
        report.violations = observer.violations.clone();
        report.violation_count = observer.violation_count;
        report.map_cache_entries = self
            .sites
            .iter()
            .map(|site| {
                let fib = &self.network.node(site.node).fib;
                fib.iter().filter(|(prefix, _)| *prefix != site.prefix).count()
            })
            .sum();
        report
    }

    /// Sites that have more than one locator.
    pub fn multihomed(&self) -> Vec<u32> {
        let several = |site: &u32| self.sites[*site as usize].rlocs.len() > 1;
        (0..self.plan.sites).filter(several).collect()
    }

    /// Makes the locators of these names the locator-set of a site; none = all: the whole EID-prefix moves there.
    pub fn set_locator_set(&mut self, site: u32, names: &[&str]) {
        let site = &mut self.sites[site as usize];
        site.locator_set = names.iter().map(|&name| name.to_owned()).collect();
        let eid = LocalEid { prefix: site.prefix, locator_set: site.locator_set.clone() };
        self.network.with(site.node, |node, now| {
            if let Some(control) = node.router() {
                control.set_own_mapping(now, OwnMapping::configured(eid));
            }
        });
    }

    /// A locator of a site goes dead, or works again, without a word to anybody.
    pub fn silence(&mut self, site: u32, locator: usize, silent: bool) {
        let address = self.sites[site as usize].rlocs[locator].address;
        match silent {
            true => self.network.silent.insert(address),
            false => self.network.silent.remove(&address),
        };
        self.judge_pending();
    }

    /// A locator of a site loses its carrier, or gets it back.
    pub fn set_carrier(&mut self, site: u32, locator: usize, up: bool) {
        let clock = self.network.clock();
        let site = &mut self.sites[site as usize];
        let address = site.rlocs[locator].address;
        match up {
            true => (site.down.remove(&address), self.network.silent.remove(&address)),
            false => (site.down.insert(address), self.network.silent.insert(address)),
        };
        self.network.with(site.node, |node, now| {
            if let Some(control) = node.router() {
                control.set_own_rloc(now, address, up, clock);
            }
        });
        self.judge_pending();
    }

    /// The xTR of a site dies.
    pub fn stop_site(&mut self, site: u32) {
        let site = &mut self.sites[site as usize];
        site.pending.clear();
        site.strikes += 1;
        self.network.stop(site.node);
        self.judge_pending();
    }

    /// The xTR of a site starts anew, with an empty map-cache.
    pub fn start_site(&mut self, site: u32) {
        let site = &mut self.sites[site as usize];
        site.strikes = site.strikes.saturating_sub(1);
        site.down.clear();
        site.locator_set.clear();
        self.network.start(site.node, Restart::Empty);
    }

    /// A Map-Server dies.
    pub fn stop_server(&mut self, server: usize) {
        self.server_strikes += 1;
        self.network.stop(self.servers[server]);
        self.judge_pending();
    }

    /// A Map-Server starts anew.
    pub fn start_server(&mut self, server: usize, how: Restart) {
        self.server_strikes = self.server_strikes.saturating_sub(1);
        if how == Restart::Empty {
            self.network.observer.forget_registrations(self.servers[server]);
        }
        self.network.start(self.servers[server], how);
    }

    /// Where a site sends packets to another, by its forwarding table; `None` = it would ask.
    pub fn forwarded(&self, from: u32, to: u32) -> Option<Vec<IpAddr>> {
        let (from, to) = (&self.sites[from as usize], &self.sites[to as usize]);
        self.network.node(from.node).forward(to.host).map(|verdict| match verdict {
            Verdict::Encapsulate(set) => set.adjacencies.iter().map(|a| a.destination).collect(),
            _ => Vec::new(),
        })
    }

    /// Where it should send them: the locators that work, of the best priority and a family that it has.
    pub fn expected(&self, from: u32, to: u32) -> Vec<IpAddr> {
        let (from, to) = (&self.sites[from as usize], &self.sites[to as usize]);
        if !self.network.node(to.node).is_on() {
            return Vec::new();
        }
        let reaches = |own: &OwnRloc, rloc: IpAddr| {
            own.address.is_ipv4() == rloc.is_ipv4()
                && !from.down.contains(&own.address)
                && !self.network.silent.contains(&own.address)
        };
        let usable = |rloc: &&OwnRloc| {
            (to.locator_set.is_empty() || to.locator_set.contains(&rloc.name))
                && !to.down.contains(&rloc.address)
                && !self.network.silent.contains(&rloc.address)
                && from.rlocs.iter().any(|own| reaches(own, rloc.address))
        };
        let best = to.rlocs.iter().filter(usable).map(|rloc| rloc.priority).min();
        let mut expected: Vec<IpAddr> = to
            .rlocs
            .iter()
            .filter(|rloc| usable(rloc) && Some(rloc.priority) == best)
            .map(|rloc| rloc.address)
            .collect();
        expected.sort();
        expected
    }

    /// Every pair of correspondents whose packets would go wrong now, in words; those that would ask first are right.
    pub fn disagreements(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for from in 0..self.plan.sites {
            for &to in &self.sites[from as usize].correspondents {
                let (found, expected) = (self.forwarded(from, to), self.expected(from, to));
                if let Some(found) = found.filter(|found| *found != expected) {
                    wrong.push(format!(
                        "site {from} sends to site {to} by {found:?}, not {expected:?}"
                    ));
                }
            }
        }
        wrong
    }

    /// Correspondents of a site that have its mapping.
    pub fn followers(&self, site: u32) -> Vec<u32> {
        let follows = |from: &u32| {
            self.sites[*from as usize].correspondents.contains(&site)
                && self.forwarded(*from, site).is_some()
        };
        (0..self.plan.sites).filter(follows).collect()
    }

    fn next_packet(&mut self, from: u32) {
        let site = &mut self.sites[from as usize];
        let all = site.correspondents.len();
        let (to, wait) = if site.talked_to < all {
            let filling =
                self.plan.filled.saturating_sub(self.plan.quiet) / self.plan.correspondents;
            site.talked_to += 1;
            (site.correspondents[site.talked_to - 1], filling)
        } else {
            let to = site.correspondents[self.rng.random_range(0..all)];
            (to, self.plan.packet_interval)
        };
        let wait = wait / 2 + random_below(&mut self.rng, wait);
        self.network.schedule(self.network.now + wait, Task::Packet(from));
        let (source, destination) = (self.sites[from as usize].host, self.sites[to as usize].host);
        let fate = self.packet(from, source.address, to, destination);
        *self.report.packets.entry(fate).or_default() += 1;
    }

    /// Sends a packet to an EID that is at site `to`, and tells what becomes of it.
    pub(super) fn packet(
        &mut self,
        from: u32,
        source: IpAddr,
        to: u32,
        destination: Eid,
    ) -> &'static str {
        let hash = self.rng.random();
        let clock = self.network.clock();
        let id = self.sites[from as usize].node;
        let node = self.network.node(id);
        if !node.is_on() {
            return "not sent, the xTR is down";
        }
        match node.forward(destination) {
            None | Some(Verdict::Miss) => {
                // The verdict comes at once, what is asked comes later: no lookup that the packet waits for.
                let is_doubted = node.is_doubted(destination);
                self.ask(from, source, to, destination, is_doubted);
                if is_doubted { "dropped: no usable locator" } else { "waits for the mapping" }
            }
            Some(Verdict::Encapsulate(set)) => {
                set.last_used.store(clock, Ordering::Relaxed);
                let oracle = &self.network.observer.oracle;
                let unknown = |rloc| !oracle.was_registered(destination, rloc);
                if set.adjacencies.iter().any(|adjacency| unknown(adjacency.destination)) {
                    self.report.never_registered += 1;
                }
                let Some(chosen) = select(set, hash) else { return "dropped: no locator" };
                chosen.used.store(clock, Ordering::Relaxed);
                let (own, rloc) = (chosen.source, chosen.destination);
                let source = Eid::new(destination.instance_id, source);
                if destination == self.sites[to as usize].host {
                    self.delivery(source, own, rloc, to)
                } else {
                    self.follow(source, destination, own, rloc)
                }
            }
            Some(Verdict::Native) => "leaves natively",
            Some(Verdict::Drop(_)) => "dropped: no usable locator",
        }
    }

    fn ask(&mut self, from: u32, source: IpAddr, to: u32, destination: Eid, is_doubted: bool) {
        let since = self.network.now;
        let counts = self.can_complete(from, to);
        let id = self.sites[from as usize].node;
        if destination == self.sites[to as usize].host && !is_doubted {
            let pending = &mut self.sites[from as usize].pending;
            pending.entry(to).or_insert(Pending { since, counts });
        }
        let punt = Punt::Miss { destination, source };
        self.network.with(id, |node, now| {
            if let Some(control) = node.router() {
                control.handle_punt(now, &punt);
            }
        });
    }

    fn delivery(&mut self, source: Eid, own: IpAddr, rloc: IpAddr, to: u32) -> &'static str {
        let home = self.network.home(rloc);
        if home != Some(self.sites[to as usize].node) {
            "goes to another site"
        } else if self.sites[to as usize].down.contains(&rloc) || !self.network.connects(own, rloc)
        {
            "lost: the locator is cut off"
        } else if !home.is_some_and(|home| self.network.node(home).is_on()) {
            "lost: the xTR is down"
        } else {
            self.hear(to, own, source);
            "delivered, but for the loss of a hop"
        }
    }

    /// The data plane of a site tells that data came, as often as it does.
    pub(super) fn hear(&mut self, site: u32, rloc: IpAddr, source: Eid) {
        let now = self.network.now;
        let last = self.heard.get(&(site, rloc));
        if last.is_some_and(|last| now < *last + HEARD_AGAIN) {
            return;
        }
        self.heard.insert((site, rloc), now);
        let punt = Punt::Heard { rloc, source };
        self.network.with(self.sites[site as usize].node, |node, now| {
            if let Some(control) = node.router() {
                control.handle_punt(now, &punt);
            }
        });
    }

    /// Whether everything that a lookup needs is there now: see [`RULE`](super::report::RULE).
    fn can_complete(&self, from: u32, to: u32) -> bool {
        let (asker, asked) = (&self.sites[from as usize], &self.sites[to as usize]);
        let island = self.network.node(asker.node).island;
        let is_well = |site: &Site| {
            let node = self.network.node(site.node);
            let works = |rloc: &OwnRloc| !self.network.silent.contains(&rloc.address);
            node.is_on() && node.island == island && site.rlocs.iter().all(works)
        };
        let since = self.network.now.saturating_sub(timers::REGISTRATION_TIMEOUT);
        let knows = |server: &NodeId| {
            let node = self.network.node(*server);
            node.is_on()
                && node.island == island
                && self.network.observer.acknowledged(*server, &asked.prefix) > Some(since)
        };
        is_well(asker)
            && self.servers.iter().all(knows)
            && (plan::has_proxy_reply(to) || is_well(asked))
    }

    /// Something changed: lookups under way may not complete.
    pub(super) fn judge_pending(&mut self) {
        for from in 0..self.plan.sites {
            let failing: Vec<u32> = self.sites[from as usize]
                .pending
                .iter()
                .filter(|&(&to, pending)| pending.counts && !self.can_complete(from, to))
                .map(|(&to, _)| to)
                .collect();
            for to in failing {
                if let Some(pending) = self.sites[from as usize].pending.get_mut(&to) {
                    pending.counts = false;
                }
            }
        }
    }

    /// Does what the nodes' notices ask for, and ends the lookups that they end.
    fn notice(&mut self) {
        for (at, node, notice) in self.network.take_noticed() {
            let Some(&from) = self.site_of.get(&node) else { continue };
            let (prefix, found) = match notice {
                Notice::Installed(prefix, found) => (prefix, Some(found)),
                Notice::Unanswered(prefix) => (prefix, None),
                Notice::OwnMappings => continue,
                Notice::HostAsked(eid) => {
                    self.host_asked(from, eid);
                    continue;
                }
            };
            let ended: Vec<(u32, Pending)> = self.sites[from as usize]
                .pending
                .iter()
                .map(|(&to, &pending)| (to, pending))
                .filter(|(to, _)| prefix.contains(self.sites[*to as usize].host))
                .collect();
            for (to, pending) in ended {
                self.sites[from as usize].pending.remove(&to);
                self.resolved(from, to, pending, at, found);
            }
        }
    }

    fn resolved(
        &mut self,
        from: u32,
        to: u32,
        pending: Pending,
        at: Duration,
        found: Option<bool>,
    ) {
        let counts = pending.counts && self.can_complete(from, to);
        let kind: &mut Resolutions = if plan::subscribes(from) {
            &mut self.report.subscribed
        } else if plan::has_proxy_reply(to) {
            &mut self.report.proxied
        } else {
            &mut self.report.through_etr
        };
        match found {
            Some(true) if !counts => kind.found_in_trouble += 1,
            _ if !counts => kind.failed_in_trouble += 1,
            Some(true) => kind.times.add(at - pending.since),
            Some(false) => kind.negative += 1,
            None => kind.unanswered += 1,
        }
    }
}

pub(super) fn random_below(rng: &mut StdRng, most: Duration) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(rng.random_range(0..micros))
}
