//! `isthmus doctor`: what of this host keeps a daemon from its work, and the commands that mend it. A daemon that starts looks too.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use ::mapping::config::MappingConfig;
use ::xtr::config::{Endpoint, Intake, RouterConfig};
use ::xtr::host::doctor::{CHECKS, Finding, Severity, Wanted, collect, findings};
use clap::Args;
use serde_json::json;

use super::{Failure, print, print_json};
use crate::config::{self, Host, RoleConfig};

/// Where LISP messages come in: data and control.
const PORTS: [u16; 2] = [4341, 4342];
/// The roles, in the order in which their files are looked for.
const ROLES: [&str; 3] = ["gateway", "xtr", "mapping"];
/// Descriptors of a worker beside those of its sockets, and of the daemon beside its workers.
const OTHER_DESCRIPTORS: u64 = 64;

/// What `doctor` is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus doctor                             whatever is configured in /etc/isthmus
  isthmus doctor --config gateway.toml       what that configuration needs of this host

ERROR: the daemon does not start, or forwards nothing. warning: it works, but loses something. note: worth knowing.
Exit status: 0 no error was found, 1 there is one, 78 the configuration is wrong (isthmus check says where).
Nothing is changed. Run it as who runs the daemon: what root may do, the service's user perhaps may not.")]
pub(crate) struct DoctorArgs {
    /// The configuration file [default: those of /etc/isthmus; without any, what every gateway needs]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Looks at this host for each configuration.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let files = files(args);
    let mut patients = Vec::new();
    for file in &files {
        let host = Host::read().map_err(|e| Failure::Failed(format!("own addresses: {e}")))?;
        // What the configuration names and this host lacks is a mistake of the file to `check`, and said with its line.
        let loaded = config::load(file, Some(host))
            .map_err(|refused| Failure::BadConfiguration(refused.errors))?;
        let name = format!("{} of {}", loaded.config.role(), file.display());
        patients.push((name, wanted(&loaded.config)));
    }
    if files.is_empty() {
        patients.push(("a gateway, nothing is configured".to_owned(), of_any_gateway()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("runtime: {error}")))?;
    let mut reports = Vec::new();
    for (name, wanted) in patients {
        let facts = runtime.block_on(collect(&wanted));
        reports.push((name, findings(&wanted, &facts)));
    }
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, found)| json!({ "for": name, "healthy": !stops(found), "findings": found, "checks": CHECKS }))
            .collect();
        print_json(&all)?;
    } else {
        print(&reports.iter().map(|(name, found)| text(name, found)).collect::<String>())?;
    }
    let stopped = reports.iter().any(|(_, found)| stops(found));
    if stopped { Err(Failure::Silent(super::FAILED)) } else { Ok(()) }
}

/// What a daemon that starts with this configuration logs of its host.
pub(super) async fn examine(config: &RoleConfig) {
    let mut wanted = wanted(config);
    // It opens them in a moment, and says so if it cannot; the device may be one to take over.
    wanted.ports.clear();
    wanted.tun.clear();
    for finding in findings(&wanted, &collect(&wanted).await) {
        let Finding { check, severity, .. } = finding;
        match severity {
            Severity::Error => tracing::error!(check, "{finding}"),
            Severity::Warning => tracing::warn!(check, "{finding}"),
            Severity::Note => tracing::info!(check, "{finding}"),
        }
    }
}

fn files(args: &DoctorArgs) -> Vec<PathBuf> {
    match &args.config {
        Some(file) => vec![file.clone()],
        None => {
            let usual = ROLES.map(|role| PathBuf::from(format!("/etc/isthmus/{role}.toml")));
            usual.into_iter().filter(|file| Path::exists(file)).collect()
        }
    }
}

fn stops(found: &[Finding]) -> bool {
    found.iter().any(|finding| finding.severity == Severity::Error)
}

fn text(name: &str, found: &[Finding]) -> String {
    let mut text = format!("{name}\n");
    for Finding { check, severity, what, means, mend } in found {
        let word = severity.word();
        text.push_str(&format!(
            "  {word:<8} {check}: {what}\n           {means}\n           mend: {mend}\n"
        ));
    }
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let fine = CHECKS.iter().filter(|check| found.iter().all(|finding| finding.check != **check));
    let fine: Vec<&str> = fine.copied().collect();
    text.push_str(&format!("  {:<8} {}\n", "ok", fine.join(", ")));
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text.push_str(&format!("  {errors} stop it, {warnings} cost something\n"));
    text
}

fn wanted(config: &RoleConfig) -> Wanted {
    match config {
        RoleConfig::Gateway(config) => of_router(&config.router),
        RoleConfig::Xtr(config) => of_router(config),
        RoleConfig::Mapping(config) => of_mapping(config),
    }
}

fn of_router(config: &RouterConfig) -> Wanted {
    let (control, data, host) = (&config.control, &config.data, &config.host);
    let ranges = host.ranges.iter().map(|range| range.range.prefix());
    let inner: Vec<bool> = host
        .announce
        .iter()
        .chain(&host.site_prefixes)
        .copied()
        .chain(ranges)
        .map(|prefix| prefix.addr().is_ipv4())
        .collect();
    let at = |what, endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => Some((what, *address)),
        Endpoint::Name(_) => None,
    };
    let resolvers = control.map_resolvers.iter().filter_map(|one| at("Map-Resolver", one));
    let servers = control.map_servers.iter().filter_map(|one| at("Map-Server", &one.endpoint));
    let petrs = control.use_petr.iter().filter_map(|one| at("PETR", &one.endpoint));
    let workers = data.queues.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let sockets = data.rlocs.len() as u64 * (u64::from(data.source_ports) + 4);
    Wanted {
        router: true,
        // Without own prefixes, packets of both families may come.
        ipv4: inner.is_empty() || inner.contains(&true),
        ipv6: inner.is_empty() || inner.contains(&false),
        ring: matches!(data.intake, Intake::Ring(_)),
        tun: data.tun_name.clone(),
        addresses: control.rlocs.iter().map(|rloc| rloc.address).collect(),
        ports: PORTS.to_vec(),
        peers: resolvers.chain(servers).chain(petrs).collect(),
        interfaces: host.site_interfaces.iter().chain(&host.native_interfaces).cloned().collect(),
        descriptors: workers as u64 * (sockets + OTHER_DESCRIPTORS) + OTHER_DESCRIPTORS,
        trusts_clock: config.state_dir.is_none(),
    }
}

fn of_mapping(config: &MappingConfig) -> Wanted {
    Wanted {
        addresses: config
            .listen
            .iter()
            .copied()
            .filter(|one: &IpAddr| !one.is_unspecified())
            .collect(),
        ports: vec![PORTS[1]],
        trusts_clock: config.state_dir.is_none(),
        ..Wanted::default()
    }
}

fn of_any_gateway() -> Wanted {
    Wanted { router: true, ipv4: true, ipv6: true, tun: "isthmus0".to_owned(), ..Wanted::default() }
}
