//! Which locator of a set carries a flow: a table of slots, made when the mapping changes.
//!
//! A flow's hash names a slot, the slot a locator; a locator has as many slots as its weight is worth. A new version of a set starts from
//! the table of the one before, so that a locator that goes gives up only its own slots, and a weight that changes moves only the
//! difference; a locator that comes back finds the slots it had. Equal tables are one: a million mappings need a handful.
use super::{Adjacency, LocatorSet};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A share is exact to half of a percent.
const SLOTS: usize = 256;
/// Which table came of which, remembered at most.
const REMEMBERED: usize = 4096;

/// For every slot the index of its locator.
pub(super) type Table = [u8; SLOTS];

/// The locator for the flow whose hash is `flow_hash` (MC-20, MC-21, MC-22, MC-24); `None` only for an empty set.
#[inline]
pub fn select(set: &LocatorSet, flow_hash: u64) -> Option<&Adjacency> {
    // The source port comes from the upper half of the hash.
    let slot = (flow_hash >> 24) as u8;
    let index = set.table.as_ref().map_or(0, |table| table[usize::from(slot)]);
    set.adjacencies.get(usize::from(index))
}

/// Makes locator-sets, which share their tables. Has one owner, the control plane.
#[derive(Debug, Default)]
pub struct LocatorTables {
    tables: HashSet<Arc<Table>>,
    made: HashMap<Origin, Arc<Table>>,
}

/// All that a table depends on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Origin {
    weights: Box<[u8]>,
    before: Option<Before>,
}

/// The table before, and for each of its locators the index it has now.
type Before = (Arc<Table>, Box<[Option<u8>]>);

impl LocatorTables {
    /// The set of `adjacencies`, sorted by address, that takes the place of `before`; last used at `last_used`.
    pub fn locator_set(
        &mut self,
        before: Option<&LocatorSet>,
        adjacencies: impl Into<Box<[Adjacency]>>,
        last_used: u32,
    ) -> LocatorSet {
        let adjacencies = adjacencies.into();
        let table = (adjacencies.len() > 1).then(|| self.table(before, &adjacencies));
        LocatorSet { adjacencies, last_used: last_used.into(), marks: None, table }
    }

    fn table(&mut self, before: Option<&LocatorSet>, adjacencies: &[Adjacency]) -> Arc<Table> {
        let weights: Box<[u8]> = adjacencies.iter().map(|adjacency| adjacency.weight).collect();
        let index_of = |old: &Adjacency| {
            let index = adjacencies.iter().position(|new| new.destination == old.destination);
            index.and_then(|index| u8::try_from(index).ok())
        };
        let before = before.filter(|before| !before.adjacencies.is_empty()).map(|before| {
            let table = before.table.clone().unwrap_or_else(|| Arc::new([0; SLOTS]));
            (table, before.adjacencies.iter().map(index_of).collect())
        });
        let origin = Origin { weights, before };
        if let Some(table) = self.made.get(&origin) {
            return Arc::clone(table);
        }
        let made = Arc::new(make(&origin));
        let table = self.tables.get(&made).cloned().unwrap_or(made);
        if self.made.len() >= REMEMBERED {
            self.made.clear();
            self.tables.retain(|table| Arc::strong_count(table) > 1);
        }
        self.tables.insert(Arc::clone(&table));
        self.made.insert(origin, Arc::clone(&table));
        table
    }
}

/// The table of a set that nothing was before.
pub(super) fn first_table(adjacencies: &[Adjacency]) -> Option<Arc<Table>> {
    let weights = adjacencies.iter().map(|adjacency| adjacency.weight).collect();
    (adjacencies.len() > 1).then(|| Arc::new(make(&Origin { weights, before: None })))
}

fn make(origin: &Origin) -> Table {
    let quotas = Quotas::new(&origin.weights);
    let fresh = quotas.spread();
    let Some((before, index_now)) = &origin.before else { return fresh };
    let kept = |&index: &u8| {
        let now = index_now.get(usize::from(index)).copied().flatten();
        now.filter(|&now| quotas.wants_any(now))
    };
    let owners: Vec<Option<u8>> = before.iter().map(kept).collect();
    // Where locators only went, nothing else may move: what is left over is less than a hundredth.
    let known: HashSet<u8> = owners.iter().flatten().copied().collect();
    let only_went = (0..origin.weights.len()).all(|index| {
        u8::try_from(index).is_ok_and(|index| known.contains(&index) || !quotas.wants_any(index))
    });
    let mut owners = quotas.fill(owners, &fresh);
    if !only_went || quotas.furthest_off(&owners) >= 2 * quotas.slot {
        quotas.level(&mut owners, &fresh);
    }
    owners
}

