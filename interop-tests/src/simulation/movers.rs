//! Hosts that move between sites (EID mobility): where each really is, and what everybody makes of it.
use super::node::Notice;
use super::plan;
use super::world::{Task, World, random_below};
use mapping::eid::Eid;
use rand::RngExt;
use std::net::IpAddr;
use std::time::Duration;
use xtr::control::{ControlPlane, Detection, HostGone, HostSeen};
use xtr::fib::{Verdict, select};
use xtr::punt::Punt;

/// Between two moves of a host, on average.
const STAY: Duration = Duration::from_secs(60);
/// Between two packets of a host, and to it, on average.
const SPEAKS: Duration = Duration::from_secs(4);
/// Sites that a packet for a host passes at most; with more it goes in a circle.
const MOST_SITES: usize = 4;

/// A host that moves.
#[derive(Debug)]
pub(super) struct Mover {
    eid: Eid,
    /// Where it is, whatever anybody thinks.
    site: u32,
}

/// What hosts do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    Moves(usize),
    Speaks(usize),
}

impl World {
    pub(super) fn settle_movers(&mut self) {
        let roaming = self.roaming();
        for index in 0..self.plan.movers as usize {
            let site = roaming[index % roaming.len()];
            self.movers.push(Mover { eid: plan::mover(index), site });
            let at = self.plan.quiet + random_below(&mut self.rng, SPEAKS);
            self.network.schedule(at, Task::Host(Life::Speaks(index)));
        }
    }

    /// Lets the hosts move between sites for that long.
    pub fn let_hosts_move(&mut self, duration: Duration) {
        self.moving_until = self.network.now + duration;
        for index in 0..self.movers.len() {
            let begin = self.network.now.max(self.plan.quiet);
            let at = begin + random_below(&mut self.rng, STAY);
            self.network.schedule(at, Task::Host(Life::Moves(index)));
        }
    }

    fn roaming(&self) -> Vec<u32> {
        (0..self.plan.sites).filter(|site| plan::roams(*site)).collect()
    }

    pub(super) fn host_lives(&mut self, life: Life) {
        let every = match life {
            Life::Moves(host) => {
                if self.network.now >= self.moving_until {
                    return;
                }
                self.host_moves(host);
                STAY
            }
            Life::Speaks(host) => {
                self.host_speaks(host);
                SPEAKS
            }
        };
        let wait = every / 2 + random_below(&mut self.rng, every);
        self.network.schedule(self.network.now + wait, Task::Host(life));
    }

    /// To another site; the one that it leaves, and the one that it comes to, notice at once or not.
    fn host_moves(&mut self, host: usize) {
        let others: Vec<u32> =
            self.roaming().into_iter().filter(|site| *site != self.movers[host].site).collect();
        let to = others[self.rng.random_range(0..others.len())];
        let from = std::mem::replace(&mut self.movers[host].site, to);
        let address = self.movers[host].eid.address;
        self.report.host_moves += 1;
        if self.rng.random_bool(0.5) {
            let gone = HostGone { interface: Some(plan::LAN.to_owned()), address };
            self.tell(from, |control, now| control.handle_host_gone(now, &gone));
        }
        if self.rng.random_bool(0.5) {
            self.host_seen(to, address);
        }
    }

    fn host_seen(&mut self, site: u32, address: IpAddr) {
        let interface = Some(plan::LAN.to_owned());
        let seen = HostSeen { interface, address, how: Detection::Arp };
        self.tell(site, |control, now| control.handle_host(now, &seen));
    }

    fn tell(&mut self, site: u32, word: impl FnOnce(&mut ControlPlane, std::time::Instant)) {
        self.network.with(self.sites[site as usize].node, |node, now| {
            if let Some(control) = node.router() {
                word(control, now);
            }
        });
    }

    /// A packet from it to any site, and one from any site to it.
    fn host_speaks(&mut self, host: usize) {
        let Mover { eid, site } = self.movers[host];
        let node = self.network.node(self.sites[site as usize].node);
        if node.is_on() && !matches!(node.forward(eid), Some(Verdict::Native)) {
            let punt = Punt::HostSpoke { source: eid.address };
            self.tell(site, |control, now| control.handle_punt(now, &punt));
        }
        for is_to_host in [false, true] {
            let peer = self.rng.random_range(0..self.plan.sites);
            let other = self.sites[peer as usize].host;
            if peer == site || other.address.is_ipv4() != eid.address.is_ipv4() {
                continue;
            }
            if is_to_host {
                let fate = self.packet(peer, other.address, site, eid);
                *self.report.to_hosts.entry(fate).or_default() += 1;
            } else {
                self.packet(site, eid.address, peer, other);
            }
        }
    }

    /// A site asks a host for a sign of life, which it gives if it is there.
    pub(super) fn host_asked(&mut self, site: u32, eid: Eid) {
        if self.movers.iter().any(|mover| mover.eid == eid && mover.site == site) {
            self.host_seen(site, eid.address);
        }
    }

