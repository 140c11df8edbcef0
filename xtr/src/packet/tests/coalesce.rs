use super::super::coalesce::MAX_PACKETS;
use super::super::{Coalescer, Inner, Offer, VirtioNetHeader};
use super::segment::segments;
use super::support::{Build, Transport, payload, rfc1071, tcp, udp};
use proptest::prelude::*;

/// Writes `packets` through one coalescer as the engine does; gives what the TUN would get.
pub(super) fn written(packets: &[Vec<u8>]) -> Vec<(VirtioNetHeader, Vec<u8>)> {
    let mut coalescer = Coalescer::new();
    let (mut out, mut data) = (Vec::new(), Vec::new());
    for packet in packets {
        let inner = Inner::parse(packet).unwrap();
        let mut offer = coalescer.offer(packet, &inner);
        if offer == Offer::Refused {
            flush(&mut coalescer, &mut data, &mut out);
            offer = coalescer.offer(packet, &inner);
        }
        match offer {
            Offer::Started(range) | Offer::Joined(range) => data.extend_from_slice(&packet[range]),
            Offer::Alone => out.push((VirtioNetHeader::default(), packet.clone())),
            Offer::Refused => panic!("refused with nothing pending"),
        }
    }
    flush(&mut coalescer, &mut data, &mut out);
    assert!(coalescer.take().is_none());
    out
}

fn flush(coalescer: &mut Coalescer, data: &mut Vec<u8>, out: &mut Vec<(VirtioNetHeader, Vec<u8>)>) {
    let pending = coalescer.packets();
    let Some(merged) = coalescer.take() else {
        assert!(data.is_empty() && pending == 0);
        return;
    };
    let mut packet = merged.headers.to_vec();
    packet.append(data);
    assert_eq!((merged.packets, merged.octets), (pending, packet.len()));
    out.push((merged.virtio, packet));
}

