//! BIRD 2: one process, asked with `birdc`.

use std::fmt::Write;
use std::io;
use std::process::Command;
use std::{fs, net::IpAddr};

use gateway::lab::namespace::Namespace;
use ipnet::IpNet;

use super::network::Leg;
use super::{BgpRoute, GATEWAY_AS, NEIGHBOUR_AS, Router, runs, text_of};

pub(super) fn installed() -> bool {
    runs("bird", &["--version"])
}

pub(super) fn neighbour(legs: &[Leg], native: &[IpNet]) -> String {
    let mut text = String::from(
        "router id 192.0.2.2;\nprotocol device {}\nprotocol direct { ipv4; ipv6; }\n\
         protocol bfd { interface \"*\" { interval 100 ms; multiplier 5; }; }\n\
         protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n\
         protocol kernel { ipv6 { export where source = RTS_BGP; }; }\n",
    );
    for (number, leg) in legs.iter().enumerate() {
        for (family, local, remote) in
            [("ipv4", leg.neighbour4, leg.gateway4), ("ipv6", leg.neighbour6, leg.gateway6)]
        {
            let of_family = native.iter().filter(|net| net.addr().is_ipv4() == local.is_ipv4());
            let of_family: Vec<String> = of_family.map(ToString::to_string).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "protocol bgp gateway{number}{family} {{ local {local} as {NEIGHBOUR_AS}; \
                 neighbor {remote} as {GATEWAY_AS}; bfd on; \
                 connect delay time 1; connect retry time 1; error wait time 1, 1; \
                 {family} {{ import all; export where net ~ [ {} ]; }}; }}",
                of_family.join(", ")
            );
        }
    }
    text
}

pub(super) fn start(router: &mut Router, namespace: &Namespace, config: &str) -> io::Result<()> {
    fs::write(router.path("bird.conf"), config)?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(router.path("bird.conf"));
    command.arg("-s").arg(router.path("control")).arg("-P").arg(router.path("pid"));
    router.spawn(namespace, command)?;
    router.wait_for("control")
}

pub(super) fn sessions(router: &Router) -> io::Result<String> {
    Ok(ask(router, &["show", "protocols"])? + &ask(router, &["show", "bfd", "sessions"])?)
}

pub(super) fn established(router: &Router) -> io::Result<usize> {
    let text = ask(router, &["show", "protocols"])?;
    let is_up = |line: &&str| line.contains(" BGP ") && line.contains("Established");
    Ok(text.lines().filter(is_up).count())
}

/// A line with prefix and source for the best route, without prefix for the others; each is followed by its next hop.
///
/// ```text
/// 203.0.113.0/24       unicast [gateway0ipv4 13:08:55.445] * (100) [AS64500?]
///     via 192.0.2.1 on gw0
/// ```
pub(super) fn routes(router: &Router) -> io::Result<Vec<BgpRoute>> {
    let text = ask(router, &["show", "route", "where", "source", "=", "RTS_BGP"])?;
    let mut routes = Vec::new();
    let mut prefix = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Ok(found) = first.parse::<IpNet>() {
            prefix = Some(found);
        }
        if first == "via"
            && let (Some(prefix), Some(Ok(next_hop))) =
                (prefix, words.next().map(str::parse::<IpAddr>))
        {
            routes.push(BgpRoute { prefix, next_hop });
        }
    }
    Ok(routes)
}

/// ```text
///     Route change stats:     received   rejected   filtered    ignored   accepted
///       Import updates:              1          0          0          0          1
///       Import withdraws:            0          0        ---          0          0
/// ```
pub(super) fn updates(router: &Router) -> io::Result<u64> {
    let text = ask(router, &["show", "protocols", "all", "\"gateway*\""])?;
    let received = |line: &str| {
        let (_, numbers) = line.split_once(':')?;
        numbers.split_whitespace().next()?.parse::<u64>().ok()
    };
    let of_imports = text.lines().filter(|line| line.trim_start().starts_with("Import "));
    Ok(of_imports.filter_map(received).sum())
}

fn ask(router: &Router, question: &[&str]) -> io::Result<String> {
    let mut command = Command::new("birdc");
    text_of(command.arg("-s").arg(router.path("control")).args(question).output()?)
}
