//! The journal against a map: whatever crash, disk or damage comes, what was kept comes back, or an error says why not.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::task::Waker;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::ChangeLog;
use crate::transmit::SourcePort;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Small segments, nothing folded but by number.
const SMALL: Limits = Limits {
    segment: 200,
    sync_interval: Duration::from_millis(1),
    fold_at_least: u64::MAX,
    fold_at_most: u64::MAX,
    fold_segments: usize::MAX,
    ..LIMITS
};
const PATIENCE: Duration = Duration::from_secs(20);

fn transmit(number: u8) -> Transmit {
    let address = Ipv4Addr::LOCALHOST.into();
    Transmit {
        source: address,
        source_port: SourcePort::Control,
        destination: (address, 4342).into(),
        payload: vec![number],
    }
}

fn batch(changes: &[(&[u8], Option<&[u8]>)], number: u8) -> Batch {
    let mut log = ChangeLog::default();
    for (key, value) in changes {
        match value {
            Some(value) => log.put(key, value),
            None => log.delete(key),
        }
    }
    Batch { changes: log, transmits: vec![transmit(number)] }
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    batch(&[(key, Some(value))], 0)
}

fn poll(journal: &mut Journal) -> Poll<StoreEvent> {
    journal.poll_event(&mut Context::from_waker(Waker::noop()))
}

fn assert_kept(journal: &mut Journal, number: u8) {
    match poll(journal) {
        Poll::Ready(StoreEvent::Kept(transmits)) => assert_eq!(transmits, [transmit(number)]),
        other => panic!("{other:?}"),
    }
}

fn load(journal: &mut Journal) -> Map {
    let mut map = Map::new();
    journal
        .load(&mut |key, value| assert_eq!(map.insert(key.to_vec(), value.to_vec()), None))
        .unwrap();
    map
}

fn map<const N: usize>(entries: [(&[u8], &[u8]); N]) -> Map {
    entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn open(directory: &TempDir) -> io::Result<Journal> {
    Journal::open_with(directory.path(), false, SMALL)
}

fn refusal(directory: &TempDir) -> io::Error {
    open(directory).err().expect("the state is refused")
}

/// The process ends here: no thread, no destructor gets to do anything any more.
fn crash(mut journal: Journal) {
    journal.background = None;
    journal.unread = None;
    let root = journal.directory.root().to_owned();
    // The lock goes as the process does.
    let directory = std::mem::replace(&mut journal.directory, Directory::unlocked(&root));
    drop(directory);
    std::mem::forget(journal);
}

fn segments(directory: &TempDir) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory.path().join("mapping")).unwrap();
    let mut paths: Vec<PathBuf> = paths.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().contains("journal-"));
    paths.sort();
    paths
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, offset).unwrap();
    file.write_all_at(&[octet[0] ^ 0x10], offset).unwrap();
}

#[test]
fn what_was_kept_comes_back_after_an_orderly_end_and_after_a_crash() {
    let directory = TempDir::new().unwrap();
    let mut journal = open(&directory).unwrap();
    assert!(load(&mut journal).is_empty());
    journal.submit(batch(&[(b"a", Some(b"1")), (b"b", Some(b"")), (b"c", Some(b"3"))], 1));
    journal.submit(batch(&[], 2));
    assert_kept(&mut journal, 1);
    assert_kept(&mut journal, 2);
    assert!(poll(&mut journal).is_pending());
    drop(journal);

    let mut journal = open(&directory).unwrap();
    assert_eq!(load(&mut journal), map([(b"a", b"1"), (b"b", b""), (b"c", b"3")]));
    assert!(journal.notes()[0].contains("3 entries"), "{:?}", journal.notes());
    journal.submit(batch(&[(b"a", None), (b"c", Some(b"4")), (b"d", Some(b"5"))], 3));
    assert_kept(&mut journal, 3);
    crash(journal);

    let mut journal = open(&directory).unwrap();
    assert_eq!(load(&mut journal), map([(b"b", b""), (b"c", b"4"), (b"d", b"5")]));
}

#[test]
fn segments_are_folded_into_the_database_and_removed() {
    let directory = TempDir::new().unwrap();
    let limits = Limits { fold_segments: 2, ..SMALL };
    let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
    load(&mut journal);
    let mut expected = Map::new();
    for round in 0..40_u8 {
        let key = [round % 7];
        let value = [round; 50];
        journal.submit(put(&key, &value));
        expected.insert(key.to_vec(), value.to_vec());
        if round % 5 == 0 {
            journal.submit(batch(&[(&[3], None)], 0));
            expected.remove(&[3][..]);
        }
    }
    wait_until("segments are folded", || segments(&directory).len() <= 2);
    crash(journal);
    let mut journal = open(&directory).unwrap();
    assert!(journal.unread.as_ref().unwrap().0.folded().unwrap() > 0);
    assert_eq!(load(&mut journal), expected);
}

