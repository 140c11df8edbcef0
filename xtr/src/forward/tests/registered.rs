//! Packets from the core whose source has to be registered; rate limits.
use super::*;
use crate::packet::Dscp;

const SITE: &str = "198.51.100.0/24";
const FORGER: &str = "203.0.113.66";

/// A path that checks sources, and the table it looks them up in.
struct Checking {
    bench: Bench,
    sources: FibWriter,
}

impl Checking {
    fn with(rules: Rules) -> Self {
        let mut bench = Bench::with(rules);
        let (sources, factory) = FibWriter::new();
        bench.change(|forwarder| forwarder.check_sources(factory.reader()));
        Self { bench, sources }
    }

    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn register(&mut self, prefix: &str, locators: &[&str]) {
        let adjacencies: Vec<_> = locators.iter().map(|locator| adjacency(locator, 0)).collect();
        let set = LocatorSet::new(adjacencies, 0);
        self.say(prefix, Verdict::Encapsulate(Arc::new(set)));
    }

    fn say(&mut self, prefix: &str, verdict: Verdict) {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, prefix.parse().expect("a prefix"));
        self.sources.apply([FibUpdate::Insert(prefix, verdict)]);
    }

    /// A packet of 198.51.100.7 for 203.0.113.5, or the other family.
    fn send(&mut self, rloc: &str, packet: &Build) {
        self.bench.core(rloc, FIELDS, &lisp(0, &packet.bytes()));
    }
}

fn packet() -> Build {
    Build::v4(udp(), payload(30))
}

fn numbered(id: u16) -> Build {
    Build { id, ..packet() }
}

#[test]
fn pe_04_de_23_a_packet_is_taken_from_the_locators_of_its_source_s_mapping_only() {
    for locator in [PEER_V4, PEER_V6] {
        let mut checking = Checking::new();
        checking.register(SITE, &[PEER_V4, PEER_V6]);
        checking.send(locator, &packet());
        assert_eq!(checking.bench.out.delivered, [packet().bytes()]);
        assert_eq!(checking.bench.counters().decapsulated, 1);
    }
    let mut checking = Checking::new();
    checking.register(SITE, &[PEER_V4]);
    checking.send(FORGER, &packet());
    checking.bench.assert_dropped(DropReason::PetrRlocNotOfSite);
}

#[test]
fn pe_02_a_source_that_is_nobody_s_is_not_relayed() {
    for verdict in [
        Verdict::Drop(DropReason::PetrSourceNotRegistered),
        Verdict::Native,
        Verdict::Drop(DropReason::ActionNoAction),
    ] {
        let mut checking = Checking::new();
        checking.say("0.0.0.0/0", verdict);
        checking.send(PEER_V4, &packet());
        checking.bench.assert_dropped(DropReason::PetrSourceNotRegistered);
        assert!(checking.bench.punts.pop().is_none(), "that is known");
    }
}

#[test]
fn pe_04_the_first_packets_wait_for_the_mapping_and_leave_in_order() {
    let mut checking = Checking::new();
    for id in 0..5 {
        checking.send(PEER_V4, &numbered(id));
    }
    let counters = checking.bench.counters();
    assert_eq!((counters.held, counters.decapsulated), (5, 0));
    let misses = checking.bench.misses();
    assert_eq!(misses, [Eid::new(InstanceId::DEFAULT, packet().source)], "asked once");
    checking.register(SITE, &[PEER_V4]);
    // One that comes before the engine noticed waits behind the others.
    checking.send(PEER_V4, &numbered(5));
    checking.bench.release(true);
    let delivered: Vec<_> = (0..6).map(|id| numbered(id).bytes()).collect();
    assert_eq!(checking.bench.out.delivered, delivered);
    let counters = checking.bench.counters();
    assert_eq!((counters.held, counters.decapsulated, counters.dropped_total()), (0, 6, 0));
}

#[test]
fn pe_04_who_waited_is_judged_like_anybody_else() {
    let mut checking = Checking::new();
    checking.send(PEER_V4, &numbered(1));
    checking.send(FORGER, &numbered(2));
    checking.register(SITE, &[PEER_V4]);
    checking.bench.release(true);
    assert_eq!(checking.bench.out.delivered, [numbered(1).bytes()]);
    assert_eq!(checking.bench.counters().dropped(DropReason::PetrRlocNotOfSite), 1);
    let mut checking = Checking::new();
    checking.send(PEER_V4, &packet());
    checking.say("0.0.0.0/0", Verdict::Drop(DropReason::PetrSourceNotRegistered));
    checking.bench.release(true);
    checking.bench.assert_dropped(DropReason::PetrSourceNotRegistered);
}

