//! Which core a worker runs on.
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;

/// The core of the worker numbered `worker`, from the configured list in turn.
pub(super) fn cpu_of(cpus: &[usize], worker: usize) -> Option<usize> {
    cpus.get(worker.checked_rem(cpus.len())?).copied()
}

/// Keeps the calling thread on the core `cpu`, numbered from 0.
///
/// # Errors
/// `InvalidInput` for a core that this machine does not have, or that this process may not use.
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    let pinned = cpus.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus));
    pinned.map_err(|error| {
        let text = format!("cannot run a worker on CPU {cpu}: is it online? ({error})");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    #[test]
    fn workers_take_the_cores_in_turn() {
        assert_eq!(cpu_of(&[], 3), None);
        let taken: Vec<_> = (0..5).map(|worker| cpu_of(&[2, 7], worker)).collect();
        assert_eq!(taken, [2, 7, 2, 7, 2].map(Some));
    }

    #[test]
    fn a_thread_is_pinned_and_a_missing_core_named() {
        std::thread::spawn(|| {
            let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let cpu = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
            pin(cpu).unwrap();
            let now = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let count = (0..CpuSet::count()).filter(|&cpu| now.is_set(cpu).unwrap()).count();
            assert_eq!(count, 1);
            for missing in [1023, 100_000] {
                assert!(pin(missing).unwrap_err().to_string().contains(&missing.to_string()));
            }
        })
        .join()
        .unwrap();
    }
}