/// How many slots each locator is to have. All counts are in fractions of a slot, so that nothing is rounded.
struct Quotas {
    /// Of each locator; they add up to [`SLOTS`] slots.
    wanted: Vec<i64>,
    /// Fractions per slot.
    slot: i64,
}

impl Quotas {
    /// Equal weights, 0 included, are an even split (MC-21).
    fn new(weights: &[u8]) -> Self {
        let even = weights.iter().all(|&weight| weight == weights[0]);
        let weight = |&weight: &u8| if even { 1 } else { i64::from(weight) };
        // What is beyond an index of eight bits gets nothing.
        let weights = || weights.iter().take(SLOTS).map(weight);
        Self {
            wanted: weights().map(|weight| weight * SLOTS as i64).collect(),
            slot: weights().sum(),
        }
    }

    fn wants_any(&self, index: u8) -> bool {
        self.wanted.get(usize::from(index)).is_some_and(|&wanted| wanted > 0)
    }

    /// A table from nothing: at every slot whoever is furthest behind its share so far.
    fn spread(&self) -> Table {
        let mut table = [0; SLOTS];
        let mut lacks = vec![0; self.wanted.len()];
        for owner in &mut table {
            for (lack, wanted) in lacks.iter_mut().zip(&self.wanted) {
                *lack += wanted / SLOTS as i64;
            }
            *owner = most(&lacks);
            lacks[usize::from(*owner)] -= self.slot;
        }
        table
    }

    /// How much each locator has less than it wants.
    fn lacks<'a>(&self, owners: impl Iterator<Item = &'a u8>) -> Vec<i64> {
        let mut lacks = self.wanted.clone();
        for &owner in owners {
            lacks[usize::from(owner)] -= self.slot;
        }
        lacks
    }

    fn furthest_off(&self, owners: &Table) -> i64 {
        self.lacks(owners.iter()).into_iter().map(i64::abs).max().unwrap_or(0)
    }

    /// Gives the vacant slots to those who lack most, where possible as in `fresh`.
    fn fill(&self, owners: Vec<Option<u8>>, fresh: &Table) -> Table {
        let mut table = *fresh;
        let mut lacks = self.lacks(owners.iter().flatten());
        let mut vacant = Vec::new();
        for (slot, (place, owner)) in table.iter_mut().zip(owners).enumerate() {
            let home = usize::from(*place);
            match owner {
                Some(owner) => *place = owner,
                None if lacks[home] >= self.slot => lacks[home] -= self.slot,
                None => vacant.push(slot),
            }
        }
        for slot in vacant {
            table[slot] = most(&lacks);
            lacks[usize::from(table[slot])] -= self.slot;
        }
        table
    }

    /// Moves slots from those who have too much to those who lack, until nobody is off by a whole slot.
    fn level(&self, owners: &mut Table, fresh: &Table) {
        let mut lacks = self.lacks(owners.iter());
        loop {
            let to = most(&lacks);
            let surplus: Vec<i64> = lacks.iter().map(|lack| -lack).collect();
            let from = most(&surplus);
            if lacks[usize::from(to)].max(surplus[usize::from(from)]) < self.slot {
                return;
            }
            let better = |slot: &usize| match fresh[*slot] {
                home if home == to => 2,
                home if home != from => 1,
                _ => 0,
            };
            let slots = (0..SLOTS).filter(|&slot| owners[slot] == from);
            let Some(slot) = slots.max_by_key(better) else { return };
            owners[slot] = to;
            lacks[usize::from(from)] += self.slot;
            lacks[usize::from(to)] -= self.slot;
        }
    }
}

