//! From the TUN to the core.
use super::*;
use crate::packet::Dscp;
use crate::packet::headers::VirtioNetHeader as Virtio;
use std::sync::atomic::Ordering;
use zerocopy::native_endian::U16;

fn both() -> [(Build, &'static str, &'static str); 4] {
    let v4 = || Build::v4(udp(), payload(100));
    let v6 = || Build::v6(udp(), payload(100));
    [
        (v4(), "203.0.113.0/24", PEER_V4),
        (v4(), "203.0.113.0/24", PEER_V6),
        (v6(), "2001:db8:2::/48", PEER_V4),
        (v6(), "2001:db8:2::/48", PEER_V6),
    ]
}

#[test]
fn en_01_en_04_en_06_en_07_en_08_en_26_the_packet_goes_to_its_locator_unchanged() {
    for (mut packet, prefix, rloc) in both() {
        for tos in 0..=255 {
            packet.tos = tos;
            packet.ttl = 17;
            let mut bench = Bench::new();
            let set = bench.map(prefix, rloc, 1500);
            bench.native(&packet.bytes());
            let [(outer, datagram)] = &bench.out.sent[..] else { panic!("one packet") };
            assert_eq!(outer.destination, ip(rloc));
            assert_eq!(outer.own_rloc, usize::from(outer.destination.is_ipv6()));
            assert_eq!(outer.fields, OuterFields { ttl: 17, tos });
            assert!(!outer.may_fragment);
            assert_eq!(datagram[..], lisp(0, &packet.bytes()));
            let traffic = &set.adjacencies[0].traffic;
            assert_eq!(traffic.packets.load(Ordering::Relaxed), 1);
            assert_eq!(traffic.octets.load(Ordering::Relaxed), packet.bytes().len() as u64);
            assert_eq!(set.last_used.load(Ordering::Relaxed), 1);
            assert_eq!(bench.counters().encapsulated, 1);
        }
    }
}

#[test]
fn en_09_compatibility_mode_marks_nothing_outside() {
    let marking = Marking { dscp: Dscp::Fixed(10), copy_ecn: false };
    let mut bench = Bench::configured(Rules::default(), marking, 8);
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    bench.native(&Build { tos: 0xbb, ..Build::v4(udp(), payload(9)) }.bytes());
    assert_eq!(bench.out.sent[0].0.fields.tos, 10 << 2);
    assert_eq!(bench.out.sent[0].1[9], 0xbb);
}

#[test]
fn en_05_ttl_0_is_answered_and_not_encapsulated() {
    for (mut packet, prefix, rloc) in both() {
        let mut bench = Bench::new();
        bench.map(prefix, rloc, 1500);
        packet.ttl = 0;
        bench.native(&packet.bytes());
        bench.assert_dropped(DropReason::HopLimitExceeded);
        let errors = bench.icmp_errors();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].0, packet.source);
        assert_eq!(errors[0].1[0], if packet.source.is_ipv4() { 11 } else { 3 });
    }
}

#[test]
fn en_13_en_16_a_flow_keeps_its_port_and_flows_spread() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let mut ports = BTreeSet::new();
    for source_port in 1..1000 {
        let transport = Transport::Udp { ports: (source_port, 53) };
        let packet = Build::v4(transport, payload(20)).bytes();
        bench.native(&packet);
        bench.native(&packet);
        let [.., (first, _), (second, _)] = &bench.out.sent[..] else { panic!("two packets") };
        assert_eq!(first.port, second.port);
        assert!(first.port < 64);
        ports.insert(first.port);
    }
    assert_eq!(ports.len(), 64);
}

#[test]
fn en_23_a_third_lisp_header_is_refused() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let data = Transport::Udp { ports: (50_000, 4341) };
    let once = Build::v4(data.clone(), lisp(0, &Build::v4(udp(), payload(8)).bytes()));
    bench.native(&once.bytes());
    assert_eq!(bench.out.sent.len(), 1, "a second header is fine");
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    bench.native(&Build::v4(data, lisp(0, &once.bytes())).bytes());
    bench.assert_dropped(DropReason::NestedTooDeep);
}

