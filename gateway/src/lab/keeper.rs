//! Sees to it that no daemon outlives the lab, even when the lab itself is killed: a small process that ends
//! the daemons it was told of when its pipe to the lab closes.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a daemon may take to end on SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The lab's end of the pipe. Dropping it ends every daemon still on the list.
pub(crate) struct Keeper {
    pipe: Option<ChildStdin>,
    process: Child,
}

impl Keeper {
    /// Starts the process: this program once more, outside the terminal's process group.
    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["lab", "--keeper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { pipe: process.stdin.take(), process })
    }

    /// Puts a daemon on the list.
    pub(crate) fn watch(&mut self, daemon: &Child) -> io::Result<()> {
        self.tell('+', daemon)
    }

    /// Takes a daemon that has ended off the list.
    pub(crate) fn forget(&mut self, daemon: &Child) -> io::Result<()> {
        self.tell('-', daemon)
    }

    fn tell(&mut self, sign: char, daemon: &Child) -> io::Result<()> {
        let pipe = self.pipe.as_mut().ok_or_else(|| io::Error::other("the keeper is gone"))?;
        writeln!(pipe, "{sign}{}", daemon.id())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pipe = None;
        // It ends by itself now; nothing depends on how.
        let _ = self.process.wait();
    }
}

/// The keeper process itself: reads the list from standard input to its end, then ends what is left.
pub(crate) fn main() {
    let mut daemons = BTreeSet::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if let Some(pid) = line.strip_prefix('+').and_then(|pid| pid.parse::<i32>().ok()) {
            daemons.insert(pid);
        } else if let Some(pid) = line.strip_prefix('-').and_then(|pid| pid.parse::<i32>().ok()) {
            daemons.remove(&pid);
        }
    }
    let deadline = Instant::now() + GRACE;
    daemons.retain(|&pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
    while !daemons.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
        daemons.retain(|&pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH));
    }
    for pid in daemons {
        // It may have ended this very moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
