//! The control plane's table of EID-prefixes, made for a million of them that are refreshed every minute.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::{Bound, RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::index::Index;
use super::{Eid, EidPrefix, InstanceId};

/// A table keyed by EID-prefix: longest-prefix match within one instance and address family.
///
/// The control plane's table; the data plane has its own (`xtr::fib`).
///
/// Entries lie in slots. A hash finds the slot of exactly one prefix with one or two cache misses; the longest match asks it once
/// per mask length that the table has, and there are few. The order of the prefixes is only touched when one comes or goes, and
/// where it is what was asked for.
#[derive(Clone, Debug)]
pub struct EidTable<T> {
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Slot>,
    exact: Index,
    order: BTreeMap<EidPrefix, Slot>,
    /// Per instance and family the mask lengths that occur and how often, longest first.
    lengths: BTreeMap<(InstanceId, bool), Vec<(u8, u32)>>,
    seed: [u64; 2],
}

/// The place of an entry, until it is removed.
pub(crate) type Slot = u32;

#[derive(Clone, Debug)]
struct Entry<T> {
    prefix: EidPrefix,
    /// Whether there may be more-specifics: true if there are, and after they have gone.
    nested: bool,
    value: T,
}

impl<T> Default for EidTable<T> {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            exact: Index::default(),
            order: BTreeMap::new(),
            lengths: BTreeMap::new(),
            seed: [random.hash_one(0), random.hash_one(1)],
        }
    }
}