#[test]
fn en_24_an_own_address_as_locator_is_a_loop() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", OWN_V4, 1500);
    bench.native(&Build::v4(udp(), payload(8)).bytes());
    bench.assert_dropped(DropReason::EncapsulationLoop);
}

#[test]
fn en_25_no_common_family_is_answered() {
    let mut bench = Bench::new();
    bench.verdict(0, "203.0.113.0/24", Verdict::Drop(DropReason::NoCommonRlocFamily));
    bench.native(&Build::v4(udp(), payload(8)).bytes());
    bench.assert_dropped(DropReason::NoCommonRlocFamily);
    assert_eq!(bench.icmp_errors()[0].1[..2], [3, 1]);
}

#[test]
fn an_own_rloc_that_is_not_configured_is_no_locator() {
    let mut bench = Bench::new();
    let mut foreign = adjacency(PEER_V4, 1500);
    foreign.source = ip("198.51.100.77");
    let set = LocatorSet::new([foreign], 0);
    bench.verdict(0, "203.0.113.0/24", Verdict::Encapsulate(Arc::new(set)));
    bench.native(&Build::v4(udp(), payload(8)).bytes());
    bench.assert_dropped(DropReason::NoUsableLocator);
}

#[test]
fn en_28_a_partial_checksum_is_completed() {
    for (packet, prefix, rloc) in both() {
        let mut bench = Bench::new();
        bench.map(prefix, rloc, 1500);
        let whole = packet.bytes();
        let start = if packet.source.is_ipv4() { 20 } else { 40 };
        let mut partial = whole.clone();
        let pseudo = crate::packet::checksum::pseudo_header(
            packet.source,
            packet.destination,
            17,
            whole.len() - start,
        );
        partial[start + 6..start + 8].copy_from_slice(&pseudo.partial());
        let virtio = Virtio {
            flags: Virtio::NEEDS_CSUM,
            csum_start: U16::new(start as u16),
            csum_offset: U16::new(6),
            ..Virtio::default()
        };
        bench.native_frame(virtio, &partial);
        assert_eq!(bench.out.sent[0].1[8..], whole);
    }
}

#[test]
fn en_28_a_partial_checksum_in_the_ip_header_is_refused() {
    for (packet, prefix, rloc) in both() {
        let start = if packet.source.is_ipv4() { 20 } else { 40 };
        for csum_start in [0, 4, start - 1] {
            let mut bench = Bench::new();
            bench.map(prefix, rloc, 1500);
            let virtio = Virtio {
                flags: Virtio::NEEDS_CSUM,
                csum_start: U16::new(csum_start),
                csum_offset: U16::new(16),
                ..Virtio::default()
            };
            // It would write over the addresses that the packet was admitted by.
            bench.native_frame(virtio, &packet.bytes());
            bench.assert_dropped(DropReason::InnerMalformed);
        }
    }
}

fn super_packet(is_v6: bool, len: usize, size: u16) -> (Virtio, Build) {
    let virtio = Virtio {
        flags: Virtio::NEEDS_CSUM,
        gso_type: if is_v6 { Virtio::GSO_TCPV6 } else { Virtio::GSO_TCPV4 },
        gso_size: U16::new(size),
        csum_start: U16::new(if is_v6 { 40 } else { 20 }),
        csum_offset: U16::new(16),
        ..Virtio::default()
    };
    (virtio, Build::family(is_v6, tcp(1000, 0x10), payload(len)))
}

