//! PURE. Which signs of a host are passed on: those of hosts of a dynamic-EID range on its interfaces, not too often.
use super::frames::Mac;
use ipnet::IpNet;
use mapping::limits::{Rate, TokenBucket};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The same host at the same place is passed on this often at most.
const REPETITION: Duration = Duration::from_millis(250);
/// Hosts remembered for that.
const MAX_RECENT: usize = 16_384;

/// A dynamic-EID range and where its hosts may be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The hosts.
    pub range: IpNet,
    /// Indexes of the interfaces; those of gateways beside those that carry them.
    pub interfaces: Vec<u32>,
    /// The same link reaches other sites: what is sent to all there says nothing about where its sender is.
    pub extended: bool,
}

/// What becomes of a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed on.
    Seen,
    /// No host of a range here.
    Other,
    /// Just passed on.
    Known,
    /// Too many at once.
    TooMany,
}

/// What is passed on, and what was lately.
#[derive(Debug)]
pub struct Sightings {
    watched: Vec<Watched>,
    /// Routers, not hosts.
    gateways: Vec<Mac>,
    recent: HashMap<IpAddr, (u32, Option<Mac>, Instant)>,
    bucket: TokenBucket,
    rate: Rate,
}

impl Sightings {
    /// For these ranges; whoever speaks with the MAC of a gateway is a router.
    pub fn new(watched: Vec<Watched>, gateways: Vec<Mac>) -> Self {
        let rate = Rate::new(2000, 2000);
        Self { watched, gateways, recent: HashMap::new(), bucket: TokenBucket::new(), rate }
    }

    /// A sign of `address` on an interface: from `mac` if a frame was its, and sent to one station if `to_one`.
    pub fn handle_input(
        &mut self,
        now: Instant,
        interface: u32,
        (address, mac): (IpAddr, Option<Mac>),
        to_one: bool,
    ) -> Verdict {
        let is_here = |watched: &&Watched| {
            watched.range.contains(&address) && watched.interfaces.contains(&interface)
        };
        let watched = self.watched.iter().find(is_here);
        let is_router = mac.is_some_and(|mac| self.gateways.contains(&mac));
        if is_router || watched.is_none_or(|watched| watched.extended && !to_one) {
            return Verdict::Other;
        }
        let is_known = self.recent.get(&address).is_some_and(|&(where_to, who, when)| {
            (where_to, who) == (interface, mac) && now < when + REPETITION
        });
        if is_known {
            return Verdict::Known;
        }
        if !self.bucket.take(now, self.rate) {
            return Verdict::TooMany;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.retain(|_, (_, _, when)| now < *when + REPETITION);
        }
        self.recent.insert(address, (interface, mac, now));
        Verdict::Seen
    }

    /// The next sign of a host is passed on, however soon.
    pub fn forget(&mut self, address: IpAddr) {
        self.recent.remove(&address);
    }

    /// Whether a host may be on one of these interfaces at all.
    pub fn range_of(&self, address: IpAddr) -> Option<&Watched> {
        self.watched.iter().find(|watched| watched.range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: Mac = Mac([0x52, 0x54, 0, 0, 0, 7]);
    const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn sightings(extended: bool) -> Sightings {
        let range = "172.16.4.0/24".parse().expect("prefix");
        Sightings::new(vec![Watched { range, interfaces: vec![7, 8], extended }], vec![GATEWAY])
    }

    #[test]
    fn dy_01_only_hosts_of_a_range_on_its_interfaces_are_seen() {
        let (now, mut sightings) = (Instant::now(), sightings(false));
        let mut verdict = |interface, address, mac| {
            sightings.handle_input(now, interface, (ip(address), Some(mac)), false)
        };
        assert_eq!(verdict(7, "172.16.4.7", VM), Verdict::Seen);
        assert_eq!(verdict(9, "172.16.4.8", VM), Verdict::Other);
        assert_eq!(verdict(7, "172.16.5.9", VM), Verdict::Other);
        assert_eq!(verdict(7, "2001:db8:e004::7", VM), Verdict::Other);
        assert_eq!(verdict(7, "172.16.4.9", GATEWAY), Verdict::Other, "another router");
    }

    #[test]
    fn dy_01_on_an_extended_subnet_only_what_is_said_to_us_counts() {
        let (now, mut sightings) = (Instant::now(), sightings(true));
        let vm = (ip("172.16.4.7"), Some(VM));
        assert_eq!(sightings.handle_input(now, 7, vm, false), Verdict::Other);
        assert_eq!(sightings.handle_input(now, 7, vm, true), Verdict::Seen);
    }

    #[test]
    fn a_host_is_seen_again_after_a_while_or_elsewhere_or_when_it_had_left() {
        let (now, mut sightings) = (Instant::now(), sightings(false));
        let vm = (ip("172.16.4.7"), Some(VM));
        assert_eq!(sightings.handle_input(now, 7, vm, false), Verdict::Seen);
        assert_eq!(sightings.handle_input(now, 7, vm, false), Verdict::Known);
        assert_eq!(sightings.handle_input(now, 8, vm, false), Verdict::Seen);
        assert_eq!(sightings.handle_input(now + REPETITION, 8, vm, false), Verdict::Seen);
        sightings.forget(vm.0);
        assert_eq!(sightings.handle_input(now + REPETITION, 8, vm, false), Verdict::Seen);
    }

    #[test]
    fn dy_01_a_flood_of_signs_is_bounded() {
        let (now, mut sightings) = (Instant::now(), sightings(false));
        let flood = |n: u32| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        let seen = |n: &u32| {
            let host = (ip("172.16.4.7"), Some(flood(*n)));
            sightings.handle_input(now, 7, host, false) == Verdict::Seen
        };
        assert_eq!((0..100_000).filter(seen).count(), 2000);
    }
}