impl<T> EidTable<T> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The entry of exactly this prefix.
    pub fn get(&self, prefix: &EidPrefix) -> Option<&T> {
        self.slot(prefix).and_then(|slot| self.at(slot)).map(|(_, value)| value)
    }

    /// The entry of exactly this prefix, to change.
    pub fn get_mut(&mut self, prefix: &EidPrefix) -> Option<&mut T> {
        self.slot(prefix).and_then(|slot| self.at_mut(slot))
    }

    /// The slot of exactly this prefix.
    pub(crate) fn slot(&self, prefix: &EidPrefix) -> Option<Slot> {
        let here = |slot| self.at(slot).is_some_and(|(found, _)| found == *prefix);
        self.exact.find(hash(self.seed, prefix), here)
    }

    /// What lies in a slot.
    pub(crate) fn at(&self, slot: Slot) -> Option<(EidPrefix, &T)> {
        let entry = self.entries.get(slot as usize)?.as_ref()?;
        Some((entry.prefix, &entry.value))
    }

    /// What lies in a slot, to change.
    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries.get_mut(slot as usize)?.as_mut().map(|entry| &mut entry.value)
    }

    /// Inserts or replaces; returns what was there.
    pub fn insert(&mut self, prefix: EidPrefix, value: T) -> Option<T> {
        if let Some(known) = self.get_mut(&prefix) {
            return Some(std::mem::replace(known, value));
        }
        self.insert_new(prefix, value);
        None
    }

    /// Inserts a prefix that is not in the table.
    pub(crate) fn insert_new(&mut self, prefix: EidPrefix, value: T) -> Slot {
        let nested = self.order.range(span(&prefix)).next().is_some();
        self.mark_covering(&prefix);
        let entry = Some(Entry { prefix, nested, value });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                let slot =
                    Slot::try_from(self.entries.len()).expect("fewer than 2^32 EID-prefixes");
                self.entries.push(entry);
                slot
            }
        };
        self.exact.insert(hash(self.seed, &prefix), slot);
        self.order.insert(prefix, slot);
        let lengths = self.lengths.entry(kind(&prefix)).or_default();
        match lengths.binary_search_by(|(length, _)| prefix.mask_len().cmp(length)) {
            Ok(at) => lengths[at].1 += 1,
            Err(at) => lengths.insert(at, (prefix.mask_len(), 1)),
        }
        slot
    }

    /// Removes the entry of exactly this prefix.
    pub fn remove(&mut self, prefix: &EidPrefix) -> Option<T> {
        let slot = self.order.remove(prefix)?;
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.exact.remove(hash(self.seed, prefix), slot);
        if let Some(lengths) = self.lengths.get_mut(&kind(prefix)) {
            if let Some(length) =
                lengths.iter_mut().find(|(length, _)| *length == prefix.mask_len())
            {
                length.1 -= 1;
            }
            lengths.retain(|(_, count)| *count > 0);
            if lengths.is_empty() {
                self.lengths.remove(&kind(prefix));
            }
        }
        if self.order.is_empty() {
            *self = Self { seed: self.seed, ..Self::default() };
        }
        Some(entry.value)
    }

    /// The longest match of one address.
    pub fn lookup(&self, eid: Eid) -> Option<(EidPrefix, &T)> {
        self.longest_match(&eid.host_prefix())
    }

    /// The longest entry that is `prefix` or covers it.
    pub fn longest_match(&self, prefix: &EidPrefix) -> Option<(EidPrefix, &T)> {
        self.covering_slots(prefix).next().and_then(|slot| self.at(slot))
    }

    /// Every entry that is `prefix` or a more-specific of it.
    pub fn covered_by(&self, prefix: &EidPrefix) -> impl Iterator<Item = (EidPrefix, &T)> {
        let own = self.slot(prefix);
        let alone = own.is_some_and(|slot| !self.is_nested(slot));
        let (one, range) = if alone { (own, None) } else { (None, Some(span(prefix))) };
        let several = range.map(|range| self.order.range(range).map(|(_, slot)| *slot));
        one.into_iter().chain(several.into_iter().flatten()).filter_map(|slot| self.at(slot))
    }

    /// Every entry that is `prefix` or covers it, least specific first.
    pub fn covering(&self, prefix: &EidPrefix) -> impl Iterator<Item = (EidPrefix, &T)> {
        let mut slots: Vec<Slot> = self.covering_slots(prefix).collect();
        slots.reverse();
        slots.into_iter().filter_map(|slot| self.at(slot))
    }

    /// Every entry, in order of instance, family and prefix.
    pub fn iter(&self) -> impl Iterator<Item = (EidPrefix, &T)> {
        self.order.values().filter_map(|slot| self.at(*slot))
    }

    /// Those that come after `prefix` in the order of [`Self::iter`].
    pub fn iter_after(&self, prefix: Option<EidPrefix>) -> impl Iterator<Item = (EidPrefix, &T)> {
        let from = prefix.map_or(Bound::Unbounded, Bound::Excluded);
        let slots = self.order.range((from, Bound::Unbounded));
        slots.filter_map(|(_, slot)| self.at(*slot))
    }

    /// Every entry with its slot, in no order that means anything.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, &T)> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, &entry.as_ref()?.value)))
    }

    /// Keeps the entries for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(EidPrefix, &mut T) -> bool) {
        let Self { order, entries, .. } = self;
        let mut doomed = Vec::new();
        for (&prefix, &slot) in order.iter() {
            if let Some(Some(entry)) = entries.get_mut(slot as usize)
                && !keep(prefix, &mut entry.value)
            {
                doomed.push(prefix);
            }
        }
        for prefix in doomed {
            self.remove(&prefix);
        }
    }

    /// The slots of `prefix` and of what covers it, most specific first.
    fn covering_slots(&self, prefix: &EidPrefix) -> impl Iterator<Item = Slot> {
        let own = *prefix;
        self.lengths
            .get(&kind(prefix))
            .into_iter()
            .flatten()
            .filter(move |(length, _)| *length <= own.mask_len())
            .filter_map(move |(length, _)| self.slot(&shortened(&own, *length)))
    }

    fn is_nested(&self, slot: Slot) -> bool {
        self.entries.get(slot as usize).is_some_and(|e| e.as_ref().is_some_and(|e| e.nested))
    }

    /// Marks what covers `prefix`, which is about to come. What covers a marked entry is marked already.
    fn mark_covering(&mut self, prefix: &EidPrefix) {
        let unmarked: Vec<Slot> =
            self.covering_slots(prefix).take_while(|&slot| !self.is_nested(slot)).collect();
        for slot in unmarked {
            if let Some(Some(entry)) = self.entries.get_mut(slot as usize) {
                entry.nested = true;
            }
        }
    }
}

fn kind(prefix: &EidPrefix) -> (InstanceId, bool) {
    (prefix.instance_id, matches!(prefix.prefix, IpNet::V6(_)))
}

/// The first `length` bits of `prefix`, which has at least that many.
fn shortened(prefix: &EidPrefix, length: u8) -> EidPrefix {
    let net = match prefix.prefix {
        IpNet::V4(net) => Ipv4Net::new(net.addr(), length).map(|net| IpNet::V4(net.trunc())),
        IpNet::V6(net) => Ipv6Net::new(net.addr(), length).map(|net| IpNet::V6(net.trunc())),
    };
    EidPrefix { instance_id: prefix.instance_id, prefix: net.unwrap_or(prefix.prefix) }
}

/// From `prefix` to the last of its more-specifics in the order of the table: by address, then by mask length.
fn span(prefix: &EidPrefix) -> RangeInclusive<EidPrefix> {
    let last = IpNet::from(prefix.prefix.broadcast());
    *prefix..=EidPrefix { instance_id: prefix.instance_id, prefix: last }
}