#[test]
fn en_29_super_packets_become_whole_segments() {
    for is_v6 in [false, true] {
        let mut bench = Bench::new();
        bench.map(if is_v6 { "::/0" } else { "0.0.0.0/0" }, PEER_V4, 1500);
        let (virtio, packet) = super_packet(is_v6, 10_000, 1300);
        bench.native_frame(virtio, &packet.bytes());
        assert_eq!(bench.out.sent.len(), 8);
        let mut data = Vec::new();
        for (outer, datagram) in &bench.out.sent {
            assert_eq!(*outer, bench.out.sent[0].0, "one locator, one port");
            support::assert_intact(&datagram[8..]);
            let headers = if is_v6 { 40 } else { 20 } + 32;
            data.extend_from_slice(&datagram[8 + headers..]);
        }
        assert_eq!(data, packet.payload);
        let counters = bench.counters();
        assert_eq!((counters.native_in.packets, counters.encapsulated), (8, 8));
    }
}

#[test]
fn en_29_segments_larger_than_the_path_are_answered() {
    let mut bench = Bench::new();
    bench.map("::/0", PEER_V6, 1400);
    let (virtio, packet) = super_packet(true, 10_000, 1300);
    bench.native_frame(virtio, &packet.bytes());
    let counters = bench.counters();
    assert_eq!(counters.dropped(DropReason::PacketTooBig), 8);
    assert_eq!(bench.icmp_errors()[0].1[4..8], 1344u32.to_be_bytes());
}

#[test]
fn en_29_mt_03_segments_without_df_are_fragmented() {
    let mut bench = Bench::new();
    bench.map("0.0.0.0/0", PEER_V4, 1036);
    let (virtio, mut packet) = super_packet(false, 3000, 1300);
    packet.flags_offset = 0;
    bench.native_frame(virtio, &packet.bytes());
    assert!(bench.out.sent.iter().all(|(_, datagram)| datagram.len() <= 8 + 1000));
    let counters = bench.counters();
    assert_eq!((counters.native_in.packets, counters.fragments_created), (3, 2));
    assert_eq!(counters.encapsulated, 5);
}

#[test]
fn en_31_nobody_encapsulates_to_martians() {
    for destination in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "169.254.1.1"] {
        let mut bench = Bench::new();
        bench.map("0.0.0.0/0", PEER_V4, 1500);
        let packet = Build { destination: ip(destination), ..Build::v4(udp(), payload(8)) };
        bench.native(&packet.bytes());
        bench.assert_dropped(DropReason::InnerDestinationMartian);
    }
    let mut bench = Bench::new();
    bench.native(&Build { source: ip("fe80::1"), ..Build::v6(udp(), payload(8)) }.bytes());
    bench.assert_dropped(DropReason::InnerSourceMartian);
}

#[test]
fn the_policy_may_refuse() {
    let mut bench = Bench::new();
    bench.map("0.0.0.0/0", PEER_V4, 1500);
    bench.native(&Build { source: ip("192.0.2.66"), ..Build::v4(udp(), payload(8)) }.bytes());
    bench.assert_dropped(DropReason::SourceNotEid);
}

#[test]
fn mt_03_mt_04_packets_without_df_are_split_for_one_locator() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let packet = Build { flags_offset: 0, ..Build::v4(udp(), payload(2000)) };
    bench.native(&packet.bytes());
    let [(first, a), (second, b)] = &bench.out.sent[..] else { panic!("two fragments") };
    assert_eq!(first, second);
    assert!(a.len() <= 1464 + 8 && b.len() <= 1464 + 8);
    let (first, second) = (a.len() - 28, b.len() - 28);
    assert_eq!((first + second, first % 8), (2008, 0));
    let counters = bench.counters();
    assert_eq!((counters.native_in.packets, counters.fragments_created), (1, 1));
}

