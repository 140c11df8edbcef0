//! How fast a locator that is lost is noticed, how it comes back, and what probing costs: PB rows.
use super::*;
use crate::drops::DropReason;
use crate::view::LocatorState;
use rand::RngExt;
use std::sync::atomic::Ordering;

const BACKUP: &str = "192.0.2.78";

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn every(interval: Duration) -> ControlConfig {
    ControlConfig { probe: Some(ProbeConfig { interval, ..ProbeConfig::default() }), ..config() }
}

/// A network in which every RLOC answers its probes after a round-trip time, unless its path swallows everything.
struct Net {
    node: Node,
    round_trip: Duration,
    /// How exactly time is followed.
    step: Duration,
    /// RLOCs that nothing gets to, or back from.
    dead: BTreeSet<IpAddr>,
    /// Of the messages on either way, percent that get lost.
    loss: u32,
    rng: StdRng,
    /// Answers on their way.
    answers: BTreeMap<Instant, Vec<(IpAddr, u64, EidPrefix)>>,
    /// Probes sent, by RLOC.
    probes: Vec<(Instant, IpAddr)>,
    /// RLOCs that get data all the time.
    in_use: BTreeSet<IpAddr>,
}

impl Net {
    fn new(config: ControlConfig, round_trip: Duration) -> Self {
        Self {
            node: Node::new(config),
            round_trip,
            step: millis(1),
            dead: BTreeSet::new(),
            loss: 0,
            rng: StdRng::from_seed([3; 32]),
            answers: BTreeMap::new(),
            probes: Vec::new(),
            in_use: BTreeSet::new(),
        }
    }

    /// Two locators, the first preferred; both were probed.
    fn with_backup(config: ControlConfig, round_trip: Duration) -> Self {
        let mut net = Self::new(config, round_trip);
        let mut mapping = record("10.2.0.0/16", 1440, &[PEER, BACKUP]);
        mapping.locators[1].priority = 2;
        net.node.learn("10.2.0.9", vec![mapping]);
        net.in_use.insert(ip(PEER));
        net.run(seconds(5));
        net
    }

    fn run(&mut self, by: Duration) {
        let end = self.node.now + by;
        while self.node.now < end {
            self.step();
        }
    }

    /// Lets time pass until an event, and says how long that took.
    fn until(&mut self, event: &Event) -> Duration {
        let (from, known) = (self.node.now, self.node.events.len());
        while !self.node.events[known..].contains(event) {
            assert!(self.node.now < from + seconds(600), "never: {event:?}");
            self.step();
        }
        self.node.now - from
    }

    fn step(&mut self) {
        // The coarse clock of the data plane, which notes what it sends to.
        let clock = (self.node.now - self.node.start).as_secs() as u32 + 1;
        for rloc in &self.in_use {
            if let Some(locator) = self.node.control.locators.get(rloc) {
                locator.used.store(clock, Ordering::Relaxed);
            }
        }
        self.node.advance(self.step);
        for (sent, transmit) in std::mem::take(&mut self.node.sent) {
            let Ok(Message::MapRequest(request)) = Message::parse(&transmit.payload) else {
                continue;
            };
            let rloc = transmit.destination.ip();
            self.probes.push((sent, rloc));
            // What the answer needs, it needs both ways.
            if self.dead.contains(&transmit.source) {
                continue;
            }
            assert_eq!(request.itr_rlocs[0], Address::from(transmit.source));
            if (0..2).any(|_| self.rng.random_range(0..100) < self.loss) {
                continue;
            }
            if let (false, Some(prefix)) =
                (self.dead.contains(&rloc), request.records[0].eid.prefix())
            {
                let answer = (rloc, request.nonce, prefix);
                self.answers.entry(sent + self.round_trip).or_default().push(answer);
            }
        }
        while let Some(due) = self.answers.first_entry().filter(|e| *e.key() <= self.node.now) {
            for (rloc, nonce, prefix) in due.remove() {
                if !self.dead.contains(&rloc) {
                    self.answer(rloc, nonce, prefix);
                }
            }
        }
    }

