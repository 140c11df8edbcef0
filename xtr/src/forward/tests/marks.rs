//! Marks of the LISP header in a trusted core (RFC 9302, RFC 9300 §10), and outside of one.
use super::*;
use crate::config::TrustedCore;
use crate::explain::{Background, Explainer, Mapping};
use crate::marks::{
    EntryMarks, HeaderMarks, Nonces, OwnMark, SharedMarks, StatusBits, Tag, TrustedMarks,
};
use mapping::eid::{EidTable, MapVersion};
use std::collections::{HashMap, HashSet};

const SITE: &str = "203.0.113.0/24";
const OWN: &str = "198.51.100.0/24";

fn version(number: u16) -> MapVersion {
    MapVersion::from_bits(number)
}

fn versions(source: u16, destination: u16) -> Tag {
    Tag::Versions { source: version(source), destination: version(destination) }
}

fn tagged(tag: Tag) -> HeaderMarks {
    HeaderMarks { tag, status_bits: None }
}

fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("a prefix"))
}

/// Everything on; the core is 198.51.100.0/24.
fn core() -> TrustedCore {
    TrustedCore {
        rlocs: vec!["198.51.100.0/24".parse().expect("a prefix")],
        map_versioning: true,
        status_bits: true,
        echo_nonce: true,
        ..TrustedCore::default()
    }
}

/// A path in a trusted core: own EIDs 198.51.100.0/24 at version 5, the site 203.0.113.0/24 at version 9 behind the peer.
struct Core {
    bench: Bench,
    shared: Arc<SharedMarks>,
    nonces: Arc<Nonces>,
    own: OwnMark,
    refused: HashSet<(IpAddr, EidPrefix)>,
}

impl Core {
    fn new() -> Self {
        Self::with(core())
    }

    fn with(core: TrustedCore) -> Self {
        let shared = Arc::<SharedMarks>::default();
        let mut bench = Bench::with(Rules { native_forward: true, ..Rules::default() });
        bench.change(|forwarder| forwarder.trust_core(&core, Arc::clone(&shared)));
        let own = OwnMark {
            version: version(5),
            refuses_older: false,
            status_bits: Some(StatusBits::all_up(2)),
        };
        let mut this = Self { bench, shared, nonces: Arc::default(), own, refused: HashSet::new() };
        this.entry(9, StatusBits::all_up(2));
        this.publish();
        this
    }

    /// The site's mapping.
    fn entry(&mut self, number: u16, status_bits: StatusBits) {
        let marks = EntryMarks {
            version: version(number),
            status_bits: Some(status_bits),
            trusted: [(ip(PEER_V4), Arc::clone(&self.nonces))].into(),
        };
        let set = LocatorSet::new([adjacency(PEER_V4, 1500)], 0).with_marks(Some(marks));
        self.bench.verdict(0, SITE, Verdict::Encapsulate(Arc::new(set)));
    }

    fn publish(&mut self) {
        let mut own = EidTable::default();
        own.insert(prefix(OWN), self.own);
        let peers = HashMap::from([(ip(PEER_V4), Arc::clone(&self.nonces))]);
        let requests = HashMap::from([(0x12_3456, Arc::clone(&self.nonces))]);
        let (refused, peers) = (self.refused.clone(), Arc::new(peers));
        self.shared.store(TrustedMarks { own, refused, peers, requests });
    }

    /// A packet of the site for an own EID.
    fn receive(&mut self, marks: HeaderMarks) -> Result<(), DropReason> {
        self.receive_from(PEER_V4, marks)
    }

    fn receive_from(&mut self, rloc: &str, marks: HeaderMarks) -> Result<(), DropReason> {
        let before = self.bench.counters();
        let header = lisp::encode_marked(InstanceId::DEFAULT, &marks);
        self.bench.core(rloc, FIELDS, &[&header[..], &to_own().bytes()].concat());
        let after = self.bench.counters();
        let is_new = |reason: &&DropReason| after.dropped(**reason) > before.dropped(**reason);
        match DropReason::ALL.iter().find(is_new) {
            Some(&reason) => Err(reason),
            None => {
                assert_eq!(after.decapsulated, before.decapsulated + 1);
                Ok(())
            }
        }
    }

