//! Work that gives way: on a machine with few cores it shares one with the thread that answers messages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use redb::StorageBackend;
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Nanoseconds of work, about, between two moments at which another thread may have the core. A thread that is not asked to give way
/// keeps it for milliseconds, as long as most messages may take altogether.
const AT_ONCE: u32 = 50_000;

/// How much less than others the thread may have of a core that both want: a tenth, not nothing, since the journal must not grow for
/// ever.
const NICE: i32 = 10;

/// Lets the scheduler prefer every other thread to the calling one, for good.
pub(super) fn step_back() {
    // Without it folding gives way all the same, but not as quickly.
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "the thread that folds the journal keeps its priority");
    }
}

/// What a thread has done since it last gave way, and whether it still has to.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// It is behind so far that everything else has to wait for it soon.
    pub(super) urgent: AtomicBool,
    done: AtomicU32,
}

impl Courtesy {
    /// Tells of work of so many nanoseconds, about; gives way when it was enough.
    pub(super) fn did(&self, nanoseconds: u32) {
        let done = self.done.load(Relaxed).saturating_add(nanoseconds);
        self.done.store(if done < AT_ONCE { done } else { 0 }, Relaxed);
        if done >= AT_ONCE && !self.urgent.load(Relaxed) {
            std::thread::yield_now();
        }
    }
}

/// A database file whose reader and writer gives way. The directory is locked, so the file is not.
#[derive(Debug)]
pub(super) struct CourteousFile {
    pub(super) file: File,
    pub(super) courtesy: Arc<Courtesy>,
}

/// The work around a page that is read or written.
const PAGE: u32 = 3_000;

impl StorageBackend for CourteousFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.courtesy.did(PAGE);
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.courtesy.did(PAGE);
        self.file.write_all_at(data, offset)
    }
}
