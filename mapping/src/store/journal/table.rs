//! The database that journal segments are folded into, so that the journal stays short and every key is kept once.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashTable;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle,
};

use super::courtesy::{CourteousFile, Courtesy};
use super::segment::Segment;

const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// In `ABOUT`: the version of the tables.
const VERSION_KEY: &str = "version";
/// In `ABOUT`: the position in the journal up to which everything is in the database.
const FOLDED_KEY: &str = "folded";
const VERSION: u64 = 1;
/// Memory of an open database, octets; it is open at start and while a segment is folded.
const CACHE: usize = 16 << 20;
/// Nanoseconds, about: to change an entry of the database, to find a key in an [`Index`], to compare two.
const CHANGE: u32 = 3_000;
const FIND: u32 = 100;
const COMPARE: u32 = 50;
/// Changes between two looks at whether the daemon stops.
const STOP_CHECK: usize = 1_024;

/// The database in `directory`.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("state.redb")
}

/// An open database.
pub(super) struct Table {
    database: Database,
    path: PathBuf,
}

impl Table {
    /// Opens the database of `directory`, makes it when there is none, and verifies every page if asked to.
    pub(super) fn open(
        directory: &Path,
        verify: bool,
        courtesy: &Arc<Courtesy>,
    ) -> io::Result<Self> {
        let path = path(directory);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let database = guarded(&path, || {
            let file = CourteousFile { file: options.open(&path)?, courtesy: courtesy.clone() };
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE).set_check_integrity_on_open(verify);
            Ok(builder.create_with_backend(file)?)
        })?;
        let table = Self { database, path };
        guarded(&table.path, || table.prepare())?;
        Ok(table)
    }

    /// The position in the journal up to which everything is here.
    pub(super) fn folded(&self) -> io::Result<u64> {
        guarded(&self.path, || {
            let about = self.database.begin_read()?.open_table(ABOUT)?;
            Ok(about.get(FOLDED_KEY)?.map_or(0, |value| value.value()))
        })
    }

    /// Every key and value in the order of the keys.
    pub(super) fn each(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        guarded(&self.path, || {
            let state = self.database.begin_read()?.open_table(STATE)?;
            for entry in state.iter()? {
                let (key, value) = entry?;
                each(key.value(), value.value());
            }
            Ok(())
        })
    }

    /// Makes the tables of a new database, refuses those of another program or version.
    fn prepare(&self) -> Result<(), redb::Error> {
        let reading = self.database.begin_read()?;
        match reading.open_table(ABOUT) {
            Ok(about) => {
                let version = about.get(VERSION_KEY)?.map(|value| value.value());
                return if version == Some(VERSION) {
                    Ok(())
                } else {
                    Err(redb::Error::Corrupted("written by another version of isthmus".to_owned()))
                };
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(table) = reading.list_tables()?.next() {
            let text = format!("not a database of isthmus: it has a table {:?}", table.name());
            return Err(redb::Error::Corrupted(text));
        }
        drop(reading);
        let writing = self.database.begin_write()?;
        writing.open_table(STATE)?;
        writing.open_table(ABOUT)?.insert(VERSION_KEY, VERSION)?;
        writing.commit()?;
        Ok(())
    }

    /// Takes the last value of every key of `index`, all or none; `Ok(false)` when `stop` became true before the end.
    fn take(
        &self,
        index: &Index,
        end: u64,
        files: &[File],
        (courtesy, stop): (&Courtesy, &AtomicBool),
    ) -> io::Result<bool> {
        guarded(&self.path, || {
            let mut writing = self.database.begin_write()?;
            // A crash in the middle of the next fold must not cost time at the start.
            writing.set_quick_repair(true);
            let mut state = writing.open_table(STATE)?;
            let mut value = Vec::new();
            for (number, entry) in index.entries.iter().enumerate() {
                if number % STOP_CHECK == 0 && stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                courtesy.did(CHANGE);
                match entry.value_length.checked_sub(1) {
                    Some(length) => {
                        value.resize(length as usize, 0);
                        let file = &files[usize::from(entry.segment)];
                        file.read_exact_at(&mut value, u64::from(entry.value))?;
                        state.insert(index.key(entry), value.as_slice())?;
                    }
                    None => drop(state.remove(index.key(entry))?),
                }
            }
            drop(state);
            writing.open_table(ABOUT)?.insert(FOLDED_KEY, end)?;
            writing.commit()?;
            Ok(true)
        })
    }
}

/// Brings `segments`, which follow on what is folded already, into the database of `directory`, all or none.
///
/// # Errors
/// A segment or the database cannot be read or written. Nothing has changed then.
pub(super) fn fold(
    directory: &Path,
    segments: &[Segment],
    courtesy: &Arc<Courtesy>,
    stop: &AtomicBool,
) -> io::Result<bool> {
    let Some(last) = segments.last() else { return Ok(true) };
    let mut index = Index::default();
    for (number, segment) in segments.iter().enumerate() {
        let number = u16::try_from(number).map_err(io::Error::other)?;
        segment.each(courtesy, |(key, value), offset| {
            index.put(key, value.map(<[u8]>::len), (number, offset), courtesy)
        })?;
    }
    index.sort(courtesy);
    let files = segments.iter().map(|s| File::open(&s.path)).collect::<io::Result<Vec<_>>>()?;
    Table::open(directory, false, courtesy)?.take(&index, last.end, &files, (courtesy, stop))
}

/// Where the value of a key is.
struct Entry {
    key: u32,
    key_length: u16,
    segment: u16,
    /// Offset in the segment file.
    value: u32,
    /// Its length plus one; 0 when the key is deleted.
    value_length: u32,
}

/// The last change of every key of some segments, in memory that is bounded by the number of keys, not of changes.
#[derive(Default)]
struct Index {
    keys: Vec<u8>,
    entries: Vec<Entry>,
    /// Where in `entries` a key is.
    places: HashTable<u32>,
    hasher: RandomState,
}

impl Index {
    /// Takes a change, in place of an earlier one of the same key.
    fn put(
        &mut self,
        key: &[u8],
        value_length: Option<usize>,
        (segment, offset): (u16, usize),
        courtesy: &Courtesy,
    ) -> io::Result<()> {
        let number = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let (value, value_length) =
            (number(offset)?, number(value_length.map_or(0, |length| length + 1))?);
        let Self { keys, entries, places, hasher } = self;
        courtesy.did(FIND);
        let hash = hasher.hash_one(key);
        let known = |&place: &u32| key_of(keys, &entries[place as usize]) == key;
        if let Some(&place) = places.find(hash, known) {
            let entry = &mut entries[place as usize];
            (entry.segment, entry.value, entry.value_length) = (segment, value, value_length);
            return Ok(());
        }
        let key_length = u16::try_from(key.len()).map_err(io::Error::other)?;
        let place = number(entries.len())?;
        entries.push(Entry { key: number(keys.len())?, key_length, segment, value, value_length });
        keys.extend_from_slice(key);
        places.insert_unique(hash, place, |&place| {
            courtesy.did(FIND);
            hasher.hash_one(key_of(keys, &entries[place as usize]))
        });
        Ok(())
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        key_of(&self.keys, entry)
    }

    /// Sorts by key, the order of the database, and takes no more changes.
    fn sort(&mut self, courtesy: &Courtesy) {
        self.places = HashTable::new();
        let Self { keys, entries, .. } = self;
        entries.sort_unstable_by(|a, b| {
            courtesy.did(COMPARE);
            key_of(keys, a).cmp(key_of(keys, b))
        });
    }
}

fn key_of<'a>(keys: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.key as usize;
    &keys[start..start + usize::from(entry.key_length)]
}

