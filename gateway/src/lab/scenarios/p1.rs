//! P1: the gateway is subscribed, and traffic follows a site that registers late or moves.

use std::io;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use serde_json::Value;

use crate::lab::addresses::{HOST_N6, SITE_B, XTR_B_MOVED};
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
    let (xtr_b, pxtr) = (lab.daemons.named("xtr-b")?, lab.daemons.named("pxtr")?);
    let namespace = &lab.topology.sites[1].xtr;
    let header = Header::new(HOST_N6, SITE_B.host6(0));
    lab.daemons.stop(xtr_b)?;
    lab.wait_for(LIMIT, || Ok(locators(lab)?.is_empty()))?;
    let nobody = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    checks.that(
        "site B is not registered: ping from host N",
        "no reply",
        nobody,
        !nobody.is_reply(),
    );
    lab.wait_for(LIMIT, || Ok(subscription(&pxtr.ask(&Query::Subscriptions)?).is_some()))?;
    let state = subscription(&pxtr.ask(&Query::Subscriptions)?);
    checks.equal("the gateway's subscription to the hole", "temporary".to_owned(), shown(state));
    lab.daemons.restart(xtr_b, namespace)?;
    lab.wait_for(LIMIT, || Ok(!locators(lab)?.is_empty()))?;
    let registered = Instant::now();
    let mut answer = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    while !answer.is_reply() && registered.elapsed() < FOLLOWING {
        answer = ping(&lab.topology.host_n, header, 100, SILENCE)?;
    }
    let observed = format!("{answer}, {} ms after", registered.elapsed().as_millis());
    let passed = answer.is_reply() && registered.elapsed() < FOLLOWING;
    checks.that("site B registers: ping from host N", "reply within 1 s", observed, passed);
    Ok(())
}

/// The xTR comes back at another place, without a word from the old one and without SMR.
fn moves(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let (xtr_b, pxtr) = (lab.daemons.named("xtr-b")?, lab.daemons.named("pxtr")?);
    let namespace = &lab.topology.sites[1].xtr;
    let header = Header::new(HOST_N6, SITE_B.host6(0));
    let solicited = pxtr.counter("smrs_received")?;
    topology::add_locator4(&lab.topology.core4, namespace, XTR_B_MOVED)?;
    let keys = lab.daemons.directory().display().to_string();
    let moved = SITE_B.moved_to(XTR_B_MOVED);
    lab.daemons.kill(xtr_b)?;
    lab.daemons.configure(xtr_b, &configuration::xtr(&moved, &keys))?;
    lab.daemons.restart(xtr_b, namespace)?;
    let place = XTR_B_MOVED.to_string();
    lab.wait_for(LIMIT, || Ok(locators(lab)?.contains(&place)))?;
    let registered = Instant::now();
    let prefix = SITE_B.prefix6().to_string();
    let followed = lab.wait_for(FOLLOWING, || {
        let entries = pxtr.ask(&Query::MapCache)?;
        Ok(rlocs_of(&entries, &prefix) == [place.as_str()])
    })?;
    let observed = format!("{} ms after", registered.elapsed().as_millis());
    let text = "site B moves: the gateway's map-cache has its new locator";
    checks.that(text, "within 1 s", observed, followed);
    checks.equal("lost of 20 pings from host N", 0, lost(&lab.topology.host_n, header, 100, 20)?);
    checks.equal("SMRs that the gateway got for it", 0, pxtr.counter("smrs_received")? - solicited);
    Ok(())
}

/// As the other scenarios know it.
fn goes_home(lab: &Lab) -> io::Result<()> {
    let xtr_b = lab.daemons.named("xtr-b")?;
    let keys = lab.daemons.directory().display().to_string();
    lab.daemons.stop(xtr_b)?;
    lab.daemons.configure(xtr_b, &configuration::xtr(SITE_B, &keys))?;
    lab.daemons.restart(xtr_b, &lab.topology.sites[1].xtr)?;
    let home = SITE_B.rloc.to_string();
    lab.wait_for(LIMIT, || Ok(locators(lab)?.contains(&home))).map(drop)
}

/// Where site B's EIDs are by the Map-Server.
fn locators(lab: &Lab) -> io::Result<Vec<String>> {
    let registrations = lab.daemons.named("ms")?.ask(&Query::Registrations)?;
    let of_b = elements(&registrations).iter().filter(|r| r["site"] == SITE_B.name);
    Ok(of_b
        .flat_map(|registration| elements(&registration["locators"]))
        .filter_map(|locator| Some(locator["rloc"].as_str()?.to_owned()))
        .collect())
}

fn rlocs_of<'a>(entries: &'a Value, prefix: &str) -> Vec<&'a str> {
    let entry = elements(entries).iter().find(|entry| entry["prefix"] == *prefix);
    let locators = entry.map_or(&[][..], |entry| elements(&entry["locators"]));
    locators.iter().filter_map(|locator| locator["address"].as_str()).collect()
}

/// The state of the gateway's subscription to site B's IPv6 EID-prefix.
fn subscription(views: &Value) -> Option<String> {
    let prefix = SITE_B.prefix6().to_string();
    let view = elements(views).iter().find(|view| view["prefix"] == *prefix)?;
    view["state"].as_str().map(str::to_owned)
}

fn elements(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn shown(state: Option<String>) -> String {
    state.unwrap_or_else(|| "none".to_owned())
}
