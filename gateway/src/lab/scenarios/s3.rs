//! S3: a destination that is in no mapping database.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::wire;
use crate::lab::addresses::{HOST_DEAD, MS4, PXTR4, SITE_A, SITES};
use crate::lab::decode::{Control, Datagram, Record};
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str = "a destination that is not in the mapping database";

const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// Action "natively-forward" (RFC 9301 §5.4).
const NATIVELY_FORWARD: u8 = 1;
/// RFC 9301 §8.4.
const TTL_MINUTES: u32 = 15;
const PINGS: usize = 5;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let core = &lab.captures.core4;
    let host = lab.host(SITE_A);
    let header = Header::new(SITE_A.host6(0), HOST_DEAD);
    let mark = core.mark();

    let first = ping(host, header, 100, FIRST_LIMIT)?;
    checks.that(format!("the very first ping to {HOST_DEAD}"), "reply", first, first.is_reply());
    let packets = core.datagrams_since(mark);
    checks.equal(
        "Map-Requests of site A for it",
        1,
        wire::map_requests(&packets, SITE_A.rloc, HOST_DEAD),
    );
    let replies = replies(&packets);
    checks.equal("Map-Replies to site A", 1, replies.len());
    let record = replies.first().cloned();
    let shown = |read: fn(&Record) -> String| {
        record.as_ref().map_or_else(|| String::from("no reply"), read)
    };
    checks.equal("the reply's locators", "0".into(), shown(|r| r.locator_count.to_string()));
    checks.equal(
        "the reply's action (1 = natively-forward)",
        NATIVELY_FORWARD.to_string(),
        shown(|r| r.action.to_string()),
    );
    checks.equal(
        "the reply's TTL in minutes",
        TTL_MINUTES.to_string(),
        shown(|r| r.ttl_minutes.to_string()),
    );
    let known: Vec<IpNet> = SITES.iter().map(|site| site.prefix6()).collect();
    let expected = wire::negative_prefix(HOST_DEAD, &known).map(|p| p.to_string());
    checks.equal(
        "the reply's EID-prefix: the least specific that covers no EID",
        expected.unwrap_or_default(),
        shown(|r| r.eid.map_or_else(|| String::from("unreadable"), |eid| eid.to_string())),
    );

    checks.equal("lost of 5 more pings", 0, lost(host, header, 100, PINGS)?);
    let packets = core.datagrams_since(mark);
    checks.equal(
        "Map-Requests of site A after all pings",
        1,
        wire::map_requests(&packets, SITE_A.rloc, HOST_DEAD),
    );
    let out = wire::encapsulated(&packets, SITE_A.rloc, PXTR4);
    let out = wire::carrying(&out, header.source, header.destination);
    checks.equal("packets encapsulated to the PETR", PINGS + 1, out.len());
    Ok(())
}

/// Records of the Map-Replies (none to RLOC-probes) that site A's xTR got from the Map-Resolver.
fn replies(packets: &[Datagram]) -> Vec<Record> {
    let to_a = |packet: &&Datagram| packet.destination == SITE_A.rloc && is_mapping(packet.source);
    let records = packets.iter().filter(to_a).filter_map(|packet| match packet.control() {
        Some(Control::MapReply { probe: false, records }) => Some(records.clone()),
        _ => None,
    });
    records.flatten().filter(|record| record.eid.is_some_and(|e| e.contains(&HOST_DEAD))).collect()
}

fn is_mapping(address: IpAddr) -> bool {
    address == MS4
}
