//! The longest-prefix match: a trie that branches on five bits at a time and keeps only branches that part something.
//!
//! A key is up to three words: instance and family, the address (its first half), its second half. Within a word a node looks at five
//! bits that start at a multiple of five; a bitmap with population counts finds the branch among the cells of the node's block, and
//! prefixes that end within the five bits have their own cells there. What all keys below a node have in common is not looked at on
//! the way down: the leaf knows the whole word. If it does not match, a second way down stops where the keys part, which the leaf has
//! told. From word to word leads a bridge. So a change touches two blocks at most, whatever lies below or above.
use super::cells::{Cell, Cells, MAX_BLOCK, NOWHERE, Node};

/// Bits per branch.
const STRIDE: u32 = 5;
/// The last multiple of the stride within a word.
const LAST_OFFSET: u32 = 60;
/// As the length of a bridge: longer than any prefix, so that it is always on a branch.
const BRIDGE_LEN: u32 = 65;
/// Keys walked down side by side, so that their cache misses overlap.
pub(super) const LANES: usize = 64;

/// The words of a key; those it does not have are 0.
pub(super) type Words = [u64; 3];

/// A prefix: all bits of the words before `last`, `len` bits of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) words: Words,
    pub(super) last: usize,
    pub(super) len: u32,
}

/// Prefixes with a number each.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    cells: Cells,
    root: u32,
}

impl Trie {
    pub(super) fn new() -> Self {
        let mut cells = Cells::new();
        let root = cells.allocate(1);
        Self { cells, root }
    }

    /// The number of the longest prefix that matches.
    pub(super) fn look_up(&self, words: Words) -> Option<u32> {
        let mut lane = Lane::new(self.table(words[0])?, words);
        loop {
            if let Some(found) = lane.step(&self.cells) {
                return found;
            }
        }
    }

    /// Where the addresses of a table start, for [`Lane::new`].
    pub(super) fn table(&self, table: u64) -> Option<u32> {
        let mut at = self.root;
        loop {
            match self.cells.get(at) {
                Cell::Node(node) => {
                    let bit = branch(node.offset, table);
                    if node.bitmap >> bit & 1 == 0 {
                        return None;
                    }
                    at = node.base + node.rank(bit);
                }
                Cell::Bridge { key, root } => return (key == table).then_some(root),
                Cell::Leaf { .. } | Cell::Empty => return None,
            }
        }
    }

    /// [`Self::look_up`] for the first `count` lanes of a batch; the results are in the lanes.
    pub(super) fn look_up_all(&self, lanes: &mut [Lane; LANES], count: usize) {
        let mut walking: [u8; LANES] = std::array::from_fn(|index| index as u8);
        let mut count = count.min(LANES);
        while count > 0 {
            let mut kept = 0;
            for i in 0..count {
                let index = walking[i % LANES];
                let lane = &mut lanes[usize::from(index) % LANES];
                if let Some(found) = lane.step(&self.cells) {
                    lane.found = found;
                } else {
                    // By the time it is this lane's turn again the cell is there.
                    self.cells.prefetch(lane.at);
                    walking[kept % LANES] = index;
                    kept += 1;
                }
            }
            count = kept;
        }
    }

