use super::super::mtu::{Fit, check, inner_limit, overhead};
use super::super::{Family, Inner};
use super::support::{Build, payload, udp};

fn sized(is_v6: bool, dont_fragment: bool, len: usize) -> Inner {
    let header = if is_v6 { 48 } else { 28 };
    let mut build = Build::family(is_v6, udp(), payload(len - header));
    build.flags_offset = if dont_fragment { 0x4000 } else { 0 };
    let inner = Inner::parse(&build.bytes()).unwrap();
    assert_eq!(inner.total_len, len);
    inner
}

fn judged(is_v6: bool, dont_fragment: bool, len: usize, limit: usize) -> Fit {
    check(&sized(is_v6, dont_fragment, len), len, limit)
}

#[test]
fn mt_02_the_inner_limit_is_the_path_less_the_headers() {
    assert_eq!((overhead(Family::V4), overhead(Family::V6)), (36, 56));
    assert_eq!(inner_limit(1500, Family::V4), 1464);
    assert_eq!(inner_limit(1500, Family::V6), 1444);
    assert_eq!(inner_limit(20, Family::V6), 0);
}

#[test]
fn what_fits_is_encapsulated_whole() {
    for (is_v6, dont_fragment) in [(false, false), (false, true), (true, true)] {
        assert_eq!(judged(is_v6, dont_fragment, 1464, 1464), Fit::Fits);
        assert_ne!(judged(is_v6, dont_fragment, 1465, 1464), Fit::Fits);
    }
}

#[test]
fn mt_03_ipv4_without_df_is_fragmented() {
    assert_eq!(judged(false, false, 1465, 1464), Fit::Fragment);
}

#[test]
fn mt_06_mt_09_ipv4_with_df_is_too_big() {
    assert_eq!(judged(false, true, 1465, 1464), Fit::TooBig(1464));
}

#[test]
fn mt_07_mt_09_ipv6_is_too_big() {
    assert_eq!(judged(true, false, 1465, 1464), Fit::TooBig(1464));
}

#[test]
fn mt_08_ipv6_of_1280_octets_is_always_carried() {
    assert_eq!(judged(true, true, 1280, 1244), Fit::FitsFragmentedOutside);
    assert_eq!(judged(true, true, 1245, 1244), Fit::FitsFragmentedOutside);
    assert_eq!(judged(true, true, 1281, 1244), Fit::TooBig(1280));
    assert_eq!(judged(true, true, 1280, 0), Fit::FitsFragmentedOutside);
}

#[test]
fn an_ipv4_limit_without_room_for_a_fragment_is_too_big() {
    assert_eq!(judged(false, false, 60, 27), Fit::TooBig(27));
    assert_eq!(judged(false, false, 60, 28), Fit::Fragment);
}

#[test]
fn en_29_a_super_packet_is_judged_by_its_segments() {
    let inner = sized(true, true, 9000);
    assert_eq!(check(&inner, 1400, 1444), Fit::Fits);
    assert_eq!(check(&inner, 1500, 1444), Fit::TooBig(1444));
}
