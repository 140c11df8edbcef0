//! A service manager for tests: the notify protocol of systemd and its file-descriptor store, as `sd_notify(3)` describes them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gateway::admin::client;
use gateway::lab::namespace::Namespace;
use mapping::admin::Query;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{SECRET, complete, program};

/// How long a service may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one look at the notify socket waits.
const GLANCE: Duration = Duration::from_millis(5);
/// Hands the descriptors `$1..` up to `--` to the program behind it as systemd does: from 3 on.
const HAND_OVER: &str = r#"
number=3
while [ "$1" != -- ]; do
    eval "exec $number<&$1 $1<&-"
    number=$((number + 1)); shift
done
shift
[ -z "$LISTEN_FDS" ] || export LISTEN_PID=$$
exec "$@"
"#;

/// A service as systemd runs it, with what it was told by it.
pub struct Service {
    role: &'static str,
    child: Option<Child>,
    directory: TempDir,
    socket: UnixDatagram,
    /// The file-descriptor store.
    stored: Vec<(String, OwnedFd)>,
    told: Vec<String>,
    /// Further arguments and variables of the program.
    arguments: Vec<String>,
    /// The words before its arguments, if not the program alone.
    program: Vec<String>,
    watchdog: Option<Duration>,
}

impl Service {
    /// A service that was not started yet; `config` as for [`Daemon::start`](crate::daemon::Daemon::start).
    ///
    /// # Errors
    /// What the file system said.
    pub fn new(role: &'static str, config: &str) -> io::Result<Self> {
        let directory = TempDir::new()?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("site.key"), SECRET)?;
        DirBuilder::new().mode(0o700).create(path("state"))?;
        fs::write(path("daemon.toml"), complete(config, directory.path()))?;
        let socket = UnixDatagram::bind(path("notify"))?;
        socket.set_read_timeout(Some(GLANCE))?;
        Ok(Self {
            role,
            child: None,
            directory,
            socket,
            stored: Vec::new(),
            told: Vec::new(),
            arguments: Vec::new(),
            program: Vec::new(),
            watchdog: None,
        })
    }

    /// With these arguments more.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// Runs a copy of the program as `nobody`, with the capabilities on it that the image of `configs/container` has, out of a bounding set of
    /// these (`+net_admin,..`).
    ///
    /// # Errors
    /// `PermissionDenied` if the file system, or the caller's privileges, have no such thing.
    pub fn contained(mut self, bounding: &str) -> io::Result<Self> {
        let copy = self.path("isthmus");
        fs::copy(program()?, &copy)?;
        let set = Command::new("setcap")
            .arg("cap_net_admin,cap_net_raw,cap_bpf+p")
            .arg(&copy)
            .status()?;
        if !set.success() {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let bounding =
            if bounding.is_empty() { "-all".to_owned() } else { format!("-all,{bounding}") };
        let copy = copy.to_string_lossy().into_owned();
        let user =
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set"];
        self.program = user.map(str::to_owned).into_iter().chain([bounding, copy]).collect();
        Ok(self)
    }

    /// With a watchdog that wants to be fed this often.
    #[must_use]
    pub fn with_watchdog(mut self, period: Duration) -> Self {
        self.watchdog = Some(period);
        self
    }

    /// Has its files belong to `user`.
    ///
    /// # Errors
    /// There is no such user, or the caller is not root.
    pub fn give_to(&self, user: &str) -> io::Result<()> {
        let user = User::from_name(user)?.ok_or(ErrorKind::NotFound)?;
        let (uid, gid) = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        chown(self.directory.path(), uid, gid)?;
        for file in fs::read_dir(self.directory.path())? {
            let file = file?;
            // A program whose owner changes loses its capabilities.
            if file.file_name() != "isthmus" {
                chown(file.path(), uid, gid)?;
            }
        }
        Ok(())
    }

    /// Starts it in `namespace` and waits for its `READY=1`.
    ///
    /// # Errors
    /// It ends or stays silent; with its log.
    pub fn start(&mut self, namespace: &Namespace) -> io::Result<()> {
        let stored = std::mem::take(&mut self.stored);
        for (_, descriptor) in &stored {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new("bash");
        command.args(["-c", HAND_OVER, "service"]);
        command.args(stored.iter().map(|(_, fd)| fd.as_raw_fd().to_string())).arg("--");
        match &self.program[..] {
            [] => drop(command.arg(program()?)),
            words => drop(command.args(words)),
        }
        command.args([self.role, "--log", "info", "--config"]);
        command.arg(self.path("daemon.toml")).arg("--socket").arg(self.admin_socket());
        command.args(&self.arguments);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        if !stored.is_empty() {
            let names: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", stored.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        if let Some(period) = self.watchdog {
            command.env("WATCHDOG_USEC", period.as_micros().to_string());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(namespace.start(command)?);
        for (_, descriptor) in &stored {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
        }
        // systemd keeps its own copies until the service gives them up.
        self.stored = stored;
        self.wait_for("READY=1")
    }

    /// Waits until it says this line, from now on.
    ///
    /// # Errors
    /// It ends or stays silent; with its log.
    pub fn wait_for(&mut self, line: &str) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.listen()?;
            if said.iter().any(|one| one == line) {
                return Ok(());
            }
            if Instant::now() > deadline || self.has_ended() {
                let text = format!("no {line}: {:?}\n{}", self.told, self.log());
                return Err(io::Error::other(text));
            }
        }
    }

    /// What it says within [`GLANCE`]: the lines of one message, or none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listen(&mut self) -> io::Result<Vec<String>> {
        let mut octets = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut octets)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(self.socket.as_fd(), &mut parts, &mut control, flags) {
            Ok(received) => received.bytes,
            Err(error) => {
                return match io::Error::from(error) {
                    error if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
                    error => Err(error),
                };
            }
        };
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let text = String::from_utf8_lossy(&octets[..received]).into_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        let name = name.unwrap_or("stored").to_owned();
        if lines.iter().any(|line| line == "FDSTOREREMOVE=1") {
            self.stored.retain(|(stored, _)| *stored != name);
        } else if lines.iter().any(|line| line == "FDSTORE=1") {
            self.stored.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
        }
        // The descriptor of a BARRIER=1 is closed: that is its answer.
        self.told.extend(lines.iter().cloned());
        Ok(lines)
    }

    /// As `systemctl restart` with `RestartKillSignal=SIGUSR2`.
    ///
    /// # Errors
    /// It does not end, or not start.
    pub fn restart(&mut self, namespace: &Namespace) -> io::Result<ExitStatus> {
        let status = self.end(Signal::SIGUSR2)?;
        self.start(namespace)?;
        Ok(status)
    }

    /// As `systemctl stop`: what is stored goes.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        let status = self.end(Signal::SIGTERM)?;
        self.stored.clear();
        Ok(status)
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self, signal: Signal) -> io::Result<ExitStatus> {
        self.signal(signal)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.listen()?;
            let child = self.child.as_mut().ok_or(ErrorKind::NotFound)?;
            if let Some(status) = child.try_wait()? {
                // What it said last.
                while !self.listen()?.is_empty() {}
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("it does not end\n{}", self.log())));
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let process = i32::try_from(self.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(process), signal).map_err(io::Error::from)
    }

    /// The id of its process; 0 if there is none.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Every line that it said so far.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// The names of the descriptors that are stored for it.
    pub fn stored(&self) -> Vec<&str> {
        self.stored.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// Writes its configuration anew.
    ///
    /// # Errors
    /// What the file system said.
    pub fn configure(&self, config: &str) -> io::Result<()> {
        fs::write(self.path("daemon.toml"), complete(config, self.directory.path()))
    }

    /// Asks on the admin socket.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&self, query: &Query) -> io::Result<Value> {
        client::ask(&self.admin_socket(), query)
            .map_err(|error| io::Error::other(error.to_string()))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