/// Folded multiplication, seeded. The keys in the table come from authenticated peers and from the configuration.
fn hash(seed: [u64; 2], prefix: &EidPrefix) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let address = match prefix.prefix.addr() {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 32,
        IpAddr::V6(address) => address.to_bits(),
    };
    let rest = u64::from(prefix.instance_id.get()) << 8 | u64::from(prefix.prefix.prefix_len());
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ (product >> 64) as u64
    };
    let mixed = fold(address as u64 ^ seed[0], (address >> 64) as u64 ^ seed[1]);
    fold(mixed ^ rest ^ seed[1], ODD ^ seed[0]) as u32
}

#[cfg(test)]
mod tests {
    use prefix_trie::joint::map::JointPrefixMap;
    use proptest::prelude::*;

    use super::*;

    /// Prefixes that nest, in two instances and both families.
    fn prefixes() -> impl Strategy<Value = EidPrefix> {
        (0..2_u32, any::<bool>(), 0..=8_u8, any::<u8>(), prop::sample::select(vec![0_u8, 24, 120]))
            .prop_map(|(iid, v6, length, bits, beyond)| {
                let net = if v6 {
                    let length = if beyond == 120 { 120 + length } else { length };
                    let address = u128::from(bits) << 120 | u128::from(bits & 3);
                    Ipv6Net::new(address.into(), length).map(IpNet::V6)
                } else {
                    let length = if beyond == 0 { length } else { 24 + length };
                    let address = u32::from(bits) << 24 | u32::from(bits & 3);
                    Ipv4Net::new(address.into(), length).map(IpNet::V4)
                };
                EidPrefix::new(InstanceId::new(iid).unwrap(), net.unwrap())
            })
    }

    type Found = Vec<(EidPrefix, usize)>;

    fn found<'a>(entries: impl Iterator<Item = (EidPrefix, &'a usize)>) -> Found {
        entries.map(|(prefix, value)| (prefix, *value)).collect()
    }

    /// Every answer against a list that is searched from end to end.
    fn compare(table: &EidTable<usize>, naive: &BTreeMap<EidPrefix, usize>, asked: &EidPrefix) {
        let all = |keep: &dyn Fn(&EidPrefix) -> bool| -> Found {
            naive.iter().filter(|(prefix, _)| keep(prefix)).map(|(p, v)| (*p, *v)).collect()
        };
        assert_eq!(table.len(), naive.len());
        assert_eq!(table.is_empty(), naive.is_empty());
        assert_eq!(found(table.iter()), all(&|_| true));
        assert_eq!(table.get(asked), naive.get(asked));
        assert_eq!(found(table.covered_by(asked)), all(&|prefix| asked.covers(prefix)));
        let mut covering = all(&|prefix| prefix.covers(asked));
        covering.sort_by_key(|(prefix, _)| prefix.mask_len());
        assert_eq!(found(table.covering(asked)), covering);
        let longest = table.longest_match(asked).map(|(prefix, value)| (prefix, *value));
        assert_eq!(longest, covering.last().copied());
    }

    proptest! {
        #[test]
        fn ms_22_the_table_answers_as_a_naive_one(
            steps in prop::collection::vec((any::<bool>(), prefixes(), prefixes()), 1..200),
        ) {
            let (mut table, mut naive) = (EidTable::default(), BTreeMap::new());
            for (value, (insert, prefix, asked)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(table.insert(prefix, value), naive.insert(prefix, value));
                } else {
                    prop_assert_eq!(table.remove(&prefix), naive.remove(&prefix));
                }
                compare(&table, &naive, &asked);
                compare(&table, &naive, &prefix);
            }
            let even = |value: &usize| value.is_multiple_of(2);
            table.retain(|_, value| even(value));
            naive.retain(|_, value| even(value));
            prop_assert_eq!(found(table.iter()), naive.into_iter().collect::<Found>());
        }

        #[test]
        fn ms_22_the_table_answers_as_a_trie(
            entries in prop::collection::vec(prefixes(), 1..200),
            asked in prop::collection::vec(prefixes(), 50),
        ) {
            let (mut table, mut trie) = (EidTable::default(), JointPrefixMap::new());
            for (value, prefix) in entries.into_iter().enumerate() {
                if prefix.instance_id() == InstanceId::DEFAULT {
                    table.insert(prefix, value);
                    trie.insert(prefix.prefix(), value);
                }
            }
            for asked in asked.iter().filter(|p| p.instance_id() == InstanceId::DEFAULT) {
                let expected = trie.get_lpm(&asked.prefix()).map(|(net, value)| (net, *value));
                let answer = table.longest_match(asked).map(|(p, value)| (p.prefix(), *value));
                prop_assert_eq!(answer, expected);
            }
        }
    }
}
