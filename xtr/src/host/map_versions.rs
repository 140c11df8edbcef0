//! Versions of own mappings, kept over a restart in `state-dir` (RFC 9302 §6): a version that goes back has the packets of everybody with
//! the one before dropped.
//!
//! Each change is written behind the router's back. What a crash may have lost is skipped at the next start: versions only have to grow.
use super::state_file;
use crate::config::KeptVersion;
use mapping::eid::{EidPrefix, InstanceId, MapVersion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two tries to write what could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    /// Nothing changed after it was written.
    closed: bool,
    mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    instance_id: u32,
    prefix: ipnet::IpNet,
    version: u16,
    locators: String,
}

/// The file, and what was in it.
pub(crate) type Opened = (MapVersions, BTreeMap<EidPrefix, KeptVersion>);

/// The file that versions are kept in.
#[derive(Debug, Default)]
pub(crate) struct MapVersions {
    /// Without it nothing is kept.
    file: Option<PathBuf>,
    /// What is to be in it.
    contents: Contents,
    is_written: bool,
    writing: Option<JoinHandle<io::Result<()>>>,
    failure: Option<String>,
    retry_at: Option<Instant>,
}

impl MapVersions {
    /// What was kept in `directory`, and the file for what comes.
    ///
    /// # Errors
    /// The file cannot be read. One that is damaged is said loudly, and nothing was kept.
    pub(crate) fn open(directory: Option<&Path>) -> io::Result<Opened> {
        let Some(directory) = directory else { return Ok((Self::default(), BTreeMap::new())) };
        let file = directory.join("xtr-map-versions.json");
        let kept: Contents =
            state_file::read(&file, "map-versions begin anew")?.unwrap_or_default();
        let mut versions = BTreeMap::new();
        for mapping in &kept.mappings {
            let Some(instance_id) = InstanceId::new(mapping.instance_id) else { continue };
            // Whatever it was the version of may have changed once more.
            let locators = if kept.closed { mapping.locators.clone() } else { String::new() };
            let version = MapVersion::from_bits(mapping.version);
            versions.insert(
                EidPrefix::new(instance_id, mapping.prefix),
                KeptVersion { version, locators },
            );
        }
        let contents = Contents { closed: false, ..kept };
        let versions_file = Self { file: Some(file), contents, ..Self::default() };
        Ok((versions_file, versions))
    }

    /// Keeps what changed, if anything did. Does not wait for the disk.
    pub(crate) fn keep(&mut self, now: Instant, changed: Option<BTreeMap<EidPrefix, KeptVersion>>) {
        let Some(file) = &self.file else { return };
        if let Some(changed) = changed {
            self.contents.mappings = changed.iter().map(mapping).collect();
            self.is_written = false;
        }
        if let Some(thread) = self.writing.take_if(|thread| thread.is_finished()) {
            let outcome =
                thread.join().unwrap_or_else(|_| Err(io::Error::other("the writer failed")));
            (self.failure, self.retry_at) = (None, None);
            if let Err(error) = outcome {
                let text = format!("map-versions cannot be kept: {error}");
                tracing::error!("{text}");
                (self.failure, self.retry_at) = (Some(text), Some(now + RETRY));
                self.is_written = false;
            }
        }
        let waits = self.retry_at.is_some_and(|at| now < at);
        if !self.is_written && !waits && self.writing.is_none() {
            let (file, contents) = (file.clone(), self.contents.clone());
            self.is_written = true;
            self.writing = Some(std::thread::spawn(move || state_file::write(&file, &contents)));
        }
    }

    /// At an orderly end.
    pub(crate) fn close(mut self) {
        if let Some(thread) = self.writing.take() {
            let _ = thread.join();
        }
        self.contents.closed = true;
        if let Some(file) = &self.file
            && let Err(error) = state_file::write(file, &self.contents)
        {
            tracing::warn!("map-versions cannot be kept: {error}");
        }
    }

    /// What an operator has to know.
    pub(crate) fn notes(&self) -> Option<String> {
        self.failure.clone()
    }
}

fn mapping((prefix, kept): (&EidPrefix, &KeptVersion)) -> Mapping {
    Mapping {
        instance_id: prefix.instance_id().get(),
        prefix: prefix.prefix(),
        version: kept.version.get(),
        locators: kept.locators.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Versions = BTreeMap<EidPrefix, KeptVersion>;

    fn versions(number: u16) -> Versions {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, "10.1.0.0/16".parse().expect("prefix"));
        let version = MapVersion::from_bits(number);
        [(prefix, KeptVersion { version, locators: "192.0.2.1 1/100".to_owned() })].into()
    }

    fn open(directory: &Path) -> Opened {
        MapVersions::open(Some(directory)).expect("opened")
    }

    /// Until nothing is being written.
    fn settle(file: &mut MapVersions, now: Instant) {
        while file.writing.is_some() {
            std::thread::yield_now();
            file.keep(now, None);
        }
    }

    #[test]
    fn mv_04_versions_are_kept_over_an_orderly_restart() {
        let directory = tempfile::tempdir().expect("directory");
        let now = Instant::now();
        let (mut file, kept) = open(directory.path());
        assert!(kept.is_empty(), "the first start");
        file.keep(now, Some(versions(5)));
        file.keep(now, Some(versions(6)));
        file.close();
        assert_eq!(open(directory.path()).1, versions(6));
    }

    #[test]
    fn mv_04_after_a_crash_nobody_knows_what_they_were_the_versions_of() {
        let directory = tempfile::tempdir().expect("directory");
        let now = Instant::now();
        for number in 5..8 {
            let (mut file, kept) = open(directory.path());
            for kept in kept.values() {
                assert_eq!(kept.version.get(), number - 1);
                assert!(kept.locators.is_empty());
            }
            assert_eq!(kept.is_empty(), number == 5);
            file.keep(now, Some(versions(number)));
            settle(&mut file, now);
        }
        open(directory.path()).0.close();
        // An orderly run, then one in which nothing changed before the crash.
        let (mut file, _) = open(directory.path());
        file.keep(now, None);
        settle(&mut file, now);
        drop(file);
        assert!(open(directory.path()).1.values().all(|kept| kept.locators.is_empty()));
    }

    #[test]
    fn mv_04_what_cannot_be_kept_is_told_and_tried_again() {
        let directory = tempfile::tempdir().expect("directory");
        let inner = directory.path().join("state");
        std::fs::create_dir(&inner).expect("made");
        let (mut file, _) = open(&inner);
        std::fs::remove_dir(&inner).expect("removed");
        let now = Instant::now();
        file.keep(now, Some(versions(5)));
        settle(&mut file, now);
        assert!(file.notes().is_some());
        std::fs::create_dir(&inner).expect("made");
        file.keep(now + RETRY, None);
        settle(&mut file, now + RETRY);
        assert!(file.notes().is_none());
        file.close();
        assert_eq!(open(&inner).1, versions(5));
    }

    #[test]
    fn mv_04_a_damaged_file_keeps_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::write(directory.path().join("xtr-map-versions.json"), "{").expect("written");
        assert!(open(directory.path()).1.is_empty());
        let (mut file, kept) = MapVersions::open(None).expect("nowhere");
        file.keep(Instant::now(), Some(versions(5)));
        assert!(kept.is_empty() && file.writing.is_none());
        file.close();
    }
}
