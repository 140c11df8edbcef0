//! MT-10, MT-15, MT-16: the path MTU found out by padded RLOC-probes, against a simulated path.
use super::*;
use crate::config::PathMtuConfig;
use crate::view::PathMtuState;

const PEER_V6: &str = "2001:db8:c0::77";

fn discovering() -> ControlConfig {
    let path_mtu = PathMtuConfig { probe: true, ..PathMtuConfig::default() };
    let rlocs = vec![own("core4", OWN_V4), own("core6", OWN_V6)];
    ControlConfig { probe: Some(ProbeConfig::default()), path_mtu, rlocs, ..config() }
}

/// The way to one RLOC and the ETR there.
struct Network {
    node: Node,
    peer: &'static str,
    /// Larger packets vanish.
    mtu: usize,
    /// What the ETR answers: nothing at all, small messages only, everything.
    answers: Answers,
    /// Sizes of the path probes, in order.
    sizes: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Nothing,
    Unpadded,
    All,
}

impl Network {
    fn new(peer: &'static str, mtu: usize, answers: Answers) -> Self {
        Self::with(discovering(), peer, mtu, answers)
    }

    fn with(config: ControlConfig, peer: &'static str, mtu: usize, answers: Answers) -> Self {
        let mut node = Node::new(config);
        node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[peer])]);
        Self { node, peer, mtu, answers, sizes: Vec::new() }
    }

    /// Lets time pass; every message that gets through is answered 20 ms later.
    fn run(&mut self, by: Duration) {
        let end = self.node.now + by;
        while self.node.now < end {
            self.node.advance(Duration::from_millis(20));
            self.answer_probes();
            let path_probes = std::mem::take(&mut self.node.path_probes);
            for probe in path_probes {
                let size = probe.payload.len() + if ip(self.peer).is_ipv4() { 28 } else { 48 };
                self.sizes.push(size);
                if size <= self.mtu && self.answers == Answers::All {
                    self.answer(&probe);
                }
            }
        }
    }

    fn answer_probes(&mut self) {
        for transmit in self.node.take_sent() {
            if self.answers != Answers::Nothing && transmit.destination == control_port(self.peer) {
                self.answer(&transmit);
            }
        }
    }

    fn answer(&mut self, probe: &Transmit) {
        let Ok(Message::MapRequest(request)) = Message::parse(&probe.payload) else {
            panic!("a Map-Request, whatever follows it")
        };
        assert!(request.probe);
        let mut record = record("10.2.0.0/16", 1440, &[self.peer]);
        record.locators[0].probed = true;
        let mut reply = MapReply::new(request.nonce, vec![record]);
        reply.probe = true;
        let message = Message::MapReply(reply).to_vec();
        let own = SocketAddr::new(probe.source, 50_000);
        self.node.receive_octets(own, control_port(self.peer), &message);
    }

    /// What the data plane is told.
    fn mtu(&self) -> u16 {
        self.node.set("10.2.0.0/16").adjacencies[0].mtu
    }

    fn state(&self) -> PathMtuState {
        self.node.control.locators_view(self.node.now)[0].path_mtu
    }

    /// Another link of ours, or another MTU on it.
    fn link(&mut self, mtu: u16) {
        self.node.control.set_path(self.node.now, ip(self.peer), Some(mtu));
        self.node.drain();
    }
}

#[test]
fn mt_16_a_path_that_carries_all_is_confirmed_and_nothing_changes() {
    for peer in [PEER, PEER_V6] {
        let mut network = Network::new(peer, 1500, Answers::All);
        assert_eq!(network.state(), PathMtuState::Assumed);
        network.run(seconds(2));
        assert_eq!((network.mtu(), network.state()), (1500, PathMtuState::Confirmed));
        assert_eq!(network.sizes, [1500]);
        network.run(seconds(600));
        assert!((9..=12).contains(&network.sizes.len()), "one a minute: {:?}", network.sizes);
        assert_eq!(network.mtu(), 1500);
    }
}