    /// The header of a packet to the site.
    fn send(&mut self) -> HeaderMarks {
        self.bench.native(&to_site().bytes());
        let (_, datagram) = self.bench.out.sent.last().expect("a packet");
        lisp::marks(datagram)
    }

    fn told(&self) -> usize {
        std::iter::from_fn(|| self.bench.punts.pop())
            .filter(|punt| matches!(punt, Punt::Marked { .. }))
            .count()
    }
}

/// 198.51.100.7 to 203.0.113.5.
fn to_site() -> Build {
    Build::v4(udp(), payload(30))
}

fn to_own() -> Build {
    let packet = to_site();
    Build { source: packet.destination, destination: packet.source, ..packet }
}

#[test]
fn mv_17_dh_14_without_a_trusted_core_nothing_is_sent_or_heeded() {
    let mut core = Core::new();
    let fresh = Bench::with(Rules { native_forward: true, ..Rules::default() });
    core.bench = fresh;
    core.entry(9, StatusBits::all_up(2));
    core.nonces.request(7);
    assert_eq!(core.send(), HeaderMarks::default());
    for tag in [versions(1, 1), versions(0, 0), Tag::Nonce { nonce: 7, request: false }] {
        let marks = HeaderMarks { tag, status_bits: Some(StatusBits::of_word(0)) };
        assert_eq!(core.receive(marks), Ok(()));
    }
    assert_eq!((core.told(), core.nonces.state()), (0, crate::marks::Echo::Awaited));
}

#[test]
fn rlocs_outside_the_core_are_neither_told_nor_believed() {
    let far = TrustedCore { rlocs: vec!["192.0.2.0/24".parse().expect("a prefix")], ..core() };
    let mut core = Core::with(far);
    assert_eq!(core.receive(tagged(versions(1, 1))), Ok(()));
    assert_eq!(core.told(), 0);
    let plain = LocatorSet::new([adjacency(PEER_V4, 1500)], 0);
    let plain = plain.with_marks(Some(EntryMarks { version: version(9), ..Default::default() }));
    core.bench.verdict(0, SITE, Verdict::Encapsulate(Arc::new(plain)));
    assert_eq!(core.send(), HeaderMarks::default());
}

#[test]
fn dh_05_dh_18_a_packet_carries_both_versions_and_the_bits_of_its_source_s_mapping() {
    let mut core = Core::new();
    let expected = StatusBits::of_word(0b11);
    assert_eq!(core.send(), HeaderMarks { tag: versions(5, 9), status_bits: Some(expected) });
    // A more specific own mapping wins.
    let specific = OwnMark { version: version(77), status_bits: None, ..core.own };
    let mut own = EidTable::default();
    own.insert(prefix(OWN), core.own);
    own.insert(prefix("198.51.100.7/32"), specific);
    core.shared.store(TrustedMarks { own, ..Default::default() });
    assert_eq!(core.send(), tagged(versions(77, 9)));
}

#[test]
fn mv_05_mv_07_no_versions_for_a_mapping_without_one() {
    let mut core = Core::new();
    core.entry(0, StatusBits::all_up(2));
    assert_eq!(core.send(), HeaderMarks::default(), "nor bits, which go with a version (DH-21)");
    let mut alone = Core::with(TrustedCore { map_versioning: false, ..super::marks::core() });
    assert_eq!(alone.send().tag, Tag::None);
    assert_eq!(alone.send().status_bits, Some(StatusBits::of_word(0b11)));
}

#[test]
fn pi_12_a_proxy_sets_neither_l_nor_e_and_v_with_a_null_source_version_only() {
    let mut core = Core::new();
    core.shared.store(TrustedMarks::default());
    assert_eq!(core.send(), tagged(versions(0, 9)));
    let (_, datagram) = core.bench.out.sent.last().expect("a packet");
    assert_eq!(datagram[..4], [0x10, 0, 0, 9]);
}

