//! The memory of the trie: 16-octet cells, handed out in blocks of neighbours.
//!
//! Cells live in chunks, so that growing never moves what is there; a freed block joins its free neighbours (boundary tags), so that
//! churn does not crumble the memory; a block is taken from the smallest free one that holds it. Everything takes constant time.
use crate::engine::prefetch;

const CHUNK_BITS: u32 = 16;
/// Cells per chunk: 1 MiB, of which the system provides only what was written.
const CHUNK: usize = 1 << CHUNK_BITS;
/// The longest block, in cells.
pub(super) const MAX_BLOCK: u32 = 63;
/// The list of all free blocks that are longer than [`MAX_BLOCK`].
const LARGE: usize = MAX_BLOCK as usize;
/// No cell.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What a cell is: the top bits of its second word.
const KIND_SHIFT: u32 = 61;
const EMPTY: u64 = 0;
const LEAF: u64 = 1;
const BRIDGE: u64 = 2;
const NODE: u64 = 3;
/// First cell of a free block: next and previous of its list; length.
const FREE: u64 = 4;
/// Last cell of a free block of two or more: its first cell.
const FREE_END: u64 = 5;
/// The length of a prefix or the first bit that a node looks at.
const LEN_SHIFT: u32 = 32;

/// A cell in memory. An array, so that fresh zeroed pages need not be written.
type Words = [u64; 2];

/// A cell of the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nothing: only a root.
    Empty,
    /// A prefix: `len` bits of `key`, up to 64.
    Leaf { key: u64, len: u32, value: u32 },
    /// A whole part of the key; the next part goes on at `root`.
    Bridge { key: u64, root: u32 },
    /// A branch.
    Node(Node),
}

/// A branch on five bits of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The first of the bits.
    pub(super) offset: u32,
    /// What is in the block: the lower half for prefixes that end within the five bits, the upper half a bit per branch.
    pub(super) bitmap: u64,
    /// The block: a leaf per prefix, then a cell per branch.
    pub(super) base: u32,
}

impl Cell {
    #[inline(always)]
    fn of([first, second]: Words) -> Self {
        let low = second as u32;
        let len = (second >> LEN_SHIFT) as u32 & 0xff;
        match second >> KIND_SHIFT {
            NODE => Self::Node(Node { offset: len, bitmap: first, base: low }),
            LEAF => Self::Leaf { key: first, len, value: low },
            BRIDGE => Self::Bridge { key: first, root: low },
            _ => Self::Empty,
        }
    }

    fn words(self) -> Words {
        let second = |kind: u64, len: u32, low: u32| {
            kind << KIND_SHIFT | u64::from(len) << LEN_SHIFT | u64::from(low)
        };
        match self {
            Self::Empty => [0, second(EMPTY, 0, 0)],
            Self::Leaf { key, len, value } => [key, second(LEAF, len, value)],
            Self::Bridge { key, root } => [key, second(BRIDGE, 0, root)],
            Self::Node(Node { offset, bitmap, base }) => [bitmap, second(NODE, offset, base)],
        }
    }
}

/// The cells and which of them are free.
#[derive(Debug)]
pub(super) struct Cells {
    chunks: Vec<Box<[Words; CHUNK]>>,
    /// First block of each list: of 1, 2, .. [`MAX_BLOCK`] cells, and of more.
    free: [u32; LARGE + 1],
    /// Lists that are not empty.
    lists: u64,
    used: usize,
}