    fn answer(&mut self, rloc: IpAddr, nonce: u64, prefix: EidPrefix) {
        // Leaves out the others, which changes nothing (PB-12).
        let mut record = EidRecord::new(prefix, 1440, vec![LocatorRecord::new(rloc, 1, 100)]);
        record.authoritative = true;
        record.locators[0].probed = true;
        let mut reply = MapReply::new(nonce, vec![record]);
        reply.probe = true;
        self.node.receive(SocketAddr::new(rloc, CONTROL_PORT), &Message::MapReply(reply));
    }

    fn state_of(&self, rloc: &str) -> LocatorState {
        let views = self.node.control.locators_view(self.node.now);
        views.iter().find(|view| view.address == ip(rloc)).expect("a locator").state
    }

    fn probes_of(&self, rloc: &str) -> usize {
        self.probes.iter().filter(|(_, to)| *to == ip(rloc)).count()
    }
}

#[test]
fn pb_10_a_silent_blackhole_is_noticed_in_three_seconds_or_in_three_hundred_milliseconds() {
    for (interval, round_trip, limit) in [
        (seconds(1), millis(1), seconds(3)),
        (seconds(1), millis(50), seconds(3)),
        (seconds(1), millis(200), seconds(3)),
        (millis(100), millis(1), millis(300)),
        (millis(100), millis(20), millis(300)),
        (millis(100), millis(40), millis(300)),
        // Nobody can know sooner than the answers take.
        (millis(100), millis(400), millis(100) + 4 * millis(450)),
    ] {
        let mut net = Net::with_backup(every(interval), round_trip);
        for offset in [0, 17, 50, 93, 400, 999] {
            net.run(seconds(5) + millis(offset));
            assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
            net.dead.insert(ip(PEER));
            let noticed = net.until(&Event::LocatorDown(ip(PEER)));
            assert!(noticed <= limit, "{interval:?} {round_trip:?} {offset}: {noticed:?}");
            assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP], "PB-17");
            net.dead.clear();
            net.until(&Event::LocatorUp(ip(PEER)));
        }
    }
}

#[test]
fn pb_10_a_slow_path_or_a_lost_probe_is_no_failure() {
    let mut net = Net::with_backup(every(millis(100)), millis(30));
    // A probe gets lost, or two in a row, again and again.
    for _ in 0..20 {
        net.dead.insert(ip(PEER));
        let before = net.probes_of(PEER);
        while net.probes_of(PEER) == before {
            net.step();
        }
        net.dead.clear();
        net.run(millis(700));
    }
    // The round-trip time grows far beyond what was waited for.
    for round_trip in [60, 90, 130, 200, 300, 500] {
        net.round_trip = millis(round_trip);
        net.run(seconds(5));
    }
    assert!(!net.node.events.contains(&Event::LocatorDown(ip(PEER))), "{:?}", net.node.events);
    let rtt = net.node.control.locators_view(net.node.now)[0].rtt_micros.expect("measured");
    assert!((430_000..=510_000).contains(&rtt), "{rtt}");
}

#[test]
fn pb_10_a_path_that_loses_a_third_is_no_outage_and_a_dead_one_still_is() {
    for (interval, bound, clean_bound) in
        [(seconds(1), seconds(8), seconds(3)), (millis(100), millis(800), millis(300))]
    {
        let mut net = Net::with_backup(every(interval), millis(10));
        net.step = interval / 50;
        net.in_use.insert(ip(BACKUP));
        net.loss = 30;
        net.run(100 * interval);
        let downs = |net: &Net| {
            let is_down = |event: &&Event| **event == Event::LocatorDown(ip(PEER));
            net.node.events.iter().filter(is_down).count()
        };
        let (before, start) = (downs(&net), net.node.now);
        let (mut steps, mut without) = (0, 0);
        while net.node.now < start + 2000 * interval {
            net.step();
            steps += 1;
            without += u32::from(matches!(net.node.fib[&prefix("10.2.0.0/16")], Verdict::Drop(_)));
        }
        assert!(downs(&net) - before <= 3, "{interval:?}: {}", downs(&net) - before);
        assert_eq!(without, 0, "{interval:?}: of {steps} without a locator");
        let view = &net.node.control.locators_view(net.node.now)[0];
        assert!((30..=70).contains(&view.probe_loss_percent), "{}", view.probe_loss_percent);
        // Now nothing comes through; and then, once the path has been clean for a while.
        for (loss, bound) in [(30, bound), (0, clean_bound)] {
            net.loss = loss;
            net.run(100 * interval);
            net.dead.insert(ip(PEER));
            let noticed = net.until(&Event::LocatorDown(ip(PEER)));
            assert!(noticed <= bound, "{interval:?}, loss {loss} %: {noticed:?}");
            net.dead.clear();
            net.until(&Event::LocatorUp(ip(PEER)));
        }
    }
}