    /// What becomes of a packet for a host that a site sent from `source` to `rloc`.
    pub(super) fn follow(
        &mut self,
        sender: Eid,
        host: Eid,
        mut source: IpAddr,
        mut rloc: IpAddr,
    ) -> &'static str {
        for _ in 0..MOST_SITES {
            let Some(site) = self.site_at(rloc) else { return "goes to no site" };
            let id = self.sites[site as usize].node;
            let gone = self.sites[site as usize].down.contains(&rloc);
            if gone || !self.network.connects(source, rloc) || !self.network.node(id).is_on() {
                return "lost: the site is down or cut off";
            }
            let hash = self.rng.random();
            match self.network.node(id).forward(host) {
                Some(Verdict::Native) => {
                    self.hear(site, source, sender);
                    return match self.is_host_at(host, site) {
                        true => "delivered",
                        false => "delivered where the host was",
                    };
                }
                Some(Verdict::Encapsulate(set)) => {
                    let returns = set.adjacencies.iter().any(|one| one.destination == source);
                    let next = select(set, hash).map(|next| (next.source, next.destination));
                    let left = Punt::Left {
                        destination: host,
                        source: sender.address,
                        rloc: source,
                        returns,
                    };
                    self.tell(site, |control, now| control.handle_punt(now, &left));
                    match next {
                        Some(_) if returns => return "dropped: it would go back",
                        Some(next) => (source, rloc) = next,
                        None => return "dropped: no locator",
                    }
                }
                Some(_) => return "dropped where the host was",
                None => {
                    let punt = Punt::Miss { destination: host, source: sender.address };
                    self.tell(site, |control, now| control.handle_punt(now, &punt));
                    return "waits where the host was";
                }
            }
        }
        "went in a circle"
    }

    fn is_host_at(&self, host: Eid, site: u32) -> bool {
        self.movers.iter().any(|mover| mover.eid == host && mover.site == site)
    }

    fn site_at(&self, rloc: IpAddr) -> Option<u32> {
        self.network.home(rloc).and_then(|node| self.site_of.get(&node)).copied()
    }

    /// Hosts of which somebody has a wrong idea, in words: who has it, who thinks it is elsewhere, and where packets for it end.
    pub fn astray(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for &Mover { eid, site: holder } in &self.movers {
            let host = eid.address;
            for site in self.roaming() {
                if let Some(what) = self.wrong_idea(eid, holder, site) {
                    wrong.push(format!("{host} is at site {holder}; site {site} {what}"));
                }
            }
            for from in 0..self.plan.sites {
                let mut path = vec![from];
                let end = self.path(from, eid, &mut path);
                if end.is_some_and(|end| end != holder) {
                    let last = path.last().map(|site| self.sites[*site as usize].node);
                    let verdict = last.and_then(|node| self.network.node(node).forward(eid));
                    wrong.push(format!(
                        "{host} is at site {holder}; packets pass sites {path:?}, there {verdict:?}"
                    ));
                }
            }
        }
        wrong
    }

    /// What a site of the ranges thinks of a host, if it is wrong.
    fn wrong_idea(&self, eid: Eid, holder: u32, site: u32) -> Option<String> {
        let control = self.network.node(self.sites[site as usize].node).control()?;
        let views = control.mobility_view(self.network.instant());
        let view = views.into_iter().find(|view| view.eid == eid.address);
        match view {
            None if site == holder => Some("does not know".to_owned()),
            None => None,
            Some(view) if view.place == "here" => {
                (site != holder).then(|| "thinks it is here".to_owned())
            }
            Some(view) => {
                (site == holder).then(|| format!("thinks it is away, at {:?}", view.rlocs))
            }
        }
    }

    /// Sites that a host left some moves ago, and that would send packets for it after it over a site that it left later.
    pub fn roundabouts(&self) -> Vec<String> {
        let mut found = Vec::new();
        for &Mover { eid, site: holder } in &self.movers {
            for site in self.roaming() {
                let mut path = vec![site];
                if self.path(site, eid, &mut path) == Some(holder) && path.len() > 2 {
                    found.push(format!("{}, by sites {path:?}", eid.address));
                }
            }
        }
        found
    }

    /// Where packets from a site to a host end; `None` where somebody would ask. `path` gets every site that they pass.
    fn path(&self, from: u32, eid: Eid, path: &mut Vec<u32>) -> Option<u32> {
        let mut at = from;
        while path.len() <= MOST_SITES {
            match self.network.node(self.sites[at as usize].node).forward(eid)? {
                Verdict::Native => return Some(at),
                Verdict::Encapsulate(set) => at = self.site_at(set.adjacencies[0].destination)?,
                _ => return Some(u32::MAX),
            }
            path.push(at);
        }
        Some(u32::MAX)
    }
}

/// Whether a host is to be asked for a sign of life.
pub(super) fn asked(change: &xtr::control::HostChange) -> Option<Notice> {
    match change {
        xtr::control::HostChange::Probe { eid, .. } => Some(Notice::HostAsked(*eid)),
        _ => None,
    }
}
