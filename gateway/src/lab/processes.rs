//! The daemons' processes and files, shared with whoever may have to end them in a hurry.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::keeper::{GRACE, Keeper};

/// Every process the lab started and has not yet seen the end of.
#[derive(Default)]
pub(crate) struct Running {
    inner: Mutex<Processes>,
}

#[derive(Default)]
struct Processes {
    children: Vec<Child>,
    /// The mapping system, which the others want to take their leave of.
    last: Vec<Child>,
    keeper: Option<Keeper>,
    directory: Option<TempDir>,
}

impl Running {
    /// Takes charge of the daemons' files and starts the keeper.
    pub(crate) fn begin(&self, directory: TempDir) -> io::Result<()> {
        let mut processes = self.lock();
        processes.keeper = Some(Keeper::start()?);
        processes.directory = Some(directory);
        Ok(())
    }

    /// Takes charge of a process, which ends after the others if it `ends_last`.
    pub(crate) fn add(&self, child: Child, ends_last: bool) -> io::Result<()> {
        let mut processes = self.lock();
        let watched = processes.keeper.as_mut().map_or(Ok(()), |keeper| keeper.watch(&child));
        let Processes { children, last, .. } = &mut *processes;
        if ends_last {
            last.push(child);
        } else {
            children.push(child);
        }
        watched
    }

    /// Whether a process is no more.
    pub(crate) fn has_ended(&self, pid: u32) -> bool {
        let mut processes = self.lock();
        let Processes { children, last, .. } = &mut *processes;
        let child = children.iter_mut().chain(last).find(|child| child.id() == pid);
        child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Sends one process a signal that ends it and waits for its end.
    pub(crate) fn stop(&self, pid: u32, signal: Signal) -> io::Result<ExitStatus> {
        let mut processes = self.lock();
        let child = processes.take(pid).ok_or_else(|| io::Error::other("no such daemon runs"))?;
        signal_to(&child, signal);
        processes.see_off(child)
    }

    /// Ends every daemon, those that use the mapping system before it, and removes their files.
    pub(crate) fn end(&self) {
        let mut processes = self.lock();
        let groups = [std::mem::take(&mut processes.children), std::mem::take(&mut processes.last)];
        for group in groups {
            group.iter().for_each(|child| signal_to(child, Signal::SIGTERM));
            for child in group {
                // Whatever its exit status, it is gone.
                let _ = processes.see_off(child);
            }
        }
        processes.keeper = None;
        processes.directory = None;
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Processes {
    fn take(&mut self, pid: u32) -> Option<Child> {
        [&mut self.children, &mut self.last].into_iter().find_map(|list| {
            let position = list.iter().position(|child| child.id() == pid)?;
            Some(list.remove(position))
        })
    }

    /// Waits for the end of a process that was told to end, and kills it if it takes too long.
    fn see_off(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + GRACE;
        while child.try_wait()?.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if child.try_wait()?.is_none() {
            child.kill()?;
        }
        let status = child.wait()?;
        if let Some(keeper) = &mut self.keeper {
            keeper.forget(&child)?;
        }
        Ok(status)
    }
}

fn signal_to(child: &Child, signal: Signal) {
    // Fails only for one that has ended already.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}
