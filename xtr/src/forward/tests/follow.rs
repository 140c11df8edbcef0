//! Packets for hosts that come and go (DY-04).
use super::*;

const RANGE: &str = "203.0.113.0/24";
const HOST: &str = "203.0.113.5/32";
/// Where the host went.
const NEW: &str = "198.51.100.3";

/// A site with a host of the range at home, which has gone to [`NEW`].
fn departed() -> Bench {
    let rules = Rules {
        roaming: vec![RANGE.parse().expect("a prefix")],
        native_forward: true,
        ..Rules::default()
    };
    let mut bench = Bench::with(rules);
    bench.verdict(0, RANGE, Verdict::Native);
    bench.map(HOST, NEW, 1500);
    bench
}

/// 198.51.100.7 to 203.0.113.5, from the core.
fn to_host() -> Vec<u8> {
    lisp(0, &Build::v4(udp(), payload(30)).bytes())
}

fn left(bench: &Bench) -> Vec<(Eid, IpAddr, IpAddr, bool)> {
    std::iter::from_fn(|| bench.punts.pop())
        .filter_map(|punt| match punt {
            Punt::Left { destination, source, rloc, returns } => {
                Some((destination, source, rloc, returns))
            }
            _ => None,
        })
        .collect()
}

fn host() -> Eid {
    Eid::new(InstanceId::DEFAULT, ip("203.0.113.5"))
}

#[test]
fn dy_04_a_packet_for_a_host_that_is_away_follows_it_and_its_sender_is_told_of() {
    let mut bench = departed();
    bench.core(PEER_V4, FIELDS, &to_host());
    assert_eq!(bench.out.sent.len(), 1);
    let (outer, datagram) = &bench.out.sent[0];
    assert_eq!(outer.destination, ip(NEW));
    let inner = Inner::parse(&datagram[lisp::HEADER_LEN..]).expect("the packet");
    let before = Inner::parse(&to_host()[lisp::HEADER_LEN..]).expect("the packet");
    assert_eq!(inner.ttl, before.ttl - 1);
    assert_eq!(left(&bench), [(host(), inner.source, ip(PEER_V4), false)]);
    assert_eq!(bench.counters().reencapsulated, 1);
}

#[test]
fn dy_04_a_sender_is_told_of_once_a_second_for_each_host() {
    let mut bench = departed();
    bench.map("203.0.113.6/32", NEW, 1500);
    let mut other = Build::v4(udp(), payload(30));
    other.destination = ip("203.0.113.6");
    let other = lisp(0, &other.bytes());
    for _ in 0..50 {
        bench.core(PEER_V4, FIELDS, &to_host());
        bench.core("198.51.100.9", FIELDS, &to_host());
        bench.core(PEER_V4, FIELDS, &other);
    }
    assert_eq!(left(&bench).len(), 3);
    assert_eq!(bench.out.sent.len(), 150, "every packet follows");
    bench.advance(Duration::from_secs(1));
    bench.core(PEER_V4, FIELDS, &to_host());
    assert_eq!(left(&bench).len(), 1);
}

#[test]
fn dy_04_the_notices_of_a_second_are_bounded_and_a_full_queue_is_tried_again() {
    let mut bench = departed();
    for sender in 0..2000u32 {
        let sender = std::net::Ipv4Addr::from_bits(0xc633_7000 + sender).to_string();
        bench.core(&sender, FIELDS, &to_host());
    }
    // What others bring about gets half of the queue, of 64.
    assert_eq!(left(&bench).len(), 32);
    bench.core(PEER_V4, FIELDS, &to_host());
    assert_eq!(left(&bench).len(), 1, "there is room again");
}

#[test]
fn dy_04_a_host_that_is_here_gets_its_packets_and_nobody_is_told() {
    let mut bench = departed();
    bench.verdict(0, HOST, Verdict::Native);
    bench.core(PEER_V4, FIELDS, &to_host());
    assert_eq!((bench.out.delivered.len(), bench.out.sent.len()), (1, 0));
    assert!(left(&bench).is_empty());
}

