//! The start: what is configured must exist on this host, then everything is opened in the order in which it can be undone.
use super::answers::profiles_of_peers;
use super::health::Announcement;
use super::observe::{EcnWatch, ReportWatch};
use super::record::Record;
use super::restart::Predecessor;
use super::underlay_watch::Watch;
use super::upkeep::Upkeep;
use super::{Daemon, DaemonError, lan, role_name, unix_nanos};
use crate::config::{Endpoint, NatPlane, Role, RouterConfig};
use crate::control::ControlPlane;
use crate::engine::Engine;
use crate::fib::FibWriter;
use crate::host::changes::Changes;
use crate::host::checkpoint::Checkpoint;
use crate::host::lan::Gateways;
use crate::host::map_versions::{self, MapVersions};
use crate::host::names::Names;
use crate::host::nonces::Nonces;
use crate::host::routing::Routing;
use crate::host::sockets::{ControlSockets, IcmpSockets};
use crate::host::udp_errors::UdpErrors;
use crate::host::underlay::{self, Netlink};
use crate::host::{check_privileges, sysctl};
use crate::policy::Policy;
use crate::punt;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Lists of questions about paths waiting: what comes meanwhile joins the next list, so that a slow kernel is asked everything once.
const PATH_QUESTIONS: usize = 1;
/// Answers about paths under way.
const PATH_ANSWERS: usize = 64;

impl Daemon {
    /// Starts everything; what was begun is undone if something fails.
    pub(super) async fn start<P: Policy>(
        mut config: RouterConfig,
        policy: Arc<P>,
        predecessor: Predecessor,
    ) -> Result<Self, DaemonError> {
        check_privileges()
            .map_err(|name| DaemonError::MissingPrivilege(format!("{name} is needed")))?;
        let netlink = Netlink::open()?;
        check_host(&netlink, &config).await?;
        let mut gateways = lan::gateways(&netlink, &mut config).await?;
        match Self::start_on(netlink, config, policy, predecessor.into_queue()).await {
            Ok(mut daemon) => {
                let tun = daemon.engine.tun_index();
                match lan::start(&daemon.netlink, &daemon.config, &gateways, tun).await {
                    Ok(lan) => {
                        (daemon.lan, daemon.gateways) = (lan, gateways);
                        Ok(daemon)
                    }
                    Err(error) => {
                        daemon.gateways = gateways;
                        daemon.finish().await;
                        Err(error.into())
                    }
                }
            }
            Err(error) => {
                gateways.remove().await;
                Err(error)
            }
        }
    }

    /// On a host that has everything that is configured.
    async fn start_on<P: Policy>(
        netlink: Netlink,
        config: RouterConfig,
        policy: Arc<P>,
        queue: Option<OwnedFd>,
    ) -> Result<Self, DaemonError> {
        let refused = underlay_without_native(&netlink, &config).await?;
        let changes = Changes::listen()?;
        let rlocs: Vec<IpAddr> = config.control.rlocs.iter().map(|rloc| rloc.address).collect();
        let (sockets, datagrams) =
            ControlSockets::bind(&rlocs, config.data.nat == NatPlane::Rtr).await?;
        let icmp = IcmpSockets::open()?;
        let gateways = Gateways::none(netlink.handle());
        let (mut fib, readers) = FibWriter::new();
        let (sender, punts) = punt::queue(punt::DEFAULT_CAPACITY);
        let now = Instant::now();
        let nonces = open_nonces(&config, now)?;
        let (map_versions, kept) = open_versions(&config)?;
        let mut control_config = config.control.clone();
        if let Some(core) = &mut control_config.trusted_core {
            core.kept = kept;
        }
        let mut control = ControlPlane::new(control_config, now, rand::random(), nonces.base());
        let (sources, source_readers) = if policy.checks_registration() {
            control.track_sources();
            let (writer, readers) = FibWriter::new();
            (Some(writer), Some(readers))
        } else {
            (None, None)
        };
        control.set_dynamic_ranges(now, &config.host.ranges);
        let checkpoint = restore_map_cache(&config, now, &mut control)?;
        // Before anything is forwarded: what waits in the TUN of a process before finds its mapping.
        fib.apply(std::iter::from_fn(|| control.poll_fib_update()));
        let mut engine = Engine::take_over(
            &config.data,
            policy,
            &readers,
            source_readers.as_ref(),
            sender,
            queue,
        )?;
        control.set_clock_zero(engine.started());
        let mut routing = Routing::new(netlink.handle());
        let installed = routing.install(&config.host, engine.tun_index(), &refused).await;
        if let Err(error) = installed {
            routing.remove().await;
            engine.stop();
            return Err(error.into());
        }
        let opened = take_native(&netlink, &mut engine).await;
        if let Err(error) = opened {
            routing.remove().await;
            engine.stop();
            return Err(error.into());
        }
        let notes = sysctl::configure_tun(engine.tun_name());
        for note in &notes {
            tracing::warn!("{note}");
        }
        for server in &config.control.map_servers {
            if let Some(loosened) = server.loosened() {
                let profile = server.profile.name();
                tracing::warn!(
                    "Map-Server {} has the profile {profile}: {loosened}",
                    server.endpoint
                );
            }
        }
        for note in profiles_of_peers(&config.control) {
            tracing::warn!("peer {note}");
        }
        let (path_questions, questions) = mpsc::channel(PATH_QUESTIONS);
        let (answers, path_answers) = mpsc::channel(PATH_ANSWERS);
        let (handle, tun) = (netlink.handle(), engine.tun_index());
        let path_task = tokio::spawn(underlay::answer_paths(handle, tun, questions, answers));
        let mut daemon = Self {
            names: Names::follow(&names_of(&config)),
            started: now,
            watch: Watch::new(now),
            announcement: Announcement::default(),
            upkeep: Upkeep::default(),
            own_links: HashSet::new(),
            quiet_until: None,
            udp_errors: UdpErrors::read(),
            ecn: EcnWatch::default(),
            reports: ReportWatch::default(),
            config,
            control,
            tapper: engine.tapper(),
            engine,
            fib,
            sources,
            punts,
            sockets,
            datagrams,
            icmp,
            netlink,
            changes,
            routing,
            path_questions,
            path_answers,
            path_task,
            notes,
            nonces,
            map_versions,
            checkpoint,
            kept_mark: 0,
            gateways,
            lan: None,
            record: Record::new(now),
        };
        // Of mappings from before.
        for rloc in daemon.control.remote_rlocs() {
            daemon.watch.added(now, rloc);
        }
        if daemon.watches_health() {
            daemon.control.watch_resolvers(now);
        }
        Ok(daemon)
    }
}

