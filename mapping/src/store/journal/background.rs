//! The two threads beside the one that writes: one brings the journal to the disk, one folds it into the database.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::courtesy::{Courtesy, step_back};
use super::segment::{self, Segment, Writer};
use super::{Limits, table};

/// Between two attempts at what failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often the age of closed segments is looked at.
const FOLD_TICK: Duration = Duration::from_secs(1);

/// What the threads and the journal know of each other.
pub(super) struct Shared {
    state: Mutex<State>,
    to_sync: Condvar,
    to_fold: Condvar,
    /// Ends a fold before its time; nothing of it is kept then.
    stop: AtomicBool,
    /// How the fold gives way.
    courtesy: Arc<Courtesy>,
}

/// Positions, files and troubles.
pub(super) struct State {
    /// The position up to which frames are in files.
    pub(super) written: u64,
    /// The position up to which the disk has them.
    pub(super) synced: u64,
    pub(super) last_sync: Option<Instant>,
    /// The file that is written to.
    active: Arc<File>,
    /// Closed segments that the disk may not have yet.
    closing: VecDeque<(Segment, Arc<File>)>,
    /// Closed segments that the disk has, and since when they wait to be folded.
    closed: VecDeque<(Segment, Instant)>,
    pub(super) sync_failed: Option<String>,
    pub(super) fold_failed: Option<String>,
    /// The journal wants to be woken to try again.
    retry: bool,
    pub(super) waker: Option<Waker>,
    stop: bool,
}

impl State {
    /// Octets in segments that are not folded yet, without the active one.
    pub(super) fn waiting(&self) -> u64 {
        let closed = self.closed.iter().map(|(segment, _)| segment);
        closed.chain(self.closing.iter().map(|(segment, _)| segment)).map(Segment::octets).sum()
    }