#[test]
fn pb_10_an_answer_that_comes_after_all_takes_the_verdict_back_at_once() {
    let mut net = Net::with_backup(every(millis(100)), millis(1));
    net.round_trip = seconds(1);
    net.until(&Event::LocatorDown(ip(PEER)));
    let back = net.until(&Event::LocatorUp(ip(PEER)));
    assert!(back <= seconds(1), "{back:?}");
    net.run(seconds(10));
    assert_eq!(net.node.events.iter().filter(|e| **e == Event::LocatorDown(ip(PEER))).count(), 1);
}

#[test]
fn pb_11_a_locator_that_comes_back_has_to_answer_a_while_before_it_takes_traffic_from_another() {
    let mut net = Net::with_backup(every(seconds(1)), millis(10));
    net.dead.insert(ip(PEER));
    net.until(&Event::LocatorDown(ip(PEER)));
    net.run(seconds(10));
    let asked = net.probes_of(PEER);
    net.dead.clear();
    while net.state_of(PEER) == LocatorState::Down {
        net.step();
    }
    assert_eq!(net.state_of(PEER), LocatorState::Recovering);
    let view = &net.node.control.locators_view(net.node.now)[0];
    assert_eq!(view.unusable.as_deref(), Some("answered 1 of 3 RLOC-probes since it was down"));
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
    // A probe gets lost: it begins anew.
    net.run(seconds(1));
    net.dead.insert(ip(PEER));
    net.run(seconds(1) + millis(200));
    net.dead.clear();
    assert_eq!(net.state_of(PEER), LocatorState::Recovering);
    let back = net.until(&Event::LocatorUp(ip(PEER)));
    assert!((seconds(2)..=seconds(4)).contains(&back), "{back:?}");
    assert!(net.probes_of(PEER) >= asked + 6);
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
    assert_eq!(net.node.events.iter().filter(|e| **e == Event::LocatorUp(ip(PEER))).count(), 2);
}

#[test]
fn pb_11_when_all_locators_were_down_the_first_answer_is_enough() {
    let mut net = Net::with_backup(every(seconds(1)), millis(10));
    net.dead.extend([ip(PEER), ip(BACKUP)]);
    net.until(&Event::LocatorDown(ip(PEER)));
    net.in_use.insert(ip(BACKUP));
    net.until(&Event::LocatorDown(ip(BACKUP)));
    assert_eq!(net.node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator, "PB-17");
    net.run(seconds(5));
    net.dead.remove(&ip(BACKUP));
    let from = net.node.now;
    while matches!(net.node.fib[&prefix("10.2.0.0/16")], Verdict::Drop(_)) {
        net.step();
    }
    let took = net.node.now - from;
    assert!(took <= millis(1_100 + 20), "one probe: {took:?}");
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
}

#[test]
fn pb_17_a_locator_that_is_down_counts_as_one_of_priority_255() {
    let mut net = Net::new(every(seconds(1)), millis(10));
    net.node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER, BACKUP])]);
    net.run(seconds(2));
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER, BACKUP]);
    net.in_use.extend([ip(PEER), ip(BACKUP)]);
    net.dead.insert(ip(PEER));
    net.until(&Event::LocatorDown(ip(PEER)));
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
    net.dead.insert(ip(BACKUP));
    net.until(&Event::LocatorDown(ip(BACKUP)));
    assert_eq!(net.node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
}

