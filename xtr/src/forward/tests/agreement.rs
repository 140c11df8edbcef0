//! An explanation says what the path does, and leaves no trace of itself.
use super::*;
use crate::explain::view::Outcome;
use crate::explain::{Background, Explainer, Mapping};
use std::sync::atomic::Ordering;

struct Nothing;

impl Background for Nothing {
    fn mapping_of(&self, _: Eid) -> Mapping {
        Mapping::default()
    }
}

/// A packet, and what is to become of it.
struct Case {
    from: From,
    packet: Vec<u8>,
    expected: Result<Outcome, DropReason>,
}

enum From {
    Native,
    Core(&'static str, OuterFields),
}

fn native(packet: &Build, expected: Result<Outcome, DropReason>) -> Case {
    Case { from: From::Native, packet: packet.bytes(), expected }
}

fn core(packet: &Build, expected: Result<Outcome, DropReason>) -> Case {
    Case { from: From::Core(PEER_V4, FIELDS), packet: lisp(0, &packet.bytes()), expected }
}

fn to(destination: &str, packet: &Build) -> Build {
    Build { destination: ip(destination), ..packet.clone() }
}

fn from(source: &str, packet: &Build) -> Build {
    Build { source: ip(source), ..packet.clone() }
}

/// Sources that the policy refuses, each for one of the reasons that only a role knows.
const REFUSED: [(&str, DropReason); 6] = [
    ("192.0.2.101", DropReason::DestinationNotAggregate),
    ("192.0.2.102", DropReason::SourceInAggregate),
    ("192.0.2.103", DropReason::PetrSourceNotAccepted),
    ("192.0.2.104", DropReason::PetrDestinationIsEid),
    ("192.0.2.105", DropReason::PetrDestinationPrivate),
    ("192.0.2.106", DropReason::SourceNotEid),
];

/// Destinations by what the table says of them.
const VERDICTS: [(&str, DropReason); 6] = [
    ("203.0.113.21", DropReason::ActionNoAction),
    ("203.0.113.22", DropReason::ActionDrop),
    ("203.0.113.23", DropReason::ActionPolicyDenied),
    ("203.0.113.24", DropReason::ActionAuthFailure),
    ("203.0.113.25", DropReason::NoCommonRlocFamily),
    ("203.0.113.26", DropReason::NoUsableLocator),
];

const UNKNOWN: &str = "198.18.0.1";
const NATIVE: &str = "203.0.113.30";
const LOOP: &str = "203.0.113.31";
const NO_LOCATOR: &str = "203.0.113.32";
const NARROW: &str = "203.0.113.33";
const TINY_V6: &str = "2001:db8:2:1::1";

fn bench(native_forward: bool) -> (Bench, Vec<Arc<LocatorSet>>) {
    let mut bench = Bench::with(Rules {
        foreign_rlocs: vec![ip("198.51.100.66")],
        unknown_instances: [77].into(),
        foreign_destinations: vec!["203.0.113.200/32".parse().expect("a prefix")],
        reencapsulate: vec!["203.0.113.0/26".parse().expect("a prefix")],
        roaming: Vec::new(),
        own: Vec::new(),
        native_forward,
        refused_sources: REFUSED.map(|(source, reason)| (ip(source), reason)).to_vec(),
        asked: AtomicUsize::new(0),
    });
    let host =
        |address: &str| format!("{address}/{}", if address.contains(':') { 128 } else { 32 });
    let several = Arc::new(LocatorSet::new(
        [("198.51.100.2", 1), ("198.51.100.3", 2), ("198.51.100.4", 3)]
            .map(|(rloc, weight)| Adjacency { weight, ..adjacency(rloc, 1500) }),
        0,
    ));
    bench.verdict(0, "203.0.113.0/24", Verdict::Encapsulate(Arc::clone(&several)));
    let sets = vec![
        several,
        bench.map("2001:db8:2::/48", PEER_V6, 1500),
        bench.map(&host(NARROW), PEER_V4, 600),
        bench.map(&host(TINY_V6), PEER_V4, 1000),
        bench.map(&host(LOOP), OWN_V4, 1500),
    ];
    for (destination, reason) in VERDICTS {
        bench.verdict(0, &host(destination), Verdict::Drop(reason));
    }
    bench.verdict(0, &host(NATIVE), Verdict::Native);
    let nobody = Arc::new(LocatorSet::new([], 0));
    bench.verdict(0, &host(NO_LOCATOR), Verdict::Encapsulate(nobody));
    (bench, sets)
}

/// `packet` in LISP data to `destination`.
fn wrapped(destination: &str, packet: &[u8]) -> Build {
    let data = Transport::Udp { ports: (50_000, 4341) };
    to(destination, &Build::v4(data, lisp(0, packet)))
}

fn native_cases() -> Vec<Case> {
    use Outcome::{Encapsulate, ForwardNatively, Wait};
    let v4 = Build::v4(udp(), payload(100));
    let v6 = Build::v6(tcp(1, 2), payload(100));
    let large = |packet: &Build, len| Build { payload: payload(len), ..packet.clone() };
    let no_df = Build { flags_offset: 0, ..large(&v4, 1000) };
    let twice = wrapped("203.0.113.7", &wrapped("192.0.2.1", &v4.bytes()).bytes());
    let mut cases = vec![
        native(&v4, Ok(Encapsulate)),
        native(&v6, Ok(Encapsulate)),
        native(&Build { tos: 0xbb, ttl: 1, ..v4.clone() }, Ok(Encapsulate)),
        native(
            &Build { transport: Transport::Raw { protocol: 47 }, ..v4.clone() },
            Ok(Encapsulate),
        ),
        native(&Build { flags_offset: 0x2000, ..v4.clone() }, Ok(Encapsulate)),
        native(&wrapped("203.0.113.7", &v4.bytes()), Ok(Encapsulate)),
        native(&to(NARROW, &no_df), Ok(Encapsulate)),
        native(&to(TINY_V6, &large(&v6, 1100)), Ok(Encapsulate)),
        native(&to(NATIVE, &v4), Ok(ForwardNatively)),
        native(&to(UNKNOWN, &v4), Ok(Wait)),
        native(&to(NARROW, &large(&v4, 1000)), Err(DropReason::PacketTooBig)),
        native(&large(&v4, 1437), Err(DropReason::PacketTooBig)),
        native(&large(&v6, 1393), Err(DropReason::PacketTooBig)),
        native(&to(TINY_V6, &large(&v6, 1300)), Err(DropReason::PacketTooBig)),
        native(&twice, Err(DropReason::NestedTooDeep)),
        native(&to(LOOP, &v4), Err(DropReason::EncapsulationLoop)),
        native(&to(NO_LOCATOR, &v4), Err(DropReason::NoUsableLocator)),
        native(&Build { ttl: 0, ..v4.clone() }, Err(DropReason::HopLimitExceeded)),
        native(&to("224.0.0.9", &v4), Err(DropReason::InnerDestinationMartian)),
        native(&to("255.255.255.255", &v4), Err(DropReason::InnerDestinationMartian)),
        native(&to("ff02::1", &v6), Err(DropReason::InnerDestinationMartian)),
        native(&from("127.0.0.1", &v4), Err(DropReason::InnerSourceMartian)),
        native(&from("fe80::1", &v6), Err(DropReason::InnerSourceMartian)),
        native(&from("192.0.2.66", &v4), Err(DropReason::SourceNotEid)),
        Case {
            from: From::Native,
            packet: vec![0x65; 60],
            expected: Err(DropReason::InnerMalformed),
        },
    ];
    cases.extend(REFUSED.map(|(source, reason)| native(&from(source, &v4), Err(reason))));
    cases.extend(VERDICTS.map(|(destination, reason)| native(&to(destination, &v4), Err(reason))));
    cases
}

fn core_cases() -> Vec<Case> {
    use Outcome::{Deliver, Reencapsulate, Wait};
    let v4 = to("192.0.2.1", &Build::v4(udp(), payload(100)));
    let ect = Build { tos: 2, ..v4.clone() };
    let again = to("203.0.113.7", &v4);
    let at = |source, fields, datagram: Vec<u8>, expected| Case {
        from: From::Core(source, fields),
        packet: datagram,
        expected,
    };
    let plain = |source, expected| at(source, FIELDS, lisp(0, &v4.bytes()), expected);
    let ce = OuterFields { ttl: 9, tos: 3 };
    let mut encrypted = lisp(0, &v4.bytes());
    encrypted[0] |= 0x01;
    let twice = wrapped(OWN_V4, &wrapped(OWN_V4, &wrapped(OWN_V4, &v4.bytes()).bytes()).bytes());
    let mut cases = vec![
        core(&v4, Ok(Deliver)),
        core(&Build::v6(tcp(1, 2), payload(100)), Ok(Deliver)),
        core(&wrapped(OWN_V4, &v4.bytes()), Ok(Deliver)),
        at(PEER_V6, ce, lisp(5, &ect.bytes()), Ok(Deliver)),
        core(&again, Ok(Reencapsulate)),
        core(&Build { ttl: 1, ..again.clone() }, Err(DropReason::HopLimitExceeded)),
        core(&to("203.0.113.22", &v4), Err(DropReason::ActionDrop)),
        core(&to(LOOP, &v4), Err(DropReason::EncapsulationLoop)),
        at(PEER_V4, FIELDS, lisp(9, &again.bytes()), Ok(Wait)),
        at(PEER_V4, ce, lisp(0, &v4.bytes()), Err(DropReason::EcnNotEctCe)),
        at(PEER_V4, FIELDS, lisp(77, &v4.bytes()), Err(DropReason::InstanceUnknown)),
        at(PEER_V4, FIELDS, encrypted, Err(DropReason::KeyIdUnknown)),
        at(PEER_V4, FIELDS, vec![0; 20], Err(DropReason::LispHeaderTruncated)),
        at(PEER_V4, FIELDS, vec![0; 40], Err(DropReason::InnerMalformed)),
        plain("127.0.0.1", Err(DropReason::OuterSourceMartian)),
        plain(OWN_V4, Err(DropReason::OuterSourceMartian)),
        plain("198.51.100.66", Err(DropReason::PetrRlocNotAccepted)),
        core(&from("0.0.0.0", &v4), Err(DropReason::InnerSourceMartian)),
        core(&to("224.0.0.1", &v4), Err(DropReason::InnerDestinationMartian)),
        core(&to("203.0.113.200", &v4), Err(DropReason::DestinationNotLocalEid)),
        core(&twice, Err(DropReason::NestedTooDeep)),
    ];
    cases.extend(REFUSED.map(|(source, reason)| core(&from(source, &v4), Err(reason))));
    cases
}

#[test]
fn explanations_agree_with_the_path_and_leave_no_trace() {
    let cases: Vec<Case> = native_cases().into_iter().chain(core_cases()).collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    for (number, case) in cases.iter().enumerate() {
        agree(number, case, true);
    }
    let native = to(NATIVE, &Build::v4(udp(), payload(9)));
    agree(0, &self::native(&native, Err(DropReason::NativeWouldLoop)), false);
}

#[track_caller]
fn agree(number: usize, case: &Case, native_forward: bool) {
    let (mut bench, sets) = bench(native_forward);
    let explainer = Explainer::new(
        bench.forwarder.settings.clone(),
        0..64,
        Arc::clone(&bench.forwarder.policy) as Arc<dyn Policy>,
        Arc::clone(&bench.forwarder.path_mtus),
        bench.readers.clone(),
    );
    let mut notes = explainer.recorder(&Nothing);
    match case.from {
        From::Native => explainer.run_native(bench.now, &case.packet, &mut notes),
        From::Core(source, fields) => {
            explainer.run_core(bench.now, ip(source), fields, &case.packet, &mut notes);
        }
    }
    notes.finish();
    let said = match notes.dropped {
        Some(reason) => Err(reason),
        None => Ok(notes.outcome.expect("an outcome")),
    };
    assert_eq!(said, case.expected, "case {number}: {:?}", notes.steps);
    assert_eq!(bench.counters(), CounterSnapshot::default(), "case {number}: nothing is counted");
    assert!(bench.punts.pop().is_none(), "case {number}: nothing is asked for");
    for set in &sets {
        assert_eq!(set.last_used.load(Ordering::Relaxed), 0, "case {number}");
        let packets = |one: &Adjacency| one.traffic.packets.load(Ordering::Relaxed);
        assert!(set.adjacencies.iter().all(|one| packets(one) == 0), "case {number}");
    }

    match case.from {
        From::Native => bench.native(&case.packet),
        From::Core(source, fields) => bench.core(source, fields, &case.packet),
    }
    let dropped = bench.forwarder.counters.snapshot();
    let dropped = DropReason::ALL.iter().find(|&&reason| dropped.dropped(reason) > 0);
    let (mut misses, mut errors) = (0, Vec::new());
    while let Some(punt) = bench.punts.pop() {
        match punt {
            Punt::IcmpError { destination, message } => errors.push((destination, message)),
            _ => misses += 1,
        }
    }
    let happened = match (dropped, &bench.out) {
        (Some(&reason), _) => Err(reason),
        (None, out) if !out.sent.is_empty() => Ok(match case.from {
            From::Native => Outcome::Encapsulate,
            From::Core(..) => Outcome::Reencapsulate,
        }),
        (None, out) if !out.delivered.is_empty() => Ok(Outcome::Deliver),
        (None, out) if !out.forwarded.is_empty() => Ok(Outcome::ForwardNatively),
        (None, _) if misses == 1 => Ok(Outcome::Wait),
        (None, _) => panic!("case {number}: lost"),
    };
    assert_eq!(happened, said, "case {number}");

    let lens: Vec<usize> = bench
        .out
        .sent
        .iter()
        .map(|(outer, datagram)| datagram.len() + if outer.destination.is_ipv4() { 28 } else { 48 })
        .collect();
    assert_eq!(notes.sent, lens, "case {number}");
    if let Some((outer, _)) = bench.out.sent.first() {
        let view = notes.outer.expect("an outer header");
        assert_eq!(view.destination, outer.destination, "case {number}");
        let port = if outer.may_fragment { 0 } else { outer.port };
        assert_eq!(view.source_port, port, "case {number}");
        assert_eq!((view.ttl, view.dscp << 2 | view.ecn), (outer.fields.ttl, outer.fields.tos));
    }
    if let Some(packet) = bench.out.delivered.first() {
        let inner = Inner::parse(packet).expect("a packet");
        let view = notes.delivered.expect("a packet");
        assert_eq!((view.length, view.ttl), (inner.total_len, inner.ttl), "case {number}");
        assert_eq!(view.dscp << 2 | view.ecn, inner.tos, "case {number}");
    }
    let told: Vec<IpAddr> = errors.iter().map(|(to, _)| *to).collect();
    assert_eq!(notes.icmp.as_ref().map(|icmp| icmp.to), told.first().copied(), "case {number}");
    if let Some(mtu) = notes.icmp.and_then(|icmp| icmp.mtu) {
        assert_eq!(errors[0].1[4..8], u32::from(mtu).to_be_bytes(), "case {number}");
    }
}
