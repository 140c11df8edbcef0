use super::*;
use ipnet::IpNet;
use mapping::eid::InstanceId;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn instance(value: u32) -> InstanceId {
    InstanceId::new(value).expect("small")
}

fn prefix(id: u32, text: &str) -> EidPrefix {
    EidPrefix::new(instance(id), text.parse::<IpNet>().expect("a prefix"))
}

fn is_native(reader: &mut FibReader, id: u32, address: &str) -> bool {
    let address = address.parse().expect("an address");
    matches!(reader.enter().lookup(instance(id), address), Verdict::Native)
}

#[test]
fn nothing_known_is_a_miss() {
    let (writer, factory) = FibWriter::new();
    let mut reader = factory.reader();
    let mut lookup = |address: &str| {
        matches!(
            reader.enter().lookup(InstanceId::DEFAULT, address.parse().expect("an address")),
            Verdict::Miss
        )
    };
    assert!(lookup("192.0.2.1") && lookup("2001:db8::1"));
    drop(writer);
    assert!(lookup("192.0.2.1"), "a reader outlives the writer");
}

#[test]
fn a_batch_becomes_visible_at_once_in_order() {
    let (mut writer, factory) = FibWriter::new();
    let mut reader = factory.clone().reader();
    let outer = prefix(0, "192.0.2.0/24");
    let inner = prefix(0, "192.0.2.128/25");
    writer.apply([
        FibUpdate::Insert(outer, Verdict::Miss),
        FibUpdate::Insert(outer, Verdict::Native),
        FibUpdate::Insert(inner, Verdict::Drop(DropReason::ActionDrop)),
    ]);
    assert!(is_native(&mut reader, 0, "192.0.2.1"));
    assert!(!is_native(&mut reader, 0, "192.0.2.129"));
    writer.apply([FibUpdate::Remove(inner)]);
    assert!(is_native(&mut reader, 0, "192.0.2.129"));
    writer.apply([FibUpdate::Remove(outer), FibUpdate::Remove(outer)]);
    assert!(!is_native(&mut reader, 0, "192.0.2.1"));
}

#[test]
fn de_18_instances_and_families_are_separate_tables() {
    let (mut writer, factory) = FibWriter::new();
    let mut reader = factory.reader();
    writer.apply([
        FibUpdate::Insert(prefix(7, "0.0.0.0/0"), Verdict::Native),
        FibUpdate::Insert(prefix(9, "::/0"), Verdict::Native),
    ]);
    assert!(is_native(&mut reader, 7, "192.0.2.1") && !is_native(&mut reader, 7, "2001:db8::1"));
    assert!(is_native(&mut reader, 9, "2001:db8::1") && !is_native(&mut reader, 9, "192.0.2.1"));
    assert!(!is_native(&mut reader, 0, "192.0.2.1") && !is_native(&mut reader, 8, "2001:db8::1"));
}

