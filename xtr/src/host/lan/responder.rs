//! PURE. Whom a router with a well-known gateway MAC answers for on the link: for hosts of a dynamic-EID range that are elsewhere (proxy
//! ARP, RFC 1027; proxy Neighbor Advertisements, RFC 4861 §7.2.8).
//!
//! A host that has moved takes its prefix along: for it, the hosts that stayed behind are on its link. It asks the link for them, and only
//! the router can answer. The other way round, those that stayed behind ask for the host that has left. The router must not answer for a
//! host that can answer for itself. What it does not know it finds out: it asks the link itself, and answers when nobody else has.
//!
//! The kernel could do neither: its proxy ARP answers an announcement as if it were a question, which the host takes for a conflict, and
//! its proxy Neighbor Discovery wants every address by itself.
use super::frames::{Mac, Saying};
use ipnet::IpNet;
use mapping::limits::{Rate, TokenBucket};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a host may take to answer for itself.
const PATIENCE: Duration = Duration::from_millis(80);
/// For how long a host that did not is not looked for again.
const ABSENCE: Duration = Duration::from_secs(20);
/// Hosts looked for at a time, those who wait for one of them, and absent hosts remembered.
const MAX_LOOKS: usize = 256;
const MAX_ASKERS: usize = 8;
const MAX_ABSENT: usize = 4096;

/// A dynamic-EID range on an interface whose gateway we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The hosts that may be here.
    pub range: IpNet,
    /// Where they ask: index of the interface.
    pub interface: u32,
    /// What we answer.
    pub gateway: Mac,
    /// The addresses of the gateway: the kernel answers for them.
    pub addresses: Vec<IpAddr>,
    /// The range is the site's own: a host that is not known to be elsewhere is here.
    pub at_home: bool,
}

/// Where a host is, as the control plane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this site.
    Here,
    /// At another one.
    Away,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the link for a host.
    Look(IpAddr),
    /// Say that `address` is at `gateway`: to `asker`, or to everybody.
    Answer {
        /// The interface's index.
        interface: u32,
        /// The Ethernet address told.
        gateway: Mac,
        /// Whose.
        address: IpAddr,
        /// Who has asked.
        asker: Option<(Mac, IpAddr)>,
    },
}

/// Hosts that are looked for.
#[derive(Debug)]
struct Look {
    due: Instant,
    /// The segment's number, and who has asked.
    askers: Vec<(usize, Mac, IpAddr)>,
}

/// The decisions.
#[derive(Debug)]
pub struct Responder {
    segments: Vec<Segment>,
    here: HashSet<IpAddr>,
    away: HashSet<IpAddr>,
    looks: BTreeMap<IpAddr, Look>,
    absent: HashMap<IpAddr, Instant>,
    actions: VecDeque<Action>,
    bucket: TokenBucket,
    rate: Rate,
}

impl Responder {
    /// Answers in these segments; extended subnets are not among them, for there every host answers for itself.
    pub fn new(segments: Vec<Segment>) -> Self {
        Self {
            segments,
            here: HashSet::new(),
            away: HashSet::new(),
            looks: BTreeMap::new(),
            absent: HashMap::new(),
            actions: VecDeque::new(),
            bucket: TokenBucket::new(),
            rate: Rate::new(1000, 1000),
        }
    }

    /// Answers in these segments from now on; who waits for an answer asks again.
    pub fn set_segments(&mut self, segments: Vec<Segment>) {
        self.segments = segments;
        self.looks.clear();
    }

    /// Something was said on an interface.
    pub fn handle_input(&mut self, now: Instant, interface: u32, saying: &Saying) {
        if !saying.tentative {
            self.heard(saying.has);
        }
        let Some(target) = saying.asks_for else { return };
        let serves = |segment: &Segment| {
            segment.interface == interface
                && segment.range.contains(&target)
                && !segment.addresses.contains(&target)
        };
        let Some(at) = self.segments.iter().position(serves) else { return };
        if self.here.contains(&target) {
            return;
        }
        let is_absent = self.absent.get(&target).is_some_and(|until| now < *until);
        if self.away.contains(&target) || is_absent && !self.segments[at].at_home {
            self.answer(now, at, target, Some((saying.mac, saying.has)));
        } else if !self.segments[at].at_home {
            self.look(now, at, target, (saying.mac, saying.has));
        }
    }