/// Runs what touches the database; damage that makes it panic is an error like any other.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> io::Result<T> {
    let text = |what: &str| format!("{}: {what}", path.display());
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(redb::Error::Io(error))) if error.kind() != io::ErrorKind::InvalidData => {
            Err(io::Error::new(error.kind(), text(&error.to_string())))
        }
        Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, text(&error.to_string()))),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, text("its pages are damaged"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_holds_the_last_change_of_every_key_and_no_more() {
        let (mut index, courtesy, rounds) = (Index::default(), Courtesy::default(), 1_000);
        for round in 0..rounds {
            for key in (0..7_u8).rev() {
                let length = (round + 1 < rounds || key != 3).then_some(round);
                index.put(&[key], length, (1, round), &courtesy).unwrap();
            }
        }
        assert_eq!((index.entries.len(), index.keys.len()), (7, 7));
        index.sort(&courtesy);
        let keys: Vec<&[u8]> = index.entries.iter().map(|entry| index.key(entry)).collect();
        assert_eq!(keys, [[0], [1], [2], [3], [4], [5], [6]]);
        for entry in &index.entries {
            assert_eq!(entry.value as usize, rounds - 1);
            let deleted = index.key(entry) == [3];
            assert_eq!(entry.value_length as usize, if deleted { 0 } else { rounds });
        }
    }
}