#[test]
fn pb_10_only_locators_that_carry_traffic_are_probed_fast() {
    let mut net = Net::with_backup(every(millis(100)), millis(5));
    let before = (net.probes_of(PEER), net.probes_of(BACKUP));
    net.run(seconds(60));
    let (busy, idle) = (net.probes_of(PEER) - before.0, net.probes_of(BACKUP) - before.1);
    assert!((500..=700).contains(&busy), "{busy}");
    assert!(idle <= 2, "{idle}");
    // The flow moves: soon the other one is watched.
    net.in_use = BTreeSet::from([ip(BACKUP)]);
    net.run(seconds(12));
    let before = (net.probes_of(PEER), net.probes_of(BACKUP));
    net.run(seconds(10));
    let (idle, busy) = (net.probes_of(PEER) - before.0, net.probes_of(BACKUP) - before.1);
    assert!(idle <= 1, "{idle}");
    assert!((90..=120).contains(&busy), "{busy}");
}

#[test]
fn pb_02_a_probe_is_no_lookup_and_goes_to_rlocs_only() {
    let config = ControlConfig { map_servers: vec![server()], ..every(millis(100)) };
    let mut net = Net::new(config, millis(5));
    net.run(millis(1));
    net.node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    net.in_use.insert(ip(PEER));
    net.run(seconds(5));
    net.node.sent.clear();
    let mut probed = BTreeSet::new();
    for _ in 0..20_000 {
        net.node.advance(millis(1));
        for transmit in net.node.take_sent() {
            match Message::parse(&transmit.payload).expect("a message") {
                Message::MapRequest(request) => {
                    assert!(request.probe);
                    probed.insert(transmit.destination.ip());
                }
                // Lookups and registrations go there, in messages that are no probes.
                Message::Encapsulated(ecm) => assert!(!ecm.map_request().expect("one").probe),
                _ => assert_eq!(transmit.destination.ip(), ip(SERVER)),
            }
        }
    }
    assert_eq!(probed, BTreeSet::from([ip(PEER)]));
}

#[test]
fn pb_14_an_unreachable_locator_is_down_until_a_probe_says_better() {
    let mut net = Net::with_backup(every(seconds(1)), millis(20));
    let hint = Punt::Unreachable { rloc: ip(PEER), by_host: false };
    net.node.control.handle_punt(net.node.now, &hint);
    net.node.drain();
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
    let view = &net.node.control.locators_view(net.node.now)[0];
    assert_eq!(view.unusable.as_deref(), Some("ICMP says that it cannot be reached"));
    // It was wrong, and whoever goes on saying so is not believed for a while.
    let back = net.until(&Event::LocatorUp(ip(PEER)));
    assert!(back <= millis(25), "{back:?}");
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
    net.node.control.handle_punt(net.node.now, &hint);
    net.node.drain();
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
    assert_eq!(net.node.control.counters_view()["unreachable_reports"], 1);
    assert_eq!(net.node.control.counters_view()["unreachable_reports_doubted"], 1);
    // It was right: hold-down as after any outage.
    net.run(seconds(11));
    net.dead.insert(ip(PEER));
    net.node.control.handle_punt(net.node.now, &hint);
    net.run(seconds(20));
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
    net.dead.clear();
    while net.state_of(PEER) == LocatorState::Down {
        net.step();
    }
    assert_eq!(net.state_of(PEER), LocatorState::Recovering);
}

#[test]
fn pb_15_a_host_without_lisp_is_left_alone_until_the_next_probe() {
    let mut net = Net::with_backup(every(seconds(1)), millis(20));
    net.dead.insert(ip(PEER));
    let hint = Punt::Unreachable { rloc: ip(PEER), by_host: true };
    net.node.control.handle_punt(net.node.now, &hint);
    net.node.drain();
    assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
    let view = &net.node.control.locators_view(net.node.now)[0];
    assert_eq!(view.unusable.as_deref(), Some("ICMP says that nobody there takes LISP packets"));
    net.dead.clear();
    net.until(&Event::LocatorUp(ip(PEER)));
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
}

#[test]
fn pb_15_a_host_whose_tunnel_router_restarts_is_back_soon_after() {
    let mut net = Net::with_backup(every(seconds(10)), millis(20));
    net.dead.insert(ip(PEER));
    let hint = Punt::Unreachable { rloc: ip(PEER), by_host: true };
    net.node.control.handle_punt(net.node.now, &hint);
    net.run(millis(400));
    net.dead.clear();
    let since = net.node.now;
    net.until(&Event::LocatorUp(ip(PEER)));
    assert!(net.node.now - since < millis(400), "{:?}", net.node.now - since);
}