#[test]
fn pe_04_a_flood_of_unknown_sources_is_bounded_and_conserved() {
    let mut checking = Checking::new();
    checking.register("192.0.2.0/24", &[PEER_V4]);
    for number in 0..10_000u32 {
        let source = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        checking.send(FORGER, &Build { source, ..packet() });
        // Those who are known come through all the while.
        if number % 100 == 0 {
            checking.send(PEER_V4, &Build { source: ip("192.0.2.1"), ..packet() });
        }
    }
    let limits = HoldLimits::default();
    let counters = checking.bench.counters();
    assert_eq!(counters.decapsulated, 100);
    assert!(counters.held <= limits.packets as u64);
    assert_eq!(counters.dropped_total() + counters.held, 10_000);
    checking.bench.advance(limits.timeout);
    let counters = checking.bench.counters();
    assert_eq!((counters.held, counters.dropped_total()), (0, 10_000));
}

#[test]
fn pe_04_an_outer_source_that_changed_is_asked_about_once_a_second() {
    let mut checking = Checking::new();
    checking.register(SITE, &[PEER_V4]);
    let moved = |checking: &Checking| {
        std::iter::from_fn(|| checking.bench.punts.pop())
            .filter(|punt| matches!(punt, Punt::SourceMoved { source } if source.address == packet().source))
            .count()
    };
    (0..50).for_each(|_| checking.send("198.51.100.3", &packet()));
    assert_eq!(moved(&checking), 1);
    checking.bench.advance(Duration::from_secs(1));
    checking.send("198.51.100.3", &packet());
    assert_eq!(moved(&checking), 1);
    checking.register(SITE, &["198.51.100.3"]);
    checking.bench.release(true);
    checking.send("198.51.100.3", &packet());
    assert_eq!(checking.bench.counters().decapsulated, 1);
}

#[test]
fn pe_04_a_nested_packet_must_be_sent_by_the_site_itself() {
    let data = Transport::Udp { ports: (50_000, 4341) };
    let nested = Build {
        source: ip(PEER_V4),
        destination: ip(OWN_V4),
        ..Build::v4(data, lisp(0, &packet().bytes()))
    };
    for (sender, expected) in [(PEER_V4, 1), (FORGER, 0)] {
        let mut checking = Checking::new();
        checking.register(SITE, &[PEER_V4]);
        checking.bench.core(sender, FIELDS, &lisp(0, &nested.bytes()));
        let counters = checking.bench.counters();
        assert_eq!(counters.decapsulated, expected, "{sender}");
        assert_eq!(counters.dropped(DropReason::PetrRlocNotOfSite), 1 - expected);
    }
}

#[test]
fn pe_06_a_registered_destination_is_no_native_one() {
    let mut checking = Checking::new();
    checking.register(SITE, &[PEER_V4]);
    checking.register("203.0.113.0/24", &[PEER_V6]);
    checking.send(PEER_V4, &packet());
    checking.bench.assert_dropped(DropReason::PetrDestinationIsEid);
}

#[test]
fn pe_04_re_encapsulation_is_for_registered_sources_too() {
    let all = vec!["0.0.0.0/0".parse().expect("a prefix")];
    let mut checking =
        Checking::with(Rules { reencapsulate: all, native_forward: true, ..Rules::default() });
    checking.bench.map("203.0.113.0/24", PEER_V6, 1500);
    checking.send(PEER_V4, &packet());
    assert_eq!(checking.bench.counters().held, 1);
    checking.register(SITE, &[PEER_V4]);
    checking.bench.release(true);
    let counters = checking.bench.counters();
    assert_eq!((counters.reencapsulated, counters.held), (1, 0));
    checking.send(FORGER, &packet());
    assert_eq!(checking.bench.counters().dropped(DropReason::PetrRlocNotOfSite), 1);
}

#[test]
fn de_10_ecn_is_judged_once_for_a_packet_that_waits() {
    let mut checking = Checking::new();
    let inner = Build { tos: 0b10, ..packet() };
    checking.bench.core(PEER_V4, OuterFields { ttl: 9, tos: 0b11 }, &lisp(0, &inner.bytes()));
    checking.register(SITE, &[PEER_V4]);
    checking.bench.release(true);
    let expected = Build { tos: 0b11, ttl: 9, ..inner };
    assert_eq!(checking.bench.out.delivered, [expected.bytes()]);
}