#[test]
fn mt_16_a_black_hole_is_found_and_the_largest_common_size_below_it_taken() {
    for (peer, link, mtu, expected) in [
        (PEER, 1500, 1400, 1400),
        (PEER, 1500, 1499, 1492),
        (PEER, 1500, 1280, 1280),
        (PEER, 1500, 600, 576),
        (PEER, 9000, 1500, 1500),
        (PEER, 9000, 8999, 8166),
        (PEER_V6, 1500, 1280, 1280),
        (PEER_V6, 1500, 1450, 1440),
        (PEER_V6, 9000, 1500, 1500),
    ] {
        let mut network = Network::new(peer, mtu, Answers::All);
        network.link(link);
        network.run(seconds(6));
        assert_eq!(network.mtu(), expected, "{peer} {link} {mtu}: {:?}", network.sizes);
        assert_eq!(network.state(), PathMtuState::Confirmed);
        assert!(network.node.events.contains(&Event::PathMtu { rloc: ip(peer), mtu: expected }));
    }
}

#[test]
fn mt_16_a_path_that_shrinks_is_noticed_at_the_next_confirmation() {
    let mut network = Network::new(PEER, 1500, Answers::All);
    network.run(seconds(5));
    network.mtu = 1400;
    network.run(seconds(75));
    assert_eq!((network.mtu(), network.state()), (1400, PathMtuState::Confirmed));
}

#[test]
fn mt_15_a_lowered_estimate_is_tried_upward_after_ten_minutes_not_before() {
    let mut network = Network::new(PEER, 1400, Answers::All);
    network.run(seconds(10));
    assert_eq!(network.mtu(), 1400);
    network.mtu = 1500;
    network.sizes.clear();
    network.run(seconds(570));
    assert!(network.sizes.iter().all(|&size| size == 1400), "{:?}", network.sizes);
    network.run(seconds(110));
    assert_eq!(network.mtu(), 1500);
}

#[test]
fn mt_15_trying_upward_in_vain_costs_nobody_anything() {
    let mut network = Network::new(PEER, 1400, Answers::All);
    network.run(seconds(10));
    for _ in 0..180 {
        network.run(seconds(10));
        assert_eq!(network.mtu(), 1400);
    }
    let too_large = network.sizes.iter().filter(|&&size| size > 1400).count();
    assert!(too_large <= 4 * 3, "three probes every ten minutes: {too_large}");
}

#[test]
fn mt_16_an_etr_that_answers_no_padded_probe_keeps_the_assumed_mtu() {
    let mut network = Network::new(PEER, 1500, Answers::Unpadded);
    network.run(seconds(3600));
    assert_eq!((network.mtu(), network.state()), (1500, PathMtuState::Assumed));
    assert!(network.sizes.len() < 80, "asked ever less often: {}", network.sizes.len());
    assert_eq!(network.node.control.locators_view(network.node.now)[0].state.name(), "up");
}

#[test]
fn mt_16_an_outage_is_no_black_hole() {
    let mut network = Network::new(PEER, 1500, Answers::All);
    network.run(seconds(5));
    network.answers = Answers::Nothing;
    network.run(seconds(300));
    network.answers = Answers::All;
    network.run(seconds(200));
    assert_eq!((network.mtu(), network.state()), (1500, PathMtuState::Confirmed));
    assert!(network.node.events.iter().all(|event| !matches!(event, Event::PathMtu { .. })));
}

#[test]
fn mt_16_one_lost_probe_changes_nothing() {
    let mut network = Network::new(PEER, 1500, Answers::All);
    network.mtu = 0;
    network.run(Duration::from_millis(1500));
    network.mtu = 1500;
    network.run(seconds(5));
    assert_eq!((network.mtu(), network.state()), (1500, PathMtuState::Confirmed));
    assert!(network.node.events.iter().all(|event| !matches!(event, Event::PathMtu { .. })));
}