#[test]
fn pb_14_mt_23_without_probing_a_hint_holds_for_half_a_minute() {
    let mut node = Node::new(config());
    node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    let hint = Punt::Unreachable { rloc: ip(PEER), by_host: false };
    node.control.handle_punt(node.now, &hint);
    node.drain();
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
    node.advance(seconds(29));
    assert_eq!(node.dropped("10.2.0.0/16"), DropReason::NoUsableLocator);
    node.advance(seconds(2));
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER]);
    assert!(node.take_sent().is_empty(), "no probe");
}

#[test]
fn pb_11_while_no_own_rloc_can_send_nothing_is_said_of_remote_ones() {
    let mut net = Net::with_backup(every(seconds(1)), millis(10));
    net.node.control.set_own_rloc(net.node.now, ip(OWN_V4), false, 10);
    net.node.drain();
    net.dead.extend([ip(PEER), ip(BACKUP)]);
    net.run(seconds(60));
    assert_eq!((net.state_of(PEER), net.state_of(BACKUP)), (LocatorState::Up, LocatorState::Up));
    net.dead.clear();
    net.node.control.set_own_rloc(net.node.now, ip(OWN_V4), true, 10);
    net.run(seconds(5));
    assert!(!net.node.events.iter().any(|event| matches!(event, Event::LocatorDown(_))));
}

#[test]
fn pb_18_ten_thousand_locators_are_probed_evenly_and_never_delay_the_few_that_matter() {
    let mut net =
        Net::new(ControlConfig { map_cache_limit: 20_000, ..every(millis(100)) }, millis(5));
    net.step = millis(10);
    for block in 0..40u32 {
        let locators: Vec<String> = (0..250).map(|host| format!("100.64.{block}.{host}")).collect();
        let locators: Vec<&str> = locators.iter().map(String::as_str).collect();
        net.node.learn(
            &format!("10.{}.0.9", 10 + block),
            vec![record(&format!("10.{}.0.0/16", 10 + block), 1440, &locators)],
        );
    }
    net.node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    net.in_use.insert(ip(PEER));
    net.run(seconds(60));
    net.probes.clear();
    let from = net.node.now;
    net.run(seconds(60));
    let mut per_second = vec![0; 60];
    for (sent, rloc) in &net.probes {
        if *rloc != ip(PEER) {
            per_second[(*sent - from).as_secs().min(59) as usize] += 1;
        }
    }
    let (least, most) =
        (*per_second.iter().min().expect("60"), *per_second.iter().max().expect("60"));
    assert!(least >= 40 && most <= 400, "{per_second:?}");
    let total: usize = per_second.iter().sum();
    assert!((8_000..=12_000).contains(&total), "{total}");
    assert!(net.probes_of(PEER) >= 500, "{}", net.probes_of(PEER));
    // All of them die, and one of those: it is noticed as if it were alone.
    net.dead = net.probes.iter().map(|(_, rloc)| *rloc).collect();
    let noticed = net.until(&Event::LocatorDown(ip(PEER)));
    assert!(noticed <= millis(300), "{noticed:?}");
    net.probes.clear();
    let from = net.node.now;
    net.run(seconds(30));
    let rate = net.probes.len() as u64 / (net.node.now - from).as_secs();
    assert!(rate <= 2_500, "{rate}");
}

#[test]
fn pb_11_a_locator_that_its_site_offers_again_is_probed_at_once() {
    let mut net = Net::with_backup(every(seconds(1)), millis(10));
    let mut gone = record("10.2.0.0/16", 1440, &[PEER, BACKUP]);
    (gone.locators[0].priority, gone.locators[0].reachable) = (255, false);
    gone.locators[1].priority = 2;
    let mut back = record("10.2.0.0/16", 1440, &[PEER, BACKUP]);
    back.locators[1].priority = 2;
    net.dead.insert(ip(PEER));
    net.until(&Event::LocatorDown(ip(PEER)));
    let expires = net.node.now + seconds(3600);
    for record in [&gone, &back] {
        net.run(seconds(600));
        net.dead.clear();
        let mapping = map_cache::Mapping::from_record(record, &net.node.control.own);
        let prefix = prefix("10.2.0.0/16");
        net.node.control.install_entry(net.node.now, prefix, mapping, expires);
        net.node.drain();
        assert_eq!(net.node.destinations("10.2.0.0/16"), [BACKUP]);
        if record.locators[0].reachable {
            break;
        }
        net.dead.insert(ip(PEER));
    }
    let back = net.until(&Event::LocatorUp(ip(PEER)));
    assert!(back <= seconds(4), "{back:?}");
    assert_eq!(net.node.destinations("10.2.0.0/16"), [PEER]);
}

