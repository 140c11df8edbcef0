//! The tap on the forwarding path, and its session.
use super::*;
use crate::counters::{Traffic, WorkerCounters};
use crate::drops::DropReason;
use crate::fib::{
    Adjacency, FibReader, FibReaderFactory, FibUpdate, FibWriter, LocatorSet, Verdict,
};
use crate::forward::{Forwarder, HoldLimits, Outer, Output, PathMtus, Settings};
use crate::marks::{StatusBits, Tag};
use crate::packet::icmp::Rate;
use crate::packet::tests::support::{Build, Transport, ip, payload, udp};
use crate::packet::{Inner, Marking, OuterFields, VirtioNetHeader};
use crate::policy::{Onward, Policy};
use crate::punt;
use mapping::admin::TapVerdict;
use mapping::eid::{EidPrefix, MapVersion};
use zerocopy::IntoBytes;

const OWN: &str = "198.51.100.1";
const PEER: &str = "198.51.100.2";

struct Open;

impl Policy for Open {
    fn admit_native(&self, source: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        match source == ip("192.0.2.66") {
            true => Err(DropReason::SourceNotEid),
            false => Ok(InstanceId::DEFAULT),
        }
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        source: IpAddr,
        _: IpAddr,
    ) -> Result<Onward, DropReason> {
        match source == ip("192.0.2.99") {
            true => Ok(Onward::Reencapsulate),
            false => Ok(Onward::Deliver),
        }
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Counts.
#[derive(Default)]
struct Sink(usize);

impl Output for Sink {
    fn encapsulated(&mut self, _: &Outer, _: &[u8], _: &[u8]) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }

    fn forwarded(&mut self, _: &[u8], _: Traffic) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }

    fn delivered(&mut self, _: u64, _: &Inner, _: &[u8]) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }
}

/// One worker under a tap.
struct Bench {
    forwarder: Forwarder<Open>,
    fib: FibWriter,
    reader: FibReader,
    out: Sink,
    tapper: Tapper,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let (fib, readers) = FibWriter::new();
        let now = Instant::now();
        let settings = settings(now);
        let (policy, path_mtus) = (Arc::new(Open), Arc::<PathMtus>::default());
        let switch = Arc::<Switch>::default();
        let explainer = explainer(&settings, &policy, &path_mtus, &readers);
        let forwarder = Forwarder::new(
            settings,
            policy,
            Arc::<WorkerCounters>::default(),
            path_mtus,
            punt::queue(16).0,
        )
        .with_tap(Arc::clone(&switch), 0);
        let tapper = Tapper::new(switch, &explainer, 1);
        let mut bench =
            Self { forwarder, fib, reader: readers.reader(), out: Sink::default(), tapper, now };
        let adjacency = Adjacency {
            source: ip(OWN),
            destination: ip(PEER),
            weight: 1,
            mtu: 1500,
            traffic: Arc::default(),
            ports: Default::default(),
            used: Arc::default(),
        };
        let set = Arc::new(LocatorSet::new([adjacency], 0));
        bench.insert("203.0.113.0/24", Verdict::Encapsulate(set));
        bench
    }

    fn insert(&mut self, prefix: &str, verdict: Verdict) {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, prefix.parse().expect("a prefix"));
        self.fib.apply([FibUpdate::Insert(prefix, verdict)]);
    }

    fn begin(&mut self, filter: &str, change: impl FnOnce(&mut TapQuery)) -> u64 {
        let mut query = TapQuery {
            filter: filter.to_owned(),
            sample: 1,
            count: None,
            milliseconds: 10_000,
            outputs: false,
        };
        change(&mut query);
        let begun = self.tapper.begin(self.now, UNIX_EPOCH, &query).expect("it begins");
        self.forwarder.handle_timeout(self.now);
        begun
    }

    fn native(&mut self, packet: &Build) {
        let mut frame = [VirtioNetHeader::default().as_bytes(), &packet.bytes()].concat();
        let mut view = self.reader.enter();
        self.forwarder.from_native(self.now, &mut view, &mut frame, &mut self.out);
    }

    fn core(&mut self, datagram: &[u8]) {
        self.core_from(ip(PEER), datagram);
    }

    fn core_from(&mut self, rloc: IpAddr, datagram: &[u8]) {
        let (fields, mut datagram) = (OuterFields { ttl: 9, tos: 0 }, datagram.to_vec());
        let mut view = self.reader.enter();
        let out = &mut self.out;
        self.forwarder.from_core(self.now, &mut view, rloc, fields, &mut datagram, out);
    }

    fn fetch(&mut self, session: u64) -> TapAnswer {
        self.tapper.fetch(self.now, session, false).expect("a session")
    }
}

fn settings(started: Instant) -> Settings {
    Settings {
        rlocs: vec![ip(OWN)],
        source_ports: 4,
        marking: Marking::default(),
        hold: HoldLimits::default(),
        seed: [7; 32],
        icmp_rate: Rate::default(),
        control_in_data: false,
        started,
    }
}

