//! One bring-up of a network: namespaces, captures, daemons, and their orderly end on any way out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use tokio::signal::unix::{SignalKind, signal};

use super::addresses::{EID_PREFIXES, SITES, Site};
use super::capture::Capture;
use super::daemons::{Daemon, Daemons};
use super::namespace::Namespace;
use super::network::{self, Network, Plan};
use super::processes::Running;
use super::report::show;
use super::topology::Topology;

/// How long all registrations may take.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(10);
/// The file with commands for a kept network.
const COMMANDS: &str = "lab.sh";
/// Exit status after Ctrl-C: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// What a scenario works with.
pub(crate) struct Lab {
    /// The daemons; first, so that they end while their namespaces are there.
    pub(crate) daemons: Daemons,
    /// What arrives where.
    pub(crate) captures: Captures,
    /// The network.
    pub(crate) topology: Topology,
}

/// What arrives in the watched namespaces.
pub(crate) struct Captures {
    /// The IPv4 core.
    pub(crate) core4: Capture,
    /// The IPv6 core.
    pub(crate) core6: Capture,
    /// The router I: native packets.
    pub(crate) internet: Capture,
    /// Host N.
    pub(crate) host_n: Capture,
    /// The hosts of the sites A, B, C6 and D6.
    pub(crate) hosts: Vec<Capture>,
}

/// A network that is up.
pub(crate) enum Session {
    /// That of the IPv6 migration.
    Migration(Box<Lab>),
    /// One that its scenarios describe.
    Planned(Box<Network>),
}

/// What holds for all networks of a run: the processes to end, and who may interrupt.
pub(crate) struct Watch {
    running: Arc<Running>,
    keeping: Arc<AtomicBool>,
    interrupts: mpsc::Receiver<()>,
}

impl Watch {
    /// Heeds signals from now on.
    pub(crate) fn begin() -> io::Result<Self> {
        let running = Arc::new(Running::default());
        let keeping = Arc::new(AtomicBool::new(false));
        let interrupts = heed_signals(running.clone(), keeping.clone())?;
        Ok(Self { running, keeping, interrupts })
    }
}

impl Session {
    /// Brings up what `plan` describes, or the network of the IPv6 migration, and waits until all sites are registered.
    pub(crate) fn begin(
        plan: Option<&Plan>,
        watch: &Watch,
        pcap: Option<&Path>,
    ) -> io::Result<Self> {
        if let Some(directory) = pcap {
            fs::create_dir_all(directory)?;
        }
        let running = watch.running.clone();
        let Some(plan) = plan else {
            let topology = Topology::bring_up()?;
            let captures = Captures::start(&topology, pcap)?;
            let daemons = Daemons::start(&topology, running)?;
            let lab = Lab { daemons, captures, topology };
            lab.wait_for_registrations()?;
            return Ok(Self::Migration(Box::new(lab)));
        };
        Ok(Self::Planned(Box::new(Network::bring_up(plan, running, pcap)?)))
    }

    /// The ends of all daemons' logs.
    pub(crate) fn logs(&self) -> String {
        self.daemons().map(Daemon::log_tail).collect()
    }

    /// Leaves the network running until SIGINT or SIGTERM; tells how to look around.
    pub(crate) fn keep(&self, watch: &Watch, quietly: bool) {
        watch.keeping.store(true, Ordering::Release);
        if !quietly {
            show(&self.guide());
        }
        // An error means that nobody can interrupt any more: then it ends here too.
        let _ = watch.interrupts.recv();
    }

    /// How to look around in a kept network.
    fn guide(&self) -> String {
        let directory = self.directory().display();
        let mut text = format!("\nThe last network stays up until Ctrl-C. Files: {directory}\n\n");
        let commands = self.directory().join(COMMANDS);
        match fs::write(&commands, self.commands()) {
            Ok(()) => text.push_str(&format!(
                "In another terminal, as the same user:\n\n\
                 \x20 . {}\n\
                 \x20 on {} isthmus show {}\n\
                 \x20 on {} ip address\n\n",
                commands.display(),
                self.daemons().next().map_or("ms", |daemon| daemon.name),
                self.daemons().next().map_or("status", told_of),
                self.namespaces().last().map_or("ms", Namespace::name),
            )),
            Err(error) => text.push_str(&format!("{}: {error}\n\n", commands.display())),
        }
        for namespace in self.namespaces() {
            text.push_str(&format!("  {:<9} {}\n", namespace.name(), entering(namespace)));
        }
        text.push('\n');
        for daemon in self.daemons() {
            text.push_str(&format!(
                "  {:<9} {} show {} --socket {}\n",
                daemon.name,
                program().display(),
                told_of(daemon),
                daemon.socket.display()
            ));
        }
        text
    }