fn limited(limits: RateLimits) -> Bench {
    let mut bench =
        Bench::configured(Rules::default(), Marking { dscp: Dscp::Copy, copy_ecn: true }, 64);
    bench.change(|forwarder| forwarder.limit_rates(limits));
    bench
}

#[test]
fn a_locator_gets_what_its_rate_allows_and_others_are_not_disturbed() {
    let mut bench = limited(RateLimits { per_locator: Some(1000), per_site: None });
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    bench.map("2001:db8:2::/48", PEER_V6, 1500);
    (0..1000).for_each(|_| bench.native(&packet().bytes()));
    let counters = bench.counters();
    assert_eq!(
        (counters.encapsulated, counters.dropped(DropReason::LocatorRateLimited)),
        (128, 872)
    );
    bench.native(&Build::v6(udp(), payload(9)).bytes());
    assert_eq!(bench.counters().encapsulated, 129);
    bench.advance(Duration::from_millis(50));
    (0..1000).for_each(|_| bench.native(&packet().bytes()));
    assert_eq!(bench.counters().encapsulated, 179);
}

#[test]
fn a_locator_sends_what_its_rate_allows() {
    let mut bench = limited(RateLimits { per_locator: Some(1000), per_site: None });
    (0..1000).for_each(|_| bench.core(PEER_V4, FIELDS, &lisp(0, &packet().bytes())));
    bench.core(PEER_V6, FIELDS, &lisp(0, &packet().bytes()));
    let counters = bench.counters();
    assert_eq!(
        (counters.decapsulated, counters.dropped(DropReason::LocatorRateLimited)),
        (129, 872)
    );
}

#[test]
fn a_site_gets_and_sends_what_its_rate_allows() {
    let limits = RateLimits { per_locator: None, per_site: Some(1000) };
    let mut bench = limited(limits);
    bench.map("203.0.113.0/25", PEER_V4, 1500);
    bench.map("203.0.113.128/25", PEER_V4, 1500);
    (0..1000).for_each(|_| bench.native(&packet().bytes()));
    let counters = bench.counters();
    assert_eq!((counters.encapsulated, counters.dropped(DropReason::SiteRateLimited)), (128, 872));
    bench.native(&Build { destination: ip("203.0.113.200"), ..packet() }.bytes());
    assert_eq!(bench.counters().encapsulated, 129, "another site behind the same locator");
    let mut checking = Checking::new();
    checking.bench.change(|forwarder| forwarder.limit_rates(limits));
    checking.register(SITE, &[PEER_V4]);
    (0..1000).for_each(|_| checking.send(PEER_V4, &packet()));
    let counters = checking.bench.counters();
    assert_eq!((counters.decapsulated, counters.dropped(DropReason::SiteRateLimited)), (128, 872));
}

#[test]
fn what_one_bucket_or_the_mtu_refuses_costs_nothing_of_the_other() {
    let mut bench = limited(RateLimits { per_locator: Some(10), per_site: Some(1000) });
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    // The locator's bucket is empty after 128 packets; the site's would be half empty after as many more.
    (0..5000).for_each(|_| bench.native(&packet().bytes()));
    assert_eq!(bench.counters().dropped(DropReason::LocatorRateLimited), 5000 - 128);
    assert_eq!(bench.counters().dropped(DropReason::SiteRateLimited), 0);
    let mut bench = limited(RateLimits { per_locator: Some(1000), per_site: None });
    bench.map("203.0.113.0/24", PEER_V4, 600);
    let large = Build { flags_offset: 0x4000, ..Build::v4(udp(), payload(700)) };
    (0..200).for_each(|_| bench.native(&large.bytes()));
    assert_eq!(bench.counters().dropped(DropReason::PacketTooBig), 200);
    bench.native(&packet().bytes());
    assert_eq!(bench.counters().encapsulated, 1);
}

#[test]
fn a_mapping_that_verifies_packets_is_in_use() {
    let mut checking = Checking::new();
    let set = Arc::new(LocatorSet::new(vec![adjacency(PEER_V4, 0)], 0));
    checking.say(SITE, Verdict::Encapsulate(Arc::clone(&set)));
    checking.send(FORGER, &packet());
    assert_eq!(set.last_used.load(std::sync::atomic::Ordering::Relaxed), 0, "it verified nothing");
    checking.send(PEER_V4, &packet());
    assert_eq!(set.last_used.load(std::sync::atomic::Ordering::Relaxed), 1);
}
