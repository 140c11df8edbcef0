//! What keeping state costs: a change to the journal, and reading a million registrations at the start.

use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mapping::store::journal::Journal;
use mapping::store::{Batch, Store, StoreEvent};

/// Registrations of a large Map-Server.
const MANY: u32 = 1_000_000;
/// Registrations whose changes one burst of datagrams brings.
const BURST: u32 = 64;

/// A registration with one locator and the nonce it came with.
fn log(batch: &mut Batch, number: u32) {
    let number = number.to_be_bytes();
    let key = |family| [&[family][..], &[0, 0, 0, 1, 32], &number].concat();
    batch.changes.put(&key(b'r'), &[number.as_slice(), &[7; 80]].concat());
    batch.changes.put(&key(b'n'), &[number.as_slice(), &[7; 20]].concat());
}

fn burst(start: u32) -> Batch {
    let mut batch = Batch::default();
    (start..start + BURST).for_each(|number| log(&mut batch, number % MANY));
    batch
}

fn opened(directory: &Path) -> (Journal, u64) {
    let mut journal = Journal::open(directory, false).expect("the journal opens");
    let mut entries = 0;
    journal.load(&mut |_, _| entries += 1).expect("the state is whole");
    (journal, entries)
}

fn keep(journal: &mut Journal, batch: Batch) {
    journal.submit(batch);
    loop {
        match journal.poll_event(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(StoreEvent::Kept(_)) => return,
            Poll::Ready(StoreEvent::Degraded(_)) => std::thread::sleep(Duration::from_millis(1)),
            _ => return,
        }
    }
}

fn submit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = opened(directory.path());
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(u64::from(BURST)));
    let mut next = 0;
    group.bench_function("keep the registrations of a burst", |bencher| {
        let setup = || {
            next = (next + BURST) % MANY;
            burst(next)
        };
        bencher.iter_batched(setup, |batch| keep(&mut journal, batch), BatchSize::SmallInput);
    });
}

fn load(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = opened(directory.path());
    let start = Instant::now();
    (0..MANY).step_by(BURST as usize).for_each(|number| keep(&mut journal, burst(number)));
    println!("a million registrations kept in {:?}", start.elapsed());
    drop(journal);
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(10);
    group.bench_function("load a million registrations with their nonces", |bencher| {
        bencher.iter(|| assert_eq!(opened(directory.path()).1, 2 * u64::from(MANY)));
    });
}

criterion_group!(benches, submit, load);
criterion_main!(benches);
