//! FRR and BIRD, run beside a gateway with the snippets of `configs/`, and as its neighbour in the native world.
//!
//! [`Router`] is either of them in a namespace; [`network`] is the topology; [`way`] watches where a namespace sends, and [`stream`] what
//! arrives of a stream of packets.

mod bird;
mod frr;
pub mod network;
pub mod stream;
pub mod way;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use network::Leg;

/// How long a daemon may take until it takes questions.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The AS of the gateways, as in the snippets, and that of their neighbour.
const GATEWAY_AS: u32 = 64500;
const NEIGHBOUR_AS: u32 = 64501;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// zebra, bgpd and bfdd of FRR.
    Frr,
    /// BIRD 2.
    Bird,
}

/// A route that BGP brought.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BgpRoute {
    /// Where it leads.
    pub prefix: IpNet,
    /// The neighbour it came from, which may be given as a link-local address.
    pub next_hop: IpAddr,
}

/// A running routing daemon; dropping it ends its processes and removes its files.
pub struct Router {
    program: Program,
    children: Vec<Child>,
    directory: TempDir,
}

impl Program {
    /// Whether the program is there; else why a test is skipped.
    ///
    /// # Panics
    /// Where every tool has to be (`ISTHMUS_REQUIRE_TOOLS`) and this one is not.
    pub fn installed(self) -> bool {
        let (found, package) = match self {
            Self::Frr => (frr::installed(), "frr"),
            Self::Bird => (bird::installed(), "bird2"),
        };
        let required = std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_some();
        assert!(found || !required, "{package} is not installed");
        if !found {
            println!("SKIP: {package} (apt-get install {package})");
        }
        found
    }

    /// What an operator is given for the host of a gateway, with the addresses of this one.
    ///
    /// # Errors
    /// There is no such file.
    pub fn snippet(self, leg: &Leg) -> io::Result<String> {
        let name = match self {
            Self::Frr => "frr.conf",
            Self::Bird => "bird.conf",
        };
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut text = fs::read_to_string(configs.join(name))?;
        for (as_written, here) in [
            ("192.0.2.254", leg.neighbour4.to_string()),
            ("192.0.2.1", leg.gateway4.to_string()),
            ("2001:db8:f::fe", leg.neighbour6.to_string()),
            ("2001:db8:f::1", leg.gateway6.to_string()),
        ] {
            text = text.replace(as_written, &here);
        }
        Ok(text)
    }

    /// The neighbour of the gateways at the far ends of `legs`: takes all they announce, and announces `native` to them.
    pub fn neighbour(self, legs: &[Leg], native: &[IpNet]) -> String {
        match self {
            Self::Frr => frr::neighbour(legs, native),
            Self::Bird => bird::neighbour(legs, native),
        }
    }

    /// Starts it in `namespace`, and waits until it takes questions.
    ///
    /// # Errors
    /// It does not start, or does not take the configuration; with what it said.
    pub fn start(self, namespace: &Namespace, config: &str) -> io::Result<Router> {
        let mut router = Router { program: self, children: Vec::new(), directory: TempDir::new()? };
        match self {
            Self::Frr => frr::start(&mut router, namespace, config)?,
            Self::Bird => bird::start(&mut router, namespace, config)?,
        }
        Ok(router)
    }
}

impl Router {
    /// Which program it is.
    pub const fn program(&self) -> Program {
        self.program
    }

    /// BGP sessions that are established; one per address family.
    ///
    /// # Errors
    /// It does not answer.
    pub fn established(&self) -> io::Result<usize> {
        match self.program {
            Program::Frr => frr::established(self),
            Program::Bird => bird::established(self),
        }
    }

    /// Its BGP table, both families.
    ///
    /// # Errors
    /// It does not answer.
    pub fn routes(&self) -> io::Result<Vec<BgpRoute>> {
        match self.program {
            Program::Frr => frr::routes(self),
            Program::Bird => bird::routes(self),
        }
    }

    /// The prefixes of [`Self::routes`].
    ///
    /// # Errors
    /// It does not answer.
    pub fn prefixes(&self) -> io::Result<BTreeSet<IpNet>> {
        Ok(self.routes()?.into_iter().map(|route| route.prefix).collect())
    }

    /// How many updates and withdrawals came from its neighbours so far.
    ///
    /// # Errors
    /// It does not answer.
    pub fn updates(&self) -> io::Result<u64> {
        match self.program {
            Program::Frr => frr::updates(self),
            Program::Bird => bird::updates(self),
        }
    }

    /// Stops all its processes so that their connections stay and say nothing; `false` lets them go on.
    ///
    /// # Errors
    /// One does not run.
    pub fn hang(&self, hang: bool) -> io::Result<()> {
        let signal = if hang { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.children.iter().try_for_each(|child| {
            let process = i32::try_from(child.id()).map_err(io::Error::other)?;
            kill(Pid::from_raw(process), signal).map_err(io::Error::from)
        })
    }

    /// Its sessions as it shows them to people.
    ///
    /// # Errors
    /// It does not answer.
    pub fn sessions(&self) -> io::Result<String> {
        match self.program {
            Program::Frr => frr::sessions(self),
            Program::Bird => bird::sessions(self),
        }
    }

    /// What its processes said.
    pub fn log(&self) -> String {
        let files = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"))
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts one of its processes.
    fn spawn(&mut self, namespace: &Namespace, mut command: Command) -> io::Result<()> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let log = File::create(self.path(&format!("{}.log", name.to_string_lossy())))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(namespace.start(command)?);
        Ok(())
    }

    /// Waits for a file that one of its processes makes when it is ready.
    fn wait_for(&mut self, name: &str) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.path(name).exists() {
            let ended = self.children.iter_mut().any(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return Err(io::Error::other(format!("no {name}: {}", self.log())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only for a process that is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether `program` can be run.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The text of a successful answer.
fn text_of(output: Output) -> io::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(io::Error::other(format!("{text}{}", String::from_utf8_lossy(&output.stderr))))
}