fn explainer(
    settings: &Settings,
    policy: &Arc<Open>,
    path_mtus: &Arc<PathMtus>,
    readers: &FibReaderFactory,
) -> Explainer {
    Explainer::new(
        settings.clone(),
        50_000..50_004,
        Arc::clone(policy) as Arc<dyn Policy>,
        Arc::clone(path_mtus),
        readers.clone(),
    )
}

fn packet() -> Build {
    Build::v4(udp(), payload(100))
}

fn octets(packet: &TapPacket) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&packet.octets[at..at + 2], 16).expect("hex");
    (0..packet.octets.len()).step_by(2).map(digit).collect()
}

#[test]
fn every_packet_is_shown_with_its_verdict() {
    let mut bench = Bench::new();
    let session = bench.begin("", |_| ());
    bench.native(&packet());
    bench.native(&Build { source: ip("192.0.2.66"), ..packet() });
    bench.native(&Build { destination: ip("198.18.0.1"), ..packet() });
    bench.core(&[&lisp::encode(InstanceId::DEFAULT)[..], &packet().bytes()].concat());
    bench.core(&[0; 40]);
    let answer = bench.fetch(session);
    assert_eq!((answer.lost, answer.more, answer.done), (0, false, false));
    let shown: Vec<(Side, TapVerdict, Option<&str>)> = answer
        .packets
        .iter()
        .map(|packet| (packet.side, packet.verdict, packet.reason.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            (Side::Native, TapVerdict::Encapsulated, None),
            (Side::Native, TapVerdict::Dropped, Some("source_not_eid")),
            (Side::Native, TapVerdict::Held, None),
            (Side::Core, TapVerdict::Delivered, None),
            (Side::Core, TapVerdict::Dropped, Some("inner_malformed")),
        ]
    );
    let first = &answer.packets[0];
    assert_eq!(first.rloc, Some(ip(PEER)));
    assert_eq!((first.ports, first.protocol), (Some((40000, 443)), Some(17)));
    assert_eq!(octets(first), packet().bytes());
    assert_eq!(bench.out.0, 2, "the packets go their way");
    let core = &answer.packets[3];
    let seen = octets(core);
    let outer = Inner::parse(&seen).expect("an outer header");
    assert_eq!((outer.source, outer.destination, outer.ttl), (ip(PEER), ip(OWN), 9));
    assert_eq!(outer.ports.map(|(_, to)| to), Some(4341));
    assert_eq!(seen[36..], packet().bytes(), "as it came, before the TTL changed");
    assert_eq!(core.length, seen.len());
}

#[test]
fn a_reencapsulated_packet_has_the_rloc_it_came_from_and_then_the_one_it_goes_to() {
    let mut bench = Bench::new();
    let sender = ip("198.51.100.77");
    let session = bench.begin("rloc 198.51.100.77", |query| query.outputs = true);
    let inner = Build { source: ip("192.0.2.99"), ..packet() };
    let header = lisp::encode(InstanceId::DEFAULT);
    bench.core_from(sender, &[&header[..], &inner.bytes()].concat());
    let answer = bench.fetch(session);
    let [came, left] = &answer.packets[..] else { panic!("{answer:?}") };
    assert_eq!((came.verdict, came.rloc), (TapVerdict::Reencapsulated, Some(sender)));
    assert_eq!((left.direction, left.rloc), (Direction::Out, Some(ip(PEER))));
}

#[test]
fn packets_are_shown_as_they_leave_if_that_is_wanted() {
    let mut bench = Bench::new();
    let session = bench.begin("dst 203.0.113.5", |query| query.outputs = true);
    let large = Build { payload: payload(1200), ..packet() };
    bench.native(&large);
    let answer = bench.fetch(session);
    let [came, left] = &answer.packets[..] else { panic!("{answer:?}") };
    assert_eq!((came.side, came.direction), (Side::Native, Direction::In));
    assert_eq!((left.side, left.direction), (Side::Core, Direction::Out));
    assert_eq!((came.length, left.length), (1228, 1264));
    let seen = octets(left);
    assert_eq!(seen.len(), 28 + SNAP_LEN, "header, and what is kept");
    assert_eq!(seen[..2], [0x45, 0]);
    assert_eq!(seen[2..4], 1264_u16.to_be_bytes(), "the length it is sent with");
    assert_eq!(seen[12..20], [198, 51, 100, 1, 198, 51, 100, 2]);
    let port = u16::from_be_bytes([seen[20], seen[21]]);
    assert!((50_000..50_004).contains(&port), "{port}");
    assert_eq!(seen[36..], large.bytes()[..SNAP_LEN - 8]);
}

