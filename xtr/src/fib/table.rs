//! Two copies of the table, one read while the other is written (left-right).
use super::recent::Recent;
use super::{Adjacency, FibUpdate, Verdict};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use left_right::{Absorb, ReadGuard, ReadHandle, ReadHandleFactory, WriteHandle};
use mapping::eid::{EidPrefix, InstanceId};
use prefix_trie::PrefixMap;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;

/// The writing end: one owner, the control plane.
pub struct FibWriter {
    write: WriteHandle<Table, FibUpdate>,
}

impl FibWriter {
    /// An empty table, in which every lookup is a [`Verdict::Miss`], and a source of readers for it.
    pub fn new() -> (Self, FibReaderFactory) {
        let (write, read) = left_right::new::<Table, FibUpdate>();
        let factory = FibReaderFactory { factory: read.factory() };
        (Self { write }, factory)
    }

    /// Makes all `updates` visible at once, in order. Waits until no reader is inside a view from before, so a view must be short.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = FibUpdate>) {
        let mut updates = updates.into_iter().peekable();
        if updates.peek().is_some() {
            self.write.extend(updates);
            self.write.publish();
        }
    }
}

impl fmt::Debug for FibWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FibWriter").finish_non_exhaustive()
    }
}

/// Makes readers, for any thread.
#[derive(Clone)]
pub struct FibReaderFactory {
    factory: ReadHandleFactory<Table>,
}

impl FibReaderFactory {
    /// A reader for one thread. It outlives the writer: then every lookup is a miss.
    pub fn reader(&self) -> FibReader {
        FibReader { read: self.factory.handle(), recent: Recent::new() }
    }
}

impl fmt::Debug for FibReaderFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FibReaderFactory").finish_non_exhaustive()
    }
}

/// The reading end of one thread.
pub struct FibReader {
    read: ReadHandle<Table>,
    recent: Recent,
}

impl FibReader {
    /// The table as of now, for one batch of packets: the writer waits while it is held.
    pub fn enter(&mut self) -> FibView<'_> {
        FibView { table: self.read.enter(), recent: &mut self.recent }
    }
}

impl fmt::Debug for FibReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FibReader").finish_non_exhaustive()
    }
}

/// A consistent view of the table.
pub struct FibView<'a> {
    table: Option<ReadGuard<'a, Table>>,
    recent: &'a mut Recent,
}

impl FibView<'_> {
    /// The verdict of the longest matching prefix, [`Verdict::Miss`] without one.
    #[inline]
    pub fn lookup(&mut self, instance_id: InstanceId, destination: IpAddr) -> &Verdict {
        static MISS: Verdict = Verdict::Miss;
        let Some(table) = &self.table else { return &MISS };
        self.recent.get_or_look_up(table.version, instance_id, destination, || {
            table.lookup(instance_id, destination).cloned().unwrap_or(Verdict::Miss)
        })
    }

    /// Whether any entry encapsulates to `address` (MT-12).
    pub fn is_locator(&self, address: IpAddr) -> bool {
        self.table.as_ref().is_some_and(|table| table.locators.contains_key(&address))
    }
}

impl fmt::Debug for FibView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FibView").finish_non_exhaustive()
    }
}

/// One copy: a trie per instance and family, sorted by instance.
#[derive(Default)]
struct Table {
    instances: Vec<(InstanceId, Tries)>,
    /// Every locator in use, with how many adjacencies lead to it.
    locators: HashMap<IpAddr, usize>,
    /// Changes made so far; the same in both copies once they hold the same.
    version: u64,
}

#[derive(Default)]
struct Tries {
    v4: PrefixMap<Ipv4Net, Verdict>,
    v6: PrefixMap<Ipv6Net, Verdict>,
}

impl Table {
    fn lookup(&self, instance_id: InstanceId, destination: IpAddr) -> Option<&Verdict> {
        let tries = match self.instances.first() {
            Some((first, tries)) if *first == instance_id => tries,
            _ => &self.instances[self.position(instance_id).ok()?].1,
        };
        match destination {
            IpAddr::V4(address) => tries.v4.get_lpm(&Ipv4Net::from(address)).map(|found| found.1),
            IpAddr::V6(address) => tries.v6.get_lpm(&Ipv6Net::from(address)).map(|found| found.1),
        }
    }

    fn insert(&mut self, prefix: EidPrefix, verdict: Verdict) {
        let instance_id = prefix.instance_id();
        let position = self.position(instance_id).unwrap_or_else(|vacant| {
            self.instances.insert(vacant, (instance_id, Tries::default()));
            vacant
        });
        let tries = &mut self.instances[position].1;
        for adjacency in adjacencies(&verdict) {
            *self.locators.entry(adjacency.destination).or_default() += 1;
        }
        let replaced = match prefix.prefix() {
            IpNet::V4(prefix) => tries.v4.insert(prefix, verdict),
            IpNet::V6(prefix) => tries.v6.insert(prefix, verdict),
        };
        self.forget_locators(replaced);
    }

    fn remove(&mut self, prefix: &EidPrefix) {
        let Ok(position) = self.position(prefix.instance_id()) else { return };
        let tries = &mut self.instances[position].1;
        let removed = match prefix.prefix() {
            IpNet::V4(prefix) => tries.v4.remove(&prefix),
            IpNet::V6(prefix) => tries.v6.remove(&prefix),
        };
        if tries.v4.is_empty() && tries.v6.is_empty() {
            self.instances.remove(position);
        }
        self.forget_locators(removed);
    }

    fn forget_locators(&mut self, verdict: Option<Verdict>) {
        for adjacency in verdict.iter().flat_map(adjacencies) {
            if let Entry::Occupied(mut count) = self.locators.entry(adjacency.destination) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    fn position(&self, instance_id: InstanceId) -> Result<usize, usize> {
        self.instances.binary_search_by_key(&instance_id, |(id, _)| *id)
    }
}

fn adjacencies(verdict: &Verdict) -> &[Adjacency] {
    match verdict {
        Verdict::Encapsulate(set) => &set.adjacencies,
        _ => &[],
    }
}

impl Absorb<FibUpdate> for Table {
    fn absorb_first(&mut self, update: &mut FibUpdate, _other: &Self) {
        self.absorb_second(update.clone(), _other);
    }

    fn absorb_second(&mut self, update: FibUpdate, _other: &Self) {
        self.version += 1;
        match update {
            FibUpdate::Insert(prefix, verdict) => self.insert(prefix, verdict),
            FibUpdate::Remove(prefix) => self.remove(&prefix),
        }
    }

    fn sync_with(&mut self, first: &Self) {
        self.version = first.version;
        self.locators.clone_from(&first.locators);
        self.instances.clear();
        for (instance_id, tries) in &first.instances {
            let copy = Tries { v4: tries.v4.clone(), v6: tries.v6.clone() };
            self.instances.push((*instance_id, copy));
        }
    }
}