    /// A host is on the link: it answers for itself.
    pub fn heard(&mut self, address: IpAddr) {
        self.looks.remove(&address);
        self.absent.remove(&address);
    }

    /// Where a host is now; `None` = not known any more. When it has just left, those that talked to it are told.
    pub fn set_place(&mut self, now: Instant, address: IpAddr, place: Option<Place>) {
        let was_away = self.away.remove(&address);
        self.here.remove(&address);
        self.heard(address);
        match place {
            Some(Place::Here) => drop(self.here.insert(address)),
            Some(Place::Away) => {
                self.away.insert(address);
                if !was_away {
                    for at in 0..self.segments.len() {
                        if self.segments[at].range.contains(&address) {
                            self.answer(now, at, address, None);
                        }
                    }
                }
            }
            None => {}
        }
    }

    /// Hosts that have not answered in time are answered for.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |(address, look): (&IpAddr, &Look)| (look.due <= now).then_some(*address);
        let due: Vec<IpAddr> = self.looks.iter().filter_map(is_due).collect();
        for address in due {
            let Some(look) = self.looks.remove(&address) else { continue };
            if self.absent.len() >= MAX_ABSENT {
                self.absent.retain(|_, until| now < *until);
            }
            if self.absent.len() < MAX_ABSENT {
                self.absent.insert(address, now + ABSENCE);
            }
            for (at, mac, asker) in look.askers {
                self.answer(now, at, address, Some((mac, asker)));
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.looks.values().map(|look| look.due).min()
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn look(&mut self, now: Instant, at: usize, target: IpAddr, (mac, asker): (Mac, IpAddr)) {
        if self.looks.len() >= MAX_LOOKS && !self.looks.contains_key(&target) {
            return;
        }
        let look = self.looks.entry(target).or_insert_with(|| {
            self.actions.push_back(Action::Look(target));
            Look { due: now + PATIENCE, askers: Vec::new() }
        });
        let is_new = look.askers.iter().all(|(_, _, known)| *known != asker);
        if is_new && look.askers.len() < MAX_ASKERS {
            look.askers.push((at, mac, asker));
        }
    }

    fn answer(&mut self, now: Instant, at: usize, address: IpAddr, asker: Option<(Mac, IpAddr)>) {
        let Segment { interface, gateway, .. } = self.segments[at];
        if self.bucket.take(now, self.rate) {
            self.actions.push_back(Action::Answer { interface, gateway, address, asker });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 7;
    const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
    const VM: Mac = Mac([0x52, 0x54, 0, 0, 0, 7]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn responder(at_home: bool) -> Responder {
        let segment = |range: &str, gateway: &str| Segment {
            range: range.parse().expect("prefix"),
            interface: LAN,
            gateway: GATEWAY,
            addresses: vec![ip(gateway)],
            at_home,
        };
        Responder::new(vec![
            segment("172.16.4.0/24", "172.16.4.1"),
            segment("2001:db8:e004::/64", "2001:db8:e004::1"),
        ])
    }

    fn question(asker: &str, target: &str) -> Saying {
        Saying {
            mac: VM,
            to_one: false,
            has: ip(asker),
            tentative: false,
            asks_for: Some(ip(target)),
        }
    }

    fn answered(asker: &str, target: &str) -> Action {
        let (address, asker) = (ip(target), Some((VM, ip(asker))));
        Action::Answer { interface: LAN, gateway: GATEWAY, address, asker }
    }

    fn actions(responder: &mut Responder) -> Vec<Action> {
        std::iter::from_fn(|| responder.poll_action()).collect()
    }

    #[test]
    fn dy_01_a_host_that_is_not_on_the_link_is_answered_for() {
        for (asker, target) in
            [("172.16.4.7", "172.16.4.8"), ("2001:db8:e004::7", "2001:db8:e004::8")]
        {
            let (start, mut responder) = (Instant::now(), responder(false));
            responder.handle_input(start, LAN, &question(asker, target));
            assert_eq!(actions(&mut responder), [Action::Look(ip(target))]);
            let due = responder.poll_timeout().expect("looked for");
            assert_eq!(due, start + PATIENCE);
            responder.handle_timeout(due);
            assert_eq!(actions(&mut responder), [answered(asker, target)]);
            // From then on at once, until it may have come.
            responder.handle_input(due, LAN, &question(asker, target));
            assert_eq!(actions(&mut responder), [answered(asker, target)]);
            responder.handle_input(due + ABSENCE, LAN, &question(asker, target));
            assert_eq!(actions(&mut responder), [Action::Look(ip(target))]);
        }
    }

    #[test]
    fn dy_01_a_host_on_the_link_answers_for_itself() {
        let (start, mut responder) = (Instant::now(), responder(false));
        responder.handle_input(start, LAN, &question("172.16.4.7", "172.16.4.8"));
        assert_eq!(actions(&mut responder).len(), 1);
        responder.heard(ip("172.16.4.8"));
        assert_eq!(responder.poll_timeout(), None);
        responder.set_place(start, ip("172.16.4.8"), Some(Place::Here));
        responder.handle_input(start, LAN, &question("172.16.4.7", "172.16.4.8"));
        assert_eq!(actions(&mut responder), []);
    }

    #[test]
    fn dy_01_who_has_left_is_answered_for_and_those_it_talked_to_are_told() {
        let (start, mut responder) = (Instant::now(), responder(true));
        responder.set_place(start, ip("172.16.4.7"), Some(Place::Away));
        let told = Action::Answer {
            interface: LAN,
            gateway: GATEWAY,
            address: ip("172.16.4.7"),
            asker: None,
        };
        assert_eq!(actions(&mut responder), [told]);
        responder.set_place(start, ip("172.16.4.7"), Some(Place::Away));
        responder.handle_input(start, LAN, &question("172.16.4.8", "172.16.4.7"));
        assert_eq!(actions(&mut responder), [answered("172.16.4.8", "172.16.4.7")]);
        // At home nobody else is answered for: who is not known to be away is here.
        responder.handle_input(start, LAN, &question("172.16.4.8", "172.16.4.9"));
        responder.set_place(start, ip("172.16.4.7"), None);
        responder.handle_input(start, LAN, &question("172.16.4.8", "172.16.4.7"));
        assert_eq!(actions(&mut responder), []);
    }

    #[test]
    fn nobody_is_told_that_an_address_it_is_about_to_take_is_in_use() {
        let (start, mut responder) = (Instant::now(), responder(false));
        responder.set_place(start, ip("172.16.4.7"), Some(Place::Away));
        assert_eq!(actions(&mut responder).len(), 1);
        let probe = Saying { tentative: true, asks_for: None, ..question("172.16.4.7", "::") };
        let announcement = Saying { tentative: false, ..probe };
        responder.handle_input(start, LAN, &probe);
        responder.handle_input(start, LAN, &announcement);
        assert_eq!(actions(&mut responder), []);
    }

    #[test]
    fn the_kernel_answers_for_the_gateway_and_nobody_for_strangers() {
        let (start, mut responder) = (Instant::now(), responder(false));
        responder.handle_input(start, LAN, &question("172.16.4.7", "172.16.4.1"));
        responder.handle_input(start, LAN, &question("172.16.4.7", "192.0.2.1"));
        responder.handle_input(start, LAN + 1, &question("172.16.4.7", "172.16.4.8"));
        assert_eq!(actions(&mut responder), []);
    }

    #[test]
    fn questions_without_end_are_bounded() {
        let (start, mut responder) = (Instant::now(), responder(false));
        for host in 0..100_000u32 {
            let target = format!("2001:db8:e004::1:{:x}:{:x}", host >> 16, host & 0xffff);
            responder.handle_input(start, LAN, &question("2001:db8:e004::7", &target));
        }
        assert_eq!(actions(&mut responder).len(), MAX_LOOKS);
        responder.handle_timeout(start + PATIENCE);
        assert_eq!(actions(&mut responder).len(), MAX_LOOKS);
        assert_eq!(responder.poll_timeout(), None);
        assert!(responder.absent.len() <= MAX_ABSENT);
    }
}
