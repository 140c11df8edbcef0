//! A foreign program that runs in a namespace: its directory, its log, its end.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a program may take to get ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Octets of a log that are worth showing.
const TAIL: usize = 8000;

/// What a foreign program has for itself besides the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Mounts: paths that it insists on are its own.
    Mounts,
    /// Mounts and processes: it sees no other processes, and all that it started end with it.
    Processes,
}

/// A foreign program that runs; dropping it ends it.
pub struct Process {
    child: Child,
    isolation: Isolation,
    directory: TempDir,
}

impl Process {
    /// Runs a shell script in `namespace` and `directory`. `$1` is `directory`; the script ends with `exec`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        namespace: &Namespace,
        directory: TempDir,
        isolation: Isolation,
        script: &str,
        arguments: &[&Path],
    ) -> io::Result<Self> {
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new("unshare");
        command
            .args(match isolation {
                Isolation::Mounts => &["--mount"][..],
                Isolation::Processes => {
                    &["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
                }
            })
            .args(["sh", "-ec", script, "sh"])
            .arg(directory.path())
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = namespace.start(command)?;
        Ok(Self { child, isolation, directory })
    }

    /// Waits until `is_ready`.
    ///
    /// # Errors
    /// It ends or takes too long; with its log.
    pub(super) fn wait_until(
        mut self,
        mut is_ready: impl FnMut() -> io::Result<bool>,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + START_LIMIT;
        while !is_ready()? {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(io::Error::other(format!("not ready ({ended:?})\n{}", self.log())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// The end of what it logged.
    pub fn log(&self) -> String {
        let logs = self.directory.path().join("logs");
        let logs = fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut text = String::new();
        for path in logs.chain([self.directory.path().join("log")]) {
            let log = fs::read(&path).unwrap_or_default();
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned();
            text.push_str(&format!("-- {}\n{tail}\n", path.display()));
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.isolation == Isolation::Mounts {
            let id = i32::try_from(self.child.id()).ok().map(Pid::from_raw);
            // It fails only for a process that is gone.
            let _ = id.map(|id| kill(id, Signal::SIGTERM));
            let deadline = Instant::now() + STOP_LIMIT;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether anybody in `namespace` receives on this UDP port.
pub(super) fn receives(namespace: &Namespace, port: u16) -> io::Result<bool> {
    let local = format!(":{port:04X} ");
    namespace.run(move || {
        let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
        tables.iter().any(|table| {
            let table = fs::read_to_string(table).unwrap_or_default();
            table.lines().any(|line| line.contains(&local))
        })
    })
}

/// Whether `namespace` has a link of this name.
pub(super) fn has_link(namespace: &Namespace, name: &str) -> io::Result<bool> {
    let name = name.to_owned();
    namespace.run(move || nix::net::if_::if_nametoindex(name.as_str()).is_ok())
}
