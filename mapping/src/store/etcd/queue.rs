//! The batches that wait for etcd, and the order in which they may be written and acknowledged: pure.

use std::collections::{HashSet, VecDeque};

use super::replica::Replica;
use super::transaction::{Key, Outcome, Part};
use crate::store::Batch;
use crate::transmit::Transmit;

/// Transactions under way at a time.
const MAX_FLIGHTS: usize = 8;

/// Batches in the order they were given. Changes of one key are written in that order; others may be under way together.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Batches that have not come back; the number of the first.
    entries: VecDeque<Entry>,
    first: u64,
    /// Parts that are not under way, oldest first, each with the number of its batch.
    waiting: VecDeque<(u64, Part)>,
    /// Keys that are under way.
    busy: HashSet<Key>,
    flights: usize,
    /// What the state machine must have been told so that its opinion of a retransmission counts.
    refused_at: u64,
}

#[derive(Debug)]
struct Entry {
    transmits: Vec<Transmit>,
    octets: usize,
    changes: bool,
    left: usize,
    refused: bool,
    seen: u64,
}

/// Parts that are written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Flight {
    batches: Vec<u64>,
    pub(super) parts: Vec<Part>,
}

/// A batch that came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The messages to send; `None` when the batch was refused.
    pub(super) kept: Option<Vec<Transmit>>,
    /// What it took of the bound on octets.
    pub(super) octets: usize,
    /// How many messages waited for it.
    pub(super) messages: usize,
}

impl Queue {
    /// Takes a batch that was made after the first `seen` changes told by `replica`.
    pub(super) fn push(&mut self, batch: Batch, seen: u64, replica: &mut Replica) {
        let number = self.first + self.entries.len() as u64;
        let parts = Part::split(&batch.changes);
        self.entries.push_back(Entry {
            octets: octets(&batch),
            transmits: batch.transmits,
            changes: !parts.is_empty(),
            left: parts.len(),
            refused: false,
            seen,
        });
        for part in parts {
            replica.begin(&part, seen);
            self.waiting.push_back((number, part));
        }
    }

    /// What to write next, beside what is under way; `None` when there is nothing or it has to wait.
    pub(super) fn start(&mut self, replica: &Replica) -> Option<Flight> {
        if self.flights >= MAX_FLIGHTS {
            return None;
        }
        let mut flight = Flight::default();
        while let Some((number, part)) = self.waiting.front() {
            if part.keys().any(|key| self.busy.contains(key)) || !part.fits(&flight.parts) {
                break;
            }
            let seen = self.entries[(number - self.first) as usize].seen;
            if let Some((number, mut part)) = self.waiting.pop_front() {
                part.aim(|key| replica.revision(key, seen));
                flight.batches.push(number);
                flight.parts.push(part);
            }
        }
        if flight.parts.is_empty() {
            return None;
        }
        self.busy.extend(flight.parts.iter().flat_map(Part::keys).cloned());
        self.flights += 1;
        Some(flight)
    }

    /// What became of each part of a flight.
    pub(super) fn finish(
        &mut self,
        flight: &Flight,
        outcomes: Vec<Outcome>,
        replica: &mut Replica,
    ) {
        self.flights -= 1;
        for key in flight.parts.iter().flat_map(Part::keys) {
            self.busy.remove(key);
        }
        for ((number, part), outcome) in flight.batches.iter().zip(&flight.parts).zip(outcomes) {
            let entry = &mut self.entries[(number - self.first) as usize];
            entry.left -= 1;
            entry.refused |= matches!(outcome, Outcome::Refused(_));
            replica.end(part, outcome);
        }
    }

    /// The oldest batch, if it has ended.
    pub(super) fn pop(&mut self, replica: &Replica) -> Option<Ended> {
        self.entries.front().filter(|entry| entry.left == 0)?;
        let entry = self.entries.pop_front()?;
        self.first += 1;
        if entry.refused {
            self.refused_at = replica.told();
        }
        // A retransmission is acknowledged without a change: only by a state machine that knows what became of the original.
        let trusted = entry.changes || entry.seen >= self.refused_at;
        let messages = entry.transmits.len();
        let kept = (!entry.refused && trusted).then_some(entry.transmits);
        Some(Ended { kept, octets: entry.octets, messages })
    }

    /// How many told changes the state machine had taken when it made the oldest batch that has not come back.
    pub(super) fn oldest_seen(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seen)
    }

    /// Batches that have not come back.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// What a batch takes of the bound on octets.
pub(super) fn octets(batch: &Batch) -> usize {
    /// Of the bookkeeping, about.
    const ENTRY: usize = 128;
    let messages: usize = batch.transmits.iter().map(|transmit| transmit.payload.len()).sum();
    ENTRY + 2 * batch.changes.as_octets().len() + messages
}