/// What the kernel makes of `written`: the packets again.
pub(super) fn cut(written: &[(VirtioNetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    written
        .iter()
        .flat_map(|(virtio, packet)| match virtio.gso_type {
            VirtioNetHeader::GSO_NONE => vec![packet.clone()],
            _ => segments(packet, virtio),
        })
        .collect()
}

/// `sizes` as TCP segments in sequence, PSH on the last if `push`.
fn stream(is_v6: bool, sizes: &[usize], push: bool) -> Vec<Vec<u8>> {
    let mut sequence = 0xffff_fc00u32;
    (0..sizes.len())
        .map(|i| {
            let flags = if push && i + 1 == sizes.len() { 0x18 } else { 0x10 };
            let mut build = Build::family(is_v6, tcp(sequence, flags), payload(sizes[i]));
            build.id = build.id.wrapping_add(i as u16);
            sequence = sequence.wrapping_add(sizes[i] as u32);
            build.bytes()
        })
        .collect()
}

fn datagrams(is_v6: bool, sizes: &[usize]) -> Vec<Vec<u8>> {
    let build = |(i, &size): (usize, &usize)| {
        let mut build = Build::family(is_v6, udp(), payload(size));
        build.id = build.id.wrapping_add(i as u16);
        build.bytes()
    };
    sizes.iter().enumerate().map(build).collect()
}

/// Changes one field of the second of two mergeable packets; says into how many they go.
fn writes_after(change: impl Fn(&mut Build)) -> usize {
    let mut first = Build::v4(tcp(1000, 0x10), payload(100));
    first.flags_offset = 0;
    let mut second = first.clone();
    second.id += 1;
    second.transport = tcp(1100, 0x10);
    change(&mut second);
    let packets = [first.bytes(), second.bytes()];
    let written = written(&packets);
    assert_eq!(cut(&written), packets);
    written.len()
}

#[test]
fn tcp_segments_in_sequence_become_one_super_packet() {
    for is_v6 in [false, true] {
        let packets = stream(is_v6, &[1400, 1400, 1400, 300], true);
        let written = written(&packets);
        assert_eq!(written.len(), 1);
        let (virtio, packet) = &written[0];
        let header_len: u16 = if is_v6 { 40 } else { 20 };
        assert_eq!(virtio.flags, VirtioNetHeader::NEEDS_CSUM);
        assert_eq!(virtio.gso_type, if is_v6 { 4 } else { 1 });
        assert_eq!(virtio.gso_size.get(), 1400);
        assert_eq!(virtio.csum_start.get(), header_len);
        assert_eq!((virtio.csum_offset.get(), virtio.hdr_len.get()), (16, header_len + 32));
        let inner = Inner::parse(packet).unwrap();
        assert_eq!(inner.total_len, packet.len());
        assert_eq!(cut(&written), packets);
    }
}

#[test]
fn the_transport_checksum_of_a_super_packet_is_the_pseudo_headers_sum() {
    let (virtio, mut packet) = written(&stream(false, &[1000, 1000], false)).remove(0);
    assert_eq!(rfc1071(&packet[..20]), 0xffff);
    super::super::checksum::complete(
        &mut packet,
        virtio.csum_start.get(),
        virtio.csum_offset.get(),
    )
    .unwrap();
    super::support::assert_intact(&packet);
}

#[test]
fn udp_datagrams_of_one_size_become_one_super_packet() {
    for is_v6 in [false, true] {
        let packets = datagrams(is_v6, &[36, 36, 36, 10]);
        let written = written(&packets);
        assert_eq!(written.len(), 1);
        let virtio = written[0].0;
        assert_eq!((virtio.gso_type, virtio.gso_size.get(), virtio.csum_offset.get()), (5, 36, 6));
        assert_eq!(cut(&written), packets);
    }
}

#[test]
fn one_packet_is_written_as_it_came() {
    for packet in [stream(true, &[500], false).remove(0), datagrams(false, &[500]).remove(0)] {
        assert_eq!(written(std::slice::from_ref(&packet)), [(VirtioNetHeader::default(), packet)]);
    }
}

#[test]
fn a_short_or_pushed_segment_ends_a_super_packet_and_a_longer_one_starts_another() {
    for (sizes, expected) in
        [(&[100, 50, 50][..], 2), (&[100, 200, 200], 2), (&[100, 100, 0, 100], 3), (&[1, 1, 1], 1)]
    {
        let packets = stream(false, sizes, true);
        let written = written(&packets);
        assert_eq!(written.len(), expected, "{sizes:?}");
        assert_eq!(cut(&written), packets);
    }
}

#[test]
fn only_what_cuts_back_the_same_is_merged() {
    assert_eq!(writes_after(|_| {}), 1);
    assert_eq!(writes_after(|b| b.transport = tcp(1101, 0x10)), 2);
    assert_eq!(writes_after(|b| b.transport = tcp(1099, 0x10)), 2);
    assert_eq!(writes_after(|b| b.id += 1), 2);
    assert_eq!(writes_after(|b| b.ttl -= 1), 2);
    assert_eq!(writes_after(|b| b.tos ^= 1), 2);
    assert_eq!(writes_after(|b| b.flags_offset = 0x4000), 2);
    assert_eq!(writes_after(|b| b.ip_options = vec![1, 1, 1, 1]), 2);
    assert_eq!(writes_after(|b| b.destination = super::support::ip("203.0.113.6")), 2);
    let with = |ports: (u16, u16), last: u8| {
        let options = vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, last];
        Transport::Tcp { ports, sequence: 1100, flags: 0x10, options }
    };
    assert_eq!(writes_after(|b| b.transport = with((40000, 443), 4)), 1);
    assert_eq!(writes_after(|b| b.transport = with((40000, 443), 5)), 2);
    assert_eq!(writes_after(|b| b.transport = with((40001, 443), 4)), 2);
    assert_eq!(writes_after(|b| b.transport = with((40000, 444), 4)), 2);
    assert_eq!(writes_after(|b| b.transport = udp()), 2);
}

#[test]
fn only_ack_and_psh_are_merged() {
    for flags in 0..=255u8 {
        let expected = if matches!(flags, 0x10 | 0x18) { 1 } else { 2 };
        assert_eq!(writes_after(|b| b.transport = tcp(1100, flags)), expected, "{flags:#x}");
    }
}

#[test]
fn the_id_of_a_packet_with_df_does_not_matter() {
    let mut builds = [1000, 1100].map(|sequence| Build::v4(tcp(sequence, 0x10), payload(100)));
    builds.iter_mut().for_each(|build| build.id = 0);
    assert_eq!(written(&builds.map(|build| build.bytes())).len(), 1);
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for broken in 0..3 {
        for field in [10, 36] {
            let mut packets = stream(false, &[100, 100, 100], false);
            packets[broken][field] ^= 0x55;
            let written = written(&packets);
            assert!(written.iter().any(|(_, packet)| *packet == packets[broken]));
            assert!(written.len() > 1);
        }
    }
    let mut packets = datagrams(true, &[10, 10]);
    packets[1][50] ^= 1;
    assert_eq!(written(&packets).len(), 2);
}

#[test]
fn a_datagram_without_a_checksum_or_with_another_length_goes_alone() {
    let mut packets = datagrams(false, &[100, 100]);
    packets[0][26..28].fill(0);
    packets[1][26..28].fill(0);
    assert_eq!(written(&packets).len(), 2);
    let mut packets = datagrams(false, &[100, 100]);
    packets[1][25] -= 1;
    assert_eq!(written(&packets).len(), 2);
    assert_eq!(written(&datagrams(false, &[0, 0])).len(), 2);
}

#[test]
fn fragments_and_other_protocols_go_alone() {
    let mut build = Build::v4(udp(), payload(100));
    build.flags_offset = 0x2000;
    let packets = [build.bytes(), build.bytes()];
    assert_eq!(written(&packets).len(), 2);
    let icmp = Build::v4(Transport::Raw { protocol: 1 }, payload(64)).bytes();
    assert_eq!(written(&[icmp.clone(), icmp]).len(), 2);
    let extended = Build::v6(Transport::Raw { protocol: 60 }, vec![17, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(written(&[extended.bytes(), extended.bytes()]).len(), 2);
}

#[test]
fn no_super_packet_exceeds_its_bounds() {
    let many = written(&datagrams(true, &[1; 3 * MAX_PACKETS]));
    assert_eq!(many.len(), 3);
    let large = stream(false, &[8000; 20], false);
    let large_written = written(&large);
    assert!(large_written.iter().all(|(_, packet)| packet.len() <= 65535));
    assert_eq!(large_written.len(), 3);
    assert_eq!(cut(&large_written), large);
}

#[test]
fn a_packet_of_the_pending_flow_never_overtakes() {
    let mut coalescer = Coalescer::new();
    let mut offer = |build: &Build| {
        let packet = build.bytes();
        coalescer.offer(&packet, &Inner::parse(&packet).unwrap())
    };
    assert_eq!(offer(&Build::v4(tcp(1000, 0x10), payload(100))), Offer::Started(52..152));
    // A FIN of the same flow, a fragment between the same hosts.
    assert_eq!(offer(&Build::v4(tcp(1100, 0x11), vec![])), Offer::Refused);
    let fragment =
        Build { flags_offset: 0x0010, ..Build::v4(Transport::Raw { protocol: 6 }, payload(64)) };
    assert_eq!(offer(&fragment), Offer::Refused);
    // Other hosts, other ports, another family may.
    let mut elsewhere = Build::v4(Transport::Raw { protocol: 1 }, payload(64));
    elsewhere.destination = super::support::ip("203.0.113.9");
    assert_eq!(offer(&elsewhere), Offer::Alone);
    let other_ports = Transport::Tcp { ports: (1, 2), sequence: 1, flags: 0x02, options: vec![] };
    assert_eq!(offer(&Build::v4(other_ports, vec![])), Offer::Alone);
    assert_eq!(offer(&Build::v6(Transport::Raw { protocol: 58 }, payload(9))), Offer::Alone);
    assert_eq!(offer(&Build::v4(tcp(1100, 0x10), payload(100))), Offer::Joined(52..152));
}

#[test]
fn truncated_transport_headers_go_alone() {
    for len in 0..20 {
        let tcp = Build::v4(Transport::Raw { protocol: 6 }, vec![0x50; len]).bytes();
        let udp = Build::v6(Transport::Raw { protocol: 17 }, vec![0; len.min(8)]).bytes();
        assert_eq!(written(&[tcp.clone(), tcp]).len(), 2);
        assert_eq!(written(&[udp.clone(), udp]).len(), 2);
    }
}

#[test]
fn header_fields_that_differ_keep_ipv6_packets_apart() {
    let first = Build::v6(tcp(1000, 0x10), payload(100)).bytes();
    let second = Build::v6(tcp(1100, 0x10), payload(100)).bytes();
    assert_eq!(written(&[first.clone(), second.clone()]).len(), 1);
    // Traffic class, both ends of the flow label, hop limit: none is covered by a checksum.
    for (at, bit) in [(0, 0x01), (1, 0x10), (1, 0x08), (3, 0x01), (7, 0x01)] {
        let mut other = second.clone();
        other[at] ^= bit;
        let packets = [first.clone(), other];
        let written = written(&packets);
        assert_eq!(written.len(), 2, "{at} {bit:#x}");
        assert_eq!(cut(&written), packets);
    }
}

#[test]
fn the_reserved_bits_of_tcp_and_an_urgent_pointer_keep_segments_apart() {
    let first = Build::v4(tcp(1000, 0x10), payload(100)).bytes();
    for (at, bit) in [(32, 0x01), (32, 0x08), (39, 0x01)] {
        let mut second = Build::v4(tcp(1100, 0x10), payload(100)).bytes();
        second[at] ^= bit;
        second[36..38].fill(0);
        let sum = super::support::pseudo_and_data(
            super::support::ip("198.51.100.7"),
            super::support::ip("203.0.113.5"),
            6,
            &second[20..],
        );
        second[36..38].copy_from_slice(&(!sum).to_be_bytes());
        let packets = [first.clone(), second];
        let written = written(&packets);
        assert_eq!(written.len(), 2, "{at} {bit:#x}");
        assert_eq!(cut(&written), packets);
    }
}

#[test]
fn a_super_packet_may_fill_65535_octets_and_no_more() {
    for is_v6 in [false, true] {
        let headers = if is_v6 { 72 } else { 52 };
        let room = 65_535 - headers - 60_000;
        for (last, expected) in [(room, 1), (room + 1, 2)] {
            let sizes = [20_000, 20_000, 20_000, last];
            let packets = stream(is_v6, &sizes, false);
            let written = written(&packets);
            assert_eq!(written.len(), expected);
            assert_eq!(cut(&written), packets);
        }
    }
}

proptest! {
    #[test]
    fn cutting_gives_back_what_was_merged(
        sizes in proptest::collection::vec(prop_oneof![Just(1400usize), Just(40), 0usize..1500], 1..90),
        is_v6: bool, is_udp: bool, push: bool,
    ) {
        let packets =
            if is_udp { datagrams(is_v6, &sizes) } else { stream(is_v6, &sizes, push) };
        let written = written(&packets);
        prop_assert!(written.len() <= packets.len());
        prop_assert_eq!(cut(&written), packets);
    }

    #[test]
    fn merging_gives_back_what_was_cut(
        len in 1usize..60_000, size in 1000usize..1400, is_v6: bool, is_udp: bool,
    ) {
        let (transport, gso_type) = match (is_udp, is_v6) {
            (true, _) => (udp(), VirtioNetHeader::GSO_UDP_L4),
            (_, true) => (tcp(5, 0x18), VirtioNetHeader::GSO_TCPV6),
            (_, false) => (tcp(5, 0x18), VirtioNetHeader::GSO_TCPV4),
        };
        let build = Build::family(is_v6, transport, payload(len));
        let packets = segments(&build.bytes(), &super::segment::virtio(gso_type, size));
        let written = written(&packets);
        prop_assert_eq!(written.len(), 1);
        // The same but for the checksum, which is partial unless there is only one.
        let mut whole = written[0].1.clone();
        if packets.len() > 1 {
            let (start, offset) = (written[0].0.csum_start.get(), written[0].0.csum_offset.get());
            super::super::checksum::complete(&mut whole, start, offset).unwrap();
        }
        prop_assert_eq!(whole, build.bytes());
    }
}