/// Lets the intake by ring begin, now that everything is in place.
async fn take_native(netlink: &Netlink, engine: &mut Engine) -> io::Result<()> {
    let own = underlay::own_addresses(&netlink.handle()).await?;
    engine.take_native(&own.into_keys().collect::<Vec<_>>())
}

/// What is configured must exist.
async fn check_host(netlink: &Netlink, config: &RouterConfig) -> Result<(), DaemonError> {
    let present = underlay::own_addresses(&netlink.handle()).await?;
    for rloc in &config.control.rlocs {
        if !present.contains_key(&rloc.address) {
            let problem = format!("RLOC {} is on no interface of this host", rloc.address);
            return Err(DaemonError::Configuration(problem));
        }
    }
    let interfaces = underlay::interfaces(&netlink.handle()).await?;
    for name in config.host.site_interfaces.iter().chain(&config.host.native_interfaces) {
        if interfaces.values().all(|interface| interface.name != *name) {
            let problem = format!("interface {name} does not exist on this host");
            return Err(DaemonError::Configuration(problem));
        }
    }
    Ok(())
}

/// The interfaces from which a proxy takes no native packets (PI-07): those that hold an own RLOC and are not configured to be native too.
pub(super) async fn underlay_without_native(
    netlink: &Netlink,
    config: &RouterConfig,
) -> io::Result<BTreeSet<String>> {
    if config.control.role != Role::Proxy {
        return Ok(BTreeSet::new());
    }
    let mut refused = underlay::interfaces_of(&netlink.handle(), &config.data.rlocs).await?;
    refused.retain(|name| !config.host.native_interfaces.contains(name));
    if !config.host.announce.is_empty() {
        tracing::info!(interfaces = ?refused, "no native packets are taken from the underlay");
    }
    Ok(refused)
}

pub(super) fn names_of(config: &RouterConfig) -> BTreeSet<String> {
    let control = &config.control;
    let servers = control.map_servers.iter().map(|server| &server.endpoint);
    let petrs = control.use_petr.iter().map(|petr| &petr.endpoint);
    let endpoints =
        control.map_resolvers.iter().chain(servers).chain(petrs).chain(&control.proxy_itrs);
    endpoints
        .filter_map(|endpoint| match endpoint {
            Endpoint::Name(name) => Some(name.clone()),
            Endpoint::Address(_) => None,
        })
        .collect()
}

/// Where this run's nonces begin, from `state-dir` if there is one.
fn open_nonces(config: &RouterConfig, now: Instant) -> Result<Nonces, DaemonError> {
    let role = role_name(config.control.role);
    let nonces = Nonces::open(config.state_dir.as_deref(), role, now, unix_nanos())
        .map_err(|error| DaemonError::Configuration(format!("state-dir: {error}")))?;
    for note in nonces.notes(now, unix_nanos()) {
        tracing::error!("{note}");
    }
    Ok(nonces)
}

/// Has the control plane begin with the map-cache of an earlier run, from `state-dir` if there is one.
fn restore_map_cache(
    config: &RouterConfig,
    now: Instant,
    control: &mut ControlPlane,
) -> Result<Checkpoint, DaemonError> {
    let role = role_name(config.control.role);
    let resolvers = config.control.map_resolvers.iter().map(ToString::to_string).collect();
    let clock = (now, Duration::from_nanos(unix_nanos()));
    let (checkpoint, (age, mappings)) =
        Checkpoint::open(config.state_dir.as_deref(), role, resolvers, clock)
            .map_err(|error| DaemonError::Configuration(format!("state-dir: {error}")))?;
    let restored = control.restore(now, age, &mappings);
    if !mappings.is_empty() {
        let kept = mappings.len();
        tracing::info!(restored, kept, "the map-cache of before is used, and verified");
    }
    Ok(checkpoint)
}

/// The versions of own mappings in an earlier run, from `state-dir` if there is one.
fn open_versions(config: &RouterConfig) -> Result<map_versions::Opened, DaemonError> {
    let core = config.control.trusted_core.as_ref();
    let is_on = core.is_some_and(|core| core.map_versioning);
    let directory = config.state_dir.as_deref().filter(|_| is_on);
    MapVersions::open(directory)
        .map_err(|error| DaemonError::Configuration(format!("state-dir: {error}")))
}
