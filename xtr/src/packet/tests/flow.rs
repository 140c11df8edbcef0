use super::super::flow::source_port_index;
use super::super::{FlowHasher, Inner};
use super::support::{Build, Transport, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::IpAddr;

const POOL: u16 = 64;

fn hasher() -> FlowHasher {
    FlowHasher::new([7; 32])
}

fn hash(build: &Build) -> u64 {
    hasher().hash(&Inner::parse(&build.bytes()).unwrap())
}

fn udp_flow(is_v6: bool, ports: (u16, u16)) -> Build {
    Build::family(is_v6, Transport::Udp { ports }, payload(24))
}

#[test]
fn en_13_a_flow_keeps_its_hash_whatever_else_changes() {
    for is_v6 in [false, true] {
        let mut build = udp_flow(is_v6, (1000, 2000));
        let first = hash(&build);
        (build.ttl, build.tos, build.id) = (3, 0xff, 99);
        build.payload = payload(900);
        assert_eq!(hash(&build), first);
    }
}

#[test]
fn en_14_ports_count_for_tcp_udp_and_sctp_only() {
    for is_v6 in [false, true] {
        for number in 0..=255u8 {
            // IPv6 extension headers are no transport.
            if is_v6 && matches!(number, 0 | 43 | 44 | 51 | 60 | 135) {
                continue;
            }
            let with_ports = |port: u8| {
                let body = vec![port; 24];
                hash(&Build::family(is_v6, Transport::Raw { protocol: number }, body))
            };
            let differs = with_ports(1) != with_ports(2);
            assert_eq!(differs, matches!(number, 6 | 17 | 132), "{number}");
        }
    }
}

#[test]
fn en_14_en_15_ports_behind_ipv6_extension_headers_count_unless_it_is_a_fragment() {
    // Next header, length in words less one, then options, a route, or an authentication header of 24 octets.
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let atomic = [17, 0, 0, 0, 0, 0, 0, 9];
    let first = [17, 0, 0, 1, 0, 0, 0, 9];
    let later = [17, 0, 0, 8, 0, 0, 0, 9];
    for (number, header, counts) in [
        (0, &options[..], true),
        (43, &options, true),
        (60, &options, true),
        (135, &options, true),
        (51, &authentication, true),
        (44, &atomic, true),
        (44, &first, false),
        (44, &later, false),
    ] {
        let with_port = |port: u8| {
            let body = [header, &[0x9c, port, 1, 0xbb, 0, 8, 0, 0]].concat();
            hash(&Build::v6(Transport::Raw { protocol: number }, body))
        };
        assert_eq!(with_port(1) != with_port(2), counts, "{number} {header:?}");
        if !counts {
            // All fragments of the datagram, whatever they say follows.
            let whole = Build::v6(Transport::Raw { protocol: 59 }, Vec::new());
            assert_eq!(with_port(1), hash(&whole), "addresses only");
        }
    }
}

#[test]
fn en_14_every_field_of_the_tuple_counts() {
    let base = udp_flow(false, (1000, 2000));
    let mut others = vec![udp_flow(false, (1001, 2000)), udp_flow(false, (1000, 2001))];
    others.push(udp_flow(false, (2000, 1000)));
    let mut swapped = base.clone();
    std::mem::swap(&mut swapped.source, &mut swapped.destination);
    others.push(swapped);
    others.push(Build::v4(
        Transport::Tcp { ports: (1000, 2000), sequence: 0, flags: 0, options: vec![] },
        vec![],
    ));
    for other in others {
        assert_ne!(hash(&other), hash(&base), "{other:?}");
    }
}

#[test]
fn en_15_all_fragments_of_a_datagram_hash_alike() {
    let mut build = udp_flow(false, (1000, 2000));
    build.flags_offset = 0x2000;
    let first = hash(&build);
    build.flags_offset = 0x2003;
    build.transport = Transport::Udp { ports: (7, 9) };
    assert_eq!(hash(&build), first);
    build.flags_offset = 0x0006;
    assert_eq!(hash(&build), first);
}

#[test]
fn en_15_a_transport_header_cut_short_hashes_on_addresses() {
    let short = |octet| hash(&Build::v4(Transport::Raw { protocol: 17 }, vec![octet; 3]));
    assert_eq!(short(1), short(2));
}

/// The hash of the packet with this IPv6 flow label instead.
fn hash_with_label(build: &Build, label: u32) -> u64 {
    let mut bytes = build.bytes();
    let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & !0xf_ffff | label;
    bytes[..4].copy_from_slice(&word.to_be_bytes());
    hasher().hash(&Inner::parse(&bytes).unwrap())
}

#[test]
fn en_19_the_flow_label_counts_where_there_are_no_ports() {
    // ESP, GRE, IPv6 in IPv6, ICMPv6.
    for protocol in [50, 47, 41, 58] {
        let build = Build::v6(Transport::Raw { protocol }, payload(24));
        let hashes: std::collections::BTreeSet<u64> =
            [0, 1, 2, 0x8_0000, 0xf_ffff].map(|label| hash_with_label(&build, label)).into();
        assert_eq!(hashes.len(), 5, "{protocol}");
    }
    let build = Build::v6(Transport::Raw { protocol: 50 }, payload(24));
    assert_spread(StdRng::seed_from_u64(5), |_, label| hash_with_label(&build, label));
}

#[test]
fn en_19_mc_24_a_connection_keeps_its_hash_when_its_flow_label_changes() {
    let sctp = Build::v6(Transport::Raw { protocol: 132 }, payload(24));
    let tcp = Build::v6(super::support::tcp(1, 0x10), payload(24));
    for build in [udp_flow(true, (1000, 2000)), tcp, sctp] {
        assert_eq!(hash_with_label(&build, 0), hash_with_label(&build, 0xf_ffff));
    }
}

#[test]
fn en_15_en_19_all_ipv6_fragments_of_a_datagram_hash_alike() {
    let fragment = |offset_more: u16, next: u8, port: u8| {
        let [high, low] = offset_more.to_be_bytes();
        let body = vec![next, 0, high, low, 0, 0, 0, 9, port, port, port, port, 0, 8, 0, 0];
        Build::v6(Transport::Raw { protocol: 44 }, body)
    };
    let first = fragment(1, 17, 3);
    for later in [fragment(0x100 | 1, 17, 7), fragment(0x200, 17, 9), fragment(0x200, 6, 9)] {
        assert_eq!(hash_with_label(&later, 77), hash_with_label(&first, 77));
        assert_ne!(hash_with_label(&later, 78), hash_with_label(&first, 77));
    }
}

#[test]
fn en_16_the_hash_is_keyed() {
    let inner = Inner::parse(&udp_flow(true, (1, 2)).bytes()).unwrap();
    assert_ne!(FlowHasher::new([1; 32]).hash(&inner), FlowHasher::new([2; 32]).hash(&inner));
    assert_ne!(FlowHasher::new([0; 32]).hash(&inner), 0);
}

#[test]
fn en_16_the_port_index_lies_in_the_pool() {
    for pool in [1, 2, 63, 64, 1024] {
        for hash in [0, 1, u64::MAX, u64::MAX / 2] {
            assert!(source_port_index(hash, pool) < pool);
        }
        assert_eq!(source_port_index(u64::MAX, pool), pool - 1);
    }
    assert_eq!(source_port_index(u64::MAX, 0), 0);
}

/// Chi-square of `counts` against an even spread.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// Beyond this, 63 degrees of freedom happen by chance once in 10 million.
const CHI_SQUARE_LIMIT: f64 = 135.0;

fn spread(seed: u64, mut flow: impl FnMut(&mut StdRng, u32) -> Build) {
    assert_spread(StdRng::seed_from_u64(seed), |rng, i| hash(&flow(rng, i)));
}

fn assert_spread(mut rng: StdRng, mut hash: impl FnMut(&mut StdRng, u32) -> u64) {
    let (mut upper, mut lower) = ([0u32; POOL as usize], [0u32; POOL as usize]);
    let mut halves = [0u32; 2];
    for i in 0..10_000 {
        let hash = hash(&mut rng, i);
        upper[usize::from(source_port_index(hash, POOL))] += 1;
        lower[(hash % u64::from(POOL)) as usize] += 1;
        halves[(hash >> 63) as usize] += 1;
    }
    assert!(chi_square(&upper) < CHI_SQUARE_LIMIT, "{}", chi_square(&upper));
    assert!(chi_square(&lower) < CHI_SQUARE_LIMIT, "{}", chi_square(&lower));
    for half in halves {
        assert!((4750..5250).contains(&half), "{half}");
    }
}

#[test]
fn en_17_random_flows_spread_evenly() {
    for is_v6 in [false, true] {
        spread(1, |rng, _| udp_flow(is_v6, (rng.random(), rng.random())));
    }
}

#[test]
fn en_17_flows_that_differ_in_one_field_spread_evenly() {
    for is_v6 in [false, true] {
        spread(2, |_, i| udp_flow(is_v6, (i as u16 + 1024, 443)));
        spread(3, |_, i| udp_flow(is_v6, (443, i as u16)));
        spread(4, |_, i| {
            let mut build = Build::family(is_v6, Transport::Raw { protocol: 1 }, payload(8));
            build.source = match build.source {
                IpAddr::V4(source) => IpAddr::V4((source.to_bits() + i).into()),
                IpAddr::V6(source) => IpAddr::V6((source.to_bits() + u128::from(i)).into()),
            };
            build
        });
    }
}

#[test]
fn one_input_bit_flips_half_the_output_bits() {
    for is_v6 in [false, true] {
        let base = hash(&udp_flow(is_v6, (1000, 2000)));
        let flips: u32 = (0..16)
            .map(|bit| (hash(&udp_flow(is_v6, (1000 ^ 1 << bit, 2000))) ^ base).count_ones())
            .sum();
        assert!((16 * 24..16 * 40).contains(&flips), "{flips}");
    }
}