#[test]
fn a_second_daemon_is_refused() {
    let directory = TempDir::new().unwrap();
    let _journal = open(&directory).unwrap();
    let error = refusal(&directory);
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("another daemon"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_used_is_refused() {
    let parent = TempDir::new().unwrap();
    let missing = parent.path().join("missing");
    let error = Journal::open(&missing, true).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    assert!(!missing.exists());

    fs::write(&missing, "a file").unwrap();
    let error = Journal::open(&missing, true).err().unwrap();
    assert!(error.to_string().contains("not a directory"), "{error}");

    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Journal::open(parent.path(), true).err().unwrap();
    assert!(error.to_string().contains("others than its owner"), "{error}");
}

#[test]
fn nobody_else_can_read_the_state() {
    let directory = TempDir::new().unwrap();
    let _journal = open(&directory).unwrap();
    let state = directory.path().join("mapping");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// A journal of some segments, and the position in the last one where damage is put.
fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let mut journal = open(&directory).unwrap();
    load(&mut journal);
    for round in 0..20_u8 {
        journal.submit(put(&[round], &[round; 50]));
    }
    drop(journal);
    assert!(segments(&directory).len() > 3);
    directory
}

#[test]
fn damage_names_file_and_offset_and_what_to_do() {
    type Damage = fn(&[PathBuf]);
    let damages: [(&str, Damage, &str); 8] = [
        ("a bit of a frame", |files| flip(&files[1], 28 + 40), "offset 28: the checksum"),
        ("a bit of the last frame", |files| flip(files.last().unwrap(), 28 + 40), "the checksum"),
        ("a length", |files| flip(&files[1], 28 + 5), "offset 28: the checksum"),
        ("a header", |files| flip(&files[1], 20), "the header's checksum"),
        ("a foreign file", |files| fs::write(&files[0], [7; 500]).unwrap(), "not a journal"),
        ("an empty file", |files| fs::write(&files[0], "").unwrap(), "shorter than a header"),
        ("a missing segment", |files| fs::remove_file(&files[1]).unwrap(), "is missing"),
        ("a missing first segment", |files| fs::remove_file(&files[0]).unwrap(), "is missing"),
    ];
    for (name, damage, text) in damages {
        let directory = filled();
        damage(&segments(&directory));
        let error = refusal(&directory);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
        for part in [text, "mapping/journal-", "--start-empty"] {
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
    }
}

#[test]
fn another_version_is_told_from_damage() {
    let directory = filled();
    let first = &segments(&directory)[0];
    let mut octets = fs::read(first).unwrap();
    octets[11] = 2;
    let sum = checksum::crc32c(0, &octets[..24]);
    octets[24..28].copy_from_slice(&sum.to_be_bytes());
    fs::write(first, octets).unwrap();
    let error = refusal(&directory);
    assert!(error.to_string().contains("another version"), "{error}");
}

#[test]
fn a_lost_or_foreign_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let limits = Limits { fold_segments: 1, ..SMALL };
    let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
    load(&mut journal);
    for round in 0..20_u8 {
        journal.submit(put(&[round], &[round; 50]));
    }
    wait_until("segments are folded", || segments(&directory).len() <= 2);
    drop(journal);
    let database = table::path(&directory.path().join("mapping"));
    let whole = fs::read(&database).unwrap();

    fs::write(&database, vec![7; 8_192]).unwrap();
    let error = refusal(&directory);
    assert!(error.to_string().contains("state.redb"), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");

    fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(refusal(&directory).kind(), io::ErrorKind::InvalidData);

    fs::remove_file(&database).unwrap();
    let error = refusal(&directory);
    assert!(error.to_string().contains("is missing"), "{error}");

    fs::write(&database, &whole).unwrap();
    for segment in segments(&directory) {
        fs::remove_file(segment).unwrap();
    }
    let error = refusal(&directory);
    assert!(error.to_string().contains("the journal that belongs to it is missing"), "{error}");
}

#[test]
fn a_damaged_page_of_the_database_is_an_error_or_does_no_harm() {
    let directory = TempDir::new().unwrap();
    let limits = Limits { fold_segments: 1, segment: 20_000, ..SMALL };
    let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
    load(&mut journal);
    let mut expected = Map::new();
    for round in 0..2_000_u16 {
        let key = round.to_be_bytes();
        journal.submit(put(&key, &[7; 50]));
        expected.insert(key.to_vec(), vec![7; 50]);
    }
    wait_until("segments are folded", || segments(&directory).len() <= 2);
    drop(journal);
    let state = directory.path().join("mapping");
    let whole: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let database = table::path(&state);
    let length = fs::metadata(&database).unwrap().len();
    let mut refused = 0;
    for offset in (0..length - 17).step_by(length as usize / 60) {
        flip(&database, offset + 17);
        match open(&directory) {
            Ok(mut journal) => assert_eq!(load(&mut journal), expected, "offset {offset}"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                refused += 1;
            }
        }
        fs::remove_dir_all(&state).unwrap();
        fs::create_dir(&state).unwrap();
        whole.iter().for_each(|(path, octets)| fs::write(path, octets).unwrap());
    }
    assert!(refused > 0);
}

#[test]
fn start_empty_sets_damaged_state_aside_and_nothing_else() {
    let directory = filled();
    let journal = Journal::open_with(directory.path(), true, SMALL).unwrap();
    assert_eq!(journal.unread.as_ref().unwrap().1.len(), segments(&directory).len() - 1);
    drop(journal);
    let damaged = segments(&directory)[1].clone();
    flip(&damaged, 70);
    let octets = fs::read(&damaged).unwrap();
    for _ in 0..2 {
        let mut journal = Journal::open_with(directory.path(), true, SMALL).unwrap();
        assert!(load(&mut journal).is_empty());
        journal.submit(put(b"new", b"1"));
        drop(journal);
        let mut journal = Journal::open_with(directory.path(), true, SMALL).unwrap();
        assert_eq!(load(&mut journal), map([(b"new", b"1")]));
        let mut journal = journal.start_over().unwrap();
        assert!(load(&mut journal).is_empty());
    }
    let names = fs::read_dir(directory.path()).unwrap();
    let aside: Vec<PathBuf> = names
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("mapping.corrupt-"))
        .collect();
    assert_eq!(aside.len(), 3);
    let name = damaged.file_name().unwrap();
    let kept = aside.iter().filter(|path| fs::read(path.join(name)).is_ok_and(|o| o == octets));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_journal_that_is_too_long_is_degraded_until_it_is_folded() {
    let directory = TempDir::new().unwrap();
    let limits = Limits { journal: 300, fold_segments: 4, ..SMALL };
    let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
    load(&mut journal);
    let mut number = 0;
    let reason = loop {
        journal.submit(batch(&[(&[number], Some(&[7; 100]))], number));
        match poll(&mut journal) {
            Poll::Ready(StoreEvent::Kept(_)) => number += 1,
            Poll::Ready(StoreEvent::Degraded(reason)) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("too long"), "{reason}");
    assert_eq!(journal.waiting(), 0, "what is withheld does not wait");
    assert!(journal.notes()[1].starts_with("1 messages were not sent"), "{:?}", journal.notes());
    drop(journal);
    let limits = Limits { fold_segments: 1, ..limits };
    let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
    load(&mut journal);
    for number in 0..=255 {
        journal.submit(batch(&[(&[number], Some(&[7; 100]))], number));
    }
    let mut recovered = false;
    wait_until("it recovers, if it had to", || {
        recovered |= matches!(poll(&mut journal), Poll::Ready(StoreEvent::Recovered));
        recovered || !journal.degraded && journal.kept.is_empty()
    });
    drop(journal);
    let mut journal = open(&directory).unwrap();
    assert_eq!(load(&mut journal).len(), 256);
}

/// A file system of 1 MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = Some("size=1m,mode=700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted = mount(Some("none"), directory.path(), Some("tmpfs"), flags, options);
        mounted.ok().map(|()| Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_degraded_and_nothing_is_lost_when_there_is_room_again() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIP: mounting a file system needs privilege");
        return;
    };
    let path = disk.0.path();
    let limits = Limits { segment: 50_000, ..SMALL };
    let mut journal = Journal::open_with(path, false, limits).unwrap();
    load(&mut journal);
    let ballast = path.join("ballast");
    journal.submit(put(b"first", b"1"));
    assert_kept(&mut journal, 0);
    let _ = fs::write(&ballast, vec![0; 1 << 20]);
    let mut number = 0_u16;
    let reason = loop {
        number += 1;
        journal.submit(put(&number.to_be_bytes(), &[7; 1_000]));
        match poll(&mut journal) {
            Poll::Ready(StoreEvent::Kept(_)) => {}
            Poll::Ready(StoreEvent::Degraded(reason)) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("cannot be written"), "{reason}");
    journal.submit(put(b"first", b"2"));
    // An identical retransmission changes nothing; it is not acknowledged either.
    journal.submit(batch(&[], 0));
    assert!(poll(&mut journal).is_pending());
    assert!(journal.notes()[1].starts_with("3 messages were not sent"), "{:?}", journal.notes());

    fs::remove_file(&ballast).unwrap();
    wait_until("it recovers", || matches!(poll(&mut journal), Poll::Ready(StoreEvent::Recovered)));
    journal.submit(batch(&[(b"last", Some(b"3"))], 4));
    assert_kept(&mut journal, 4);
    crash(journal);
    let mut journal = Journal::open_with(path, false, limits).unwrap();
    let state = load(&mut journal);
    assert_eq!(state.len(), usize::from(number) + 2);
    assert_eq!((&state[&b"first"[..]][..], &state[&b"last"[..]][..]), (&b"2"[..], &b"3"[..]));
}

#[test]
fn the_disk_has_everything_soon() {
    let directory = TempDir::new().unwrap();
    let mut journal = open(&directory).unwrap();
    load(&mut journal);
    for round in 0..20_u8 {
        journal.submit(put(&[round], &[round; 50]));
    }
    wait_until("everything is on the disk", || {
        let state = journal.shared.lock();
        state.synced == state.written && state.synced > 0
    });
    assert!(journal.notes()[0].contains("the disk has all of it"), "{:?}", journal.notes());
}

/// What a test does: a batch of puts and deletes.
fn batches() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
    let change = (0..20_u8, proptest::option::weighted(0.8, 0..60_u8));
    proptest::collection::vec(proptest::collection::vec(change, 0..6), 1..30)
}

fn to_batch(changes: &[(u8, Option<u8>)]) -> Batch {
    let mut log = ChangeLog::default();
    for (key, value) in changes {
        match value {
            Some(value) => log.put(&[*key], &vec![*value; usize::from(*value)]),
            None => log.delete(&[*key]),
        }
    }
    Batch { changes: log, transmits: Vec::new() }
}

fn apply(map: &mut Map, changes: &[(u8, Option<u8>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(vec![*key], vec![*value; usize::from(*value)])),
            None => drop(map.remove(&[*key][..])),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The power fails: of the last segment any number of octets reached the disk, garbage perhaps behind them.
    #[test]
    fn after_a_crash_at_any_octet_the_state_is_that_of_a_prefix(
        batches in batches(),
        folded in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let directory = TempDir::new().unwrap();
        let limits = Limits { fold_segments: if folded { 2 } else { usize::MAX }, ..SMALL };
        let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
        load(&mut journal);
        let mut states = vec![Map::new()];
        for changes in &batches {
            let mut state = states.last().unwrap().clone();
            apply(&mut state, changes);
            states.push(state);
            journal.submit(to_batch(changes));
            prop_assert!(matches!(poll(&mut journal), Poll::Ready(StoreEvent::Kept(_))));
        }
        crash(journal);
        let mut journal = open(&directory).unwrap();
        prop_assert_eq!(&load(&mut journal), states.last().unwrap(), "nothing acknowledged is lost");
        crash(journal);

        let last = segments(&directory).into_iter().rfind(|path| fs::metadata(path).unwrap().len() > 28);
        let Some(last) = last else { return Ok(()) };
        for later in segments(&directory).into_iter().filter(|path| *path > last) {
            fs::remove_file(later).unwrap();
        }
        let octets = fs::read(&last).unwrap();
        let length = 28 + cut.index(octets.len() - 28 + 1);
        fs::write(&last, [&octets[..length], &garbage].concat()).unwrap();
        let mut journal = open(&directory).unwrap();
        let found = load(&mut journal);
        prop_assert!(states.contains(&found));
        journal.submit(put(b"next", b"1"));
        drop(journal);
        let mut journal = open(&directory).unwrap();
        let mut expected = found;
        expected.insert(b"next".to_vec(), b"1".to_vec());
        prop_assert_eq!(load(&mut journal), expected);
    }

    /// Several lives, each ended by a crash or in order, over small segments that are folded now and then.
    #[test]
    fn many_lives_keep_everything(lives in proptest::collection::vec((batches(), any::<bool>()), 1..6)) {
        let directory = TempDir::new().unwrap();
        let limits = Limits { fold_segments: 3, segment: 400, ..SMALL };
        let mut expected = Map::new();
        for (batches, crashes) in lives {
            let mut journal = Journal::open_with(directory.path(), false, limits).unwrap();
            prop_assert_eq!(&load(&mut journal), &expected);
            for changes in &batches {
                journal.submit(to_batch(changes));
                apply(&mut expected, changes);
            }
            if crashes { crash(journal) } else { drop(journal) }
        }
        let mut journal = open(&directory).unwrap();
        prop_assert_eq!(load(&mut journal), expected);
    }
}
