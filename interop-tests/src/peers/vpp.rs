//! VPP with its LISP plugin: tunnel router, PITR and PETR.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;
use tempfile::TempDir;

use super::process::{Isolation, Process};
use super::{Peer, executable};
use crate::daemon::SECRET;
use crate::matrix::network::{CORE_LINK, LAN_LINK};
use crate::matrix::plan::{EID_AGGREGATES, Family, Plan, RLOC_RANGES, Role};

/// The socket of its command line: there once it has done what [`commands`] say.
const CLI: &str = "cli.sock";
/// It has a network stack of its own on the links, so that the kernel must have no addresses there.
const SCRIPT: &str = r#"
for link in core0 lan0; do
    ip address flush dev $link
    echo 1 > /proc/sys/net/ipv6/conf/$link/disable_ipv6
done
mkdir run
mount -t tmpfs none /dev/shm
exec "$2" -c "$1/startup.conf"
"#;

pub(super) struct Vpp;

impl Peer for Vpp {
    fn name(&self) -> &'static str {
        "vpp"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_VPP"
    }

    fn locate(&self, said: Option<&Path>) -> Option<PathBuf> {
        executable(said, "vpp")
    }

    fn how_to_provide(&self) -> &'static str {
        "build VPP (github.com/FDio/vpp) with its plugins lisp and af_packet and set ISTHMUS_VPP=/path/to/vpp"
    }

    /// VPP 26.06 leaves the MAC of its Map-Registers zero, or dies of computing it with its OpenSSL engine.
    fn signs(&self) -> bool {
        false
    }

    fn limitation(&self, plan: &Plan, role: Role, _inner: Family) -> Option<&'static str> {
        let lost = role != Role::Proxy && plan.proxy.is_some() && plan.core == Family::V4;
        lost.then_some("VPP keeps the IPv4 address of its PETR as 0.0.0.0 (`show one petr`)")
    }

    fn answers_probes(&self, _core: Family) -> bool {
        false
    }

    fn start(
        &self,
        place: &Path,
        namespace: &Namespace,
        role: Role,
        plan: &Plan,
    ) -> io::Result<Process> {
        let directory = TempDir::new()?;
        fs::write(directory.path().join("startup.conf"), startup(directory.path()))?;
        fs::write(directory.path().join("commands"), commands(plan, role))?;
        let socket = directory.path().join(CLI);
        let process = Process::start(namespace, directory, Isolation::Mounts, SCRIPT, &[place])?;
        process.wait_until(|| Ok(socket.exists()))
    }
}

/// Small, without huge pages, and asleep while there is nothing to do.
fn startup(directory: &Path) -> String {
    let place = directory.display();
    format!(
        "unix {{\n  nodaemon\n  nosyslog\n  nobanner\n  runtime-dir {place}/run\n  cli-listen {place}/{CLI}\n  \
         exec {place}/commands\n  poll-sleep-usec 100\n}}\n\
         socksvr {{\n  socket-name {place}/run/api.sock\n}}\n\
         statseg {{\n  socket-name {place}/run/stats.sock\n}}\n\
         memory {{\n  main-heap-size 256M\n  main-heap-page-size default\n}}\n\
         buffers {{\n  buffers-per-numa 8192\n  page-size default\n}}\n\
         plugins {{\n  plugin default {{ disable }}\n  plugin lisp_plugin.so {{ enable }}\n  \
         plugin af_packet_plugin.so {{ enable }}\n}}\n"
    )
}

/// EIDs and RLOCs share its one table of routes: a default route would hide the EIDs from LISP.
fn commands(plan: &Plan, role: Role) -> String {
    let (rloc, length) = (plan.rloc(role), plan.core_length());
    let ms = plan.rloc(Role::Mapping);
    let (core, lan) = (format!("host-{CORE_LINK}"), format!("host-{LAN_LINK}"));
    let mut text = String::new();
    for link in [CORE_LINK, LAN_LINK] {
        // Writing to a String cannot fail.
        let _ =
            write!(text, "create host-interface name {link}\nset interface state host-{link} up\n");
    }
    let rlocs = plan.core.pick(RLOC_RANGES[0], RLOC_RANGES[1]);
    let _ = write!(
        text,
        "set interface ip address {core} {rloc}/{length}\nip route add {rlocs} via {} {core}\n",
        plan.core_gateway(role)
    );
    for family in Family::BOTH {
        let length = plan.network(role, family).prefix_len();
        let _ = writeln!(
            text,
            "set interface ip address {lan} {}/{length}",
            plan.gateway(role, family)
        );
    }
    let _ = write!(
        text,
        "lisp enable\nlisp locator-set add site iface {core} p 1 w 100\n\
         lisp map-resolver add {ms}\nlisp map-request itr-rlocs add site\n"
    );
    text.push_str(&if role == Role::Proxy { proxy() } else { site(plan, role) });
    text
}

fn site(plan: &Plan, role: Role) -> String {
    let mut text = format!("lisp map-server add {}\n", plan.rloc(Role::Mapping));
    for family in Family::BOTH {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "lisp eid-table add eid {} locator-set site key-id sha256 secret-key {SECRET}",
            plan.network(role, family)
        );
    }
    if plan.proxy.is_some() {
        let _ = writeln!(text, "lisp use-petr {}", plan.rloc(Role::Proxy));
    }
    text.push_str("lisp map-register enable\n");
    text
}

/// Its PITR excludes its tunnel router, and asks for what a static mapping says. Without its PETR it does not listen for Map-Replies.
fn proxy() -> String {
    let mut text = String::from(
        "one petr mode enable\none xtr mode disable\none pitr mode enable\nlisp pitr ls site\n",
    );
    for aggregate in EID_AGGREGATES {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "lisp remote-mapping add vni 0 eid {aggregate} action send-map-request\n\
             lisp adjacency add vni 0 reid {aggregate} leid {aggregate}\n"
        );
    }
    text
}
