//! Misses.
use super::*;

fn packet(number: u16) -> Vec<u8> {
    Build { id: number, ..Build::v4(udp(), payload(50)) }.bytes()
}

fn numbers(bench: &Bench) -> Vec<u16> {
    let number = |datagram: &[u8]| u16::from_be_bytes([datagram[12], datagram[13]]);
    bench.out.sent.iter().map(|(_, datagram)| number(datagram)).collect()
}

#[test]
fn a_miss_is_punted_once_and_its_packets_follow_in_order() {
    let mut bench = Bench::new();
    (0..5).for_each(|number| bench.native(&packet(number)));
    let misses = bench.misses();
    assert_eq!(misses, [Eid::new(InstanceId::DEFAULT, ip("203.0.113.5"))]);
    assert_eq!(bench.counters().held, 5);
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    // Before the wake-up arrives: not ahead of those that wait.
    bench.native(&packet(5));
    bench.release(false);
    bench.native(&packet(6));
    assert_eq!(numbers(&bench), [0, 1, 2, 3, 4, 5, 6]);
    let counters = bench.counters();
    assert_eq!((counters.held, counters.encapsulated), (0, 7));
}

#[test]
fn a_table_change_releases_only_what_it_resolves() {
    let mut bench = Bench::new();
    bench.native(&packet(1));
    bench.native(&Build::v6(udp(), payload(9)).bytes());
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    bench.release(true);
    assert_eq!(numbers(&bench), [1]);
    assert_eq!(bench.counters().held, 1);
}

#[test]
fn a_negative_answer_drops_what_waits_under_its_reason() {
    let mut bench = Bench::new();
    bench.native(&packet(1));
    bench.verdict(0, "203.0.113.0/24", Verdict::Drop(DropReason::ActionDrop));
    bench.release(true);
    bench.assert_dropped(DropReason::ActionDrop);
}

#[test]
fn mc_02_mc_27_the_hold_is_bounded() {
    let mut bench = Bench::new();
    (0..40).for_each(|number| bench.native(&packet(number)));
    let counters = bench.counters();
    assert_eq!((counters.held, counters.dropped(DropReason::MapCacheMissHoldFull)), (16, 24));
}

#[test]
fn without_an_answer_packets_time_out_and_the_eid_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.native(&packet(0));
    bench.advance(Duration::from_millis(500));
    bench.native(&packet(1));
    assert_eq!(bench.misses().len(), 1);
    bench.advance(Duration::from_millis(600));
    bench.native(&packet(2));
    assert_eq!(bench.misses().len(), 1, "at most one a second");
    bench.advance(Duration::from_secs(11));
    assert_eq!(bench.counters().dropped(DropReason::MapCacheMissTimeout), 1);
    bench.advance(Duration::from_secs(3));
    let counters = bench.counters();
    assert_eq!((counters.dropped(DropReason::MapCacheMissTimeout), counters.held), (3, 0));
    assert_eq!(bench.forwarder.poll_timeout(), None);
}

#[test]
fn a_full_punt_queue_drops_and_the_next_packet_tries_again() {
    let mut bench = Bench::configured(Rules::default(), Marking::default(), 1);
    bench.native(&packet(0));
    bench.native(&Build::v6(udp(), payload(9)).bytes());
    assert_eq!(bench.counters().dropped(DropReason::PuntQueueFull), 1);
    assert_eq!(bench.misses().len(), 1);
    bench.native(&Build::v6(udp(), payload(9)).bytes());
    assert_eq!((bench.misses().len(), bench.counters().held), (1, 2));
}

#[test]
fn hits_go_on_while_nobody_reads_the_punts() {
    let mut bench = Bench::configured(Rules::default(), Marking::default(), 1);
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    for number in 0..100 {
        bench.native(&packet(number));
        bench.native(
            &Build { destination: ip("192.0.2.9"), ..Build::v4(udp(), payload(9)) }.bytes(),
        );
    }
    assert_eq!(bench.counters().encapsulated, 100);
}

#[test]
fn last_used_follows_the_coarse_clock() {
    let mut bench = Bench::new();
    let set = bench.map("203.0.113.0/24", PEER_V4, 1500);
    bench.advance(Duration::from_secs(5));
    bench.native(&packet(1));
    assert_eq!(set.last_used.load(std::sync::atomic::Ordering::Relaxed), 6);
}

#[test]
fn mc_27_what_is_reencapsulated_waits_on_the_share_of_its_sender() {
    let mut bench = Bench::with(Rules {
        reencapsulate: vec!["203.0.113.0/24".parse().expect("a prefix")],
        ..Rules::default()
    });
    let lying = |host: u32, destination: u8| Build {
        source: IpAddr::from(std::net::Ipv4Addr::from(0xc633_6400 + host % 250 + 1)),
        destination: ip(&format!("203.0.113.{destination}")),
        ..Build::v4(udp(), payload(50))
    };
    // Each with another inner source: all of them are one sender's.
    for number in 0..2000u32 {
        let packet = lying(number, (number % 200) as u8 + 1);
        bench.core(PEER_V4, FIELDS, &lisp(0, &packet.bytes()));
    }
    assert!(bench.counters().held <= 128, "an eighth of the room: {}", bench.counters().held);
    bench.misses();
    bench.core("198.51.100.200", FIELDS, &lisp(0, &lying(1, 250).bytes()));
    assert_eq!(bench.counters().held, 129, "another sender has room");
}
