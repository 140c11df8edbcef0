//! State in a local directory: a journal that takes every change at once, and a database that the journal is folded into.
//!
//! ```text
//! submit -> one write to the active segment -> Kept        a kill -9 loses nothing that was acknowledged
//!              |  every 100 ms, in a thread
//!              v
//!            the disk has it                                a power failure loses at most the last 100 ms
//!              |  segment full or old, in another thread
//!              v
//!            database (redb), segment removed               every key once, the journal stays short
//! ```
//!
//! At the start the database is read, then what the journal has beyond it. A last write that is not whole was never acknowledged
//! and is cut off. Anything else that is not as it was left is an error that names the file and the offset; the state is then set
//! aside, never removed, if the operator says `--start-empty`.
//!
//! Folding gives way: it asks every few microseconds whether somebody else needs the core, until the journal is so long that folding
//! is what matters.
//!
//! When nothing can be written any more, because the disk is full or the folding behind, the journal is *degraded*: the changes stay
//! in memory, each key once, the messages that wait for them are dropped (their receivers ask again), and one attempt after the
//! other is made to write them.

mod background;
mod checksum;
mod courtesy;
mod directory;
mod pending;
mod segment;
mod table;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{Batch, Store, StoreEvent};
use crate::transmit::Transmit;

use background::{Background, Shared, State};
use directory::Directory;
use pending::Pending;
use segment::{Contents, Segment, Writer};
use table::Table;

/// How much of what, before something is done about it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Octets from which on a segment is closed.
    segment: u64,
    /// Age from which on it is closed by the next change.
    segment_age: Duration,
    /// Between two writes to the disk.
    sync_interval: Duration,
    /// Closed segments are folded when they have as many octets as the database, at least and at most this many; the journal's
    /// share of the write cost stays in proportion, and so does the time that reading it takes at the start.
    fold_at_least: u64,
    fold_at_most: u64,
    /// Or when there are so many.
    fold_segments: usize,
    /// Or when the oldest waits for so long.
    fold_after: Duration,
    /// Octets of journal from which on nothing is acknowledged until it is folded.
    journal: u64,
    /// Octets of changes in memory while they cannot be written; beyond it nothing is acknowledged until a restart.
    pending: usize,
}

const LIMITS: Limits = Limits {
    segment: 32 << 20,
    segment_age: Duration::from_secs(300),
    sync_interval: Duration::from_millis(100),
    fold_at_least: 32 << 20,
    fold_at_most: 256 << 20,
    fold_segments: 8,
    fold_after: Duration::from_secs(300),
    journal: 2 << 30,
    pending: 256 << 20,
};

/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_millis(500);

/// State in a local directory.
pub struct Journal {
    directory: Directory,
    limits: Limits,
    /// What there was at the start, until it is read.
    unread: Option<(Table, Vec<Contents>)>,
    writer: Writer,
    shared: Arc<Shared>,
    background: Option<Background>,
    kept: VecDeque<Vec<Transmit>>,
    pending: Pending,
    write_failed: Option<String>,
    next_retry: Option<Instant>,
    /// The owner was told so.
    degraded: bool,
    /// Entries read at the start.
    restored: u64,
    /// Messages that were dropped because what they acknowledge was not kept.
    withheld: u64,
}

impl Journal {
    /// Opens the state in `directory`, which has to be there; nothing is in it at first. State that is damaged is set aside if
    /// `start_empty`.
    ///
    /// # Errors
    /// `InvalidInput`: the directory cannot be used. `ResourceBusy`: another daemon uses it. `InvalidData`: what it holds is damaged,
    /// and `start_empty` was not given. All say what to do.
    pub fn open(directory: &Path, start_empty: bool) -> io::Result<Self> {
        Self::open_with(directory, start_empty, LIMITS)
    }

