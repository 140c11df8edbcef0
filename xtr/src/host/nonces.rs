//! Nonces that grow across restarts (RFC 9301 §5.6): what is kept of them in `state-dir`, and what the clock is good for.
//!
//! Nonces are counted on from the time of day in nanoseconds, those of subscriptions from its seconds. While the clock is right that alone
//! makes them greater than all of an earlier run. With a `state-dir` they are so whatever the clock says: a file holds a value that none
//! reaches before the file is written again, which is a while ahead so that no message waits for the disk.
use super::state_file;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;
/// How far ahead the file is: after a crash nonces go on that much later. Half of it is used before the next write.
const AHEAD: u64 = 600 * SECOND;
/// Between two tries to write what could not be written.
const RETRY: Duration = Duration::from_secs(10);
/// 2025-01-01: a clock before it was never set.
const SOUND: u64 = 1_735_689_600 * SECOND;
/// A clock set back by less is worth no word.
const TOLERANCE: u64 = 2 * SECOND;

/// What comes of a damaged file.
const DAMAGED: &str = "nonces count from the time of day; make sure that the clock is right";

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// No nonce used so far is greater.
    nonce: u64,
    /// The time of day when it was written, nanoseconds since 1970.
    time: u64,
}

/// Where nonces are counted from in this run, and the file that says where the next one begins.
#[derive(Debug)]
pub(crate) struct Nonces {
    /// Without it the time of day has to do.
    file: Option<PathBuf>,
    _lock: Option<File>,
    start: Instant,
    base: u64,
    /// Greater than every nonce before the file is written again.
    reserved: u64,
    writing: Option<(u64, JoinHandle<io::Result<()>>)>,
    failure: Option<String>,
    retry_at: Option<Instant>,
}

impl Nonces {
    /// Reads what `role` kept in `directory`, if there is one, and keeps at once what this run may use. `time` is the time of day in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    /// The directory cannot be written to, or another daemon uses it.
    pub(crate) fn open(
        directory: Option<&Path>,
        role: &str,
        now: Instant,
        time: u64,
    ) -> io::Result<Self> {
        let mut nonces = Self {
            file: None,
            _lock: None,
            start: now,
            base: time,
            reserved: u64::MAX,
            writing: None,
            failure: None,
            retry_at: None,
        };
        let Some(directory) = directory else { return Ok(nonces) };
        nonces._lock = Some(lock(&directory.join(format!("{role}-nonces.lock")))?);
        let file = directory.join(format!("{role}-nonces.json"));
        if let Some(kept) = state_file::read::<Kept>(&file, DAMAGED)? {
            if time + TOLERANCE < kept.time {
                let behind = (kept.time - time) / SECOND;
                tracing::warn!(
                    "the clock is {behind} s behind where it was before the restart: nonces go on from those kept in {}; set the clock",
                    file.display()
                );
            }
            // Those of subscriptions count in seconds.
            nonces.base = time.max(kept.nonce.saturating_add(SECOND));
        }
        nonces.reserved = nonces.base.saturating_add(AHEAD);
        state_file::write(&file, &Kept { nonce: nonces.reserved, time })
            .map_err(|error| named(&file, &error))?;
        nonces.file = Some(file);
        Ok(nonces)
    }

    /// Every nonce of an earlier run is smaller.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// Keeps what will have been used when the file is written next. `last` is the last nonce of a Map-Register. Does not wait for the
    /// disk.
    pub(crate) fn keep(&mut self, now: Instant, time: u64, last: u64) {
        self.finish_write(now);
        let used = self.used(now, last);
        let is_enough = self.reserved.saturating_sub(used) > AHEAD / 2;
        let Some(file) = &self.file else { return };
        if is_enough || self.writing.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let (file, nonce) = (file.clone(), used.saturating_add(AHEAD));
        let thread = std::thread::spawn(move || state_file::write(&file, &Kept { nonce, time }));
        self.writing = Some((nonce, thread));
    }

    /// At an orderly end: the next run goes on from just here.
    pub(crate) fn close(mut self, now: Instant, time: u64, last: u64) {
        if let Some((_, thread)) = self.writing.take() {
            let _ = thread.join();
        }
        let nonce = self.used(now, last);
        if let Some(file) = &self.file
            && let Err(error) = state_file::write(file, &Kept { nonce, time })
        {
            tracing::warn!("{}", named(file, &error));
        }
    }

    /// What an operator has to know: nonces that may not grow over the next restart.
    pub(crate) fn notes(&self, now: Instant, time: u64) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.failure.clone());
        if self.file.is_some() {
            return notes;
        }
        let behind = self.used(now, 0).saturating_sub(time);
        if time < SOUND {
            notes.push(
                "The clock is not set, and nonces count from it: Map-Servers take registrations for replays of earlier ones. Set the clock, or \
                 configure state-dir."
                    .to_owned(),
            );
        } else if behind > TOLERANCE {
            notes.push(format!(
                "The clock was set back by {} s: after a restart within that time Map-Servers would take registrations for replays. \
                 Configure state-dir.",
                behind / SECOND
            ));
        }
        notes
    }

    /// The greatest nonce that may have been used.
    fn used(&self, now: Instant, last: u64) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        self.base.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX)).max(last)
    }

    fn finish_write(&mut self, now: Instant) {
        let Some((nonce, thread)) = self.writing.take_if(|(_, thread)| thread.is_finished()) else {
            return;
        };
        let outcome = thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer failed")));
        (self.failure, self.retry_at) = (None, None);
        match (outcome, &self.file) {
            (Err(error), Some(file)) => {
                let text = named(file, &error).to_string();
                tracing::error!("{text}");
                (self.failure, self.retry_at) = (Some(text), Some(now + RETRY));
            }
            (Err(_), None) => {}
            (Ok(()), _) => self.reserved = nonce,
        }
    }
}

