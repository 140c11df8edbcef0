//! The map-cache, kept over a restart in `state-dir`.
//!
//! It is written every half a minute behind the router's back if it changed, and before an orderly end. A file is believed only if it is younger
//! than [`OLDEST`] by this host's clock and was made with the same Map-Resolvers: another mapping system has other mappings.
use super::state_file;
use crate::control::KeptMapping;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most mappings that are kept: some 10 MiB.
pub(crate) const MOST: usize = 65_536;
/// Between two times that they are written.
const INTERVAL: Duration = Duration::from_secs(30);
/// What was kept longer ago tells of another day.
const OLDEST: Duration = Duration::from_secs(15 * 60);

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    /// By this host's clock, seconds since 1970.
    written: u64,
    map_resolvers: Vec<String>,
    mappings: Vec<KeptMapping>,
}

/// The file that the map-cache is kept in.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// Without it nothing is kept.
    file: Option<PathBuf>,
    map_resolvers: Vec<String>,
    next: Instant,
    writing: Option<JoinHandle<io::Result<()>>>,
    failed: bool,
}

/// Mappings from before, and how long ago they were kept.
pub(crate) type Restored = (Duration, Vec<KeptMapping>);

impl Checkpoint {
    /// What was kept in `directory`, and the file for what comes. `unix` is the time of day, since 1970.
    ///
    /// # Errors
    /// The file is there and cannot be read. One that is damaged is said, and nothing was kept.
    pub(crate) fn open(
        directory: Option<&Path>,
        role: &str,
        map_resolvers: Vec<String>,
        (now, unix): (Instant, Duration),
    ) -> io::Result<(Self, Restored)> {
        let file = directory.map(|directory| directory.join(format!("{role}-map-cache.json")));
        let kept: Option<Contents> = match &file {
            Some(file) => state_file::read(file, "the map-cache begins empty")?,
            None => None,
        };
        let restored = kept.and_then(|kept| believed(kept, &map_resolvers, unix));
        let next = now + INTERVAL;
        let checkpoint = Self { file, map_resolvers, next, writing: None, failed: false };
        Ok((checkpoint, restored.unwrap_or_default()))
    }

    /// Whether [`Self::keep`] wants to be told the mappings; asks again after a while.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.file.is_none() || now < self.next {
            return false;
        }
        if let Some(thread) = self.writing.take_if(|thread| thread.is_finished()) {
            let outcome = thread.join();
            self.note(outcome.unwrap_or_else(|_| Err(io::Error::other("the writer failed"))));
        }
        self.next = now + INTERVAL;
        self.writing.is_none()
    }

    /// Keeps them. Does not wait for the disk.
    pub(crate) fn keep(&mut self, unix: Duration, mappings: Vec<KeptMapping>) {
        let Some(file) = self.file.clone() else { return };
        let contents = self.contents(unix, mappings);
        self.writing = Some(std::thread::spawn(move || state_file::write(&file, &contents)));
    }

    /// Keeps them before the end.
    pub(crate) fn close(&mut self, unix: Duration, mappings: impl FnOnce() -> Vec<KeptMapping>) {
        if let Some(thread) = self.writing.take() {
            let _ = thread.join();
        }
        if let Some(file) = self.file.clone() {
            let contents = self.contents(unix, mappings());
            self.note(state_file::write(&file, &contents));
        }
    }

    fn contents(&self, unix: Duration, mappings: Vec<KeptMapping>) -> Contents {
        Contents { written: unix.as_secs(), map_resolvers: self.map_resolvers.clone(), mappings }
    }

    /// Says that it fails once, not every time.
    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::warn!("the map-cache cannot be kept for a restart: {error}");
                self.failed = true;
            }
            Err(_) => {}
        }
    }
}

fn believed(kept: Contents, map_resolvers: &[String], unix: Duration) -> Option<Restored> {
    let written = Duration::from_secs(kept.written);
    let age = Duration::from_secs(unix.as_secs()).checked_sub(written);
    match age {
        None => {
            tracing::warn!(
                "the map-cache was kept in the future: the clock went back, it begins empty"
            );
            None
        }
        Some(age) if age > OLDEST || kept.map_resolvers != map_resolvers => {
            tracing::info!(
                "the map-cache that was kept is of another time or mapping system; it begins empty"
            );
            None
        }
        // A second of the clock's that had begun counts whole.
        Some(age) => Some((age + Duration::from_secs(1), kept.mappings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(1_800_000_000);

    fn open(directory: &Path, resolver: &str, unix: Duration) -> (Checkpoint, Restored) {
        let resolvers = vec![resolver.to_owned()];
        Checkpoint::open(Some(directory), "gateway", resolvers, (Instant::now(), unix))
            .expect("opened")
    }

    fn mappings() -> Vec<KeptMapping> {
        serde_json::from_str(
            r#"[{"instance_id":0,"prefix":"203.0.113.0/26","seconds_left":600,
                 "locators":[{"address":"198.51.100.11","priority":1,"weight":100,"reachable":true,"ordinal":0}]}]"#,
        )
        .expect("mappings")
    }

    #[test]
    fn op_04_mappings_are_kept_over_a_restart() {
        let directory = tempfile::tempdir().expect("directory");
        let (mut file, (_, kept)) = open(directory.path(), "198.51.100.2", NOON);
        assert!(kept.is_empty(), "the first start");
        file.close(NOON, mappings);
        let later = NOON + Duration::from_secs(5);
        let (_, (age, kept)) = open(directory.path(), "198.51.100.2", later);
        assert_eq!((age, kept), (Duration::from_secs(6), mappings()));
    }

    #[test]
    fn op_04_an_old_file_one_of_the_future_and_one_of_another_mapping_system_are_not_believed() {
        let directory = tempfile::tempdir().expect("directory");
        open(directory.path(), "198.51.100.2", NOON).0.close(NOON, mappings);
        let kept = |resolver, unix| !open(directory.path(), resolver, unix).1.1.is_empty();
        assert!(kept("198.51.100.2", NOON + OLDEST));
        assert!(!kept("198.51.100.2", NOON + OLDEST + Duration::from_secs(1)));
        assert!(!kept("198.51.100.2", NOON - Duration::from_secs(1)));
        assert!(!kept("198.51.100.3", NOON));
        std::fs::write(directory.path().join("gateway-map-cache.json"), "{").expect("written");
        assert!(!kept("198.51.100.2", NOON));
    }

    #[test]
    fn op_04_mappings_are_written_now_and_then() {
        let directory = tempfile::tempdir().expect("directory");
        let now = Instant::now();
        let (mut file, _) = open(directory.path(), "198.51.100.2", NOON);
        assert!(!file.is_due(now));
        let later = now + INTERVAL + Duration::from_secs(1);
        assert!(file.is_due(later) && !file.is_due(later));
        file.keep(NOON, mappings());
        while file.writing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
        assert!(file.is_due(later + INTERVAL));
        assert_eq!(open(directory.path(), "198.51.100.2", NOON).1.1, mappings());
        let (mut nowhere, _) =
            Checkpoint::open(None, "gateway", Vec::new(), (now, NOON)).expect("nowhere");
        assert!(!nowhere.is_due(later));
        nowhere.close(NOON, mappings);
    }
}
