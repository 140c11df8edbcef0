use super::*;

fn counters(value: u64) -> CountersView {
    CountersView::from([("packets".to_owned(), value), ("drop_x".to_owned(), 7)])
}

/// Records for so many seconds, one packet a second.
fn recorded(start: Instant, seconds: u64) -> Recorder {
    let mut recorder = Recorder::new(start, Duration::from_secs(1_800_000_000));
    for second in 0..=seconds {
        let now = start + Duration::from_secs(second);
        recorder.handle_timeout(now, || counters(second));
    }
    recorder
}

#[test]
fn every_ring_has_its_own_beat() {
    let start = Instant::now();
    let recorder = recorded(start, 60);
    let view = recorder.history_view(start + Duration::from_secs(60), &[]).unwrap();
    let lengths: Vec<_> = view.rings.iter().map(|ring| ring.age_milliseconds.len()).collect();
    assert_eq!(lengths, [31, 3, 1]);
    let half_minutes = &view.rings[1];
    assert_eq!(half_minutes.interval_seconds, 30);
    assert_eq!(half_minutes.age_milliseconds, [60_000, 30_000, 0]);
    assert_eq!(half_minutes.counters["packets"], [Some(0), Some(30), Some(60)]);
    assert_eq!(half_minutes.counters["drop_x"], [Some(7); 3]);
}

#[test]
fn rings_are_bounded_and_forget_the_oldest() {
    let start = Instant::now();
    let recorder = recorded(start, 2 * 86_400);
    let now = start + Duration::from_secs(2 * 86_400);
    let view = recorder.history_view(now, &["packets".to_owned()]).unwrap();
    for (ring, (interval, length)) in view.rings.iter().zip(RINGS) {
        assert_eq!((ring.age_milliseconds.len(), ring.length), (length, length));
        let oldest = interval * (length as u32 - 1);
        assert_eq!(u128::from(ring.age_milliseconds[0]), oldest.as_millis());
        assert_eq!(ring.counters.len(), 1);
    }
}

#[test]
fn a_counter_that_comes_later_has_no_past() {
    let start = Instant::now();
    let mut recorder = recorded(start, 2);
    let now = start + Duration::from_secs(4);
    recorder.handle_timeout(now, || CountersView::from([("new".to_owned(), 1)]));
    let view = recorder.history_view(now, &["new".to_owned()]).unwrap();
    assert_eq!(view.rings[0].counters["new"], [None, None, Some(1)]);
    let error = recorder.history_view(now, &["neu".to_owned()]).unwrap_err();
    assert!(error.starts_with("there is no counter \"neu\""), "{error}");
}

#[test]
fn names_are_bounded_too() {
    let start = Instant::now();
    let mut recorder = Recorder::new(start, Duration::ZERO);
    let many = (0..MOST_COUNTERS as u64 + 9).map(|n| (format!("c{n:04}"), n)).collect();
    recorder.handle_timeout(start, || many);
    let view = recorder.history_view(start, &[]).unwrap();
    assert_eq!(view.rings[0].counters.len(), MOST_COUNTERS);
}

#[test]
fn after_a_pause_one_sample_is_due_not_many() {
    let start = Instant::now();
    let mut recorder = recorded(start, 2);
    let later = start + Duration::from_secs(100);
    recorder.handle_timeout(later, || counters(5));
    assert!(recorder.poll_timeout() > later);
}

#[test]
fn events_come_in_order_with_time_and_cause() {
    let start = Instant::now();
    let mut recorder = Recorder::new(start, Duration::from_secs(1_800_000_000));
    assert_eq!(recorder.events_view(None), EventsView::default());
    recorder.tell(start, Told::info("rloc-up", "192.0.2.1", "answers RLOC-probes"));
    let later = start + Duration::from_millis(1_500);
    recorder.tell(later, Told::warning("rloc-down", "192.0.2.1", "RLOC-probes unanswered"));
    let all = recorder.events_view(None);
    let second = &all.events[1];
    assert_eq!((second.number, second.severity), (1, Severity::Warning));
    assert_eq!((&*second.kind, &*second.subject), ("rloc-down", "192.0.2.1"));
    assert_eq!(second.unix_milliseconds, 1_800_000_001_500);
    assert_eq!((all.events.len(), all.last, all.lost), (2, Some(1), 0));
    assert_eq!(recorder.events_view(Some(0)).events, all.events[1..]);
    assert_eq!(recorder.events_view(Some(1)).events, []);
    // The daemon was started anew since.
    assert_eq!(recorder.events_view(Some(99)).events.len(), 2);
}

#[test]
fn the_ring_of_events_is_bounded_and_says_what_was_lost() {
    const KINDS: [&str; 4] = ["a", "b", "c", "d"];
    let start = Instant::now();
    let mut recorder = Recorder::new(start, Duration::ZERO);
    for number in 0..MOST_EVENTS as u64 + 100 {
        let now = start + Duration::from_secs(number);
        recorder.tell(now, Told::info(KINDS[number as usize % 4], number, "x".repeat(1_000)));
    }
    let all = recorder.events_view(None);
    assert_eq!((all.events.len(), all.lost), (MOST_EVENTS, 0));
    assert_eq!(all.events[0].number, 100);
    assert_eq!(all.events[0].cause.len(), 256);
    assert_eq!(recorder.events_view(Some(49)).lost, 50);
}

#[test]
fn one_kind_does_not_push_out_the_others() {
    let start = Instant::now();
    let mut recorder = Recorder::new(start, Duration::ZERO);
    recorder.tell(start, Told::info("reload", "", ""));
    for _ in 0..10_000 {
        recorder.tell(start, Told::info("smr-received", "2001:db8::/32", ""));
    }
    assert_eq!(recorder.events_view(None).events.len(), 101);
    recorder.tell(start + Duration::from_secs(1), Told::info("smr-received", "", ""));
    assert_eq!(recorder.events_view(None).events[101].left_out, 9_900);
}
