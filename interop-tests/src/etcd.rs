//! Members of an etcd cluster, run as processes of their own on loopback addresses.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a cluster may take until it has a leader.
const START_LIMIT: Duration = Duration::from_secs(30);
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// An etcd cluster; dropping it ends its processes and removes its data.
pub struct EtcdCluster {
    members: Vec<Member>,
    directory: TempDir,
}

struct Member {
    address: IpAddr,
    child: Option<Child>,
}

/// Whether the program is there; else why a test is skipped.
///
/// # Panics
/// Where every tool has to be (`ISTHMUS_REQUIRE_TOOLS`) and this one is not.
pub fn installed() -> bool {
    let found = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(found || std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_none(), "etcd is not installed");
    if !found {
        println!("SKIP: etcd is not installed (Debian: etcd-server)");
    }
    found
}

impl EtcdCluster {
    /// Starts a member on each of `addresses` and waits until it takes writes.
    ///
    /// # Errors
    /// A process does not start, or there is no leader in time; with the log.
    pub fn start(addresses: &[IpAddr]) -> io::Result<Self> {
        let members = addresses.iter().map(|&address| Member { address, child: None }).collect();
        let mut cluster = Self { members, directory: TempDir::new()? };
        for at in 0..addresses.len() {
            cluster.restart(at)?;
        }
        let deadline = Instant::now() + START_LIMIT;
        let first = cluster.members[0].address;
        while post(first, "/v3/kv/put", r#"{"key": "cmVhZHk=", "value": "cmVhZHk="}"#).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("no leader: {}", cluster.log(0))));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    /// `ADDRESS:PORT` of every member, for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| SocketAddr::new(m.address, CLIENT_PORT).to_string()).collect()
    }

    /// Kills a member as a power failure would.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        let mut child = self.members[at].child.take().ok_or(io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait().map(drop)
    }

    /// Stops a member so that its connections stay and say nothing; `false` lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn hang(&self, at: usize, hang: bool) -> io::Result<()> {
        let child = self.members[at].child.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let process = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        kill(process, if hang { Signal::SIGSTOP } else { Signal::SIGCONT }).map_err(io::Error::from)
    }

    /// Starts a member, with the data it had; does not wait for it.
    ///
    /// # Errors
    /// The process does not start.
    pub fn restart(&mut self, at: usize) -> io::Result<()> {
        let url = |address: IpAddr, port| format!("http://{}", SocketAddr::new(address, port));
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}={}", url(member.address, PEER_PORT)))
            .collect();
        let member = &self.members[at];
        let log = File::options().create(true).append(true).open(self.path(&format!("log{at}")))?;
        let mut command = Command::new("etcd");
        command
            .env_clear()
            .args(["--name", &format!("m{at}"), "--logger", "zap", "--log-level", "error"])
            .args(["--data-dir", &self.path(&format!("data{at}"))])
            .args(["--listen-client-urls", &url(member.address, CLIENT_PORT)])
            .args(["--advertise-client-urls", &url(member.address, CLIENT_PORT)])
            .args(["--listen-peer-urls", &url(member.address, PEER_PORT)])
            .args(["--initial-advertise-peer-urls", &url(member.address, PEER_PORT)])
            .args(["--initial-cluster", &all.join(",")])
            // As configs/mapping-cluster.toml advises for members in one place.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.members[at].child = Some(command.spawn()?);
        Ok(())
    }

    /// What a member logged.
    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.path(&format!("log{at}"))).unwrap_or_default()
    }

    /// Asks a member by its JSON gateway.
    ///
    /// # Errors
    /// It does not answer, or not with success.
    pub fn post(&self, at: usize, path: &str, body: &str) -> io::Result<String> {
        post(self.members[at].address, path, body)
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.directory.path()).join(name).to_string_lossy().into_owned()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            // It fails only for a process that is gone.
            let _ = self.kill(at);
        }
    }
}

fn post(address: IpAddr, path: &str, body: &str) -> io::Result<String> {
    let to = SocketAddr::new(address, CLIENT_PORT);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(io::Error::other(answer)) }
}
