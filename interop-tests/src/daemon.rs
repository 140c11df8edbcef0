//! A daemon of the suite, run as its own process inside a namespace.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gateway::admin::client;
use gateway::lab::namespace::Namespace;
use mapping::admin::Query;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// What is in the file that `KEY` becomes; peers get the same.
pub const SECRET: &str = "a-secret-for-tests-only";
/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon; dropping it ends the process and removes its files.
pub struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts `isthmus ROLE` in `namespace` and waits until it answers; in `config`, `KEY` becomes the path of a
    /// key file and `STATE` that of a directory.
    ///
    /// # Errors
    /// When the program is not built yet (`cargo build -p gateway` does), ends early or stays silent; with its log.
    pub fn start(namespace: &Namespace, role: &str, config: &str) -> io::Result<Self> {
        let mut daemon = Self::spawn(role, config, |command| namespace.start(command))?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// As [`Self::start`], in the namespace of the caller, and without waiting.
    ///
    /// # Errors
    /// When the program is not built yet.
    pub fn start_here(role: &str, config: &str) -> io::Result<Self> {
        Self::spawn(role, config, |mut command| command.spawn())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ends or stays silent; with its log.
    pub fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = self.ask(&Query::Status) {
            if self.has_ended() || Instant::now() > deadline {
                return Err(io::Error::other(format!("{error}\n{}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn spawn(
        role: &str,
        config: &str,
        spawn: impl FnOnce(Command) -> io::Result<Child>,
    ) -> io::Result<Self> {
        let directory = TempDir::new()?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("site.key"), SECRET)?;
        DirBuilder::new().mode(0o700).create(path("state"))?;
        fs::write(path("daemon.toml"), complete(config, directory.path()))?;
        let log = File::create(path("log"))?;
        let mut command = Command::new(program()?);
        command
            .args([role, "--log", "warn", "--config"])
            .arg(path("daemon.toml"))
            .arg("--socket")
            .arg(path("socket"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = spawn(command)?;
        Ok(Self { child, directory })
    }

    /// Gives it another configuration, as an operator would: `config` as for [`Self::start`]. Returns the keys that it took over.
    ///
    /// # Errors
    /// What it has against it.
    pub fn reload(&self, config: &str) -> io::Result<Vec<String>> {
        let config = complete(config, self.directory.path());
        fs::write(self.directory.path().join("daemon.toml"), config)?;
        let answer = self.ask(&Query::Reload)?;
        serde_json::from_value(answer["changed"].clone()).map_err(io::Error::other)
    }

    /// Has it take over a configuration, as for [`Self::start`], that it returns from by itself unless it is confirmed in time.
    ///
    /// # Errors
    /// What it has against it.
    pub fn try_out(&self, config: &str, seconds: u64) -> io::Result<Value> {
        let file = self.directory.path().join("trial.toml").to_string_lossy().into_owned();
        let text = complete(config, self.directory.path());
        self.ask(&Query::Apply { file, text, confirm_within_seconds: Some(seconds) })
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Asks on the admin socket.
    pub fn ask(&self, query: &Query) -> io::Result<Value> {
        client::ask(&self.socket(), query).map_err(|error| io::Error::other(error.to_string()))
    }

    /// A counter of `show counters`; 0 if it is not there.
    pub fn counter(&self, name: &str) -> io::Result<u64> {
        Ok(self.ask(&Query::Counters)?[name].as_u64().unwrap_or_default())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let process = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(process), signal).map_err(io::Error::from)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Whether the process is gone.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration with the paths of this daemon.
pub(crate) fn complete(config: &str, directory: &Path) -> String {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    config.replace("KEY", &path("site.key")).replace("STATE", &path("state"))
}

/// `isthmus` of the same build: beside the directory of the test programs.
pub fn program() -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let directory = test.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    let program = directory.join("isthmus");
    if program.exists() {
        return Ok(program);
    }
    let text = format!("{} is not built: run `cargo build -p gateway`", program.display());
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}
