//! FRR: zebra, bgpd and bfdd, configured and asked with `vtysh`.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use gateway::lab::namespace::Namespace;
use ipnet::IpNet;
use nix::unistd::User;
use serde_json::Value;

use super::network::Leg;
use super::{BgpRoute, GATEWAY_AS, NEIGHBOUR_AS, Router, runs, text_of};

/// Where distributions install the daemons.
const DAEMONS: &str = "/usr/lib/frr";
/// The user that the daemons become.
const USER: &str = "frr";

pub(super) fn installed() -> bool {
    Path::new(DAEMONS).join("bgpd").exists() && runs("vtysh", &["--help"])
}

pub(super) fn neighbour(legs: &[Leg], native: &[IpNet]) -> String {
    let mut text = format!(
        "router bgp {NEIGHBOUR_AS}\n bgp router-id 192.0.2.2\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n"
    );
    for leg in legs {
        for remote in [leg.gateway4, leg.gateway6] {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                " neighbor {remote} remote-as {GATEWAY_AS}\n neighbor {remote} bfd 5 100 100\n \
                 neighbor {remote} timers connect 1\n"
            );
        }
    }
    for (family, is_ipv4) in [("ipv4", true), ("ipv6", false)] {
        let _ = write!(text, " address-family {family} unicast\n  maximum-paths 1\n");
        for net in native.iter().filter(|net| net.addr().is_ipv4() == is_ipv4) {
            let _ = writeln!(text, "  network {net}");
        }
        for leg in legs {
            let remote = if is_ipv4 { leg.gateway4 } else { leg.gateway6 };
            let _ = writeln!(text, "  neighbor {remote} activate");
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}

pub(super) fn start(router: &mut Router, namespace: &Namespace, config: &str) -> io::Result<()> {
    fs::write(router.path("frr.conf"), config)?;
    for empty in ["vtysh.conf", "empty.conf"] {
        File::create(router.path(empty))?;
    }
    let user = User::from_name(USER)?.ok_or(io::ErrorKind::NotFound)?;
    let owner = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
    chown(router.directory.path(), owner.0, owner.1)?;
    for entry in fs::read_dir(router.directory.path())? {
        chown(entry?.path(), owner.0, owner.1)?;
    }
    for daemon in ["zebra", "bgpd", "bfdd"] {
        let mut command = Command::new(Path::new(DAEMONS).join(daemon));
        command.arg("--vty_socket").arg(router.directory.path());
        command.arg("-z").arg(router.path("zserv.api")).args(["-P", "0"]);
        command.arg("-i").arg(router.path(&format!("{daemon}.pid")));
        command.arg("-f").arg(router.path("empty.conf"));
        if daemon == "bfdd" {
            command.arg("--bfdctl").arg(router.path("bfdd.sock"));
        }
        router.spawn(namespace, command)?;
        router.wait_for(&format!("{daemon}.vty"))?;
    }
    let said = text_of(vtysh(router).arg("-b").output()?)?;
    if said.contains('%') {
        return Err(io::Error::other(said));
    }
    Ok(())
}

pub(super) fn established(router: &Router) -> io::Result<usize> {
    let summary = ask(router, "show bgp summary json")?;
    let families = summary.as_object().into_iter().flat_map(|families| families.values());
    let peers = families.filter_map(|family| family["peers"].as_object());
    let is_up = |peer: &&Value| peer["state"] == "Established";
    Ok(peers.flat_map(|peers| peers.values()).filter(is_up).count())
}

pub(super) fn routes(router: &Router) -> io::Result<Vec<BgpRoute>> {
    let mut routes = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let table = ask(router, &format!("show bgp {family} unicast json"))?;
        for (prefix, paths) in table["routes"].as_object().into_iter().flatten() {
            let prefix = prefix.parse().map_err(io::Error::other)?;
            for path in paths.as_array().into_iter().flatten() {
                // What it announces itself has no neighbour.
                let foreign = path["path"].as_str().is_some_and(|path| !path.is_empty());
                let next_hop = path["nexthops"][0]["ip"].as_str().filter(|_| foreign);
                if let Some(Ok(next_hop)) = next_hop.map(str::parse) {
                    routes.push(BgpRoute { prefix, next_hop });
                }
            }
        }
    }
    Ok(routes)
}

pub(super) fn updates(router: &Router) -> io::Result<u64> {
    let neighbours = ask(router, "show bgp neighbors json")?;
    let received = |one: &Value| one["messageStats"]["updatesRecv"].as_u64();
    Ok(neighbours.as_object().into_iter().flat_map(|all| all.values()).filter_map(received).sum())
}

pub(super) fn sessions(router: &Router) -> io::Result<String> {
    let mut command = vtysh(router);
    text_of(command.args(["-c", "show bgp neighbors", "-c", "show bfd peers brief"]).output()?)
}

fn ask(router: &Router, question: &str) -> io::Result<Value> {
    let text = text_of(vtysh(router).args(["-c", question]).output()?)?;
    serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{error}: {text}")))
}

fn vtysh(router: &Router) -> Command {
    let mut command = Command::new("vtysh");
    command.arg("--vty_socket").arg(router.directory.path());
    command.arg("--config_dir").arg(router.directory.path());
    command
}