    /// Commands of a shell: `on NAME COMMAND` runs one in a namespace, `isthmus` with the socket of its daemon.
    fn commands(&self) -> String {
        let mut text = format!(
            "# For sh or bash: on NAME COMMAND\nLAB='{}'\non() {{\n  place=$1\n  shift\n  case $place in\n",
            self.directory().display()
        );
        for namespace in self.namespaces() {
            text.push_str(&format!(
                "    {}) enter='{}' ;;\n",
                namespace.name(),
                entering(namespace)
            ));
        }
        text.push_str(&format!(
            "    *) echo \"on: there is no $place\" >&2; return 2 ;;\n  esac\n  case $1 in\n\
             \x20   isthmus) shift; $enter '{}' \"$@\" --socket \"$LAB/$place.sock\" ;;\n\
             \x20   *) $enter \"$@\" ;;\n  esac\n}}\n",
            program().display()
        ));
        text
    }

    fn directory(&self) -> &Path {
        match self {
            Self::Migration(lab) => lab.daemons.directory(),
            Self::Planned(network) => network.directory(),
        }
    }

    fn namespaces(&self) -> Box<dyn Iterator<Item = &Namespace> + '_> {
        match self {
            Self::Migration(lab) => Box::new(lab.topology.namespaces()),
            Self::Planned(network) => Box::new(network.namespaces().chain(network.wires())),
        }
    }

    fn daemons(&self) -> Box<dyn Iterator<Item = &Daemon> + '_> {
        match self {
            Self::Migration(lab) => Box::new(lab.daemons.all().iter()),
            Self::Planned(network) => Box::new(network.all_daemons()),
        }
    }
}

impl Captures {
    fn start(topology: &Topology, pcap: Option<&Path>) -> io::Result<Self> {
        let hosts = topology.sites.iter().map(|site| Capture::start(&site.host, pcap, false));
        Ok(Self {
            core4: Capture::start(&topology.core4, pcap, true)?,
            core6: Capture::start(&topology.core6, pcap, true)?,
            internet: Capture::start(&topology.internet, pcap, true)?,
            host_n: Capture::start(&topology.host_n, pcap, false)?,
            hosts: hosts.collect::<io::Result<_>>()?,
        })
    }
}

impl Lab {
    /// A site's host.
    pub(crate) fn host(&self, site: &Site) -> &Namespace {
        &self.topology.sites[position(site)].host
    }

    /// A site's tunnel router.
    pub(crate) fn xtr(&self, site: &Site) -> &Namespace {
        &self.topology.sites[position(site)].xtr
    }

    /// What arrives at a site's host.
    pub(crate) fn host_capture(&self, site: &Site) -> &Capture {
        &self.captures.hosts[position(site)]
    }

    /// Polls `condition` until it holds; `false` if it does not within `limit`.
    pub(crate) fn wait_for(
        &self,
        limit: Duration,
        condition: impl Fn() -> io::Result<bool>,
    ) -> io::Result<bool> {
        network::wait_for(limit, condition)
    }

    fn wait_for_registrations(&self) -> io::Result<()> {
        let deadline = Instant::now() + REGISTRATION_LIMIT;
        let map_server = self.daemons.named("ms")?;
        loop {
            let registrations = map_server.ask(&Query::Registrations)?;
            let count = registrations.as_array().map_or(0, Vec::len);
            if count >= EID_PREFIXES {
                return Ok(());
            }
            if Instant::now() > deadline {
                let logs: String = self.daemons.all().iter().map(|d| d.log_tail()).collect();
                return Err(io::Error::other(format!(
                    "only {count} of {EID_PREFIXES} EID-prefixes are registered\n{logs}"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A site's place in [`SITES`], and so in everything that is kept per site.
fn position(site: &Site) -> usize {
    SITES.iter().position(|other| other.name == site.name).unwrap_or(0)
}

/// What of a daemon is worth the first look.
fn told_of(daemon: &Daemon) -> &'static str {
    if daemon.role == "mapping" { "registrations" } else { "map-cache" }
}

/// The command that enters a namespace.
fn entering(namespace: &Namespace) -> String {
    let enter = if nix::unistd::geteuid().is_root() && !in_user_namespace() {
        String::from("nsenter")
    } else {
        format!("nsenter --preserve-credentials --user=/proc/{}/ns/user", process::id())
    };
    format!("{enter} --net=/proc/{}/task/{}/ns/net", process::id(), namespace.thread_id())
}

fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("isthmus"))
}

/// Whether root here is not root of the machine.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).is_some_and(|count| count == "1")
}

/// On SIGINT, SIGTERM or SIGHUP: ends the daemons and the program, or the wait of [`Session::keep`].
pub(crate) fn heed_signals(
    running: Arc<Running>,
    keeping: Arc<AtomicBool>,
) -> io::Result<mpsc::Receiver<()>> {
    let (interrupt, interrupts) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        if keeping.load(Ordering::Acquire) && interrupt.send(()).is_ok() {
            return;
        }
        running.end();
        process::exit(INTERRUPTED);
    })?;
    Ok(interrupts)
}