#[test]
fn dh_08_beside_an_instance_there_is_room_for_eight_bits() {
    let id = InstanceId::new(0x0a_0b0c).expect("24 bits");
    let bits = StatusBits { bits: 0x1f3, known: 0x1ff };
    let marks = HeaderMarks { tag: versions(0xabc, 0x123), status_bits: Some(bits) };
    let header = lisp::encode_marked(id, &marks);
    assert_eq!(header, [0x58, 0xab, 0xc1, 0x23, 0x0a, 0x0b, 0x0c, 0xf3]);
    assert_eq!(lisp::marks(&header).status_bits, Some(StatusBits::of_octet(0xf3)));
    let header = lisp::encode_marked(InstanceId::DEFAULT, &marks);
    assert_eq!(header, [0x50, 0xab, 0xc1, 0x23, 0, 0, 0x01, 0xf3], "DH-07");
}

#[test]
fn dh_02_dh_03_dh_04_dh_06_n_wins_over_v_and_e_is_nothing_without_n() {
    let parse = |flags: u8| lisp::marks(&[flags, 0x12, 0x34, 0x56, 0, 0, 0, 0]).tag;
    assert_eq!(parse(0x90), Tag::Nonce { nonce: 0x12_3456, request: false });
    assert_eq!(parse(0xb0), Tag::Nonce { nonce: 0x12_3456, request: true });
    assert_eq!(parse(0x30), versions(0x123, 0x456));
    assert_eq!(parse(0x20), Tag::None);
    for tag in [Tag::Nonce { nonce: 1, request: true }, versions(1, 2), Tag::None] {
        let flags = lisp::encode_marked(InstanceId::DEFAULT, &tagged(tag))[0];
        assert_ne!(flags & 0x90, 0x90);
        assert_eq!(parse(flags) == Tag::None, tag == Tag::None);
    }
}

#[test]
fn mv_06_versions_for_a_mapping_that_has_none_drop_the_packet() {
    let mut core = Core::new();
    core.own.version = MapVersion::NULL;
    core.publish();
    assert_eq!(core.receive(tagged(versions(9, 5))), Err(DropReason::MapVersionUnexpected));
    assert_eq!(core.receive(tagged(Tag::None)), Ok(()));
}

#[test]
fn a_null_dest_map_version_is_a_violation_and_dropped() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(9, 0))), Err(DropReason::MapVersionUnexpected));
}

#[test]
fn mv_08_the_own_version_is_accepted_and_nobody_told() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(9, 5))), Ok(()));
    assert_eq!(core.told(), 0);
}

#[test]
fn mv_09_a_newer_version_than_the_own_is_dropped_and_told() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(9, 6))), Err(DropReason::MapVersionNewer));
    assert_eq!(core.told(), 1);
}

#[test]
fn mv_10_an_older_version_is_delivered_and_told_once_a_second() {
    let mut core = Core::new();
    for _ in 0..100 {
        assert_eq!(core.receive(tagged(versions(9, 4))), Ok(()));
    }
    assert_eq!(core.told(), 1);
    core.bench.advance(Duration::from_secs(1));
    assert_eq!(core.receive(tagged(versions(9, 4))), Ok(()));
    assert_eq!(core.told(), 1);
}

#[test]
fn mv_11_an_itr_that_does_not_listen_is_refused_and_still_told() {
    let mut core = Core::new();
    core.refused.insert((ip(PEER_V4), prefix(OWN)));
    core.publish();
    assert_eq!(core.receive(tagged(versions(9, 4))), Err(DropReason::MapVersionStale));
    assert_eq!(core.told(), 1);
    assert_eq!(core.receive_from("198.51.100.9", tagged(versions(9, 4))), Ok(()), "others are not");
    assert_eq!(core.receive(tagged(versions(9, 5))), Ok(()), "nor is the current version");
}

#[test]
fn mv_12_after_the_ttl_an_old_version_is_dropped_without_a_word() {
    let mut core = Core::new();
    core.own.refuses_older = true;
    core.publish();
    assert_eq!(core.receive(tagged(versions(9, 4))), Err(DropReason::MapVersionStale));
    assert_eq!(core.told(), 0);
}

#[test]
fn mv_13_a_null_source_version_is_not_compared() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(0, 5))), Ok(()));
    assert_eq!(core.told(), 0);
}

#[test]
fn mv_14_a_newer_source_version_is_delivered_and_told() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(10, 5))), Ok(()));
    assert_eq!(core.told(), 1);
}

#[test]
fn mv_15_an_older_source_version_is_dropped() {
    let mut core = Core::new();
    assert_eq!(core.receive(tagged(versions(8, 5))), Err(DropReason::SourceVersionOlder));
    assert_eq!(core.told(), 0);
}

