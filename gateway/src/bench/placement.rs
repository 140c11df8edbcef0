//! Which processors what runs on. The scheduler's own choice differs from run to run, and decides more than what is measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::load::flood::pin;
use super::meter::tasks;

/// The processor that a flood is sent from, or that gateways and hosts share.
pub(crate) const FIRST: usize = 0;
/// Where the hosts are when they do not share the gateways' processor.
pub(crate) const SECOND: usize = 1;

/// Threads that were given processors, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    before: Vec<(Pid, CpuSet)>,
}

impl Placed {
    /// Has all threads of these process groups run on processor `cpu`, but for those whose own configuration says where.
    pub(crate) fn on(groups: &[u32], cpu: usize) -> io::Result<Self> {
        let usual = processors(&sched_getaffinity(Pid::from_raw(0))?).count();
        let mut placed = Self::default();
        for &group in groups {
            placed.place(&tasks(group)?, |allowed| {
                (processors(allowed).count() >= usual).then(|| vec![cpu])
            });
        }
        Ok(placed)
    }

    /// Keeps all threads of a process group off processor `cpu`, as far as they may run elsewhere.
    pub(crate) fn off(group: u32, cpu: usize) -> io::Result<Self> {
        let mut placed = Self::default();
        placed.place(&tasks(group)?, |allowed| {
            Some(processors(allowed).filter(|&other| other != cpu).collect())
        });
        Ok(placed)
    }

    /// Has this process run on processor `cpu`: the hosts' programs, with those it starts from now on.
    pub(crate) fn ourselves(cpu: usize) -> io::Result<Self> {
        let threads = fs::read_dir("/proc/self/task")?.flatten();
        let threads: Vec<_> = threads.map(|thread| thread.path()).collect();
        let mut placed = Self::default();
        placed.place(&threads, |_| Some(vec![cpu]));
        Ok(placed)
    }

    fn place(&mut self, threads: &[PathBuf], cpus: impl Fn(&CpuSet) -> Option<Vec<usize>>) {
        let number = |task: &PathBuf| number(task).map(Pid::from_raw);
        for id in threads.iter().filter_map(number) {
            // A thread that has ended needs no processor. Where there is one only, everybody shares it.
            let Ok(allowed) = sched_getaffinity(id) else { continue };
            if let Some(cpus) = cpus(&allowed)
                && pin(id, cpus).is_ok()
            {
                self.before.push((id, allowed));
            }
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (id, allowed) in &self.before {
            // As above.
            let _ = sched_setaffinity(*id, allowed);
        }
    }
}

fn number(task: &Path) -> Option<i32> {
    task.file_name()?.to_str()?.parse().ok()
}

fn processors(set: &CpuSet) -> impl Iterator<Item = usize> + '_ {
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    fn allowed() -> Vec<usize> {
        processors(&sched_getaffinity(Pid::from_raw(0)).unwrap()).collect()
    }

    #[test]
    fn threads_are_placed_for_as_long_as_it_is_asked_for() {
        let thread = |work: fn()| {
            let (go, gone) = mpsc::channel::<()>();
            let (report, id) = mpsc::channel();
            let thread = thread::spawn(move || {
                work();
                report.send(nix::unistd::gettid()).unwrap();
                // Until whoever started it has seen enough.
                let _ = gone.recv();
            });
            (go, id.recv().unwrap(), thread)
        };
        let all = allowed();
        let Some((&one, others)) = all.split_last() else { return };
        let (stop, id, running) = thread(|| ());
        let task = PathBuf::from(format!("/proc/self/task/{id}"));
        let of = |id| processors(&sched_getaffinity(id).unwrap()).collect::<Vec<_>>();
        let mut placed = Placed::default();
        placed.place(std::slice::from_ref(&task), |_| Some(vec![one]));
        assert_eq!(of(id), [one]);
        drop(placed);
        assert_eq!(of(id), all);
        let mut placed = Placed::default();
        placed.place(&[task], |allowed| {
            Some(processors(allowed).filter(|&cpu| cpu != one).collect())
        });
        assert_eq!(of(id), if others.is_empty() { &all } else { others });
        drop(stop);
        running.join().unwrap();
    }
}
