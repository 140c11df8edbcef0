//! What arrives is counted by own EID-prefix and own RLOC, under whatever policy holds.
use super::*;
use crate::policy::{PolicySwitch, Rules as InForce};

fn rules(own: &[&str]) -> Rules {
    Rules {
        own: own.iter().map(|net| net.parse().expect("a prefix")).collect(),
        ..Rules::default()
    }
}

fn in_force(own: &[&str]) -> (InForce<Rules>, Arc<Arrivals>) {
    let arrivals = Arc::new(Arrivals::new(own.len(), 2));
    (InForce { policy: Arc::new(rules(own)), arrivals: [Arc::clone(&arrivals)].into() }, arrivals)
}

fn to(destination: &str) -> Vec<u8> {
    lisp(0, &Build { destination: ip(destination), ..Build::v4(udp(), payload(72)) }.bytes())
}

#[test]
fn what_is_delivered_is_counted_for_its_prefix_and_rloc_and_what_is_dropped_is_not() {
    let mut bench = Bench::new();
    let (first, arrivals) = in_force(&["203.0.113.0/25", "203.0.113.128/25"]);
    let switch = PolicySwitch::new(first);
    bench.change(|forwarder| forwarder.with_policy_of(switch.follower(0)));
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    bench.forwarder.set_arrival(1);
    bench.core(PEER_V4, FIELDS, &to("203.0.113.200"));
    bench.core(PEER_V4, FIELDS, &to("203.0.113.201"));
    bench.core(PEER_V4, FIELDS, &to("192.0.2.1"));
    // The tunnel device has no room.
    bench.out.refuse_every = Some(1);
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    let counted = |prefix, rloc| arrivals.get(prefix, rloc);
    assert_eq!(counted(0, 0), Traffic { packets: 1, octets: 100 });
    assert_eq!(counted(1, 1), Traffic { packets: 2, octets: 200 });
    assert_eq!([counted(0, 1), counted(1, 0)], [Traffic::default(); 2]);
    assert_eq!(bench.counters().decapsulated, 4);
}

#[test]
fn another_policy_holds_from_the_next_batch_on_and_no_packet_is_lost() {
    let mut bench = Bench::new();
    let (first, before) = in_force(&["203.0.113.0/25"]);
    let switch = PolicySwitch::new(first);
    bench.change(|forwarder| forwarder.with_policy_of(switch.follower(0)));
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    let (second, after) = in_force(&["203.0.113.128/25", "203.0.113.0/25"]);
    switch.replace(second);
    // The same batch.
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    bench.advance(Duration::ZERO);
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    let counted = (before.get(0, 0).packets, after.get(0, 0).packets, after.get(1, 0).packets);
    assert_eq!(counted, (2, 0, 1));
    assert_eq!(bench.counters().dropped_total(), 0);
    assert_eq!(bench.out.delivered.len(), 3);
}

#[test]
fn sm_01_who_sends_for_own_eids_is_told_once_in_a_while() {
    let mut bench = Bench::with(rules(&["203.0.113.0/25"]));
    let heard = |bench: &mut Bench| -> Vec<(IpAddr, IpAddr)> {
        std::iter::from_fn(|| bench.punts.pop())
            .map(|punt| match punt {
                Punt::Heard { rloc, source } => (rloc, source.address),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    for _ in 0..3 {
        bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
        bench.core("198.51.100.9", FIELDS, &to("203.0.113.1"));
        // For others, and not delivered at all.
        bench.core("198.51.100.8", FIELDS, &to("203.0.113.200"));
        bench.core("198.51.100.7", FIELDS, &lisp(0, &[0x45]));
    }
    let source = Build::v4(udp(), payload(72)).source;
    assert_eq!(heard(&mut bench), [(ip(PEER_V4), source), (ip("198.51.100.9"), source)]);
    bench.advance(HEARD_AGAIN - Duration::from_secs(1));
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    assert!(heard(&mut bench).is_empty());
    bench.advance(Duration::from_secs(1));
    bench.core(PEER_V4, FIELDS, &to("203.0.113.1"));
    assert_eq!(heard(&mut bench), [(ip(PEER_V4), source)]);
}
