//! F1: the mapping system is killed while traffic flows, and comes back.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;

use crate::lab::addresses::{EID_PREFIXES, SITE_A, SITE_B};
use crate::lab::configuration::REGISTRATION_INTERVAL;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::probe::tcp;
use crate::lab::probe::udp::{EchoServer, Stream};
use crate::lab::report::Checks;
use crate::lab::session::Lab;

/// In one line.
pub(crate) const TITLE: &str = "the mapping system is killed while traffic flows, and comes back";

/// How long traffic has to do without it.
const OUTAGE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(3);
const TRANSFER: usize = 10_000_000;

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let map_server = lab.daemons.named("ms")?;
    let (client, server) = (SITE_A.host6(0), SITE_B.host6(0));
    let known = ping(lab.host(SITE_A), Header::new(client, server), 100, LIMIT)?;
    checks.that("a ping from site A to site B first", "reply", known, known.is_reply());
    let echo = EchoServer::start(lab.host(SITE_B), server)?;
    let stream = Stream::start(lab.host(SITE_A), client, echo.address())?;
    let killed = Instant::now();
    lab.daemons.kill(map_server)?;
    let ends = ((lab.host(SITE_A), client), (lab.host(SITE_B), server));
    let text = "killed: TCP over IPv6, 10 MB each way, every octet compared";
    match tcp::transfer(ends.0, ends.1, TRANSFER) {
        Ok(transfer) => checks.that(text, "complete", transfer, true),
        Err(error) => checks.that(text, "complete", error, false),
    }
    thread::sleep(OUTAGE.saturating_sub(killed.elapsed()));
    let restarted = Instant::now();
    lab.daemons.restart(map_server, &lab.topology.ms)?;
    let expected = EID_PREFIXES;
    let limit = REGISTRATION_INTERVAL + Duration::from_secs(1);
    let back = lab.wait_for(limit, || Ok(registrations(lab)? == expected))?;
    let observed = if back {
        format!("{expected} after {:.1} s", restarted.elapsed().as_secs_f64())
    } else {
        format!("{} after {:.1} s", registrations(lab)?, restarted.elapsed().as_secs_f64())
    };
    let within = format!("{expected} within {} s", REGISTRATION_INTERVAL.as_secs());
    let text = "started again: registrations back within one refresh";
    checks.that(text, &within, observed, back && restarted.elapsed() < limit);
    let echoes = stream.finish()?;
    let text = format!("echoes lost of {} sent meanwhile, one flow", echoes.sent);
    checks.equal(&text, 0, echoes.sent - echoes.received);
    Ok(())
}

/// EID-prefixes registered at the Map-Server.
fn registrations(lab: &Lab) -> io::Result<usize> {
    let registrations = lab.daemons.named("ms")?.ask(&Query::Registrations)?;
    Ok(registrations.as_array().map_or(0, Vec::len))
}
