//! The lab's daemons: this very program, started in each role inside the right namespace.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::addresses::SITES;
use super::configuration;
use super::namespace::Namespace;
use super::processes::Running;
use super::topology::Topology;

/// How long a daemon may take until it answers on its admin socket.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long an answer on an admin socket may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Lines of a log shown with a failure.
const LOG_TAIL: usize = 12;

/// All daemons, running. Dropping it ends them and removes their files.
pub(crate) struct Daemons {
    running: Arc<Running>,
    daemons: Vec<Daemon>,
    directory: PathBuf,
}

/// One daemon as the scenarios see it.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The namespace's name.
    pub(crate) name: &'static str,
    /// `gateway`, `xtr` or `mapping`.
    pub(crate) role: &'static str,
    /// Its admin socket.
    pub(crate) socket: PathBuf,
    program: PathBuf,
    log: PathBuf,
    pid: AtomicU32,
}

impl Daemons {
    /// Starts the mapping system, then the tunnel routers and the gateway, and waits until each answers.
    pub(crate) fn start(topology: &Topology, running: Arc<Running>) -> io::Result<Self> {
        let directory = TempDir::with_prefix("isthmus-lab-")?;
        write_files(directory.path())?;
        let mut daemons = Self::none(running, directory)?;
        daemons.launch("mapping", &topology.ms)?;
        daemons.daemons.iter().try_for_each(|daemon| daemons.wait_until_ready(daemon))?;
        for site in &topology.sites {
            daemons.launch("xtr", &site.xtr)?;
        }
        daemons.launch("xtr", &topology.site_m.xtr)?;
        daemons.launch("gateway", &topology.pxtr)?;
        daemons.daemons.iter().try_for_each(|daemon| daemons.wait_until_ready(daemon))?;
        Ok(daemons)
    }

    /// No daemon yet: takes charge of the directory that their files are in.
    pub(crate) fn none(running: Arc<Running>, directory: TempDir) -> io::Result<Self> {
        let path = directory.path().into();
        running.begin(directory)?;
        Ok(Self { running, daemons: Vec::new(), directory: path })
    }

    /// As [`Daemons::none`] for tests of the network alone: there is nobody to be ended.
    #[cfg(test)]
    pub(crate) fn none_unwatched() -> Self {
        Self { running: Arc::default(), daemons: Vec::new(), directory: PathBuf::new() }
    }