#[test]
fn mt_11_mt_16_a_report_counts_at_once_and_is_then_confirmed() {
    let mut network = Network::new(PEER, 1400, Answers::All);
    network.answers = Answers::Unpadded;
    network.run(Duration::from_millis(800));
    network.answers = Answers::All;
    network.node.control.set_reported_mtu(network.node.now, ip(PEER), 1400);
    network.node.drain();
    assert_eq!(network.mtu(), 1400);
    network.run(seconds(2));
    assert_eq!((network.mtu(), network.state()), (1400, PathMtuState::Confirmed));
    network.node.control.set_reported_mtu(network.node.now, ip(PEER), 1450);
    assert_eq!(network.mtu(), 1400, "MT-13: a report never raises");
    network.node.control.set_reported_mtu(network.node.now, ip("192.0.2.99"), 1300);
}

#[test]
fn mt_10_a_link_that_grows_or_shrinks_counts_at_once() {
    let mut network = Network::new(PEER, 9000, Answers::All);
    network.run(seconds(2));
    network.link(9000);
    assert_eq!(network.mtu(), 9000);
    network.run(seconds(2));
    assert_eq!(network.state(), PathMtuState::Confirmed);
    network.link(1400);
    assert_eq!(network.mtu(), 1400);
    network.run(seconds(2));
    assert_eq!((network.mtu(), network.state()), (1400, PathMtuState::Confirmed));
}

#[test]
fn mt_01_mt_02_without_probes_l_is_configured_or_the_link_s() {
    let stateless = PathMtuConfig { ipv4: Some(1500), ipv6: Some(1400), probe: false };
    for (peer, path_mtu, unknown, jumbo, small) in [
        (PEER, PathMtuConfig::default(), 1500, 9000, 1300),
        (PEER, stateless, 1500, 1500, 1300),
        (PEER_V6, stateless, 1400, 1400, 1300),
    ] {
        let config = ControlConfig { path_mtu, ..discovering() };
        let mut network = Network::with(config, peer, 1280, Answers::All);
        assert_eq!(network.mtu(), unknown);
        network.run(seconds(300));
        assert_eq!((network.mtu(), network.sizes.len()), (unknown, 0), "nothing is asked");
        network.link(9000);
        assert_eq!(network.mtu(), jumbo);
        network.link(1300);
        assert_eq!(network.mtu(), small);
    }
}

#[test]
fn mt_16_answers_that_nobody_waits_for_change_nothing() {
    let mut network = Network::new(PEER, 1500, Answers::Unpadded);
    network.run(seconds(1));
    let mut reply = MapReply::new(0x1234, vec![record("10.2.0.0/16", 1440, &[PEER])]);
    reply.probe = true;
    network.node.receive(control_port(PEER), &Message::MapReply(reply));
    assert_eq!(network.state(), PathMtuState::Assumed);
    assert_eq!(network.node.discarded(Discard::NonceUnknown), 1);
}

#[test]
fn mt_16_many_rlocs_are_probed_within_the_rate_and_forgotten_with_their_entries() {
    let peers: Vec<String> = (1..=200).map(|last| format!("192.0.3.{last}")).collect();
    let mut node = Node::new(discovering());
    for (number, peer) in peers.iter().enumerate() {
        let prefix = format!("10.{}.0.0/16", number + 2);
        node.learn(&format!("10.{}.0.9", number + 2), vec![record(&prefix, 1440, &[peer])]);
        node.sent.clear();
    }
    node.advance(Duration::from_millis(600));
    for transmit in node.take_sent() {
        let Ok(Message::MapRequest(request)) = Message::parse(&transmit.payload) else { continue };
        let peer = transmit.destination.ip().to_string();
        let prefix = request.records[0].eid.prefix().expect("a prefix").to_string();
        let mut record = record(&prefix, 1440, &[&peer]);
        record.locators[0].probed = true;
        let mut reply = MapReply::new(request.nonce, vec![record]);
        reply.probe = true;
        node.receive(control_port(&peer), &Message::MapReply(reply));
    }
    for _ in 0..20 {
        node.path_probes.clear();
        node.advance(seconds(1));
        assert!(node.path_probes.len() <= 400, "{}", node.path_probes.len());
    }
    for number in 0..peers.len() {
        let prefix = format!("10.{}.0.0/16", number + 2);
        node.control.remove_entry(node.now, &super::prefix(&prefix));
    }
    node.drain();
    node.path_probes.clear();
    node.advance(seconds(120));
    assert!(node.path_probes.is_empty(), "nobody left to probe");
}