#[test]
fn readers_on_other_threads_see_whole_batches() {
    let (mut writer, factory) = FibWriter::new();
    let (left, right) = (prefix(0, "192.0.2.0/25"), prefix(0, "192.0.2.128/25"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut reader = factory.reader();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut view = reader.enter();
                let mut native = |last| {
                    let address = Ipv4Addr::new(192, 0, 2, last).into();
                    matches!(view.lookup(InstanceId::DEFAULT, address), Verdict::Native)
                };
                assert_eq!(native(1), native(200));
            }
        });
        for round in 0..500 {
            let verdict = || if round % 2 == 0 { Verdict::Native } else { Verdict::Miss };
            writer.apply([FibUpdate::Insert(left, verdict()), FibUpdate::Insert(right, verdict())]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A writer moves an address between a host route, networks around it and nothing, in an order that any reader can check: a reader
/// that remembers a destination longer than it may, or sees half of a change, finds something else.
#[test]
fn readers_that_remember_see_every_change_while_the_table_is_written() {
    let (mut writer, factory) = FibWriter::new();
    let address = |i: u32| Ipv4Addr::from_bits(0x0a00_0000 | i << 8 | 1).into();
    let within = |i: u32, len: u8| {
        EidPrefix::new(InstanceId::DEFAULT, IpNet::new(address(i), len).expect("a length"))
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader_number in 0..2u32 {
            let (mut reader, stop) = (factory.reader(), &stop);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut view = reader.enter();
                    if reader_number == 0 {
                        view.warm((0..100).map(|i| (InstanceId::DEFAULT, address(i))));
                    }
                    // All even ones get the same at once, and the odd ones the opposite.
                    let mut number = |i| reason(view.lookup(InstanceId::DEFAULT, address(i)));
                    let (even, odd) = (number(0), number(1));
                    for i in 0..100 {
                        assert_eq!(number(i), if i % 2 == 0 { even } else { odd });
                    }
                    assert!(even.is_none() || even != odd);
                }
            });
        }
        for round in 0..60 {
            let len = [32, 24, 27, 30][round % 4];
            let verdict = |i: u32| Verdict::Drop(DropReason::ALL[(round + i as usize % 2) % 20]);
            writer.apply((0..100).map(|i| FibUpdate::Insert(within(i, len), verdict(i))));
            if round % 3 == 0 {
                writer.apply((0..100).map(|i| FibUpdate::Remove(within(i, len))));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn mt_12_locators_are_known_while_an_entry_uses_them() {
    let (mut writer, factory) = FibWriter::new();
    let mut reader = factory.reader();
    let set = |locators: &[u8]| {
        let adjacency = |&last: &u8| Adjacency {
            source: Ipv4Addr::new(198, 51, 100, 1).into(),
            destination: Ipv4Addr::new(198, 51, 100, last).into(),
            weight: 1,
            mtu: 1500,
            traffic: Arc::default(),
            ports: Default::default(),
            used: Arc::default(),
        };
        let adjacencies: Vec<_> = locators.iter().map(adjacency).collect();
        Verdict::Encapsulate(Arc::new(LocatorSet::new(adjacencies, 0)))
    };
    let mut known = |expected: &[u8]| {
        let view = reader.enter();
        let is_known = |&last: &u8| view.is_locator(Ipv4Addr::new(198, 51, 100, last).into());
        assert_eq!((1..9).filter(is_known).collect::<Vec<_>>(), expected);
    };
    let (a, b) = (prefix(0, "192.0.2.0/24"), prefix(7, "2001:db8::/32"));
    writer.apply([FibUpdate::Insert(a, set(&[2, 3])), FibUpdate::Insert(b, set(&[3, 4]))]);
    known(&[2, 3, 4]);
    writer.apply([FibUpdate::Insert(a, set(&[5]))]);
    known(&[3, 4, 5]);
    writer.apply([FibUpdate::Insert(a, Verdict::Native), FibUpdate::Remove(b)]);
    known(&[]);
    writer.apply([FibUpdate::Insert(b, set(&[6]))]);
    known(&[6]);
}

#[test]
fn what_is_removed_leaves_no_memory_behind() {
    let mut trie = super::trie::Trie::new();
    let prefix = |i: u64| {
        let scattered = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (last, len) =
            if i.is_multiple_of(3) { (2, 64 - i as u32 % 7) } else { (1, 20 + i as u32 % 45) };
        let mut words = [(i % 5) << 32, scattered, scattered.rotate_left(9)];
        words[last] &= u64::MAX.checked_shl(64 - len).unwrap_or(0);
        if last == 1 {
            words[2] = 0;
        }
        super::trie::Prefix { words, last, len }
    };
    let empty = trie.cells().used();
    let mut capacity = 0;
    for round in 0..20 {
        let range = round * 1000..round * 1000 + 20_000;
        range.clone().for_each(|i| assert_eq!(trie.insert(&prefix(i), i as u32), None));
        range.clone().for_each(|i| assert_eq!(trie.get(&prefix(i)), Some(i as u32)));
        if round == 0 {
            capacity = trie.cells().capacity();
        }
        range.clone().for_each(|i| assert_eq!(trie.remove(&prefix(i)), Some(i as u32)));
        assert_eq!(trie.cells().used(), empty);
    }
    assert!(trie.cells().capacity() <= capacity + capacity / 2, "{capacity}");
}

/// Few addresses and all lengths, so that prefixes nest deeply, replace and remove each other.
fn any_eid() -> impl Strategy<Value = (u32, IpAddr)> {
    let v4 = (0u32..16, prop::sample::select(vec![0u32, 8, 20, 28]))
        .prop_map(|(bits, shift)| Ipv4Addr::from_bits(0xc000_0200 ^ bits << shift).into());
    let v6 = (0u128..16, prop::sample::select(vec![0u32, 5, 31, 59, 60, 64, 66, 90, 124]))
        .prop_map(|(bits, shift)| Ipv6Addr::from_bits(0x2001_0db8 << 96 ^ bits << shift).into());
    let instances = prop::sample::select(vec![0, 1, 2, 0x80_0000, InstanceId::MAX]);
    (instances, prop_oneof![v4, v6])
}

fn any_prefix() -> impl Strategy<Value = EidPrefix> {
    let len = prop_oneof![
        0u8..=128,
        prop::sample::select(vec![0, 24, 30, 32, 48, 56, 59, 60, 63, 64, 65, 68, 127, 128])
    ];
    (any_eid(), len).prop_map(|((id, address), len)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        EidPrefix::new(
            instance(id),
            IpNet::new(address, len.min(most)).expect("a length that fits"),
        )
    })
}

/// The prefixes in a list: what the table must agree with.
#[derive(Default)]
struct Oracle {
    prefixes: HashMap<EidPrefix, DropReason>,
}

impl Oracle {
    fn update(&mut self, prefix: EidPrefix, insert: Option<u8>) -> FibUpdate {
        match insert {
            Some(number) => {
                let reason = DropReason::ALL[usize::from(number) % DropReason::COUNT];
                self.prefixes.insert(prefix, reason);
                FibUpdate::Insert(prefix, Verdict::Drop(reason))
            }
            None => {
                self.prefixes.remove(&prefix);
                FibUpdate::Remove(prefix)
            }
        }
    }

    fn lookup(&self, id: InstanceId, address: IpAddr) -> Option<DropReason> {
        let eid = mapping::eid::Eid::new(id, address);
        let matching = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(eid));
        matching.max_by_key(|(prefix, _)| prefix.mask_len()).map(|(_, &reason)| reason)
    }
}

fn reason(verdict: &Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Drop(reason) => Some(*reason),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn lookups_agree_with_a_linear_search(
        batches in prop::collection::vec(prop::collection::vec((any_prefix(), any::<Option<u8>>()), 0..24), 1..8),
        probes in prop::collection::vec(any_eid(), 0..48),
        from_removed in any::<bool>(),
    ) {
        let (mut writer, factory) = FibWriter::new();
        // One asks for each destination by itself, one after looking them all up, one only at the end; all remember.
        let (mut single, mut warmed, mut late) = (factory.reader(), factory.reader(), factory.reader());
        let mut oracle = Oracle::default();
        let mut probes: Vec<(InstanceId, IpAddr)> =
            probes.into_iter().map(|(id, address)| (instance(id), address)).collect();
        let mut installed: Vec<EidPrefix> = Vec::new();
        for batch in batches {
            let ends = |prefix: &EidPrefix| [prefix.prefix().network(), prefix.prefix().broadcast()];
            probes.extend(batch.iter().flat_map(|(prefix, _)| {
                ends(prefix).map(|end| (prefix.instance_id(), end))
            }));
            let mut updates: Vec<FibUpdate> = Vec::new();
            for (prefix, insert) in batch {
                updates.push(oracle.update(prefix, insert));
                installed.push(prefix);
            }
            if from_removed {
                let gone = installed.len() / 3;
                updates.extend(installed.drain(..gone).map(|prefix| oracle.update(prefix, None)));
            }
            writer.apply(updates);
            let mut view = warmed.enter();
            view.warm(probes.iter().copied());
            for &(id, address) in &probes {
                let expected = oracle.lookup(id, address);
                prop_assert_eq!(reason(view.lookup(id, address)), expected, "{} {}", id, address);
                prop_assert_eq!(reason(single.enter().lookup(id, address)), expected, "{} {}", id, address);
            }
        }
        for &(id, address) in &probes {
            prop_assert_eq!(reason(late.enter().lookup(id, address)), oracle.lookup(id, address));
        }
        let left: Vec<EidPrefix> = oracle.prefixes.keys().copied().collect();
        writer.apply(left.into_iter().map(FibUpdate::Remove));
        let mut view = warmed.enter();
        for &(id, address) in &probes {
            prop_assert!(view.lookup(id, address).is_miss());
        }
    }
}