impl Cells {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), free: [NOWHERE; LARGE + 1], lists: 0, used: 0 }
    }

    /// The cell at `at`, which is of a block that was handed out: nothing else is ever in a cell.
    #[inline(always)]
    pub(super) fn get(&self, at: u32) -> Cell {
        Cell::of(self.read(at))
    }

    /// Has the cell brought into the cache.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: u32) {
        prefetch(&self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK]);
    }

    pub(super) fn set(&mut self, at: u32, cell: Cell) {
        self.write(at, cell.words());
    }

    /// A block of `len` empty cells, 1 to [`MAX_BLOCK`].
    pub(super) fn allocate(&mut self, len: u32) -> u32 {
        debug_assert!((1..=MAX_BLOCK).contains(&len));
        let enough = self.lists >> (len - 1) << (len - 1);
        if enough == 0 {
            let first = (self.chunks.len() << CHUNK_BITS) as u32;
            self.chunks.push(chunk());
            self.add_free(first, CHUNK as u32);
            return self.allocate(len);
        }
        let start = self.free[enough.trailing_zeros() as usize];
        let found = self.remove_free(start);
        if found > len {
            self.add_free(start + len, found - len);
        }
        for at in start..start + len {
            self.write(at, [0; 2]);
        }
        self.used += len as usize;
        start
    }

    /// Takes back a block.
    pub(super) fn release(&mut self, start: u32, len: u32) {
        self.used -= len as usize;
        let (mut start, mut end) = (start, start + len);
        let in_chunk = |at: u32| at as usize % CHUNK;
        if in_chunk(end) != 0 && kind(self.read(end)) == FREE {
            end += self.remove_free(end);
        }
        if in_chunk(start) != 0 {
            let before = self.read(start - 1);
            let first = match kind(before) {
                FREE => Some(start - 1),
                FREE_END => Some(before[0] as u32),
                _ => None,
            };
            if let Some(first) = first {
                self.remove_free(first);
                start = first;
            }
        }
        self.add_free(start, end - start);
    }

    /// Cells in blocks that were handed out.
    #[cfg(test)]
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Cells altogether.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    fn add_free(&mut self, start: u32, len: u32) {
        let list = list_of(len);
        let next = self.free[list];
        if len > 1 {
            self.write(start + len - 1, [u64::from(start), FREE_END << KIND_SHIFT]);
        }
        self.write(start, [link(next, NOWHERE), FREE << KIND_SHIFT | u64::from(len)]);
        if next != NOWHERE {
            let [links, second] = self.read(next);
            self.write(next, [link(links as u32, start), second]);
        }
        self.free[list] = start;
        self.lists |= 1 << list;
    }

    /// Takes a free block off its list; its length.
    fn remove_free(&mut self, start: u32) -> u32 {
        let [links, second] = self.read(start);
        let (next, previous, len) = (links as u32, (links >> 32) as u32, second as u32);
        let list = list_of(len);
        if next != NOWHERE {
            let [links, second] = self.read(next);
            self.write(next, [link(links as u32, previous), second]);
        }
        if previous == NOWHERE {
            self.free[list] = next;
            if next == NOWHERE {
                self.lists &= !(1 << list);
            }
        } else {
            let [links, second] = self.read(previous);
            self.write(previous, [link(next, (links >> 32) as u32), second]);
        }
        len
    }

    #[inline(always)]
    fn read(&self, at: u32) -> Words {
        self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK]
    }

    #[inline(always)]
    fn write(&mut self, at: u32, words: Words) {
        self.chunks[(at >> CHUNK_BITS) as usize][at as usize % CHUNK] = words;
    }
}

impl Clone for Cells {
    fn clone(&self) -> Self {
        let copy = |from: &[Words; CHUNK]| {
            let mut to = chunk();
            to.copy_from_slice(from);
            to
        };
        Self { chunks: self.chunks.iter().map(|chunk| copy(chunk)).collect(), ..*self }
    }
}

/// Zeroed, never on the stack.
fn chunk() -> Box<[Words; CHUNK]> {
    let cells = vec![[0; 2]; CHUNK].into_boxed_slice();
    cells.try_into().expect("as long as it was made")
}

fn kind(words: Words) -> u64 {
    words[1] >> KIND_SHIFT
}

fn link(next: u32, previous: u32) -> u64 {
    u64::from(previous) << 32 | u64::from(next)
}

fn list_of(len: u32) -> usize {
    (len as usize - 1).min(LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cell_reads_as_it_was_written() {
        let mut cells = Cells::new();
        let at = cells.allocate(4);
        let node = Node { offset: 60, bitmap: u64::MAX >> 1, base: u32::MAX - 1 };
        let written = [
            Cell::Leaf { key: u64::MAX, len: 64, value: 0xffff_fffe },
            Cell::Bridge { key: 1 << 63, root: 7 },
            Cell::Node(node),
            Cell::Empty,
        ];
        for (at, cell) in (at..).zip(written) {
            cells.set(at, cell);
        }
        for (at, cell) in (at..).zip(written) {
            assert_eq!(cells.get(at), cell);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn blocks_never_overlap_and_join_again(
            operations in prop::collection::vec((any::<bool>(), 1..=MAX_BLOCK, any::<prop::sample::Index>()), 1..400),
        ) {
            let mut cells = Cells::new();
            let mut blocks: Vec<(u32, u32)> = Vec::new();
            for (release, len, which) in operations {
                if release && !blocks.is_empty() {
                    let (start, len) = blocks.swap_remove(which.index(blocks.len()));
                    cells.release(start, len);
                } else {
                    let start = cells.allocate(len);
                    let overlaps = |&(other, other_len): &(u32, u32)| start < other + other_len && other < start + len;
                    prop_assert!(!blocks.iter().any(overlaps));
                    (start..start + len).for_each(|at| assert_eq!(cells.get(at), Cell::Empty));
                    (start..start + len).for_each(|at| cells.set(at, Cell::Leaf { key: !0, len: 64, value: at }));
                    blocks.push((start, len));
                }
                let used: u32 = blocks.iter().map(|(_, len)| len).sum();
                prop_assert_eq!(cells.used(), used as usize);
            }
            for (start, len) in blocks {
                cells.release(start, len);
            }
            prop_assert_eq!(cells.lists, 1 << LARGE, "all free cells are one block again");
            prop_assert_eq!(cells.capacity(), CHUNK);
        }
    }
}