#[test]
fn mt_06_mt_07_mt_09_too_big_packets_are_answered() {
    for (packet, prefix, mtu) in [
        (Build::v4(udp(), payload(1500)), "203.0.113.0/24", 1464u32),
        (Build::v6(udp(), payload(1500)), "2001:db8:2::/48", 1464),
    ] {
        let mut bench = Bench::new();
        bench.map(prefix, PEER_V4, 1500);
        bench.native(&packet.bytes());
        bench.assert_dropped(DropReason::PacketTooBig);
        let errors = bench.icmp_errors();
        assert_eq!(errors[0].0, packet.source);
        let kind = if packet.source.is_ipv4() { [3, 4] } else { [2, 0] };
        assert_eq!((&errors[0].1[..2], &errors[0].1[4..8]), (&kind[..], &mtu.to_be_bytes()[..]));
        assert_eq!(bench.counters().icmp_errors, 1);
    }
}

#[test]
fn mt_08_ipv6_up_to_1280_may_be_fragmented_outside() {
    let mut bench = Bench::new();
    bench.map("2001:db8:2::/48", PEER_V4, 1200);
    bench.native(&Build::v6(udp(), payload(1232)).bytes());
    assert!(bench.out.sent[0].0.may_fragment);
    bench.native(&Build::v6(udp(), payload(1233)).bytes());
    assert_eq!(bench.counters().dropped(DropReason::PacketTooBig), 1);
    assert_eq!(bench.icmp_errors()[0].1[4..8], 1280u32.to_be_bytes());
}

#[test]
fn mt_20_icmp_errors_are_limited() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1400);
    let packet = Build::v4(udp(), payload(1400)).bytes();
    for _ in 0..100 {
        bench.native(&packet);
    }
    let counters = bench.counters();
    assert_eq!(counters.dropped(DropReason::PacketTooBig), 100);
    assert!(counters.icmp_errors <= 10);
    assert_eq!(counters.icmp_errors + counters.icmp_suppressed, 100);
}

#[test]
fn mc_10_mc_13_mc_14_actions_drop_under_their_own_reason() {
    for reason in [
        DropReason::ActionNoAction,
        DropReason::ActionDrop,
        DropReason::ActionPolicyDenied,
        DropReason::ActionAuthFailure,
    ] {
        let mut bench = Bench::new();
        bench.verdict(0, "203.0.113.0/24", Verdict::Drop(reason));
        bench.native(&Build::v4(udp(), payload(8)).bytes());
        bench.assert_dropped(reason);
    }
}

#[test]
fn native_verdicts_go_back_to_the_kernel_if_the_role_allows() {
    let rules = Rules { native_forward: true, ..Rules::default() };
    let mut bench = Bench::with(rules);
    bench.verdict(0, "203.0.113.0/24", Verdict::Native);
    let (virtio, packet) = super_packet(false, 5000, 1000);
    bench.native_frame(virtio, &packet.bytes());
    let expected = [virtio.as_bytes(), &packet.bytes()].concat();
    assert_eq!(bench.out.forwarded, [expected], "a super-packet stays one");
    assert_eq!(bench.counters().native_in.packets, 5);
    let mut bench = Bench::new();
    bench.verdict(0, "203.0.113.0/24", Verdict::Native);
    bench.native(&Build::v4(udp(), payload(8)).bytes());
    bench.assert_dropped(DropReason::NativeWouldLoop);
}

#[test]
fn pi_05_mc_13_pb_19_the_source_learns_that_its_destination_cannot_be_reached() {
    for (verdict, reason) in [
        (Verdict::Native, DropReason::NativeWouldLoop),
        (Verdict::Drop(DropReason::ActionDrop), DropReason::ActionDrop),
        (Verdict::Drop(DropReason::NoUsableLocator), DropReason::NoUsableLocator),
    ] {
        let mut bench = Bench::new();
        bench.verdict(0, "203.0.113.0/24", verdict);
        bench.native(&Build::v4(udp(), payload(8)).bytes());
        bench.assert_dropped(reason);
        let errors = bench.icmp_errors();
        assert_eq!(errors.len(), 1, "{reason:?}");
        assert_eq!(&errors[0].1[..2], [3, 1], "host unreachable: {reason:?}");
    }
}