/// The first index of the largest.
fn most(values: &[i64]) -> u8 {
    let largest =
        values.iter().enumerate().max_by_key(|&(index, value)| (value, std::cmp::Reverse(index)));
    largest.map_or(0, |(index, _)| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn adjacencies(locators: &[(u8, u8)]) -> Vec<Adjacency> {
        let adjacency = |&(name, weight): &(u8, u8)| Adjacency {
            source: Ipv4Addr::new(198, 51, 100, 1).into(),
            destination: Ipv4Addr::new(203, 0, 113, name).into(),
            weight,
            mtu: 1500,
            traffic: Arc::default(),
            ports: Default::default(),
            used: Arc::default(),
        };
        locators.iter().map(adjacency).collect()
    }

    fn named(locators: &[(u8, u8)]) -> LocatorSet {
        LocatorSet::new(adjacencies(locators), 0)
    }

    fn numbered(weights: &[u8]) -> Vec<(u8, u8)> {
        weights.iter().enumerate().map(|(name, &weight)| (name as u8, weight)).collect()
    }

    fn set(weights: &[u8]) -> LocatorSet {
        named(&numbered(weights))
    }

    fn after(before: &LocatorSet, locators: &[(u8, u8)]) -> LocatorSet {
        LocatorTables::default().locator_set(Some(before), adjacencies(locators), 0)
    }

    /// The locator of each slot.
    fn choices(set: &LocatorSet) -> Vec<IpAddr> {
        let choice = |slot: u64| select(set, slot << 24).expect("not empty").destination;
        (0..SLOTS as u64).map(choice).collect()
    }

    /// In percent.
    fn shares(set: &LocatorSet) -> Vec<f64> {
        let choices = choices(set);
        let share = |adjacency: &Adjacency| {
            let slots = choices.iter().filter(|&&choice| choice == adjacency.destination).count();
            slots as f64 * 100.0 / SLOTS as f64
        };
        set.adjacencies.iter().map(share).collect()
    }

    fn assert_exact(set: &LocatorSet) {
        let weights: Vec<f64> = set.adjacencies.iter().map(|a| f64::from(a.weight)).collect();
        let sum: f64 = weights.iter().sum();
        for (share, weight) in shares(set).into_iter().zip(&weights) {
            let expected =
                if sum == 0.0 { 100.0 / weights.len() as f64 } else { weight * 100.0 / sum };
            assert!((share - expected).abs() < 1.0, "{weights:?}: {share} instead of {expected}");
        }
    }

    fn assert_shares(weights: &[u8], expected: &[f64]) {
        for (share, expected) in shares(&set(weights)).into_iter().zip(expected) {
            assert!((share - expected).abs() < 0.4, "{weights:?}: {share} instead of {expected}");
        }
    }

    fn moved(before: &LocatorSet, after: &LocatorSet) -> Vec<(IpAddr, IpAddr)> {
        let pairs = choices(before).into_iter().zip(choices(after));
        pairs.filter(|(old, new)| old != new).collect()
    }

    #[test]
    fn mc_20_tv_r2_shares_follow_weights() {
        assert_shares(&[30, 20, 20, 10], &[37.5, 25.0, 25.0, 12.5]);
        assert_shares(&[255, 1], &[99.6, 0.4]);
        assert_shares(&[70, 30], &[70.0, 30.0]);
        assert_shares(&[1, 2, 3, 4, 5], &[6.67, 13.33, 20.0, 26.67, 33.33]);
    }

    #[test]
    fn mc_20_flows_meet_all_slots_alike() {
        let set = set(&[30, 20, 20, 10]);
        let hasher = crate::packet::FlowHasher::new([7; 32]);
        let mut counts = [0u32; 4];
        for flow in 0..10_000 {
            let hash = hasher.hash_address(Ipv4Addr::from_bits(0x0a00_0000 + flow).into());
            let chosen = select(&set, hash).expect("not empty").destination;
            let index = set.adjacencies.iter().position(|a| a.destination == chosen);
            counts[index.expect("of the set")] += 1;
        }
        for (count, expected) in counts.into_iter().zip([37.5, 25.0, 25.0, 12.5]) {
            assert!((f64::from(count) / 100.0 - expected).abs() < 2.0, "{counts:?}");
        }
    }

    #[test]
    fn mc_21_equal_weights_split_evenly() {
        assert_shares(&[0, 0], &[50.0, 50.0]);
        assert_shares(&[7, 7, 7, 7], &[25.0; 4]);
        assert_shares(&[255, 255, 255], &[33.3; 3]);
        assert_shares(&[0; 100], &[1.0; 100]);
    }

    #[test]
    fn mc_22_weight_zero_among_others_gets_nothing() {
        assert_eq!(shares(&set(&[0, 50, 50]))[0], 0.0);
        assert_eq!(shares(&set(&[50, 0]))[1], 0.0);
        let before = set(&[50, 50]);
        assert_eq!(shares(&after(&before, &[(0, 0), (1, 50)])), [0.0, 100.0]);
    }

    #[test]
    fn a_single_locator_takes_all_and_an_empty_set_none() {
        assert_eq!(shares(&set(&[0])), [100.0]);
        assert!(select(&set(&[]), 1).is_none());
        let two = after(&set(&[]), &[(0, 1), (1, 1)]);
        assert_eq!(shares(&two), [50.0, 50.0]);
        assert_eq!(shares(&after(&two, &[(1, 1)])), [100.0]);
    }

    #[test]
    fn mc_24_only_flows_of_a_failed_locator_move() {
        let locators = [(0, 40), (1, 20), (2, 30), (3, 10)];
        let before = named(&locators);
        let failed = after(&before, &[(0, 40), (2, 30), (3, 10)]);
        assert_exact(&failed);
        let moves = moved(&before, &failed);
        assert_eq!(moves.len(), 51, "a fifth");
        assert!(moves.iter().all(|(old, _)| *old == before.adjacencies[1].destination));
        let back = after(&failed, &locators);
        assert_eq!(choices(&back), choices(&before), "back where it was");
    }

    #[test]
    fn mc_24_a_weight_change_moves_only_the_difference() {
        let (before, locators) = (set(&[50, 50]), [(0, 70), (1, 30)]);
        let after = after(&before, &locators);
        assert_shares(&[70, 30], &shares(&after));
        let moves = moved(&before, &after);
        assert!(moves.len() <= SLOTS / 5 + 1, "{} slots moved", moves.len());
        let grown = after.adjacencies[0].destination;
        assert!(moves.iter().all(|(_, new)| *new == grown), "a flow left the locator that grew");
    }

    #[test]
    fn equal_tables_are_one() {
        let mut tables = LocatorTables::default();
        let mut sets = Vec::new();
        for name in (0..200).step_by(2) {
            let one = tables.locator_set(None, adjacencies(&[(name, 1), (name + 1, 2)]), 0);
            sets.push(tables.locator_set(Some(&one), adjacencies(&[(name, 1), (name + 1, 1)]), 0));
        }
        let first = sets[0].table.as_ref().expect("two locators");
        let same =
            |set: &LocatorSet| set.table.as_ref().is_some_and(|table| Arc::ptr_eq(table, first));
        assert!(sets.iter().all(same));
        assert_eq!(tables.made.len(), 2);
        let single = tables.locator_set(None, adjacencies(&[(1, 1)]), 0);
        assert!(single.table.is_none(), "nothing to choose");
    }

    #[test]
    fn what_is_remembered_of_tables_is_bounded() {
        let mut tables = LocatorTables::default();
        for weights in 0..2 * REMEMBERED as u32 {
            let [high, low] = (weights as u16 + 256).to_be_bytes();
            tables.locator_set(None, adjacencies(&[(1, high), (2, low), (3, 1)]), 0);
            assert!(tables.made.len() <= REMEMBERED && tables.tables.len() <= 2 * REMEMBERED);
        }
    }

    fn any_locators() -> impl Strategy<Value = Vec<(u8, u8)>> {
        let weight = prop_oneof![any::<u8>(), 0u8..3, Just(50)];
        prop::collection::btree_map(0u8..12, weight, 1..8).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn mc_20_mc_21_mc_22_every_version_of_a_set_is_exact(versions in prop::collection::vec(any_locators(), 1..6)) {
            let mut tables = LocatorTables::default();
            let mut before: Option<LocatorSet> = None;
            for locators in versions {
                let set = tables.locator_set(before.as_ref(), adjacencies(&locators), 0);
                assert_exact(&set);
                before = Some(set);
            }
        }

        #[test]
        fn mc_24_no_flow_leaves_a_locator_that_stays(locators in any_locators(), gone in any::<prop::sample::Index>()) {
            prop_assume!(locators.len() > 1);
            let (before, mut left) = (named(&locators), locators.clone());
            let (name, weight) = left.remove(gone.index(left.len()));
            // A set of zeros is another matter than zeros among others.
            prop_assume!(left.iter().any(|&(_, weight)| weight > 0) || weight == 0);
            let failed = after(&before, &left);
            let lost = Ipv4Addr::new(203, 0, 113, name);
            prop_assert!(moved(&before, &failed).iter().all(|(old, _)| *old == lost));
            assert_exact(&failed);
            let back = after(&failed, &locators);
            assert_exact(&back);
            let again = moved(&before, &back).len();
            prop_assert!(again <= 2 * locators.len(), "{} slots are not back", again);
        }
    }
}