#[test]
fn a_filter_a_sample_and_a_count_bound_what_is_shown() {
    let mut bench = Bench::new();
    let session = bench.begin("drop=source_not_eid", |_| ());
    bench.native(&packet());
    bench.native(&Build { source: ip("192.0.2.66"), ..packet() });
    assert_eq!(bench.fetch(session).packets.len(), 1);
    assert!(bench.tapper.fetch(bench.now, session, true).expect("a last answer").done);

    let session = bench.begin("port 443", |query| query.sample = 10);
    (0..100).for_each(|_| bench.native(&packet()));
    let other = Transport::Udp { ports: (1, 2) };
    (0..100).for_each(|_| bench.native(&Build { transport: other.clone(), ..packet() }));
    assert_eq!(bench.fetch(session).packets.len(), 10);
    assert!(bench.tapper.fetch(bench.now, session, true).expect("a last answer").done);

    let session = bench.begin("", |query| query.count = Some(3));
    (0..5).for_each(|_| bench.native(&packet()));
    let answer = bench.fetch(session);
    assert_eq!((answer.packets.len(), answer.done), (3, true));
    assert!(bench.tapper.fetch(bench.now, session, false).is_err(), "it is over");
}

#[test]
fn what_finds_no_room_is_counted_and_nobody_waits() {
    let mut bench = Bench::new();
    let session = bench.begin("", |_| ());
    (0..5000).for_each(|_| bench.native(&packet()));
    assert_eq!(bench.out.0, 5000);
    let (mut fetched, mut lost) = (0, 0);
    loop {
        let answer = bench.fetch(session);
        fetched += answer.packets.len() as u64;
        lost += answer.lost;
        if !answer.more {
            break;
        }
    }
    assert_eq!((fetched, lost), (4096, 904));
}

#[test]
fn a_tap_ends_with_its_time_and_with_its_client() {
    let mut bench = Bench::new();
    let session = bench.begin("", |query| query.milliseconds = 2_000);
    bench.native(&packet());
    bench.now += Duration::from_secs(1);
    assert!(!bench.fetch(session).done);
    let busy =
        TapQuery { filter: String::new(), sample: 1, count: None, milliseconds: 1, outputs: false };
    let refused = bench.tapper.begin(bench.now, UNIX_EPOCH, &busy).expect_err("refused");
    assert!(refused.contains("somebody else taps"), "{refused}");
    bench.native(&packet());
    bench.now += Duration::from_secs(1);
    let last = bench.fetch(session);
    assert_eq!((last.packets.len(), last.done), (1, true));
    bench.forwarder.handle_timeout(bench.now);
    bench.native(&packet());

    let session = bench.begin("", |_| ());
    bench.now += PATIENCE;
    bench.tapper.handle_timeout(bench.now);
    assert!(bench.tapper.fetch(bench.now, session, false).is_err(), "nobody fetched");
    let wrong = TapQuery { filter: "weather".to_owned(), ..busy };
    let refused = bench.tapper.begin(bench.now, UNIX_EPOCH, &wrong).expect_err("refused");
    assert!(refused.contains("`weather` is not known"), "{refused}");
}

#[test]
fn packets_that_wait_are_shown_again_when_they_go_on_or_are_given_up() {
    let mut bench = Bench::new();
    let session = bench.begin("", |_| ());
    bench.native(&Build { destination: ip("198.18.0.1"), ..packet() });
    bench.native(&Build { destination: ip("198.18.0.2"), ..packet() });
    bench.insert("198.18.0.1/32", Verdict::Native);
    bench.forwarder.handle_fib_change();
    {
        let mut view = bench.reader.enter();
        while let Some(held) = bench.forwarder.next_released(&mut view) {
            let (mut frame, resumed) = held.into_parts();
            let out = &mut bench.out;
            bench.forwarder.resume(bench.now, &mut view, resumed, &mut frame, out);
        }
    }
    let shown: Vec<(TapVerdict, bool)> =
        bench.fetch(session).packets.iter().map(|shown| (shown.verdict, shown.waited)).collect();
    let held = (TapVerdict::Held, false);
    assert_eq!(shown, [held, held, (TapVerdict::ForwardedNatively, true)]);
    bench.now += Duration::from_secs(2);
    bench.fetch(session);
    bench.now += HoldLimits::default().timeout;
    bench.forwarder.handle_timeout(bench.now);
    let answer = bench.fetch(session);
    let [given_up] = &answer.packets[..] else { panic!("{answer:?}") };
    assert_eq!(given_up.reason.as_deref(), Some("miss_timeout"));
    assert_eq!(given_up.destination, Some(ip("198.18.0.2")));
}

#[test]
fn what_a_header_says_beside_the_instance_is_shown() {
    let mut bench = Bench::new();
    let session = bench.begin("", |_| {});
    let marks = HeaderMarks {
        tag: Tag::Versions {
            source: MapVersion::from_bits(3),
            destination: MapVersion::from_bits(7),
        },
        status_bits: Some(StatusBits::of_word(0x5)),
    };
    let header = lisp::encode_marked(InstanceId::DEFAULT, &marks);
    bench.core(&[&header[..], &packet().bytes()].concat());
    bench.core(&[&lisp::encode(InstanceId::DEFAULT)[..], &packet().bytes()].concat());
    let shown: Vec<_> = bench.fetch(session).packets.into_iter().map(|one| one.marks).collect();
    assert_eq!(shown, [Some("map-version 3 to 7, locator-status-bits 0x5".to_owned()), None]);
}