#[test]
fn broken_frames_are_malformed() {
    let whole = Build::v4(udp(), payload(20)).bytes();
    for packet in [&[][..], &whole[..19], &whole[..40], &[0; 40]] {
        let mut bench = Bench::new();
        bench.native(packet);
        bench.assert_dropped(DropReason::InnerMalformed);
    }
    let mut bench = Bench::new();
    let mut view = bench.reader.enter();
    bench.forwarder.from_native(bench.now, &mut view, &mut [1, 2, 3], &mut bench.out);
    drop(view);
    bench.assert_dropped(DropReason::InnerMalformed);
    // A header that claims what the packet is not.
    let mut bench = Bench::new();
    bench.map("0.0.0.0/0", PEER_V4, 1500);
    let (virtio, _) = super_packet(true, 0, 0);
    bench.native_frame(virtio, &whole);
    bench.assert_dropped(DropReason::InnerMalformed);
}

#[test]
fn mt_11_mt_12_mt_14_a_report_lowers_what_fits() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let mut outer = Vec::new();
    let (source, destination) = ([198, 51, 100, 1].into(), [198, 51, 100, 2].into());
    let addresses = crate::packet::outer::OuterAddresses::V4 { source, destination };
    crate::packet::outer::build(
        addresses,
        FIELDS,
        50_000,
        InstanceId::DEFAULT,
        &[0; 40],
        &mut outer,
    );
    let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &outer].concat();
    let packet = Build::v4(udp(), payload(1300)).bytes();
    let report = |bench: &mut Bench, message: &[u8], owned| {
        let view = bench.reader.enter();
        let router = ip("198.51.100.77");
        bench.forwarder.handle_icmp(bench.now, &view, router, message, |port| port == owned)
    };
    assert!(!report(&mut bench, &message, 50_001), "not a port of ours");
    let mut foreign = message.clone();
    foreign[8 + 15] = 99;
    assert!(!report(&mut bench, &foreign, 50_000), "not an RLOC of ours");
    let mut elsewhere = message.clone();
    elsewhere[8 + 19] = 99;
    assert!(!report(&mut bench, &elsewhere, 50_000), "not a locator in use");
    bench.native(&packet);
    assert_eq!(bench.out.sent.len(), 1);
    assert!(report(&mut bench, &message, 50_000));
    bench.native(&packet);
    assert_eq!(bench.out.sent.len(), 1);
    assert_eq!(bench.icmp_errors()[0].1[4..8], (1280u32 - 36).to_be_bytes());
}

#[test]
fn pb_14_pb_15_mt_12_hints_are_passed_on_if_the_quoted_packet_can_be_ours() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let mut outer = Vec::new();
    let (source, destination) = ([198, 51, 100, 1].into(), [198, 51, 100, 2].into());
    let addresses = crate::packet::outer::OuterAddresses::V4 { source, destination };
    let id = InstanceId::DEFAULT;
    crate::packet::outer::build(addresses, FIELDS, 50_000, id, &[0; 40], &mut outer);
    let (router, peer) = (ip("198.51.100.77"), IpAddr::from(destination));
    let mut elsewhere = outer.clone();
    elsewhere[19] = 99;
    // Sender, code, quoted packet, port that is ours; whether it is passed on as what the host itself says.
    for (sender, code, quoted, owned, passed) in [
        (router, 1, &outer, 50_001, None),
        (router, 1, &elsewhere, 50_000, None),
        (router, 3, &outer, 50_000, None),
        (router, 1, &outer, 50_000, Some(false)),
        (peer, 3, &outer, 50_000, Some(true)),
    ] {
        let message = [&[3, code, 0, 0, 0, 0, 0, 0][..], quoted].concat();
        let view = bench.reader.enter();
        bench.now += std::time::Duration::from_secs(1);
        bench.forwarder.handle_icmp(bench.now, &view, sender, &message, |port| port == owned);
        drop(view);
        let punt = match bench.punts.pop() {
            Some(Punt::Unreachable { rloc, by_host }) if rloc == peer => Some(by_host),
            None => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(punt, passed, "{sender} {code} {owned}");
    }
}

