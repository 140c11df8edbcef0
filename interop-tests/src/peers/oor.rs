//! Open Overlay Router: tunnel router, Map-Server and Map-Resolver.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;
use mapping::wire::CONTROL_PORT;
use tempfile::TempDir;

use super::process::{Isolation, Process, has_link, receives};
use super::{Peer, executable};
use crate::daemon::SECRET;
use crate::matrix::network::CORE_LINK;
use crate::matrix::plan::{Family, Plan, Role};

/// Its tunnel device.
const TUN: &str = "lispTun0";
/// It writes to /run and /tmp whoever else runs there; the program itself may be below /tmp. Without `stdbuf` the end
/// of its log is lost.
const SCRIPT: &str = r#"
mkdir "$1/tmp" && mv "$1/oor.conf" "$1/tmp"
exec 3<"$2"
mount -t tmpfs none /run
mount --bind "$1/tmp" /tmp
exec stdbuf -oL /proc/self/fd/3 -f /tmp/oor.conf
"#;

pub(super) struct Oor;

impl Peer for Oor {
    fn name(&self) -> &'static str {
        "oor"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_OOR"
    }

    fn locate(&self, said: Option<&Path>) -> Option<PathBuf> {
        executable(said, "oor")
    }

    fn how_to_provide(&self) -> &'static str {
        "build Open Overlay Router (github.com/OpenOverlayRouter/oor) and set ISTHMUS_OOR=/path/to/oor"
    }

    fn start(
        &self,
        place: &Path,
        namespace: &Namespace,
        role: Role,
        plan: &Plan,
    ) -> io::Result<Process> {
        let directory = TempDir::new()?;
        let text = if role == Role::Mapping { map_server(plan) } else { xtr(plan, role) };
        fs::write(directory.path().join("oor.conf"), text)?;
        let process = Process::start(namespace, directory, Isolation::Mounts, SCRIPT, &[place])?;
        process.wait_until(|| {
            let routes = role == Role::Mapping || has_link(namespace, TUN)?;
            Ok(routes && receives(namespace, CONTROL_PORT)?)
        })
    }
}

fn map_server(plan: &Plan) -> String {
    let mut text = format!("debug = 2\noperating-mode = MS\ncontrol-iface = {CORE_LINK}\n");
    for (role, _) in plan.played_sites() {
        for family in Family::BOTH {
            let prefix = plan.network(role, family);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "lisp-site {{\n  eid-prefix = {prefix}\n  key-type = 1\n  key = \"{SECRET}\"\n  iid = 0\n}}\n"
            );
        }
    }
    text
}

/// Probes and retries are as in its own example, those of whoever installs it; without probes where somebody never answers any.
fn xtr(plan: &Plan, role: Role) -> String {
    let ms = plan.rloc(Role::Mapping);
    let interval = if plan.probes_are_answered() { 30 } else { 0 };
    let mut text = format!(
        "debug = 2\nmap-request-retries = 2\noperating-mode = xTR\nnat_traversal_support = off\n\
         rloc-probing {{\n  rloc-probe-interval = {interval}\n  rloc-probe-retries = 2\n  rloc-probe-retries-interval = 5\n}}\n\
         map-resolver = {{ {ms} }}\n\
         map-server {{\n  address = {ms}\n  key-type = 1\n  key = \"{SECRET}\"\n  proxy-reply = off\n}}\n"
    );
    if plan.proxy.is_some() {
        let proxy = plan.rloc(Role::Proxy);
        for family in ["ipv4", "ipv6"] {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "proxy-etr-{family} {{\n  address = {proxy}\n  priority = 1\n  weight = 100\n}}\n"
            );
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "proxy-itrs = {{ {proxy} }}");
    }
    for family in Family::BOTH {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "database-mapping {{\n  eid-prefix = {}\n  iid = 0\n  ttl = 10\n  rloc-iface {{\n    interface = {CORE_LINK}\n    \
             ip_version = {}\n    priority = 1\n    weight = 100\n  }}\n}}\n",
            plan.network(role, family),
            plan.core.pick(4, 6)
        );
    }
    text
}