    /// Sets the state aside, since its reader does not understand it, and begins with none.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn start_over(self) -> io::Result<Self> {
        let (limits, root) = (self.limits, self.directory.root().to_owned());
        drop(self);
        let directory = Directory::open(&root)?;
        let aside = directory.set_aside()?;
        tracing::warn!(aside = %aside.display(), "state that is not understood was set aside");
        let found = Found::read(&directory)?;
        Self::begin(directory, found, limits)
    }

    fn open_with(path: &Path, start_empty: bool, limits: Limits) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        let found = match Found::read(&directory) {
            Err(error) if start_empty && error.kind() == io::ErrorKind::InvalidData => {
                let aside = directory.set_aside()?;
                tracing::warn!(%error, aside = %aside.display(), "damaged state was set aside");
                Found::read(&directory)?
            }
            found => found.map_err(advised)?,
        };
        Self::begin(directory, found, limits)
    }

    fn begin(directory: Directory, found: Found, limits: Limits) -> io::Result<Self> {
        let Found { table, segments, writer } = found;
        let (segments, contents): (Vec<Segment>, Vec<Contents>) = segments.into_iter().unzip();
        let shared = Shared::new(writer.file().clone(), writer.segment().base, &segments)?;
        Ok(Self {
            directory,
            limits,
            unread: Some((table, contents)),
            writer,
            shared,
            background: None,
            kept: VecDeque::new(),
            pending: Pending::default(),
            write_failed: None,
            next_retry: None,
            degraded: false,
            restored: 0,
            withheld: 0,
        })
    }

    /// Starts the threads, which must not touch the database before it is read.
    fn start(&mut self) {
        if self.background.is_some() {
            return;
        }
        self.unread = None;
        match Background::start(self.shared.clone(), self.directory.state(), &self.limits) {
            Ok(background) => self.background = Some(background),
            Err(error) => self.write_failed = Some(format!("cannot start a thread: {error}")),
        }
    }

    /// Why changes cannot be kept now.
    fn trouble(&self, state: &State) -> Option<String> {
        if self.pending.has_overflowed() {
            let text = "more has changed than memory holds while the disk cannot be written; \
                        make room on the disk, then restart the daemon";
            return Some(text.to_owned());
        }
        self.write_failed.clone().or_else(|| self.backlog(state))
    }

    /// What keeps the threads from doing their part.
    fn backlog(&self, state: &State) -> Option<String> {
        if state.sync_failed.is_some() {
            return state.sync_failed.clone();
        }
        let limit = if self.degraded { self.limits.journal / 2 } else { self.limits.journal };
        if state.waiting() <= limit {
            return None;
        }
        let why = state.fold_failed.as_deref().unwrap_or("the disk is too slow");
        Some(format!("the journal has grown too long: {why}"))
    }

    /// Writes encoded changes as one frame.
    fn keep(&mut self, changes: &[u8]) -> io::Result<()> {
        let segment = self.writer.segment();
        let age = self.writer.created().elapsed();
        let is_old = segment.octets() > 0 && age >= self.limits.segment_age;
        if segment.octets() >= self.limits.segment || is_old {
            let next = Writer::create(self.directory.state(), segment.end)?;
            let closed = std::mem::replace(&mut self.writer, next);
            self.shared.lock().rotate(self.writer.file().clone(), closed);
        }
        let synced = self.shared.lock().synced;
        self.writer.append(changes, synced)?;
        self.shared.written(self.writer.segment().end);
        Ok(())
    }

    /// Writes what is pending, as long as that goes well.
    fn retry(&mut self) {
        let now = Instant::now();
        if self.next_retry.is_some_and(|at| now < at) {
            return;
        }
        self.next_retry = Some(now + RETRY);
        self.write_failed = None;
        self.start();
        while !self.pending.is_empty() && self.write_failed.is_none() {
            let chunk = self.pending.chunk();
            match self.keep(chunk.as_octets()) {
                Ok(()) => self.pending.forget(&chunk),
                Err(error) => self.cannot_write(&error),
            }
        }
    }

    fn cannot_write(&mut self, error: &io::Error) {
        let path = self.directory.state().display();
        self.write_failed = Some(format!("{path} cannot be written: {error}"));
    }
}

impl Drop for Journal {
    /// Ends the threads and leaves a journal that is whole.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.next_retry = None;
            self.retry();
        }
        self.background = None;
        if self.writer.segment().octets() == 0 {
            return;
        }
        // Damage to the last frames shows only when a later one says that the disk had them.
        let end = self.writer.segment().end;
        let synced = self.writer.file().sync_data();
        if let Err(error) = synced.and_then(|()| self.writer.append(&[], end)) {
            tracing::warn!(%error, "the end of the journal could not be brought to the disk");
        }
    }
}

