//! lispers.net: every role.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use ipnet::IpNet;
use mapping::wire::CONTROL_PORT;
use tempfile::TempDir;

use super::Peer;
use super::process::{Isolation, Process, receives};
use crate::daemon::SECRET;
use crate::matrix::network::CORE_LINK;
use crate::matrix::plan::{EID_AGGREGATES, Family, Lispers, Plan, Role};

/// The program that starts the others: of an installation for Python 2.7, and of one for Python 3.8.
const CORES: [&str; 2] = ["lisp-core.pyo", "lisp-core.pyc"];
/// It does not start on a machine that has no IPv4 address; nobody has a route to this one.
const UNUSED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
/// Its processes tell each other the configuration for so long after they have come up.
const SETTLING: Duration = Duration::from_secs(3);
/// What else a locator can be registered with; the definitions say what the names mean.
const NAMED: &str = "        rloc-record-name = west\n        geo-name = here\n";
const GEO: &str = r#"lisp geo-coordinates {
    geo-name = here
    geo-tag = 48-8-15-N-11-34-30-E-519
}
"#;
const MEASURED: &str = "        json-name = telemetry\n";
const TELEMETRY: &str = r#"lisp json {
    json-name = telemetry
    json-string = { "type" : "telemetry", "sub-type" : "timestamps", "itr-out" : "?", "etr-in" : "?", "etr-out" : "?", "itr-in" : "?" }
}
"#;
/// It runs in a copy of its directory, where its sockets and logs are. It looks for its own processes by name, calls
/// `sudo`, which nobody needs here, and starts its processes only on systems that it knows.
const SCRIPT: &str = r#"
cp -r "$2/." "$1"
mkdir -p bin logs
rm -f logs/*
mv new.config lisp.config
printf '#!/bin/sh\nexec "$@"\n' > bin/sudo
chmod +x bin/sudo
printf 'NAME="Ubuntu"\nID=ubuntu\n' > os-release
mount --bind os-release /etc/os-release
export PATH="$PWD/bin:$PATH" LISP_ADDR_SELECT=core0 LISP_PCAP_THREADS=1 LISP_WORKER_THREADS=0
[ ! -f lisp-core.pyo ] || exec python -O lisp-core.pyo 8080
exec python3.8 -O lisp-core.pyc 8080
"#;

pub(super) struct LispersNet;

impl Peer for LispersNet {
    fn name(&self) -> &'static str {
        "lispers.net"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_LISPERS"
    }

    fn locate(&self, said: Option<&Path>) -> Option<PathBuf> {
        let is_there = |directory: &&Path| CORES.iter().any(|core| directory.join(core).is_file());
        said.filter(is_there).map(Path::to_owned)
    }

    fn how_to_provide(&self) -> &'static str {
        "install lispers.net (github.com/farinacci/lispers.net) and set ISTHMUS_LISPERS to the directory of its \
         lisp-core.pyo, with a python (2.7) in PATH that has its modules"
    }

    fn limitation(&self, plan: &Plan, role: Role, inner: Family) -> Option<&'static str> {
        let lost = role != Role::Mapping && plan.core == Family::V6 && inner == Family::V4;
        lost.then_some(
            "lispers.net sends IPv4 in IPv6 to port 62736, which is 4341 with its octets swapped",
        )
    }

    fn answers_probes(&self, core: Family) -> bool {
        core == Family::V4
    }

    fn start(
        &self,
        place: &Path,
        namespace: &Namespace,
        role: Role,
        plan: &Plan,
    ) -> io::Result<Process> {
        if plan.core == Family::V6 {
            link::address(namespace, CORE_LINK, IpNet::from(UNUSED))?;
        }
        if role == Role::Proxy {
            keep_from_kernel(namespace)?;
        }
        let directory = TempDir::new()?;
        fs::write(directory.path().join("new.config"), configuration(plan, role))?;
        let sockets = match role {
            Role::Mapping => ["lisp-ms", "lisp-mr"],
            Role::Site(_) | Role::Proxy => ["lisp-itr", "lisp-etr"],
        };
        let sockets = sockets.map(|name| directory.path().join(name));
        let process = Process::start(namespace, directory, Isolation::Processes, SCRIPT, &[place])?;
        let process = process.wait_until(|| {
            Ok(sockets.iter().all(|path| path.exists()) && receives(namespace, CONTROL_PORT)?)
        })?;
        thread::sleep(SETTLING);
        Ok(process)
    }
}

/// A PITR of it copies packets for EIDs from the wire; the kernel must not forward them too.
fn keep_from_kernel(namespace: &Namespace) -> io::Result<()> {
    for aggregate in EID_AGGREGATES {
        let mut command = Command::new("ip");
        command.args(["route", "add", "blackhole", aggregate]);
        let status = namespace.start(command)?.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("ip route add blackhole: {status}")));
        }
    }
    Ok(())
}

fn configuration(plan: &Plan, role: Role) -> String {
    let (tunnel_router, mapping) =
        if role == Role::Mapping { ("no", "yes") } else { ("yes", "no") };
    let mut text = String::from("# lispers.net lisp.config file\n");
    section(
        &mut text,
        "lisp enable",
        &[
            ("itr", tunnel_router),
            ("etr", tunnel_router),
            ("rtr", "no"),
            ("map-server", mapping),
            ("map-resolver", mapping),
            ("ddt-node", "no"),
        ],
    );
    let all = ["core", "itr", "etr", "rtr", "map-server", "map-resolver", "ddt-node"];
    section(&mut text, "lisp debug", &all.map(|process| (process, "yes")));
    section(
        &mut text,
        "lisp user-account",
        &[("username", "root"), ("password", ""), ("super-user", "yes")],
    );
    match role {
        Role::Mapping => map_server(&mut text, plan),
        Role::Site(_) => site(&mut text, plan, role),
        Role::Proxy => proxy(&mut text, plan),
    }
    // It reads what is above a line like this.
    text.push_str(
        "#-----------------------------------------------------------------------------#\n",
    );
    text
}

fn map_server(text: &mut String, plan: &Plan) {
    for (number, (role, _)) in plan.played_sites().into_iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "lisp site {{\n    site-name = site-{number}\n    authentication-key = {SECRET}\n"
        );
        for family in Family::BOTH {
            let _ = write!(
                text,
                "    allowed-prefix {{\n        instance-id = 0\n        eid-prefix = {}\n    }}\n",
                plan.network(role, family)
            );
        }
        text.push_str("}\n");
    }
}

/// What is not LISP, it knows by its own map-cache: it has no notion of a PETR for everything that is not found.
fn site(text: &mut String, plan: &Plan, role: Role) {
    let ms = plan.rloc(Role::Mapping).to_string();
    tunnel_router(text, plan);
    let (definitions, more) = match plan.lispers {
        Lispers::Plain | Lispers::Encrypted => ("", ""),
        Lispers::Named => (GEO, NAMED),
        Lispers::Telemetry => (TELEMETRY, MEASURED),
    };
    text.push_str(definitions);
    let mut server = vec![
        ("address", ms.as_str()),
        ("authentication-type", "sha2"),
        ("authentication-key", SECRET),
        ("want-map-notify", "yes"),
    ];
    if plan.lispers == Lispers::Encrypted {
        server.push(("encryption-key", "[3]0123456789abcdef"));
    }
    section(text, "lisp map-server", &server);
    let prefixes = Family::BOTH.map(|family| plan.network(role, family));
    database(text, &prefixes, plan.rloc(role), more);
    if plan.proxy.is_some() {
        for family in Family::BOTH {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "lisp map-cache {{\n    prefix {{\n        instance-id = 0\n        eid-prefix = {}\n    }}\n    \
                 rloc {{\n        address = {}\n        priority = 1\n        weight = 100\n    }}\n}}\n",
                plan.network(Role::Proxy, family),
                plan.rloc(Role::Proxy)
            );
        }
    }
}

/// To it, a PITR is an ITR of everything.
fn proxy(text: &mut String, plan: &Plan) {
    tunnel_router(text, plan);
    database(text, &["0.0.0.0/0", "0::/0"], plan.rloc(Role::Proxy), "");
}

/// It answers no probe over IPv6 (it never sees them), so nobody may send any there.
fn tunnel_router(text: &mut String, plan: &Plan) {
    let probing = plan.core.pick("yes", "no");
    section(
        text,
        "lisp xtr-parameters",
        &[
            ("rloc-probing", probing),
            ("data-plane-security", "no"),
            ("nat-traversal", "no"),
            ("nonce-echoing", "no"),
            ("data-plane-logging", "no"),
            ("flow-logging", "no"),
        ],
    );
    section(text, "lisp map-resolver", &[("address", &plan.rloc(Role::Mapping).to_string())]);
}

fn database(text: &mut String, prefixes: &[impl std::fmt::Display], rloc: IpAddr, more: &str) {
    text.push_str("lisp database-mapping {\n");
    for prefix in prefixes {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "    prefix {{\n        instance-id = 0\n        eid-prefix = {prefix}\n    }}\n"
        );
    }
    let _ = write!(
        text,
        "    rloc {{\n        address = {rloc}\n        priority = 1\n        weight = 100\n{more}    }}\n}}\n"
    );
}

fn section(text: &mut String, name: &str, values: &[(&str, &str)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name} {{");
    for (key, value) in values {
        let _ = writeln!(text, "    {key} = {value}");
    }
    text.push_str("}\n");
}