    /// The number of exactly this prefix.
    pub(super) fn get(&self, prefix: &Prefix) -> Option<u32> {
        match self.cells.get(self.locate(prefix)?) {
            Cell::Leaf { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Inserts or replaces; the number replaced.
    pub(super) fn insert(&mut self, prefix: &Prefix, value: u32) -> Option<u32> {
        let mut root = self.root;
        for &key in &prefix.words[..prefix.last] {
            root = self.bridge(root, key);
        }
        let key = prefix.words[prefix.last];
        let leaf = Cell::Leaf { key, len: prefix.len, value };
        let Some(at) = self.find(root, key, prefix.len).map(|found| found.at) else {
            self.add(root, leaf);
            return None;
        };
        let Cell::Leaf { value, .. } = self.cells.get(at) else { return None };
        self.cells.set(at, leaf);
        Some(value)
    }

    /// Removes exactly this prefix; its number.
    pub(super) fn remove(&mut self, prefix: &Prefix) -> Option<u32> {
        let mut roots = [self.root; 3];
        for word in 0..prefix.last {
            let found = self.find(roots[word], prefix.words[word], BRIDGE_LEN)?;
            let Cell::Bridge { root, .. } = self.cells.get(found.at) else { return None };
            roots[word + 1] = root;
        }
        let found = self.find(roots[prefix.last], prefix.words[prefix.last], prefix.len)?;
        let Cell::Leaf { value, .. } = self.cells.get(found.at) else { return None };
        self.take_out(&found);
        for word in (0..prefix.last).rev() {
            if self.cells.get(roots[word + 1]) != Cell::Empty {
                break;
            }
            self.cells.release(roots[word + 1], 1);
            if let Some(found) = self.find(roots[word], prefix.words[word], BRIDGE_LEN) {
                self.take_out(&found);
            }
        }
        Some(value)
    }

    #[cfg(test)]
    pub(super) const fn cells(&self) -> &Cells {
        &self.cells
    }

    fn locate(&self, prefix: &Prefix) -> Option<u32> {
        let mut root = self.root;
        for &key in &prefix.words[..prefix.last] {
            let at = self.find(root, key, BRIDGE_LEN)?.at;
            let Cell::Bridge { root: next, .. } = self.cells.get(at) else { return None };
            root = next;
        }
        Some(self.find(root, prefix.words[prefix.last], prefix.len)?.at)
    }

    /// The root behind the bridge for this whole word, made if needed.
    fn bridge(&mut self, root: u32, key: u64) -> u32 {
        if let Some(found) = self.find(root, key, BRIDGE_LEN)
            && let Cell::Bridge { root, .. } = self.cells.get(found.at)
        {
            return root;
        }
        let next = self.cells.allocate(1);
        self.add(root, Cell::Bridge { key, root: next });
        next
    }

    /// Where exactly this prefix, or bridge, is.
    fn find(&self, root: u32, key: u64, len: u32) -> Option<Found> {
        let (mut at, mut parent) = (root, None);
        loop {
            let cell = self.cells.get(at);
            let Cell::Node(node) = cell else {
                let is_it = key_and_len(cell) == Some((key, len));
                return is_it.then_some(Found { at, parent });
            };
            let bit = node.place(key, len)?;
            if node.bitmap >> bit & 1 == 0 {
                return None;
            }
            parent = Some((at, bit));
            at = node.base + node.rank(bit);
        }
    }

    /// Adds a leaf or bridge that is not there.
    fn add(&mut self, root: u32, new: Cell) {
        let Some((key, len)) = key_and_len(new) else { return };
        let Some((other, other_len)) = self.similar(root, key) else {
            return self.cells.set(root, new);
        };
        let parting = (other ^ key).leading_zeros().min(len).min(other_len);
        let mut at = root;
        loop {
            let there = self.cells.get(at);
            let node = match there {
                Cell::Node(node) if node.offset <= parting => node,
                _ => self.branch_above(at, there, other, parting),
            };
            let Some(bit) = node.place(key, len) else { return };
            if node.bitmap >> bit & 1 == 0 {
                return self.put_in(at, node, bit, new);
            }
            at = node.base + node.rank(bit);
        }
    }

    /// Puts a node that branches where `parting` is between what is at `at` and the way there; what is there has the bits of `key`.
    fn branch_above(&mut self, at: u32, there: Cell, key: u64, parting: u32) -> Node {
        let offset = (parting / STRIDE * STRIDE).min(LAST_OFFSET);
        let base = self.cells.allocate(1);
        self.cells.set(base, there);
        let len = key_and_len(there).map_or(BRIDGE_LEN, |(_, len)| len);
        let mut node = Node { offset, bitmap: 0, base };
        if let Some(bit) = node.place(key, len) {
            node.bitmap = 1 << bit;
        }
        self.cells.set(at, Cell::Node(node));
        node
    }

    /// A key below `root` that has as many bits in common with `key` as the way down to it, and its length; `None` when there is none.
    fn similar(&self, root: u32, key: u64) -> Option<(u64, u32)> {
        let mut at = root;
        loop {
            let cell = self.cells.get(at);
            let Cell::Node(node) = cell else { return key_and_len(cell) };
            let bit = branch(node.offset, key);
            let there = node.bitmap >> bit & 1 != 0;
            at = node.base + if there { node.rank(bit) } else { 0 };
        }
    }

    /// Adds a cell to the node at `at`.
    fn put_in(&mut self, at: u32, node: Node, bit: u32, new: Cell) {
        let (count, rank) = (node.count(), node.rank(bit));
        let base = self.cells.allocate(count + 1);
        for i in 0..count {
            let to = base + i + u32::from(i >= rank);
            self.cells.set(to, self.cells.get(node.base + i));
        }
        self.cells.set(base + rank, new);
        self.cells.release(node.base, count);
        self.cells.set(at, Cell::Node(Node { bitmap: node.bitmap | 1 << bit, base, ..node }));
    }

    /// Takes out what was found; a node left with a single cell gives way to it.
    fn take_out(&mut self, found: &Found) {
        let Some((at, bit)) = found.parent else {
            return self.cells.set(found.at, Cell::Empty);
        };
        let Cell::Node(node) = self.cells.get(at) else { return };
        let (count, rank) = (node.count(), node.rank(bit));
        let left = (0..count).filter(|&i| i != rank).map(|i| node.base + i);
        if count == 2 {
            for from in left {
                self.cells.set(at, self.cells.get(from));
            }
        } else {
            let base = self.cells.allocate(count - 1);
            for (to, from) in (base..).zip(left) {
                self.cells.set(to, self.cells.get(from));
            }
            self.cells
                .set(at, Cell::Node(Node { bitmap: node.bitmap & !(1 << bit), base, ..node }));
        }
        self.cells.release(node.base, count);
    }

    /// The number of the longest prefix of at most `limit` bits; the first `limit` bits of `key` are known to lead somewhere below
    /// `root`.
    #[cold]
    fn look_up_within(cells: &Cells, root: u32, key: u64, limit: u32) -> Option<u32> {
        let (mut at, mut best) = (root, None);
        while let Cell::Node(node) = cells.get(at)
            && node.offset <= limit
        {
            let most = (limit - node.offset + 1).min(STRIDE);
            let within = node.matches(key) & ((1 << ((1 << most) - 1)) - 1);
            if within != 0 {
                best = Some(node.base + node.rank(within.ilog2()));
            }
            let bit = branch(node.offset, key);
            if node.bitmap >> bit & 1 == 0 {
                break;
            }
            at = node.base + node.rank(bit);
        }
        match cells.get(best?) {
            Cell::Leaf { value, .. } => Some(value),
            _ => None,
        }
    }
}

/// Where a prefix is: its cell; the cell of the node that has it, and as which bit.
struct Found {
    at: u32,
    parent: Option<(u32, u32)>,
}

/// One address on its way down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// The word that is walked along, and the one after.
    key: u64,
    next: u64,
    /// Where this word started.
    root: u32,
    /// The next cell to look at.
    at: u32,
    /// The deepest node passed in this word that has prefixes which may match.
    best: u32,
    /// The best of the word before.
    outer: Option<u32>,
    /// The number found, once the way is at its end.
    pub(super) found: Option<u32>,
}

impl Lane {
    /// `root` is of [`Trie::table`] for the first word.
    #[inline]
    pub(super) const fn new(root: u32, words: Words) -> Self {
        Self {
            key: words[1],
            next: words[2],
            root,
            at: root,
            best: NOWHERE,
            outer: None,
            found: None,
        }
    }

    /// Looks at one cell: the result, if that was the end of the way.
    #[inline(always)]
    fn step(&mut self, cells: &Cells) -> Option<Option<u32>> {
        match cells.get(self.at) {
            Cell::Node(node) => {
                let digit = digit(node.offset, self.key);
                // As `matches` and `rank` would, with halves of the bitmap that are cheaper to count.
                let (prefixes, branches) = (node.bitmap as u32, (node.bitmap >> 32) as u32);
                let mut first = node.base;
                if prefixes != 0 {
                    first += prefixes.count_ones();
                    if prefixes & MATCHES[digit as usize % MATCHES.len()] != 0 {
                        self.best = self.at;
                    }
                }
                if branches >> digit & 1 == 0 {
                    return self.turn_to_best(cells);
                }
                self.at = first + (branches & ((1 << digit) - 1)).count_ones();
                None
            }
            Cell::Leaf { key, len, value } => {
                let common = (key ^ self.key).leading_zeros();
                if common >= len {
                    return Some(Some(value));
                }
                Some(self.end(cells, common))
            }
            Cell::Bridge { key, root } => {
                if key != self.key {
                    return Some(self.end(cells, (key ^ self.key).leading_zeros()));
                }
                if let Some(best) = self.best_leaf(cells)
                    && let Cell::Leaf { value, .. } = cells.get(best)
                {
                    self.outer = Some(value);
                }
                (self.key, self.next) = (self.next, 0);
                (self.root, self.at, self.best) = (root, root, NOWHERE);
                None
            }
            Cell::Empty => Some(self.outer),
        }
    }

    /// There is no way on: the best prefix passed comes next, as its leaf is still to be compared.
    #[inline]
    fn turn_to_best(&mut self, cells: &Cells) -> Option<Option<u32>> {
        match self.best_leaf(cells) {
            Some(leaf) => {
                self.at = leaf;
                None
            }
            None => Some(self.outer),
        }
    }

    /// The leaf of the longest prefix that may match in the deepest node that has one.
    fn best_leaf(&self, cells: &Cells) -> Option<u32> {
        if self.best == NOWHERE {
            return None;
        }
        let Cell::Node(node) = cells.get(self.best) else { return None };
        Some(node.base + node.rank(node.matches(self.key).checked_ilog2()?))
    }

    /// The keys part after `common` bits: the best that is no longer.
    #[inline]
    fn end(&self, cells: &Cells, common: u32) -> Option<u32> {
        if self.best == NOWHERE {
            return self.outer;
        }
        Trie::look_up_within(cells, self.root, self.key, common).or(self.outer)
    }
}

impl Node {
    /// The bit of a prefix or branch; `None` for a prefix that is too short to be below this node.
    fn place(&self, key: u64, len: u32) -> Option<u32> {
        let beyond = len.checked_sub(self.offset)?;
        if beyond < STRIDE {
            Some((1 << beyond) - 1 + (digit(self.offset, key) >> (STRIDE - beyond)))
        } else {
            Some(branch(self.offset, key))
        }
    }

    /// Cells before the one of `bit`.
    #[inline(always)]
    fn rank(&self, bit: u32) -> u32 {
        (self.bitmap & ((1 << bit) - 1)).count_ones()
    }

    fn count(&self) -> u32 {
        self.bitmap.count_ones()
    }

    /// The prefixes among the lower bits that match `key`; the highest is the longest.
    #[inline(always)]
    fn matches(&self, key: u64) -> u32 {
        self.bitmap as u32 & MATCHES[digit(self.offset, key) as usize % MATCHES.len()]
    }
}

/// The five bits of `key` from `offset` on.
#[inline(always)]
fn digit(offset: u32, key: u64) -> u32 {
    (key << offset >> (64 - STRIDE)) as u32
}

/// The bit of a branch.
#[inline(always)]
fn branch(offset: u32, key: u64) -> u32 {
    32 + digit(offset, key)
}

fn key_and_len(cell: Cell) -> Option<(u64, u32)> {
    match cell {
        Cell::Leaf { key, len, .. } => Some((key, len)),
        Cell::Bridge { key, .. } => Some((key, BRIDGE_LEN)),
        Cell::Empty | Cell::Node(_) => None,
    }
}

/// For each five bits, the prefixes of 0 to 4 bits that match.
static MATCHES: [u32; 32] = {
    let mut table = [0; 32];
    let mut digit = 0;
    while digit < 32 {
        let mut len = 0;
        while len < STRIDE {
            table[digit] |= 1 << ((1 << len) - 1 + (digit >> (STRIDE as usize - len as usize)));
            len += 1;
        }
        digit += 1;
    }
    table
};

const _: () = assert!(MAX_BLOCK >= 31 + 32);