impl Store for Journal {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        let Some((table, contents)) = self.unread.take() else { return Ok(()) };
        let changes = || contents.iter().flat_map(|contents| contents.changes()).map(|c| c.0);
        let mut journal: HashMap<&[u8], Option<&[u8]>> = changes().collect();
        let mut restored = 0;
        let mut found = |key: &[u8], value: &[u8]| {
            restored += 1;
            each(key, value);
        };
        let read = table.each(&mut |key, value| match journal.remove(key) {
            None => found(key, value),
            Some(Some(newer)) => found(key, newer),
            Some(None) => {}
        });
        read.map_err(advised)?;
        // In the order of the journal, so that every start is the same.
        for (key, _) in changes() {
            if let Some(Some(value)) = journal.remove(key) {
                found(key, value);
            }
        }
        drop(table);
        self.restored = restored;
        self.start();
        Ok(())
    }

    fn submit(&mut self, batch: Batch) {
        self.start();
        let is_free = !self.degraded && self.pending.is_empty();
        if is_free && self.trouble(&self.shared.lock()).is_none() {
            let done = match batch.changes.is_empty() {
                true => Ok(()),
                false => self.keep(batch.changes.as_octets()),
            };
            match done {
                Ok(()) => return self.kept.push_back(batch.transmits),
                Err(error) => self.cannot_write(&error),
            }
        }
        self.withheld += batch.transmits.len() as u64;
        self.pending.add(&batch.changes, self.limits.pending);
    }

    fn waiting(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<StoreEvent> {
        if let Some(kept) = self.kept.pop_front() {
            return Poll::Ready(StoreEvent::Kept(kept));
        }
        let shared = self.shared.clone();
        let backlog = self.backlog(&shared.lock());
        if self.degraded && backlog.is_none() {
            self.retry();
        }
        let mut state = shared.lock();
        let trouble = self.trouble(&state);
        shared.wants_retry(&mut state, trouble.is_some());
        match trouble {
            Some(reason) if !self.degraded => {
                self.degraded = true;
                Poll::Ready(StoreEvent::Degraded(reason))
            }
            None if self.degraded && self.pending.is_empty() => {
                self.degraded = false;
                Poll::Ready(StoreEvent::Recovered)
            }
            _ => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let state = self.shared.lock();
        let octets = state.waiting() + self.writer.segment().octets();
        let synced = match state.last_sync {
            _ if state.synced == state.written => "the disk has all of it".to_owned(),
            Some(at) => format!("the disk has what is older than {} ms", at.elapsed().as_millis()),
            None => "the disk has none of it yet".to_owned(),
        };
        let mut notes = vec![format!(
            "State is kept in {}: {} entries restored at the start, journal {} KiB, {synced}.",
            self.directory.state().display(),
            self.restored,
            octets.div_ceil(1_024),
        )];
        if self.withheld > 0 {
            notes.push(format!(
                "{} messages were not sent because what they acknowledge was not kept.",
                self.withheld
            ));
        }
        if let Some(reason) = &state.fold_failed {
            notes.push(format!("The journal cannot be folded into the database: {reason}."));
        }
        notes
    }
}

/// What a state directory holds, verified.
struct Found {
    table: Table,
    segments: Vec<(Segment, Contents)>,
    writer: Writer,
}

impl Found {
    fn read(directory: &Directory) -> io::Result<Self> {
        let path = directory.state();
        let database = table::path(path);
        if database.exists() && !segment::any(path)? {
            return Err(segment::damaged(
                &database,
                0,
                "the journal that belongs to it is missing",
            ));
        }
        // The journal begins first, so that a crash in between does not look like a lost one.
        let is_new = !segment::any(path)?;
        let first = if is_new { Some(Writer::create(path, 0)?) } else { None };
        let table = Table::open(path, true, &Arc::default())?;
        let folded = table.folded()?;
        let segments = segment::recover(path, folded)?;
        let end = segments.last().map_or(folded, |(last, _)| last.end);
        let writer = match first {
            Some(writer) => writer,
            None => Writer::create(path, end)?,
        };
        std::fs::File::open(path)?.sync_all()?;
        Ok(Self { table, segments, writer })
    }
}

/// Says what to do about damaged state.
fn advised(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidData {
        return error;
    }
    let advice = "restore the state directory from a copy, or start once with --start-empty, which sets \
                  the damaged state aside and forgets every registration until the sites register again";
    io::Error::new(io::ErrorKind::InvalidData, format!("{error}; {advice}"))
}

#[cfg(test)]
mod tests;
