use std::net::IpAddr;

use ::mapping::admin::DropCount;
use ::mapping::recorder::{EventView, Severity};
use ::mapping::view::{CountersView, StatusView};
use ::xtr::view::{LocatorState, LocatorView, MapCacheEntryView, PathMtuState, Via};

use super::model::short;
use super::*;

fn entry(prefix: &str, packets: u64, forwarding: &str) -> MapCacheEntryView {
    MapCacheEntryView {
        prefix: prefix.parse().unwrap(),
        instance_id: 0,
        uptime_seconds: 1,
        expires_seconds: None,
        via: Via::MapReply,
        state: "complete".to_owned(),
        forwarding: forwarding.to_owned(),
        secured: false,
        map_version: 0,
        packets,
        octets: packets * 1_000,
        locators: Vec::new(),
    }
}

fn locator(address: &str, state: LocatorState, unusable: Option<&str>) -> LocatorView {
    LocatorView {
        address: address.parse::<IpAddr>().unwrap(),
        state,
        priority: 1,
        weight: 100,
        since_seconds: 3_600,
        rtt_micros: (state == LocatorState::Up).then_some(1_234),
        probes_sent: 61,
        probes_answered: 60,
        probe_loss_percent: 0,
        last_probe_reply_seconds: Some(5),
        packets: 10,
        octets: 1_000,
        mtu: 1_500,
        path_mtu: PathMtuState::Confirmed,
        mappings: 1,
        petr: false,
        unusable: unusable.map(str::to_owned),
    }
}

/// What an xTR says that has encapsulated so many packets.
fn seen(at: Instant, packets: u64) -> Seen {
    let drop = |reason: &str, count, help: &str| DropCount {
        reason: reason.to_owned(),
        count,
        help: help.to_owned(),
    };
    Seen {
        at,
        status: StatusView {
            role: "xtr".to_owned(),
            name: "xtr-a".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 93_600,
            healthy: false,
            intake: None,
            notes: vec!["RLOC 198.51.100.11 is down.".to_owned()],
            peers: Vec::new(),
            workers: Vec::new(),
        },
        counters: CountersView::from([
            ("native_in_packets".to_owned(), packets),
            ("native_in_octets".to_owned(), packets * 1_000),
            ("core_out_packets".to_owned(), packets),
            ("core_out_octets".to_owned(), packets * 1_000),
            ("map_cache_entries".to_owned(), 2),
            ("map_cache_added".to_owned(), 2 + packets / 1_000),
        ]),
        drops: vec![
            drop(
                "hop_limit_exceeded",
                3,
                &format!("TTL or Hop Limit {}ran out.", "very ".repeat(20)),
            ),
            drop("no_usable_locator", packets / 10, "Every locator is down."),
        ],
        locators: vec![
            locator("198.51.100.12", LocatorState::Up, None),
            locator("198.51.100.13", LocatorState::Down, Some("RLOC-probes go unanswered")),
        ],
        eids: vec![
            entry("2001:db8:e002::/48", 9_000, "encapsulate"),
            entry("203.0.113.0/26", packets, "encapsulate"),
        ],
        sites: Vec::new(),
        events: vec![EventView {
            number: 0,
            unix_milliseconds: 1_795_446_245_000,
            severity: Severity::Warning,
            kind: "rloc-down".to_owned(),
            subject: "198.51.100.13".to_owned(),
            cause: "RLOC-probes go unanswered".to_owned(),
            left_out: 0,
        }],
        last_event: Some(0),
    }
}

fn second_apart() -> Frame {
    let start = Instant::now();
    Frame::new(&seen(start, 1_000), &seen(start + Duration::from_secs(1), 3_500))
}

#[test]
fn op_01_a_frame_has_traffic_churn_eids_locators_drops_and_events() {
    let text = as_text(&second_apart(), 140).unwrap();
    let expected = [
        "isthmus top: xtr-a (xtr), version 0.1.0, uptime 1d02h, NOT healthy",
        "  RLOC 198.51.100.11 is down.",
        "from native side     2.50 k  20.0 M     3500",
        "added          2      5",
        "Map-cache: 2 entries, 0 lookups, 0 packets held",
        "203.0.113.0/26         2.50 k  20.0 M  3.50 M  encapsulate",
        "198.51.100.13  down   01:00:00         -     60/61  RLOC-probes go u",
        "198.51.100.12  up     01:00:00  1.234 ms     60/61",
        "no_usable_locator     250    350  Every locator is down.",
        "15:04:05  rloc-down  198.51.100.13  RLOC-probes go unanswered",
        "Locators: 1 of 2 up",
        "very ran out.",
    ];
    for line in expected {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    // What moves is first, and what is down.
    let place = |what: &str| text.find(what).unwrap();
    assert!(place("203.0.113.0/26") < place("2001:db8:e002::/48"), "{text}");
    assert!(place("198.51.100.13  down") < place("198.51.100.12  up"), "{text}");
    assert!(place("no_usable_locator") < place("hop_limit_exceeded"), "{text}");
}

#[test]
fn a_small_screen_is_drawn_all_the_same() {
    let mut frame = second_apart();
    frame.trouble = Some("no daemon serves x".to_owned());
    frame.paused = true;
    for (width, height) in [(80, 24), (20, 5), (1, 1)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|screen| draw::frame(screen, &frame)).unwrap();
        if width == 80 {
            let shown = format!("{:?}", terminal.backend());
            assert!(shown.contains("this is old: no daemon serves x"), "{shown}");
        }
    }
}

#[test]
fn op_01_a_map_server_has_sites_in_the_place_of_eids() {
    let start = Instant::now();
    let mut seen = seen(start, 0);
    seen.status.role = "mapping".to_owned();
    let text = as_text(&Frame::new(&seen, &seen), 100).unwrap();
    assert!(text.contains("No site is configured."), "{text}");
    assert!(text.contains("Registry: 0 EID-prefixes") && !text.contains("RLOC  "), "{text}");
}

#[test]
fn a_counter_that_went_back_is_no_rate() {
    let start = Instant::now();
    let frame = Frame::new(&seen(start, 5_000), &seen(start + Duration::from_secs(1), 10));
    assert_eq!(frame.traffic.rows[0].1[1], "0");
}

#[test]
fn numbers_are_short() {
    let said = [0.0, 0.5, 7.0, 12.34, 999.0, 1_000.0, 12_345.0, 999_600.0, 20e6, 3.2e12].map(short);
    assert_eq!(
        said,
        ["0", "0.50", "7", "12.3", "999", "1.00 k", "12.3 k", "1.00 M", "20.0 M", "3.20 T"]
    );
}
