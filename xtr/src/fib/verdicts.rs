//! Verdicts by number, in chunks: growing moves none, and a freed number is given out again.
use super::Verdict;

/// Verdicts per chunk: 64 KiB.
const CHUNK: usize = 4096;

/// Numbers given out and taken back in the same order give the same numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    chunks: Vec<Vec<Verdict>>,
    free: Stack,
}

impl Verdicts {
    /// The verdict of a number, [`Verdict::Miss`] for one not given out.
    #[inline]
    pub(super) fn get(&self, number: u32) -> &Verdict {
        static MISS: Verdict = Verdict::Miss;
        let chunk = self.chunks.get(number as usize / CHUNK);
        chunk.and_then(|chunk| chunk.get(number as usize % CHUNK)).unwrap_or(&MISS)
    }

    pub(super) fn insert(&mut self, verdict: Verdict) -> u32 {
        if let Some(number) = self.free.pop() {
            self.replace(number, verdict);
            return number;
        }
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(verdict),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(verdict);
                self.chunks.push(chunk);
            }
        }
        let last = self.chunks.last().map_or(0, Vec::len);
        ((self.chunks.len() - 1) * CHUNK + last - 1) as u32
    }

    /// Puts another verdict in the place of a number; the one before.
    pub(super) fn replace(&mut self, number: u32, verdict: Verdict) -> Option<Verdict> {
        let place =
            self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)?;
        Some(std::mem::replace(place, verdict))
    }

    /// Takes a number back; its verdict.
    pub(super) fn remove(&mut self, number: u32) -> Option<Verdict> {
        let verdict = self.replace(number, Verdict::Miss)?;
        self.free.push(number);
        Some(verdict)
    }
}

/// A stack that grows by chunks, so that no push moves a million numbers.
#[derive(Clone, Debug, Default)]
struct Stack {
    chunks: Vec<Vec<u32>>,
}

impl Stack {
    fn push(&mut self, number: u32) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(number),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(number);
                self.chunks.push(chunk);
            }
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let last = self.chunks.last_mut()?;
        let number = last.pop();
        if last.is_empty() {
            self.chunks.pop();
        }
        number
    }
}
