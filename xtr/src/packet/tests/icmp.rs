use super::super::icmp::{Rate, build, may_answer};
use super::super::{IcmpError, IcmpLimiter, Inner};
use super::support::{Build, Transport, ip, payload, rfc1071, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const ERRORS: [IcmpError; 3] =
    [IcmpError::TooBig(1400), IcmpError::HopLimitExceeded, IcmpError::HostUnreachable];

fn message(error: IcmpError, packet: &[u8]) -> Box<[u8]> {
    build(error, &Inner::parse(packet).unwrap(), packet)
}

fn answerable(error: IcmpError, packet: &[u8]) -> bool {
    may_answer(error, &Inner::parse(packet).unwrap(), packet)
}

#[test]
fn mt_06_icmpv4_fragmentation_needed_carries_the_mtu() {
    let packet = Build::v4(udp(), payload(2000)).bytes();
    let message = message(IcmpError::TooBig(1464), &packet);
    assert_eq!(message[..2], [3, 4]);
    assert_eq!(message[4..8], [0, 0, 0x05, 0xb8]);
    assert_eq!(rfc1071(&message), 0xffff);
}

#[test]
fn mt_07_icmpv6_packet_too_big_carries_the_mtu() {
    let packet = Build::v6(udp(), payload(2000)).bytes();
    let message = message(IcmpError::TooBig(1444), &packet);
    // The kernel fills the checksum in.
    assert_eq!(message[..8], [2, 0, 0, 0, 0, 0, 0x05, 0xa4]);
}

#[test]
fn mt_08_icmpv6_never_reports_less_than_1280() {
    let packet = Build::v6(udp(), payload(2000)).bytes();
    let mtu = &message(IcmpError::TooBig(1000), &packet)[4..8];
    assert_eq!(mtu, 1280u32.to_be_bytes());
}

#[test]
fn en_05_en_25_the_other_errors_have_their_codes() {
    let v4 = Build::v4(udp(), payload(20)).bytes();
    let v6 = Build::v6(udp(), payload(20)).bytes();
    for (error, code_v4, code_v6) in [
        (IcmpError::HopLimitExceeded, [11, 0], [3, 0]),
        (IcmpError::HostUnreachable, [3, 1], [1, 3]),
    ] {
        for (packet, code) in [(&v4, code_v4), (&v6, code_v6)] {
            let message = message(error, packet);
            assert_eq!(message[..2], code);
            assert_eq!(message[4..8], [0; 4]);
            assert_eq!(message[8..], packet[..]);
        }
        assert_eq!(rfc1071(&message(error, &v4)), 0xffff);
    }
}

#[test]
fn mt_17_errors_quote_as_much_as_fits() {
    for (build, limit) in [
        (Build::v4(tcp(1, 0x10), payload(3000)), 576 - 20),
        (Build::v6(tcp(1, 0x10), payload(3000)), 1280 - 40),
    ] {
        let packet = build.bytes();
        let message = message(IcmpError::TooBig(1300), &packet);
        assert_eq!(message.len(), limit);
        assert_eq!(message[8..], packet[..limit - 8]);
    }
}

#[test]
fn mt_17_octets_after_the_packet_are_not_quoted() {
    let packet = Build::v4(udp(), payload(10)).bytes();
    let mut padded = packet.clone();
    padded.extend([0; 100]);
    assert_eq!(
        message(IcmpError::HostUnreachable, &padded),
        message(IcmpError::HostUnreachable, &packet)
    );
}

#[test]
fn mt_19_no_error_about_an_icmp_error() {
    for kind in 0..=255u8 {
        let v4 = Build::v4(Transport::Raw { protocol: 1 }, vec![kind; 8]).bytes();
        let v6 = Build::v6(Transport::Raw { protocol: 58 }, vec![kind; 8]).bytes();
        for error in ERRORS {
            assert_eq!(answerable(error, &v4), !matches!(kind, 3 | 4 | 5 | 11 | 12), "{kind}");
            assert_eq!(answerable(error, &v6), kind >= 128 && kind != 137, "{kind}");
        }
    }
    let unreadable = Build::v6(Transport::Raw { protocol: 58 }, vec![]).bytes();
    assert!(!answerable(IcmpError::HopLimitExceeded, &unreadable));
}

#[test]
fn mt_19_no_error_about_a_packet_to_many() {
    for destination in ["224.0.0.5", "255.255.255.255"] {
        let mut build = Build::v4(udp(), payload(8));
        build.destination = ip(destination);
        for error in ERRORS {
            assert!(!answerable(error, &build.bytes()));
        }
    }
    let mut build = Build::v6(udp(), payload(8));
    build.destination = ip("ff0e::1");
    assert!(answerable(IcmpError::TooBig(1280), &build.bytes()));
    assert!(!answerable(IcmpError::HopLimitExceeded, &build.bytes()));
}

#[test]
fn mt_19_no_error_about_a_later_fragment() {
    let mut build = Build::v4(udp(), payload(16));
    for (flags_offset, expected) in [(0x2000, true), (0x2001, false), (0x0001, false)] {
        build.flags_offset = flags_offset;
        assert_eq!(answerable(IcmpError::HopLimitExceeded, &build.bytes()), expected);
    }
}

#[test]
fn mt_19_no_error_to_a_source_that_is_no_single_host() {
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"] {
        let mut build = Build::v4(udp(), payload(16));
        build.source = ip(source);
        assert!(!answerable(IcmpError::HopLimitExceeded, &build.bytes()), "{source}");
    }
    for source in ["::", "ff02::1", "::1"] {
        let mut build = Build::v6(udp(), payload(16));
        build.source = ip(source);
        assert!(!answerable(IcmpError::HopLimitExceeded, &build.bytes()), "{source}");
    }
}