    /// From now on frames go to `active`; nothing is added to `closed` any more.
    pub(super) fn rotate(&mut self, active: Arc<File>, closed: Writer) {
        self.active = active;
        self.closing.push_back((closed.segment().clone(), closed.file().clone()));
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn has_to_sync(&self) -> bool {
        self.written != self.synced || !self.closing.is_empty() || self.retry
    }

    fn has_to_fold(&self, limits: &Limits, database: u64) -> bool {
        let octets: u64 = self.closed.iter().map(|(segment, _)| segment.octets()).sum();
        let worth = database.clamp(limits.fold_at_least, limits.fold_at_most);
        octets >= worth
            || self.closed.len() >= limits.fold_segments
            || self.closed.front().is_some_and(|(_, since)| since.elapsed() >= limits.fold_after)
    }
}

/// The threads; dropping this ends them, after a last write to the disk.
pub(super) struct Background {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Shared {
    /// Frames are to be written to `active` from `position` on; the segments `found` come before it.
    pub(super) fn new(
        active: Arc<File>,
        position: u64,
        found: &[Segment],
    ) -> io::Result<Arc<Self>> {
        let open = |segment: &Segment| Ok((segment.clone(), Arc::new(File::open(&segment.path)?)));
        let state = State {
            written: position,
            synced: 0,
            last_sync: None,
            active,
            closing: found.iter().map(open).collect::<io::Result<_>>()?,
            closed: VecDeque::new(),
            sync_failed: None,
            fold_failed: None,
            retry: false,
            waker: None,
            stop: false,
        };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            to_sync: Condvar::new(),
            to_fold: Condvar::new(),
            stop: AtomicBool::new(false),
            courtesy: Arc::default(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames are in files up to `position` now.
    pub(super) fn written(&self, position: u64) {
        let mut state = self.lock();
        if state.written == state.synced {
            self.to_sync.notify_one();
        }
        state.written = position;
    }

    /// Whether the journal is to be woken to try again.
    pub(super) fn wants_retry(&self, state: &mut State, retry: bool) {
        if retry && !state.retry {
            self.to_sync.notify_one();
        }
        state.retry = retry;
    }
}

impl Background {
    pub(super) fn start(
        shared: Arc<Shared>,
        directory: &Path,
        limits: &Limits,
    ) -> io::Result<Self> {
        let mut background = Self { shared, threads: Vec::new() };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (shared, path, bounds) = (background.shared.clone(), directory.to_owned(), *limits);
        let sync = thread("journal-sync").spawn(move || sync(&shared, &path, &bounds))?;
        background.threads.push(sync);
        let (shared, path, bounds) = (background.shared.clone(), directory.to_owned(), *limits);
        let fold = thread("journal-fold").spawn(move || fold(&shared, &path, &bounds))?;
        background.threads.push(fold);
        Ok(background)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        {
            let mut state = self.shared.lock();
            (state.stop, state.retry) = (true, false);
        }
        self.shared.to_sync.notify_all();
        self.shared.to_fold.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Brings to the disk what was written, at most once per interval.
fn sync(shared: &Shared, directory: &Path, limits: &Limits) {
    let mut state = shared.lock();
    loop {
        let idle = |state: &mut State| !state.stop && !state.has_to_sync();
        state = shared.to_sync.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        if state.stop && (!state.has_to_sync() || state.sync_failed.is_some()) {
            return;
        }
        shared.courtesy.urgent.store(state.waiting() > limits.journal / 8, Ordering::Relaxed);
        let (active, position) = (state.active.clone(), state.written);
        let closing: Vec<_> = state.closing.iter().cloned().collect();
        let dirty = state.synced != position || !closing.is_empty();
        drop(state);
        let done = if dirty { sync_files(&active, &closing, directory) } else { Ok(()) };
        state = shared.lock();
        let interval = match done {
            Ok(()) => {
                if dirty {
                    state.synced = position;
                    state.last_sync = Some(Instant::now());
                }
                let now = Instant::now();
                let synced: Vec<_> = state.closing.drain(..closing.len()).collect();
                state.closed.extend(synced.into_iter().map(|(segment, _)| (segment, now)));
                if state.sync_failed.take().is_some() || state.retry {
                    state.wake();
                }
                shared.to_fold.notify_one();
                if state.retry { RETRY } else { limits.sync_interval }
            }
            Err(error) => {
                let text =
                    format!("{} cannot be brought to the disk: {error}", directory.display());
                if state.sync_failed.replace(text).is_none() {
                    state.wake();
                }
                RETRY
            }
        };
        let running = |state: &mut State| !state.stop;
        let waited = shared.to_sync.wait_timeout_while(state, interval, running);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn sync_files(active: &File, closing: &[(Segment, Arc<File>)], directory: &Path) -> io::Result<()> {
    for (_, file) in closing {
        file.sync_data()?;
    }
    active.sync_data()?;
    if closing.is_empty() {
        return Ok(());
    }
    // The names of the segments that were begun since.
    File::open(directory)?.sync_all()
}

/// Folds closed segments into the database when there are enough, or when they are old enough.
fn fold(shared: &Shared, directory: &Path, limits: &Limits) {
    step_back();
    let database = || fs::metadata(table::path(directory)).map_or(0, |metadata| metadata.len());
    let mut size = database();
    let mut state = shared.lock();
    loop {
        if state.stop {
            return;
        }
        if !state.has_to_fold(limits, size) {
            let waited = if state.closed.is_empty() {
                shared.to_fold.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = shared.to_fold.wait_timeout(state, FOLD_TICK);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            state = waited;
            continue;
        }
        let segments: Vec<Segment> =
            state.closed.iter().map(|(segment, _)| segment.clone()).collect();
        drop(state);
        let folded = table::fold(directory, &segments, &shared.courtesy, &shared.stop);
        if let Ok(true) = folded {
            // One that stays is left out, and removed, at the next start.
            for Segment { path, .. } in &segments {
                drop(segment::remove(path, &shared.courtesy));
            }
        }
        size = database();
        state = shared.lock();
        match folded {
            Ok(true) => {
                state.closed.drain(..segments.len());
                state.fold_failed = None;
                state.wake();
            }
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be folded into the database");
                state.fold_failed = Some(error.to_string());
                state.wake();
                let running = |state: &mut State| !state.stop;
                let waited = shared.to_fold.wait_timeout_while(state, 10 * RETRY, running);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