#[test]
fn mv_16_a_source_without_a_cache_entry_may_say_what_it_likes() {
    for verdict in [Verdict::Miss, Verdict::Native] {
        let mut core = Core::new();
        core.bench.verdict(0, SITE, verdict);
        for source in [1, 8, 4000] {
            assert_eq!(core.receive(tagged(versions(source, 5))), Ok(()));
        }
        assert_eq!(core.told(), 0);
    }
    // An entry of which the workers know no version: the control plane knows it.
    let mut core = Core::new();
    core.bench.verdict(0, SITE, Verdict::Drop(DropReason::NoUsableLocator));
    assert_eq!(core.receive(tagged(versions(10, 5))), Ok(()));
    assert_eq!(core.told(), 1);
}

#[test]
fn a_petr_does_not_look_at_the_dest_map_version() {
    let mut core = Core::new();
    core.shared.store(TrustedMarks::default());
    for destination in [0, 4, 4000] {
        assert_eq!(core.receive(tagged(versions(9, destination))), Ok(()));
    }
    assert_eq!(core.receive(tagged(versions(8, 1))), Err(DropReason::SourceVersionOlder));
}

#[test]
fn dh_19_dh_20_changed_status_bits_are_told_once_a_second() {
    let mut core = Core::new();
    let says =
        |bits| HeaderMarks { tag: versions(9, 5), status_bits: Some(StatusBits::of_word(bits)) };
    assert_eq!(core.receive(says(0b1111)), Ok(()), "of two locators; the rest is noise");
    assert_eq!(core.told(), 0);
    for _ in 0..100 {
        assert_eq!(core.receive(says(0b01)), Ok(()));
    }
    assert_eq!(core.told(), 1);
    core.entry(9, StatusBits::all_up(2).with(1, false));
    core.bench.advance(Duration::from_secs(1));
    assert_eq!(core.receive(says(0b01)), Ok(()), "known by now");
    assert_eq!(core.told(), 0);
    assert_eq!(core.receive(says(0b11)), Ok(()), "and back");
    assert_eq!(core.told(), 1);
}

#[test]
fn dh_21_status_bits_count_only_beside_the_version_they_go_with() {
    let mut core = Core::new();
    let zeroes = Some(StatusBits::of_word(0));
    for tag in [Tag::None, Tag::Nonce { nonce: 1, request: false }, versions(0, 5)] {
        assert_eq!(core.receive(HeaderMarks { tag, status_bits: zeroes }), Ok(()));
    }
    assert_eq!(core.told(), 0);
    let mut alone = Core::with(TrustedCore { map_versioning: false, ..super::marks::core() });
    assert_eq!(alone.receive(HeaderMarks { tag: Tag::None, status_bits: zeroes }), Ok(()));
    assert_eq!(alone.told(), 1);
}

#[test]
fn dh_22_no_bits_while_the_use_lsb_timer_runs() {
    let mut core = Core::new();
    core.own.status_bits = None;
    core.publish();
    assert_eq!(core.send(), tagged(versions(5, 9)));
    let (_, datagram) = core.bench.out.sent.last().expect("a packet");
    assert_eq!((datagram[0] & 0x40, &datagram[4..8]), (0, &[0; 4][..]), "L=0");
}

#[test]
fn dh_23_dh_24_dh_27_requests_are_sent_and_echoed() {
    let mut core = Core::new();
    core.nonces.request(0x12_3456);
    let request = Tag::Nonce { nonce: 0x12_3456, request: true };
    for _ in 0..3 {
        assert_eq!(core.send(), tagged(request), "every packet; no bits without a version");
    }
    // The other end wants something, too: the own request rests.
    let theirs = Tag::Nonce { nonce: 0x65_4321, request: true };
    assert_eq!(core.receive(tagged(theirs)), Ok(()), "forwarded as normal");
    assert_eq!(core.send(), tagged(Tag::Nonce { nonce: 0x65_4321, request: false }));
    core.bench.advance(Duration::from_secs(2));
    assert_eq!(core.send(), tagged(request));
    let echo = Tag::Nonce { nonce: 0x12_3456, request: false };
    let another = "198.51.100.77";
    assert_eq!(core.receive_from(another, tagged(echo)), Ok(()), "from whichever of its locators");
    assert_eq!(core.nonces.state(), crate::marks::Echo::Received);
    assert_eq!(core.send().tag, versions(5, 9));
}