#[test]
fn mt_21_source_quench_is_never_built() {
    let packet = Build::v4(udp(), payload(20)).bytes();
    assert!(ERRORS.iter().all(|&error| message(error, &packet)[0] != 4));
}

#[test]
fn mt_19_an_icmpv6_error_behind_extension_headers_is_one() {
    for (kind, expected) in [(1, false), (2, false), (137, false), (128, true), (135, true)] {
        // Hop-by-Hop Options, Destination Options, an atomic Fragment header.
        let mut body = vec![60, 0, 1, 4, 0, 0, 0, 0];
        body.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        body.extend([58, 0, 0, 0, 0, 0, 0, 1]);
        body.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        let packet = Build::v6(Transport::Raw { protocol: 0 }, body).bytes();
        assert_eq!(answerable(IcmpError::HopLimitExceeded, &packet), expected, "{kind}");
    }
}

fn limiter() -> IcmpLimiter {
    IcmpLimiter::new(Rate::default(), [5; 32])
}

#[test]
fn mt_20_a_source_gets_ten_at_once_then_ten_a_second() {
    let (mut limiter, start) = (limiter(), Instant::now());
    let source = ip("198.51.100.7");
    let at_once = (0..100).filter(|_| limiter.allow(start, source)).count();
    assert_eq!(at_once, 10);
    let steps = (1..=1000).map(|ms| start + Duration::from_millis(ms));
    assert_eq!(steps.filter(|&now| limiter.allow(now, source)).count(), 10);
    let later = start + Duration::from_secs(60);
    assert_eq!((0..100).filter(|_| limiter.allow(later, source)).count(), 10);
}

#[test]
fn mt_20_families_have_their_own_buckets() {
    let (mut limiter, start) = (limiter(), Instant::now());
    let flood = (0..1000u32).filter(|&i| limiter.allow(start, Ipv4Addr::from(i + 9).into()));
    assert_eq!(flood.count(), 10);
    let flood = (0..1000u128).filter(|&i| limiter.allow(start, Ipv6Addr::from(i + 9).into()));
    assert_eq!(flood.count(), 10);
}

#[test]
fn mt_20_one_source_cannot_take_the_share_of_all() {
    // A family bucket as large as it gets leaves only the source's own.
    let mut limiter = IcmpLimiter::new(Rate { per_second: 10, burst: 10 }, [5; 32]);
    let mut now = Instant::now();
    let (noisy, quiet) = (ip("198.51.100.7"), ip("198.51.100.8"));
    (0..50).for_each(|_| _ = limiter.allow(now, noisy));
    // One token comes back in 100 ms; whoever asks first has it.
    now += Duration::from_millis(100);
    assert!(limiter.allow(now, quiet));
    assert!(!limiter.allow(now, noisy));
}

#[test]
fn mt_20_a_refused_error_costs_nothing() {
    let (mut limiter, start) = (limiter(), Instant::now());
    let source = ip("2001:db8::1");
    (0..10).for_each(|_| assert!(limiter.allow(start, source)));
    (0..1000).for_each(|_| assert!(!limiter.allow(start, source)));
    assert!(limiter.allow(start + Duration::from_millis(100), source));
}

#[test]
fn mt_20_the_rate_is_configurable_and_never_zero() {
    let mut limiter = IcmpLimiter::new(Rate { per_second: 1, burst: 2 }, [5; 32]);
    let (start, source) = (Instant::now(), ip("192.0.2.7"));
    assert_eq!((0..9).filter(|_| limiter.allow(start, source)).count(), 2);
    assert!(!limiter.allow(start + Duration::from_millis(999), source));
    assert!(limiter.allow(start + Duration::from_millis(1000), source));
    let mut none = IcmpLimiter::new(Rate { per_second: 0, burst: 0 }, [5; 32]);
    assert!(none.allow(start, source));
    assert!(!none.allow(start, source));
}

#[test]
fn mt_20_many_sources_do_not_grow_the_table() {
    let mut limiter = IcmpLimiter::new(Rate { per_second: 1_000_000, burst: 100_000 }, [5; 32]);
    let now = Instant::now();
    let answered = (0..50_000u32)
        .filter(|&i| limiter.allow(now, IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i))))
        .count();
    // At one instant no more than one per place of the table.
    assert!((900..=1024).contains(&answered), "{answered}");
}
