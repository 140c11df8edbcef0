//! Two copies of the table, one read while the other is written (left-right).
use super::recent::{Destination, Recent};
use super::trie::{LANES, Lane, Prefix, Trie};
use super::verdicts::Verdicts;
use super::{Adjacency, FibUpdate, Verdict};
use crate::engine::prefetch;
use ipnet::IpNet;
use left_right::{Absorb, ReadGuard, ReadHandle, ReadHandleFactory, WriteHandle};
use mapping::eid::{EidPrefix, InstanceId};
use std::fmt;
use std::net::IpAddr;

/// Updates that become visible at once. What is kept of them until the other copy has them too stays bounded.
const LARGEST_BATCH: usize = 4096;
/// Prefixes that came or went, remembered for readers to bring what they know up to date.
const CHANGES: usize = 16;
/// Missed destinations in one batch from which on the next is looked up ahead.
const MANY_MISSES: u32 = 4;

/// The writing end: one owner, the control plane.
pub struct FibWriter {
    write: WriteHandle<Table, FibUpdate>,
}

impl FibWriter {
    /// An empty table, in which every lookup is a [`Verdict::Miss`], and a source of readers for it.
    pub fn new() -> (Self, FibReaderFactory) {
        let (mut write, read) = left_right::new_from_empty(Table::new());
        // From the second time on a change is applied to the other copy instead of copying everything: have that behind us.
        write.publish();
        write.publish();
        let factory = FibReaderFactory { factory: read.factory() };
        (Self { write }, factory)
    }

    /// Makes `updates` visible in order, up to 4096 at once. Waits until no reader is inside a view from before, so a view must be
    /// short.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = FibUpdate>) {
        let mut updates = updates.into_iter().peekable();
        while updates.peek().is_some() {
            self.write.extend(updates.by_ref().take(LARGEST_BATCH));
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
        let table = self.read.enter();
        if let Some(table) = &table
            && table.version != self.recent.version
        {
            table.bring_up_to_date(&mut self.recent);
        }
        let warms = std::mem::take(&mut self.recent.misses) >= MANY_MISSES;
        FibView { table, recent: &mut self.recent, warms }
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
    warms: bool,
}

impl FibView<'_> {
    /// The verdict of the longest matching prefix, [`Verdict::Miss`] without one.
    #[inline]
    pub fn lookup(&mut self, instance_id: InstanceId, destination: IpAddr) -> &Verdict {
        let Some(table) = &self.table else { return &Verdict::Miss };
        let destination = Destination::new(instance_id, destination);
        let number = match self.recent.get(&destination) {
            Some(number) => number,
            None => table.look_up(self.recent, &destination),
        };
        table.verdicts.get(number)
    }

    /// Whether the batch before had so many destinations not seen lately that [`Self::warm`] pays.
    pub const fn wants_warming(&self) -> bool {
        self.warms
    }

    /// Looks up `destinations` side by side, so that their waits for memory overlap, and remembers them for [`Self::lookup`].
    pub fn warm(&mut self, destinations: impl IntoIterator<Item = (InstanceId, IpAddr)>) {
        let Some(table) = &self.table else { return };
        let mut batch = Batch::new(table, self.recent);
        for (instance_id, destination) in destinations {
            batch.add(Destination::new(instance_id, destination));
        }
        batch.finish();
    }

    /// Whether any entry encapsulates to `address` (MT-12).
    pub fn is_locator(&self, address: IpAddr) -> bool {
        self.table.as_ref().is_some_and(|table| table.trie.get(&locator(address)).is_some())
    }
}

impl fmt::Debug for FibView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FibView").finish_non_exhaustive()
    }
}

/// Destinations that are looked up side by side.
struct Batch<'a> {
    table: &'a Table,
    recent: &'a mut Recent,
    /// The table of the last destination, and where it starts in the trie.
    entrance: (u64, Option<u32>),
    destinations: [Destination; LANES],
    lanes: [Lane; LANES],
    len: usize,
}

impl<'a> Batch<'a> {
    fn new(table: &'a Table, recent: &'a mut Recent) -> Self {
        let nowhere = Destination { table: u32::MAX, address: [0; 2] };
        let lane = Lane::new(0, nowhere.words());
        Self {
            table,
            recent,
            entrance: (nowhere.words()[0], None),
            destinations: [nowhere; LANES],
            lanes: [lane; LANES],
            len: 0,
        }
    }

    #[inline]
    fn add(&mut self, destination: Destination) {
        // Known from here on, so that the same destination is looked up once; the number follows.
        if !self.recent.claim(&destination, MISS) {
            return;
        }
        self.recent.misses += 1;
        let words = destination.words();
        if self.entrance.0 != words[0] {
            self.entrance = (words[0], self.table.trie.table(words[0]));
        }
        let Some(entrance) = self.entrance.1 else { return };
        let index = self.len % LANES;
        self.destinations[index] = destination;
        self.lanes[index] = Lane::new(entrance, words);
        self.len = index + 1;
        if self.len == LANES {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let len = std::mem::take(&mut self.len).min(LANES);
        self.table.trie.look_up_all(&mut self.lanes, len);
        for (destination, lane) in self.destinations.iter().zip(&self.lanes).take(len) {
            let number = lane.found.unwrap_or(MISS);
            // The packet will need it.
            prefetch(self.table.verdicts.get(number));
            self.recent.correct(destination, number);
        }
    }
}

/// One copy.
#[derive(Clone)]
struct Table {
    trie: Trie,
    verdicts: Verdicts,
    /// How many prefixes came or went so far; the same in both copies once they hold the same.
    version: u64,
    /// The last of them, in turn.
    changes: [Option<EidPrefix>; CHANGES],
}

/// The number of [`Verdict::Miss`].
const MISS: u32 = u32::MAX;

impl Table {
    fn new() -> Self {
        Self {
            trie: Trie::new(),
            verdicts: Verdicts::default(),
            version: 0,
            changes: [None; CHANGES],
        }
    }