#[test]
fn mt_23_what_icmp_says_of_the_last_locator_reaches_the_inner_source() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let mut outer = Vec::new();
    let (source, destination) = ([198, 51, 100, 1].into(), [198, 51, 100, 2].into());
    let addresses = crate::packet::outer::OuterAddresses::V4 { source, destination };
    let id = InstanceId::DEFAULT;
    crate::packet::outer::build(addresses, FIELDS, 50_000, id, &[0; 40], &mut outer);
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &outer].concat();
    let packet = Build::v4(udp(), payload(8));
    let view = bench.reader.enter();
    let router = ip("198.51.100.77");
    assert!(bench.forwarder.handle_icmp(bench.now, &view, router, &message, |_| true));
    drop(view);
    // By itself the report is a hint, which changes no packet's way.
    bench.native(&packet.bytes());
    assert_eq!(bench.out.sent.len(), 1);
    assert!(matches!(bench.punts.pop(), Some(Punt::Unreachable { .. })));
    // What the control plane makes of it when there is no other locator.
    bench.verdict(0, "203.0.113.0/24", Verdict::Drop(DropReason::NoUsableLocator));
    bench.native(&packet.bytes());
    let errors = bench.icmp_errors();
    assert_eq!((errors[0].0, &errors[0].1[..2]), (packet.source, &[3, 1][..]));
}

#[test]
fn mc_01_the_longest_match_in_the_packet_s_family_decides() {
    let mut bench = Bench::new();
    bench.map("0.0.0.0/0", "198.51.100.10", 1500);
    bench.map("203.0.0.0/8", "198.51.100.11", 1500);
    bench.map("203.0.113.0/24", "198.51.100.12", 1500);
    bench.map("::/0", "198.51.100.13", 1500);
    for (destination, locator) in [
        ("203.0.113.5", "198.51.100.12"),
        ("203.0.112.5", "198.51.100.11"),
        ("192.0.2.5", "198.51.100.10"),
    ] {
        let packet = Build { destination: ip(destination), ..Build::v4(udp(), payload(9)) };
        bench.native(&packet.bytes());
        assert_eq!(bench.out.sent.pop().expect("sent").0.destination, ip(locator));
    }
    bench.native(&Build::v6(udp(), payload(9)).bytes());
    assert_eq!(bench.out.sent.pop().expect("sent").0.destination, ip("198.51.100.13"));
}

#[test]
fn en_30_only_ipv4_and_ipv6_are_encapsulated() {
    for version in (0..16u8).filter(|version| ![4, 6].contains(version)) {
        let mut bench = Bench::new();
        bench.map("0.0.0.0/0", PEER_V4, 1500);
        let mut packet = Build::v4(udp(), payload(40)).bytes();
        packet[0] = version << 4 | 5;
        bench.native(&packet);
        bench.assert_dropped(DropReason::InnerMalformed);
    }
}

#[test]
fn en_34_nothing_is_paced_or_held_back_on_a_known_path() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V4, 1500);
    let packet = Build::v4(udp(), payload(1400)).bytes();
    // All at one moment, without any sign from the other side.
    (0..10_000).for_each(|_| bench.native(&packet));
    assert_eq!((bench.out.sent.len(), bench.counters().dropped_total()), (10_000, 0));
}

#[test]
fn pi_12_a_packet_is_sent_without_flags() {
    let mut bench = Bench::new();
    bench.map("203.0.113.0/24", PEER_V6, 1500);
    bench.native(&Build::v4(udp(), payload(9)).bytes());
    assert_eq!(bench.out.sent[0].1[..8], [0; 8]);
}
