//! F2: daemons that are killed, ended and started again, and what they leave behind.

use std::io;
use std::time::{Duration, Instant};

use mapping::admin::Query;

use crate::lab::addresses::{HOST_N4, HOST_N6, SITE_A, SITE_B};
use crate::lab::daemons::Daemon;
use crate::lab::link;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str = "a gateway and an xTR that die, end and come back";

/// How fast a dead gateway's routes must be gone, so that BGP withdraws them.
const WITHDRAWAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(3);
/// The routing protocol number of the routes and rules this product owns.
const PROTOCOL: u8 = 204;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    gateway_dies(lab, checks)?;
    gateway_ends(lab, checks)?;
    xtr_dies(lab, checks)?;
    xtr_ends(lab, checks)
}

fn gateway_dies(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let pxtr = lab.daemons.named("pxtr")?;
    let before = routes(lab)?;
    let begin = Instant::now();
    lab.daemons.kill(pxtr)?;
    let gone = lab.wait_for(WITHDRAWAL, || Ok(routes(lab)? == 0))?;
    let observed = match gone {
        true => format!("none after {} ms", begin.elapsed().as_millis()),
        false => format!("{} left", routes(lab)?),
    };
    checks.that(
        "gateway killed: its aggregates in the kernel table",
        "none within 1 s",
        observed,
        gone,
    );
    lab.daemons.restart(pxtr, &lab.topology.pxtr)?;
    checks.equal("started again: aggregates in the kernel table", before, routes(lab)?);
    first_ping(lab, checks, "the first ping through it", Header::new(SITE_A.host6(0), HOST_N6))
}

fn gateway_ends(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let pxtr = lab.daemons.named("pxtr")?;
    let status = lab.daemons.stop(pxtr)?;
    checks.that("gateway told to end: exit status", "0", shown(status.code()), status.success());
    checks.equal("its aggregates in the kernel table", 0, routes(lab)?);
    lab.daemons.restart(pxtr, &lab.topology.pxtr)?;
    // IPv4, because a Map-Server answers the same question of the same RLOC once in three seconds.
    first_ping(lab, checks, "started again: the first ping", Header::new(SITE_A.host4(0), HOST_N4))
}

fn xtr_dies(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let xtr_b = lab.daemons.named("xtr-b")?;
    let namespace = &lab.topology.sites[1].xtr;
    let before = link::rules_of_protocol(namespace, PROTOCOL)?;
    lab.daemons.kill(xtr_b)?;
    lab.daemons.restart(xtr_b, namespace)?;
    let after = link::rules_of_protocol(namespace, PROTOCOL)?;
    checks.equal("xTR killed and started again: its policy rules, none left over", before, after);
    let header = Header::new(SITE_A.host6(0), SITE_B.host6(1));
    first_ping(lab, checks, "the first ping to its site", header)
}

fn xtr_ends(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let xtr_b = lab.daemons.named("xtr-b")?;
    let map_server = lab.daemons.named("ms")?;
    let namespace = &lab.topology.sites[1].xtr;
    let status = lab.daemons.stop(xtr_b)?;
    checks.that("xTR told to end: exit status", "0", shown(status.code()), status.success());
    let rules = link::rules_of_protocol(namespace, PROTOCOL)?;
    checks.equal("its policy rules", 0, rules);
    lab.wait_for(LIMIT, || Ok(registered(map_server)? == 0))?;
    checks.equal("its registrations at the Map-Server", 0, registered(map_server)?);
    lab.daemons.restart(xtr_b, namespace)?;
    lab.wait_for(LIMIT, || Ok(registered(map_server)? == 2))?;
    checks.equal("started again: its registrations", 2, registered(map_server)?);
    let header = Header::new(SITE_A.host4(0), SITE_B.host4(0));
    first_ping(lab, checks, "the first ping to its site", header)
}

/// Routes of the gateway in its kernel table.
fn routes(lab: &Lab) -> io::Result<usize> {
    Ok(link::routes_of_protocol(&lab.topology.pxtr, PROTOCOL)?.len())
}

/// EID-prefixes that site B has registered.
fn registered(map_server: &Daemon) -> io::Result<usize> {
    let registrations = map_server.ask(&Query::Registrations)?;
    let all = registrations.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(all.iter().filter(|registration| registration["site"] == SITE_B.name).count())
}

fn first_ping(lab: &Lab, checks: &mut Checks, text: &str, header: Header) -> io::Result<()> {
    let answer = ping(lab.host(SITE_A), header, 100, LIMIT)?;
    checks.that(text, "reply", answer, answer.is_reply());
    Ok(())
}

fn shown(code: Option<i32>) -> String {
    code.map_or_else(|| String::from("killed"), |code| code.to_string())
}