    /// The number of a destination's verdict, which is remembered.
    fn look_up(&self, recent: &mut Recent, destination: &Destination) -> u32 {
        let number = self.trie.look_up(destination.words()).unwrap_or(MISS);
        recent.insert(destination, number);
        recent.misses += 1;
        number
    }

    #[cold]
    fn bring_up_to_date(&self, recent: &mut Recent) {
        let changes = self.version.wrapping_sub(recent.version);
        if changes > CHANGES as u64 {
            recent.forget_all();
        } else {
            for change in recent.version..self.version {
                if let Some(prefix) = &self.changes[change as usize % CHANGES] {
                    let (within, len) = destination_and_len(prefix);
                    recent.forget(&within, len);
                }
            }
        }
        recent.version = self.version;
    }

    fn insert(&mut self, prefix: &EidPrefix, verdict: Verdict) {
        let key = key(prefix);
        let (number, before) = match self.trie.get(&key) {
            Some(number) => (number, self.verdicts.replace(number, verdict)),
            None => {
                let number = self.verdicts.insert(verdict);
                self.trie.insert(&key, number);
                self.note_change(prefix);
                (number, None)
            }
        };
        let before = before.as_ref().map_or(&[][..], adjacencies);
        let now = adjacencies(self.verdicts.get(number));
        // Most changes leave the locators what they were.
        if !before.iter().map(destination).eq(now.iter().map(destination)) {
            now.iter().for_each(|one| count_user(&mut self.trie, one.destination));
            before.iter().for_each(|one| forget_user(&mut self.trie, one.destination));
        }
    }

    fn remove(&mut self, prefix: &EidPrefix) {
        let Some(number) = self.trie.remove(&key(prefix)) else { return };
        self.note_change(prefix);
        let removed = self.verdicts.remove(number);
        for adjacency in removed.iter().flat_map(adjacencies) {
            forget_user(&mut self.trie, adjacency.destination);
        }
    }

    fn note_change(&mut self, prefix: &EidPrefix) {
        self.changes[self.version as usize % CHANGES] = Some(*prefix);
        self.version += 1;
    }
}

/// One more adjacency leads to this locator.
fn count_user(trie: &mut Trie, address: IpAddr) {
    let locator = locator(address);
    let users = trie.get(&locator).unwrap_or(0);
    trie.insert(&locator, users + 1);
}

/// One less does.
fn forget_user(trie: &mut Trie, address: IpAddr) {
    let locator = locator(address);
    match trie.get(&locator) {
        Some(users @ 2..) => trie.insert(&locator, users - 1),
        _ => trie.remove(&locator),
    };
}

fn destination(adjacency: &Adjacency) -> IpAddr {
    adjacency.destination
}

fn adjacencies(verdict: &Verdict) -> &[Adjacency] {
    match verdict {
        Verdict::Encapsulate(set) => &set.adjacencies,
        _ => &[],
    }
}

/// The table number of the locators, beyond those of all instances.
const LOCATORS: u32 = InstanceId::MAX + 1;

impl Destination {
    #[inline]
    fn new(instance_id: InstanceId, address: IpAddr) -> Self {
        Self::in_table(instance_id.get(), address)
    }

    #[inline]
    fn in_table(table: u32, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let address = [u64::from(address.to_bits()) << 32, 0];
                Self { table: table << 1, address }
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                Self { table: table << 1 | 1, address: [(bits >> 64) as u64, bits as u64] }
            }
        }
    }
}

/// A prefix as a destination and how many of its bits count, 128 for a host of either family.
fn destination_and_len(prefix: &EidPrefix) -> (Destination, u32) {
    let destination = Destination::new(prefix.instance_id(), prefix.prefix().network());
    match (prefix.prefix(), u32::from(prefix.mask_len())) {
        (IpNet::V4(_), 32) => (destination, 128),
        (_, len) => (destination, len),
    }
}

/// A prefix as the trie has it.
fn key(prefix: &EidPrefix) -> Prefix {
    let destination = Destination::new(prefix.instance_id(), prefix.prefix().network());
    in_trie(&destination, u32::from(prefix.mask_len()))
}

/// A locator as the trie has it, with the number of adjacencies that lead to it.
fn locator(address: IpAddr) -> Prefix {
    let len = if address.is_ipv4() { 32 } else { 128 };
    in_trie(&Destination::in_table(LOCATORS, address), len)
}

fn in_trie(destination: &Destination, len: u32) -> Prefix {
    let words = destination.words();
    match len.checked_sub(64) {
        None | Some(0) => Prefix { words, last: 1, len },
        Some(len) => Prefix { words, last: 2, len },
    }
}

impl Absorb<FibUpdate> for Table {
    fn absorb_first(&mut self, update: &mut FibUpdate, other: &Self) {
        self.absorb_second(update.clone(), other);
    }

    fn absorb_second(&mut self, update: FibUpdate, _other: &Self) {
        match update {
            FibUpdate::Insert(prefix, verdict) => self.insert(&prefix, verdict),
            FibUpdate::Remove(prefix) => self.remove(&prefix),
        }
    }

    fn sync_with(&mut self, first: &Self) {
        self.clone_from(first);
    }
}