#[test]
fn pi_16_map_resolvers_that_do_not_answer_are_noticed() {
    let mut node = Node::new(ControlConfig { role: Role::Proxy, eids: Vec::new(), ..config() });
    node.advance(seconds(60));
    assert!(node.take_sent().is_empty(), "nobody wants to know");
    node.control.watch_resolvers(node.now);
    let start = node.now;
    node.advance(seconds(1));
    let mut asked = Vec::new();
    for transmit in node.take_sent() {
        let Ok(Message::Encapsulated(ecm)) = Message::parse(&transmit.payload) else {
            panic!("not an ECM: {transmit:?}");
        };
        let request = ecm.map_request().expect("a Map-Request");
        // For what is nobody's EID: its own address.
        let own = EidPrefix::new(InstanceId::DEFAULT, transmit.destination.ip().into());
        assert_eq!(request.records[0].eid.prefix(), Some(own));
        asked.push((transmit.destination, request.nonce));
    }
    assert_eq!(asked.len(), 2, "all of them");
    assert_eq!(node.control.resolvers_silent_since(node.now), None, "too early to say");
    node.advance(seconds(4));
    assert_eq!(node.control.resolvers_silent_since(node.now), Some(start));
    // A late answer of one is enough, and is no mapping.
    let (resolver, nonce) = asked[1];
    let nobody = negative("198.51.100.0/24", 15, Action::NativelyForward);
    node.receive(resolver, &Message::MapReply(MapReply::new(nonce, vec![nobody])));
    assert_eq!(node.control.resolvers_silent_since(node.now), None);
    assert!(node.cached().is_empty());
    node.take_sent();
    node.advance(seconds(9));
    assert!(node.take_sent().is_empty(), "asked rarely while they answer");
    node.advance(seconds(60));
    let asked = node.take_sent().len();
    assert!((50..=62).contains(&asked), "every 2 s while they do not: {asked}");
}

#[test]
fn pb_10_when_one_way_out_is_dead_traffic_takes_another_and_comes_back() {
    let rlocs = vec![own("isp-p", OWN_V4), own("isp-q", "192.0.2.2")];
    let mut net = Net::new(ControlConfig { rlocs, ..every(millis(100)) }, millis(10));
    net.node.learn("10.2.0.9", vec![record("10.2.0.0/16", 1440, &[PEER])]);
    net.in_use.insert(ip(PEER));
    net.run(seconds(5));
    let source = |net: &Net| net.node.set("10.2.0.0/16").adjacencies[0].source;
    let before = net.probes.len();
    net.run(seconds(10));
    assert!(net.probes.len() - before <= 120, "one way is probed while it works");
    for _ in 0..3 {
        assert_eq!(source(&net), ip(OWN_V4));
        // The ISP of the first own RLOC goes silent.
        net.dead.insert(ip(OWN_V4));
        let rerouted = Event::LocatorRerouted { rloc: ip(PEER), source: ip("192.0.2.2") };
        let took = net.until(&rerouted);
        assert!(took <= millis(300), "{took:?}");
        assert_eq!(source(&net), ip("192.0.2.2"));
        net.run(seconds(5));
        assert_eq!(source(&net), ip("192.0.2.2"));
        net.dead.clear();
        let back = Event::LocatorRerouted { rloc: ip(PEER), source: ip(OWN_V4) };
        let took = net.until(&back);
        assert!((millis(200)..=millis(500)).contains(&took), "hold-down: {took:?}");
        net.run(seconds(2));
    }
    assert!(!net.node.events.contains(&Event::LocatorDown(ip(PEER))), "{:?}", net.node.events);
    // Both are dead: then it is down, and up with the first that answers.
    net.dead.extend([ip(OWN_V4), ip("192.0.2.2")]);
    net.until(&Event::LocatorDown(ip(PEER)));
    net.run(seconds(2));
    net.dead.remove(&ip("192.0.2.2"));
    while matches!(net.node.fib[&prefix("10.2.0.0/16")], Verdict::Drop(_)) {
        net.step();
    }
    assert_eq!(source(&net), ip("192.0.2.2"));
}