/// One daemon per role and directory: of two, one would go back behind the other's nonces.
fn lock(path: &Path) -> io::Result<File> {
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let file = open.map_err(|error| named(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(io::Error::other(format!("{} is in use by another daemon", path.display())))
        }
        Err(fs::TryLockError::Error(error)) => Err(named(path, &error)),
    }
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("nonces cannot be kept in {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20, in nanoseconds.
    const TODAY: u64 = 1_795_000_000 * SECOND;
    const DAY: u64 = 86_400 * SECOND;

    fn open(directory: &Path, now: Instant, time: u64) -> Nonces {
        Nonces::open(Some(directory), "xtr", now, time).expect("opened")
    }

    fn wait(nonces: &mut Nonces, now: Instant) {
        while nonces.writing.as_ref().is_some_and(|(_, thread)| !thread.is_finished()) {
            std::thread::yield_now();
        }
        nonces.finish_write(now);
    }

    #[test]
    fn rg_13_rg_14_nonces_grow_over_a_crash_and_a_clock_that_went_back() {
        let directory = tempfile::tempdir().expect("directory");
        let (mut now, mut last) = (Instant::now(), 0);
        for run in 0..5 {
            // Each time the clock is a day behind.
            let mut nonces = open(directory.path(), now, TODAY - run * DAY);
            assert!(nonces.base() > last, "run {run}");
            for minute in 0..100 {
                now += Duration::from_secs(60);
                last = nonces.used(now, nonces.base() + minute);
                nonces.keep(now, TODAY, last);
                wait(&mut nonces, now);
                assert!(nonces.reserved > last, "kept before it is used");
            }
            assert!(nonces.notes(now, TODAY).is_empty());
        }
    }

    #[test]
    fn rg_13_an_orderly_end_keeps_what_was_used_and_no_more() {
        let directory = tempfile::tempdir().expect("directory");
        let start = Instant::now();
        let now = start + Duration::from_secs(10);
        open(directory.path(), start, TODAY).close(now, TODAY, TODAY + 5);
        let again = open(directory.path(), now, TODAY - DAY);
        assert_eq!(again.base(), TODAY + 11 * SECOND);
        drop(again);
        // A clock that is right again counts.
        assert_eq!(open(directory.path(), now, TODAY + DAY).base(), TODAY + DAY);
    }

    #[test]
    fn rg_13_writing_is_rare() {
        let directory = tempfile::tempdir().expect("directory");
        let start = Instant::now();
        let mut nonces = open(directory.path(), start, TODAY);
        let mut writes = 0;
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            nonces.keep(now, TODAY, TODAY + second);
            writes += u32::from(nonces.writing.is_some());
            wait(&mut nonces, now);
        }
        assert!((1..=12).contains(&writes), "{writes} in an hour");
    }

    #[test]
    fn rg_14_a_clock_that_cannot_be_trusted_is_told() {
        let start = Instant::now();
        let unset = Nonces::open(None, "xtr", start, 77 * SECOND).expect("no file");
        assert!(unset.notes(start, 77 * SECOND)[0].contains("clock is not set"));
        let nonces = Nonces::open(None, "xtr", start, TODAY).expect("no file");
        let later = start + Duration::from_secs(60);
        assert!(nonces.notes(later, TODAY + 60 * SECOND).is_empty());
        assert!(nonces.notes(later, TODAY)[0].contains("set back by 60 s"));
    }

    #[test]
    fn rg_13_what_cannot_be_kept_is_told_and_tried_again() {
        let directory = tempfile::tempdir().expect("directory");
        let inner = directory.path().join("state");
        assert!(Nonces::open(Some(&inner), "xtr", Instant::now(), TODAY).is_err());
        fs::create_dir(&inner).expect("made");
        let start = Instant::now();
        let mut nonces = open(&inner, start, TODAY);
        assert!(Nonces::open(Some(&inner), "xtr", start, TODAY).is_err(), "in use");
        assert!(Nonces::open(Some(&inner), "gateway", start, TODAY).is_ok(), "another role");
        fs::rename(&inner, directory.path().join("away")).expect("moved");
        let late = start + Duration::from_secs(400);
        nonces.keep(late, TODAY, 0);
        wait(&mut nonces, late);
        assert_eq!(nonces.notes(late, TODAY).len(), 1);
        fs::rename(directory.path().join("away"), &inner).expect("back");
        nonces.keep(late + RETRY, TODAY, 0);
        wait(&mut nonces, late + RETRY);
        assert!(nonces.notes(late, TODAY).is_empty());
    }

    #[test]
    fn rg_14_a_damaged_file_leaves_the_time_of_day() {
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join("xtr-nonces.json"), "{\"nonce\":").expect("written");
        assert_eq!(open(directory.path(), Instant::now(), TODAY).base(), TODAY);
    }
}
