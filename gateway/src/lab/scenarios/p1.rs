//! P1: the gateway is subscribed, and traffic follows a site that registers late or moves.

use std::io;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use serde_json::Value;

use crate::lab::addresses::{HOST_N6, SITE_A, XTR_A_MOVED};
use crate::lab::configuration;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;
use crate::lab::topology;

/// In one line.
pub(crate) const TITLE: &str = "a subscribed gateway follows a site that registers late, or moves";

/// How long the mapping system may take to know what a site says.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the gateway may take after that.
const FOLLOWING: Duration = Duration::from_secs(1);
/// Nobody answers for so long.
const SILENCE: Duration = Duration::from_millis(500);

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    registers_late(lab, checks)?;
    let followed = moves(lab, checks);
    let back = goes_home(lab);
    followed.and(back)
}

/// Without a subscription the negative entry would live for a minute.
fn registers_late(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (xtr_a, pxtr) = (lab.daemons.named("xtr-a")?, lab.daemons.named("pxtr")?);
    let namespace = &lab.topology.sites[0].xtr;
    let header = Header::new(HOST_N6, SITE_A.host6(0));
    lab.daemons.stop(xtr_a)?;
    lab.wait_for(LIMIT, || Ok(locators(lab)?.is_empty()))?;
    let nobody = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    checks.that(
        "site A is not registered: ping from host N",
        "no reply",
        nobody,
        !nobody.is_reply(),
    );
    lab.wait_for(LIMIT, || Ok(subscription(&pxtr.ask(&Query::Subscriptions)?).is_some()))?;
    let state = subscription(&pxtr.ask(&Query::Subscriptions)?);
    checks.equal("the gateway's subscription to the hole", "temporary".to_owned(), shown(state));
    lab.daemons.restart(xtr_a, namespace)?;
    lab.wait_for(LIMIT, || Ok(!locators(lab)?.is_empty()))?;
    first_reply(lab, checks, "site A registers: ping from host N", header)
}

/// A reply from now on within the limit; the site's own side has to look up the way back, too.
fn first_reply(lab: &Lab, checks: &mut Checks, text: &str, header: Header) -> io::Result<()> {
    let registered = Instant::now();
    let mut answer = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    while !answer.is_reply() && registered.elapsed() < FOLLOWING {
        answer = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    }
    let observed = format!("{answer}, {} ms after", registered.elapsed().as_millis());
    let passed = answer.is_reply() && registered.elapsed() < FOLLOWING;
    checks.that(text, "reply within 1 s", observed, passed);
    Ok(())
}

/// The xTR comes back at another place, without a word from the old one and without SMR.
fn moves(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (xtr_a, pxtr) = (lab.daemons.named("xtr-a")?, lab.daemons.named("pxtr")?);
    let namespace = &lab.topology.sites[0].xtr;
    let header = Header::new(HOST_N6, SITE_A.host6(0));
    let solicited = pxtr.counter("smrs_received")?;
    topology::add_locator4(&lab.topology.core4, namespace, XTR_A_MOVED)?;
    let keys = lab.daemons.directory().display().to_string();
    let moved = SITE_A.moved_to(XTR_A_MOVED);
    lab.daemons.kill(xtr_a)?;
    lab.daemons.configure(xtr_a, &configuration::xtr(&moved, &keys))?;
    lab.daemons.restart(xtr_a, namespace)?;
    let place = XTR_A_MOVED.to_string();
    lab.wait_for(LIMIT, || Ok(locators(lab)?.contains(&place)))?;
    let registered = Instant::now();
    let prefix = SITE_A.prefix6().to_string();
    let followed = lab.wait_for(FOLLOWING, || {
        let entries = pxtr.ask(&Query::MapCache)?;
        Ok(rlocs_of(&entries, &prefix) == [place.as_str()])
    })?;
    let observed = format!("{} ms after", registered.elapsed().as_millis());
    let text = "site A moves: the gateway's map-cache has its new locator";
    checks.that(text, "within 1 s", observed, followed);
    first_reply(lab, checks, "ping from host N", header)?;
    checks.equal("lost of 20 more", 0, lost(&lab.topology.host_n, header, 100, 20)?);
    checks.equal("SMRs that the gateway got for it", 0, pxtr.counter("smrs_received")? - solicited);
    Ok(())
}

/// As the other scenarios know it.
fn goes_home(lab: &Lab) -> io::Result<()> {
    let xtr_a = lab.daemons.named("xtr-a")?;
    let keys = lab.daemons.directory().display().to_string();
    lab.daemons.stop(xtr_a)?;
    lab.daemons.configure(xtr_a, &configuration::xtr(SITE_A, &keys))?;
    lab.daemons.restart(xtr_a, &lab.topology.sites[0].xtr)?;
    let home = SITE_A.rloc.to_string();
    lab.wait_for(LIMIT, || Ok(locators(lab)?.contains(&home))).map(drop)
}

/// Where site A's EIDs are by the Map-Server.
fn locators(lab: &Lab) -> io::Result<Vec<String>> {
    let registrations = lab.daemons.named("ms")?.ask(&Query::Registrations)?;
    let of_a = elements(&registrations).iter().filter(|r| r["site"] == SITE_A.name);
    Ok(of_a
        .flat_map(|registration| elements(&registration["locators"]))
        .filter_map(|locator| Some(locator["rloc"].as_str()?.to_owned()))
        .collect())
}

fn rlocs_of<'a>(entries: &'a Value, prefix: &str) -> Vec<&'a str> {
    let entry = elements(entries).iter().find(|entry| entry["prefix"] == *prefix);
    let locators = entry.map_or(&[][..], |entry| elements(&entry["locators"]));
    locators.iter().filter_map(|locator| locator["address"].as_str()).collect()
}

/// The state of the gateway's subscription to site A's IPv6 EID-prefix.
fn subscription(views: &Value) -> Option<String> {
    let prefix = SITE_A.prefix6().to_string();
    let view = elements(views).iter().find(|view| view["prefix"] == *prefix)?;
    view["state"].as_str().map(str::to_owned)
}

fn elements(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn shown(state: Option<String>) -> String {
    state.unwrap_or_else(|| "none".to_owned())
}