#[test]
fn rg_04_rq_12_what_goes_unanswered_is_repeated_from_another_own_rloc() {
    let rlocs = vec![own("isp-p", OWN_V4), own("isp-q", "192.0.2.2")];
    let config = ControlConfig { rlocs, map_servers: vec![server()], ..config() };
    let mut node = Node::new(config);
    node.miss("10.2.0.9");
    node.advance(seconds(8));
    let (mut registers, mut requests) = (Vec::new(), Vec::new());
    for transmit in node.take_sent() {
        match Message::parse(&transmit.payload).expect("a message") {
            Message::MapRegister(_) => registers.push(transmit.source),
            Message::Encapsulated(ecm) => {
                let request = ecm.map_request().expect("one");
                assert_eq!(request.itr_rlocs[0], Address::from(transmit.source));
                requests.push(transmit.source);
            }
            other => panic!("{other:?}"),
        }
    }
    for sources in [registers, requests] {
        let [p, q] = [OWN_V4, "192.0.2.2"].map(ip);
        assert_eq!(sources[..4], [p, q, p, q]);
    }
}

/// One own RLOC per family, and a peer with one per family, of which IPv4 is preferred.
fn dual_stack(config: ControlConfig) -> Node {
    let rlocs = vec![own("core4", OWN_V4), own("core6", OWN_V6)];
    let mut node = Node::new(ControlConfig { rlocs, ..config });
    let mut both = record("10.2.0.0/16", 1440, &[PEER, PEER_V6]);
    both.locators[1].priority = 2;
    node.learn("10.2.0.9", vec![both]);
    node.learn("10.3.0.9", vec![record("10.3.0.0/16", 1440, &[PEER])]);
    node
}

const PEER_V6: &str = "2001:db8:c0::77";

#[test]
fn en_25_a_family_without_a_carrier_is_none_of_ours() {
    let mut node = dual_stack(config());
    for net in ["10.2.0.0/16", "10.3.0.0/16"] {
        assert_eq!(node.destinations(net), [PEER]);
        node.set(net).last_used.store(7, Ordering::Relaxed);
    }
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, 8);
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER_V6], "the next priority");
    assert_eq!(node.dropped("10.3.0.0/16"), DropReason::NoCommonRlocFamily);
    node.control.set_own_rloc(node.now, ip(OWN_V6), false, 8);
    node.drain();
    for net in ["10.2.0.0/16", "10.3.0.0/16"] {
        assert_eq!(node.dropped(net), DropReason::NoCommonRlocFamily);
    }
    // Both are back, and it is not forgotten who got data.
    node.advance(seconds(4));
    node.take_sent();
    node.control.set_own_rloc(node.now, ip(OWN_V6), true, 9);
    node.control.set_own_rloc(node.now, ip(OWN_V4), true, 9);
    node.drain();
    for net in ["10.2.0.0/16", "10.3.0.0/16"] {
        assert_eq!(node.destinations(net), [PEER]);
        assert_eq!(node.set(net).last_used.load(Ordering::Relaxed), 7);
    }
    let told: Vec<IpAddr> =
        soliciting::smrs(&mut node).iter().map(|s| s.0.destination.ip()).collect();
    assert_eq!(told, [ip(PEER_V6), ip(PEER)]);
}

#[test]
fn en_25_pi_02_a_petr_bridges_a_family_without_a_carrier() {
    let use_petr = vec![petr("192.0.2.200"), petr("2001:db8:c0::200")];
    let mut node = dual_stack(ControlConfig { use_petr, ..config() });
    node.control.set_own_rloc(node.now, ip(OWN_V4), false, 8);
    node.drain();
    assert_eq!(node.destinations("10.2.0.0/16"), [PEER_V6]);
    assert_eq!(node.destinations("10.3.0.0/16"), ["2001:db8:c0::200"]);
}