#[test]
fn dh_24_the_echo_goes_to_whichever_locator_of_the_site_gets_the_packet() {
    let mut core = Core::new();
    let sender = Arc::<Nonces>::default();
    let trusted = [(ip("198.51.100.9"), Arc::clone(&sender)), (ip(PEER_V4), Arc::default())];
    let marks = EntryMarks { version: version(9), status_bits: None, trusted: trusted.into() };
    let set = LocatorSet::new([adjacency(PEER_V4, 1500)], 0).with_marks(Some(marks));
    core.bench.verdict(0, SITE, Verdict::Encapsulate(Arc::new(set)));
    sender.received(1, Tag::Nonce { nonce: 77, request: true });
    assert_eq!(core.send(), tagged(Tag::Nonce { nonce: 77, request: false }));
    core.bench.advance(Duration::from_secs(3));
    assert_eq!(core.send().tag, versions(5, 9));
}

#[test]
fn a_nested_header_s_marks_are_not_heeded() {
    let mut core = Core::new();
    let header = lisp::encode_marked(InstanceId::DEFAULT, &tagged(versions(9, 400)));
    let inside = [&header[..], &to_own().bytes()].concat();
    let data = Transport::Udp { ports: (50_000, lisp::DATA_PORT) };
    let around = Build { source: ip(PEER_V4), destination: ip(OWN_V4), ..Build::v4(data, inside) };
    core.bench.core(PEER_V4, FIELDS, &lisp(0, &around.bytes()));
    let counters = core.bench.counters();
    assert_eq!((counters.decapsulated, counters.dropped_total()), (1, 0));
}

#[test]
fn every_packet_is_accounted_for_whatever_its_header_says() {
    let mut core = Core::new();
    core.nonces.request(3);
    for flags in (0..=255u8).filter(|flags| flags & 0x03 == 0) {
        for word in [0u32, 0x0090_05ff, 0xffff_ffff, 0x00a0_0400] {
            let mut datagram = lisp(0, &to_own().bytes());
            datagram[0] = flags;
            datagram[1..4].copy_from_slice(&word.to_be_bytes()[1..]);
            datagram[7] = word as u8;
            core.bench.core(PEER_V4, FIELDS, &datagram);
            core.bench.native(&to_site().bytes());
            core.bench.counters();
        }
    }
}

struct Nothing;

impl Background for Nothing {
    fn mapping_of(&self, _: Eid) -> Mapping {
        Mapping::default()
    }
}

#[test]
fn an_explanation_says_the_marks_and_leaves_no_trace() {
    let core = Core::new();
    let explainer = Explainer::new(
        core.bench.forwarder.settings.clone(),
        0..64,
        Arc::clone(&core.bench.forwarder.policy) as Arc<dyn Policy>,
        Arc::clone(&core.bench.forwarder.path_mtus),
        core.bench.readers.clone(),
    )
    .trust_core(Some(&super::marks::core()), &core.shared);
    let marks_of = |core: &Core| {
        let mut notes = explainer.recorder(&Nothing);
        explainer.run_native(core.bench.now, &to_site().bytes(), &mut notes);
        notes.finish();
        let found = notes.steps.into_iter().find(|step| step.step == "marks");
        found.expect("a step").text
    };
    assert_eq!(marks_of(&core), "map-version 5 to 9, locator-status-bits 0x3");
    core.nonces.request(0x12_3456);
    assert_eq!(marks_of(&core), "nonce 123456 to be echoed");
    assert!(!core.nonces.is_asked(), "nothing was sent");
    let mut notes = explainer.recorder(&Nothing);
    let header = lisp::encode_marked(InstanceId::DEFAULT, &tagged(versions(9, 6)));
    let datagram = [&header[..], &to_own().bytes()].concat();
    explainer.run_core(core.bench.now, ip(PEER_V4), FIELDS, &datagram, &mut notes);
    assert_eq!(notes.dropped, Some(DropReason::MapVersionNewer));
    assert_eq!(core.told(), 0);
}
