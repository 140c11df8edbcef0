//! Fate: partitions, crashes and broken links at random, each over after a while.
use super::node::Restart;
use super::world::{Task, World, random_below};
use rand::RngExt;
use std::time::Duration;

/// Between two strikes, on average.
const STRIKE_INTERVAL: Duration = Duration::from_secs(15);

/// The end of a strike.
#[derive(Debug)]
pub(super) enum Mend {
    /// These sites, and this Map-Server, are on the mainland again.
    Rejoin(Vec<u32>, Option<usize>),
    StartSite(u32),
    StartServer(usize, Restart),
    /// The locator works again.
    Speak(u32, usize),
    /// The locator has its carrier again.
    Carrier(u32, usize),
    /// All locators are in use again.
    AllLocators(u32),
}

impl World {
    /// Lets fate strike and hosts move from now on, for that long; all is mended within three minutes after.
    pub fn storm(&mut self, duration: Duration) {
        self.let_hosts_move(duration);
        self.storm_until = self.network.now + duration;
        self.network.schedule(self.network.now, Task::Strike);
    }

    pub(super) fn strike(&mut self) {
        if self.network.now >= self.storm_until {
            return;
        }
        let wait = STRIKE_INTERVAL / 2 + random_below(&mut self.rng, STRIKE_INTERVAL);
        self.network.schedule(self.network.now + wait, Task::Strike);
        let some = 1 + self.sites.len() / 200;
        let name = match self.rng.random_range(0..20) {
            0..5 => self.strike_partition(some * 5),
            5..10 => self.strike_sites("xTR crash", some, Self::strike_crash),
            10 => self.strike_server(),
            11..14 => self.strike_sites("silent locator", some, Self::strike_silence),
            14..17 => self.strike_sites("carrier lost", some, Self::strike_carrier),
            _ => self.strike_sites("whole prefix moved", some, Self::strike_move),
        };
        *self.report.strikes.entry(name).or_default() += 1;
    }

    fn strike_partition(&mut self, count: usize) -> &'static str {
        let cut: Vec<u32> = (0..count).filter_map(|_| self.pick()).collect();
        let server = self.rng.random_range(0..self.servers.len() * 4);
        // A Map-Server goes with them now and then, and all that asks it from elsewhere is in trouble.
        let server = Some(server).filter(|server| *server < self.servers.len());
        let island = self.rng.random_range(1..=u32::MAX);
        for &site in &cut {
            self.sites[site as usize].strikes += 1;
            let node = self.sites[site as usize].node;
            self.network.nodes[node as usize].island = island;
        }
        if let Some(server) = server {
            self.server_strikes += 1;
            let node = self.servers[server];
            self.network.nodes[node as usize].island = island;
        }
        self.judge_pending();
        self.later(60, Mend::Rejoin(cut, server));
        "partition"
    }

    fn strike_sites(
        &mut self,
        name: &'static str,
        count: usize,
        strike: impl Fn(&mut Self, u32),
    ) -> &'static str {
        for _ in 0..count {
            if let Some(site) = self.pick() {
                strike(self, site);
            }
        }
        name
    }

    fn strike_crash(&mut self, site: u32) {
        self.stop_site(site);
        self.later(120, Mend::StartSite(site));
    }

    fn strike_server(&mut self) -> &'static str {
        let server = self.rng.random_range(0..self.servers.len());
        if self.server_strikes > 0 {
            return "Map-Server spared";
        }
        let how = if self.rng.random_range(0..3) == 0 { Restart::Empty } else { Restart::Kept };
        self.stop_server(server);
        self.later(60, Mend::StartServer(server, how));
        "Map-Server crash"
    }

    fn strike_silence(&mut self, site: u32) {
        let locator = self.rng.random_range(0..self.sites[site as usize].rlocs.len());
        self.sites[site as usize].strikes += 1;
        self.silence(site, locator, true);
        self.later(180, Mend::Speak(site, locator));
    }

    fn strike_carrier(&mut self, site: u32) {
        let locator = self.rng.random_range(0..self.sites[site as usize].rlocs.len());
        self.sites[site as usize].strikes += 1;
        self.set_carrier(site, locator, false);
        self.later(180, Mend::Carrier(site, locator));
    }

    fn strike_move(&mut self, site: u32) {
        let names: Vec<String> =
            self.sites[site as usize].rlocs.iter().map(|rloc| rloc.name.clone()).collect();
        if names.len() > 1 {
            let name = &names[self.rng.random_range(0..names.len())];
            self.sites[site as usize].strikes += 1;
            self.set_locator_set(site, &[name]);
            self.later(180, Mend::AllLocators(site));
        }
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Rejoin(sites, server) => {
                for site in sites {
                    let node = self.sites[site as usize].node;
                    self.network.nodes[node as usize].island = 0;
                    self.relieve(site);
                }
                if let Some(server) = server {
                    let node = self.servers[server];
                    self.network.nodes[node as usize].island = 0;
                    self.server_strikes = self.server_strikes.saturating_sub(1);
                }
            }
            Mend::StartSite(site) => self.start_site(site),
            Mend::StartServer(server, how) => self.start_server(server, how),
            Mend::Speak(site, locator) => {
                self.silence(site, locator, false);
                self.relieve(site);
            }
            Mend::Carrier(site, locator) => {
                self.relieve(site);
                self.set_carrier(site, locator, true);
            }
            Mend::AllLocators(site) => {
                self.relieve(site);
                self.set_locator_set(site, &[]);
            }
        }
    }

    fn relieve(&mut self, site: u32) {
        let strikes = &mut self.sites[site as usize].strikes;
        *strikes = strikes.saturating_sub(1);
    }

    /// A site that nothing ails.
    fn pick(&mut self) -> Option<u32> {
        let site = self.rng.random_range(0..self.sites.len());
        (self.sites[site].strikes == 0).then_some(site as u32)
    }

    fn later(&mut self, most_seconds: u64, mend: Mend) {
        let wait = Duration::from_secs(self.rng.random_range(1..=most_seconds));
        self.network.schedule(self.network.now + wait, Task::Mend(mend));
    }
}