    /// The daemon in the namespace `name`.
    pub(crate) fn named(&self, name: &str) -> io::Result<&Daemon> {
        let daemon = self.daemons.iter().find(|daemon| daemon.name == name);
        daemon.ok_or_else(|| io::Error::other(format!("no daemon runs in {name}")))
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Where their configuration, keys, sockets and logs are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills a daemon at once, as a crash would.
    pub(crate) fn kill(&self, daemon: &Daemon) -> io::Result<()> {
        self.running.stop(daemon.pid(), Signal::SIGKILL).map(drop)
    }

    /// Ends a daemon in order; returns its exit status.
    pub(crate) fn stop(&self, daemon: &Daemon) -> io::Result<ExitStatus> {
        self.running.stop(daemon.pid(), Signal::SIGTERM)
    }

    /// Starts a daemon that has ended once more, and waits until it answers.
    pub(crate) fn restart(&self, daemon: &Daemon, namespace: &Namespace) -> io::Result<()> {
        self.spawn(daemon, namespace)?;
        self.wait_until_ready(daemon)
    }

    /// Starts a daemon that a scenario has for itself, with the configuration `text`, and waits until it answers.
    pub(crate) fn add(
        &self,
        role: &'static str,
        namespace: &Namespace,
        text: &str,
    ) -> io::Result<Daemon> {
        self.add_from(std::env::current_exe()?, role, namespace, text)
    }

    /// As [`Daemons::add`], from another build of this program.
    pub(crate) fn add_from(
        &self,
        program: PathBuf,
        role: &'static str,
        namespace: &Namespace,
        text: &str,
    ) -> io::Result<Daemon> {
        fs::write(self.directory().join(format!("{}.toml", namespace.name())), text)?;
        let daemon = self.daemon(program, role, namespace);
        self.restart(&daemon, namespace)?;
        Ok(daemon)
    }

    /// Runs another program in `namespace`, which ends with the daemons; returns its process group.
    pub(crate) fn run(&self, namespace: &Namespace, mut command: Command) -> io::Result<u32> {
        let log = self.directory().join(format!("{}.log", namespace.name()));
        let output = OpenOptions::new().append(true).create(true).open(log)?;
        command
            .current_dir(self.directory())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let child = namespace.start(command)?;
        let group = child.id();
        self.running.add(child, false)?;
        Ok(group)
    }

    /// Gives a daemon another configuration for its next start.
    pub(crate) fn configure(&self, daemon: &Daemon, text: &str) -> io::Result<()> {
        fs::write(self.directory().join(format!("{}.toml", daemon.name)), text)
    }

    /// Writes the key of a site that a scenario has for itself.
    pub(crate) fn write_key(&self, site: &str) -> io::Result<()> {
        write_key(self.directory(), site)
    }

    fn launch(&mut self, role: &'static str, namespace: &Namespace) -> io::Result<()> {
        let daemon = self.daemon(std::env::current_exe()?, role, namespace);
        self.spawn(&daemon, namespace)?;
        self.daemons.push(daemon);
        Ok(())
    }

    fn daemon(&self, program: PathBuf, role: &'static str, namespace: &Namespace) -> Daemon {
        let name = namespace.name();
        let path = |extension: &str| self.directory().join(format!("{name}.{extension}"));
        let (socket, log) = (path("sock"), path("log"));
        Daemon { name, role, program, socket, log, pid: AtomicU32::new(0) }
    }

    fn spawn(&self, daemon: &Daemon, namespace: &Namespace) -> io::Result<()> {
        let output = OpenOptions::new().append(true).create(true).open(&daemon.log)?;
        let mut command = Command::new(&daemon.program);
        command
            .arg(daemon.role)
            .arg("--config")
            .arg(self.directory().join(format!("{}.toml", daemon.name)))
            .arg("--socket")
            .arg(&daemon.socket)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // The terminal's Ctrl-C is for the lab, which then ends the daemons in order.
            .process_group(0);
        let child = namespace.start(command)?;
        daemon.pid.store(child.id(), Ordering::Relaxed);
        self.running.add(child, daemon.role == "mapping")
    }

    fn wait_until_ready(&self, daemon: &Daemon) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = daemon.ask(&Query::Status) {
            if Instant::now() > deadline || self.running.has_ended(daemon.pid()) {
                return Err(io::Error::other(format!(
                    "{} ({}) does not come up: {error}\n{}",
                    daemon.name,
                    daemon.role,
                    daemon.log_tail()
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        self.running.end();
    }
}

impl Daemon {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Has it reload its configuration, as an operator would; what it took over, or why it did not.
    pub(crate) fn reload(&self) -> io::Result<Result<String, String>> {
        let output = Command::new(&self.program)
            .arg("reload")
            .arg("--socket")
            .arg(&self.socket)
            .stdin(Stdio::null())
            .output()?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        })
    }

    /// Sends it a hangup.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), Signal::SIGHUP)?)
    }

    /// Asks on the admin socket.
    pub(crate) fn ask(&self, query: &Query) -> io::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let mut line = serde_json::to_string(query)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        match answer.get_mut("ok") {
            Some(value) => Ok(value.take()),
            None => Err(io::Error::other(format!("{} answers {answer}", self.name))),
        }
    }

    /// A counter of `show counters`; 0 as long as it is not there.
    pub(crate) fn counter(&self, name: &str) -> io::Result<u64> {
        Ok(self.ask(&Query::Counters)?.get(name).and_then(Value::as_u64).unwrap_or(0))
    }

    /// A counter of `show drops`; 0 as long as it is not there.
    pub(crate) fn drops(&self, reason: &str) -> io::Result<u64> {
        let drops = self.ask(&Query::Drops)?;
        let of_reason = drops
            .as_array()
            .and_then(|drops| drops.iter().find(|drop| drop["reason"] == *reason))
            .and_then(|drop| drop["count"].as_u64());
        Ok(of_reason.unwrap_or(0))
    }

    /// The last lines of its log; nothing for an empty one.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        if lines.is_empty() {
            return String::new();
        }
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
        let mut text = format!("  last lines of {} ({}):\n", self.name, self.role);
        for line in tail {
            text.push_str("    | ");
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn write_files(directory: &Path) -> io::Result<()> {
    let keys = directory.display().to_string();
    fs::write(directory.join("ms.toml"), configuration::mapping(&keys))?;
    fs::write(directory.join("pxtr.toml"), configuration::gateway(&keys))?;
    fs::write(directory.join("xtr-m.toml"), configuration::xtr_m(&keys))?;
    for site in &SITES {
        let file = directory.join(format!("xtr-{}.toml", site.name));
        fs::write(file, configuration::xtr(site, &keys))?;
    }
    for name in SITES.iter().map(|site| site.name).chain(["m", "pxtr"]) {
        write_key(directory, name)?;
    }
    Ok(())
}

fn write_key(directory: &Path, site: &str) -> io::Result<()> {
    let key = directory.join(format!("site-{site}.key"));
    let mut key =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(key)?;
    key.write_all(secret()?.as_bytes())
}

/// A fresh key, 256 bits in hexadecimal.
fn secret() -> io::Result<String> {
    let mut octets = [0u8; 32];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}