#[test]
fn dy_04_a_packet_never_goes_back_to_the_router_it_came_from() {
    let mut bench = departed();
    bench.core(NEW, FIELDS, &to_host());
    bench.assert_dropped(DropReason::FollowedToSender);
    let [(destination, _, rloc, true)] = left(&bench)[..] else { panic!("told of") };
    assert_eq!((destination, rloc), (host(), ip(NEW)));
}

#[test]
fn dy_04_a_packet_never_goes_to_another_locator_of_where_it_came_from() {
    let mut bench = departed();
    let adjacencies = [adjacency(NEW, 1500), adjacency("198.51.100.4", 1500)];
    let set = Arc::new(LocatorSet::new(adjacencies, 0));
    bench.verdict(0, HOST, Verdict::Encapsulate(set));
    for _ in 0..16 {
        bench.core("198.51.100.4", FIELDS, &to_host());
    }
    assert_eq!(bench.counters().dropped(DropReason::FollowedToSender), 16);
    assert!(bench.out.sent.is_empty());
}

#[test]
fn dy_04_a_packet_that_waited_never_goes_back_either() {
    for (to, dropped) in [(NEW, 1), (PEER_V4, 0)] {
        let mut bench = departed();
        bench.verdict(0, HOST, Verdict::Miss);
        bench.core(NEW, FIELDS, &to_host());
        assert_eq!(bench.counters().held, 1);
        bench.map(HOST, to, 1500);
        bench.release(true);
        let counters = bench.counters();
        assert_eq!(counters.dropped(DropReason::FollowedToSender), dropped, "{to}");
        assert_eq!(counters.reencapsulated, 1 - dropped, "{to}");
    }
}

#[test]
fn dy_04_packets_of_the_site_itself_go_wherever_the_host_is() {
    let mut bench = departed();
    bench.native(&Build::v4(udp(), payload(30)).bytes());
    assert_eq!(bench.out.sent.len(), 1);
    assert!(left(&bench).is_empty());
}

#[test]
fn dy_01_a_host_that_is_known_to_be_here_costs_nothing_per_packet() {
    let mut bench = departed();
    bench.map("198.51.100.0/24", PEER_V4, 1500);
    let mut packet = Build::v4(udp(), payload(30));
    (packet.source, packet.destination) = (ip("203.0.113.5"), ip("198.51.100.99"));
    let packet = packet.bytes();
    let spoke = |bench: &Bench| {
        let punts = std::iter::from_fn(|| bench.punts.pop());
        punts.filter(|punt| matches!(punt, Punt::HostSpoke { .. })).count()
    };
    let asked = |bench: &Bench| bench.forwarder.policy.asked.load(Ordering::Relaxed);
    bench.native(&packet);
    assert_eq!(spoke(&bench), 1, "it is known to be elsewhere");
    // The control plane has it here, and tells the table.
    bench.verdict(0, HOST, Verdict::Native);
    bench.release(true);
    let before = asked(&bench);
    for _ in 0..1_000 {
        bench.native(&packet);
    }
    assert_eq!((spoke(&bench), asked(&bench) - before), (0, 1), "looked up once");
    // It leaves, and speaks again.
    bench.map(HOST, NEW, 1500);
    bench.release(true);
    bench.native(&packet);
    assert_eq!(spoke(&bench), 0, "told of less than a tenth of a second ago");
    bench.advance(SPOKE_AGAIN);
    bench.native(&packet);
    assert_eq!(spoke(&bench), 1);
}

#[test]
fn packets_for_a_host_that_is_here_are_counted_for_its_range() {
    let mut bench = departed();
    bench.verdict(0, HOST, Verdict::Native);
    bench.forwarder.arrivals = Arc::new(Arrivals::new(FOLLOWED as usize + 1, 2));
    bench.forwarder.set_arrival(1);
    bench.core(PEER_V4, FIELDS, &to_host());
    let counted = bench.forwarder.arrivals.get(FOLLOWED as usize, 1);
    assert_eq!(counted, Traffic::packet(to_host().len() - lisp::HEADER_LEN));
    // What follows its host elsewhere did not arrive.
    bench.map(HOST, NEW, 1500);
    bench.core("198.51.100.9", FIELDS, &to_host());
    assert_eq!(bench.forwarder.arrivals.get(FOLLOWED as usize, 1), counted);
}
