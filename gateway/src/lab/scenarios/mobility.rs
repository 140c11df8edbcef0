//! A VM moves between two data centres and keeps its addresses, its default gateway and its sessions (USE-CASES A).
//!
//! ```text
//!   host-c -- xtr-c --- core ---+--- relay --- xtr-1 -- DC1 -- vm
//!                        |      |                              | moves
//!                        ms     +--- relay --- xtr-2 -- DC2 ---+
//! ```
//! A move is the fabric's uplink, taken out of one data centre's bridge and plugged into the other's, as a live migration does it: the VM
//! sees no carrier come or go, and its tables and sockets stay as they are.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mapping::admin::Query;
use mapping::view::RegistrationView;

use crate::lab::addresses::host;
use crate::lab::capture::Capture;
use crate::lab::daemons::Daemon;
use crate::lab::decode::Control;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Network, wait_for};
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::ping;
use crate::lab::probe::session::Session;
use crate::lab::probe::stream::{Seen, Stream};
use crate::lab::relay::{Relay, Way};
use crate::lab::report::Checks;

mod plan;

use plan::{BRIDGE, CLIENT, MS, NEIGHBOUR, STRANGER, UPLINKS, VM, VM_PORT, XTR, XTR_C};

pub(crate) use plan::PLAN;

/// In one line.
pub(crate) const TITLE: &str =
    "a VM moves between data centres, IPv4 and IPv6, and keeps its sessions";

/// The routing protocol number of the routes to hosts.
const PROTOCOL: u8 = 204;
/// Types of control messages.
const MAP_REGISTER: u8 = 3;
const MAP_NOTIFY: u8 = 4;
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// An RLOC is solicited once in three seconds (RFC 9301 §6.1), so that its mapping of the second family may take that long; meanwhile the
/// former site sends the packets on.
const SOLICITED: Duration = Duration::from_secs(4);
/// How long anything else may take to be as it is to be.
const LIMIT: Duration = Duration::from_secs(2);
/// What is watched of a stream after a move.
const AFTER: Duration = Duration::from_millis(1500);
/// How long a silent VM may stay registered: its timeout, and what deregistration takes.
const WITHDRAWN: Duration = Duration::from_secs(6);
const MOVES: usize = 10;
/// How long one ping of several waits.
const TRY: Duration = Duration::from_millis(100);

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let mut bed = Bed::of(network)?;
    bed.first_packets(checks)?;
    bed.first_move(checks)?;
    bed.refused(checks)?;
    bed.across(checks)?;
    bed.with_delay(checks, Duration::from_millis(25), Duration::from_millis(300))?;
    bed.with_delay(checks, Duration::from_millis(100), Duration::from_secs(1))?;
    bed.ten_moves(checks)?;
    bed.notify_lost(checks)?;
    bed.cold(checks)?;
    bed.powered_off(checks)
}

/// The pieces that it uses.
struct Bed {
    core: Arc<Capture>,
    lan_captures: [Arc<Capture>; 2],
    client: Arc<Namespace>,
    vm: Arc<Namespace>,
    stays: Arc<Namespace>,
    fabric: Arc<Namespace>,
    routers: [Arc<Namespace>; 2],
    relays: [Arc<Relay>; 2],
    ms: Arc<Daemon>,
    xtr_c: Arc<Daemon>,
    xtrs: [Arc<Daemon>; 2],
    /// In which data centre the VM is.
    at: usize,
}

/// One way each, both families.
struct Streams(Vec<(String, Stream)>);

impl Streams {
    fn start(bed: &Bed) -> io::Result<Self> {
        let mut streams = Vec::new();
        for (n, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
            let (client, vm) = ((&*bed.client, CLIENT[n]), (&*bed.vm, VM[n]));
            streams.push((format!("{family}, client to VM"), Stream::start(client, vm)?));
            streams.push((format!("{family}, VM to client"), Stream::start(vm, client)?));
        }
        Ok(Self(streams))
    }

    fn finish(self) -> io::Result<Vec<(String, Seen)>> {
        self.0.into_iter().map(|(name, stream)| Ok((name, stream.finish()?))).collect()
    }
}

impl Bed {
    fn of(network: &Network) -> io::Result<Self> {
        let pair = |names: [&str; 2]| -> io::Result<_> {
            Ok([network.namespace(names[0])?, network.namespace(names[1])?])
        };
        Ok(Self {
            core: network.capture_of("core")?,
            lan_captures: [network.capture_of("dc1")?, network.capture_of("dc2")?],
            client: network.namespace("host-c")?,
            vm: network.namespace("vm")?,
            stays: network.namespace("stays")?,
            fabric: network.namespace("fabric")?,
            routers: pair(["xtr-1", "xtr-2"])?,
            relays: [network.relay_to("to-dc1")?, network.relay_to("to-dc2")?],
            ms: network.daemon_in("ms")?,
            xtr_c: network.daemon_in("xtr-c")?,
            xtrs: [network.daemon_in("xtr-1")?, network.daemon_in("xtr-2")?],
            at: 0,
        })
    }

    /// Plugs the VM into the other data centre; `down` is how long it is in neither. When it was pulled out.
    fn move_vm(&mut self, down: Duration) -> io::Result<Instant> {
        let begin = Instant::now();
        link::unplug(&self.fabric, UPLINKS[self.at])?;
        thread::sleep(down);
        link::plug(&self.fabric, UPLINKS[1 - self.at], BRIDGE)?;
        self.at = 1 - self.at;
        Ok(begin)
    }

    /// Rows 1 and 2.
    fn first_packets(&self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            let answer = ping(&self.client, Header::new(client, vm), 100, FIRST_LIMIT)?;
            checks.that(format!("the very first ping to {vm}"), "reply", answer, answer.is_reply());
        }
        for prefix in ["172.16.4.0/24", "2001:db8:e004::/64"] {
            let rlocs = self.client_knows(prefix)?;
            checks.equal(format!("the client's mapping of {prefix}"), XTR[0].to_string(), rlocs);
        }
        let packets = self.core.datagrams_since(mark);
        let stray = packets.iter().filter(|packet| {
            packet.lisp().is_some()
                && ![(XTR_C, XTR[0]), (XTR[0], XTR_C)]
                    .contains(&(packet.source, packet.destination))
        });
        checks.equal("LISP packets between any others", 0, stray.count());
        let streams = Streams::start(self)?;
        thread::sleep(Duration::from_secs(2));
        for (name, seen) in streams.finish()? {
            checks.equal(format!("lost in 2 s, {name}"), 0, seen.lost());
        }
        Ok(())
    }

    /// Rows 3 to 7.
    fn first_move(&mut self, checks: &mut Checks) -> io::Result<()> {
        let session = Session::start((&self.client, CLIENT[0]), (&self.vm, VM[0]))?;
        let session6 = Session::start((&self.client, CLIENT[1]), (&self.vm, VM[1]))?;
        let streams = Streams::start(self)?;
        thread::sleep(Duration::from_millis(300));
        let (mark, lan_mark) = (self.core.mark(), self.lan_captures[1].mark());
        let begin = self.move_vm(Duration::ZERO)?;
        self.settled(checks, "after the move")?;
        thread::sleep(AFTER.saturating_sub(begin.elapsed()));
        self.outages(checks, "RTT ~0", streams.finish()?, (begin, Duration::from_millis(50)))?;
        self.registered_at_once(checks, mark, lan_mark);
        self.notified(checks)?;
        for (prefix, family) in [("172.16.4.0/24", "IPv4"), ("2001:db8:e004::/64", "IPv6")] {
            let sources = self.registered(prefix)?;
            checks.equal(
                format!("the aggregate is as it was, {family}"),
                XTR[0].to_string(),
                sources,
            );
        }
        for (session, family) in [(session, "IPv4"), (session6, "IPv6")] {
            let survived = session.finish();
            let passed = survived.is_ok();
            let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
            checks.that(
                format!("the TCP session lives on, {family}"),
                "every record",
                shown,
                passed,
            );
        }
        Ok(())
    }

    /// Whoever is to know where the VM is, knows.
    fn settled(&self, checks: &mut Checks, when: &str) -> io::Result<()> {
        let rloc = XTR[self.at].to_string();
        for vm in VM {
            let prefix = host(vm).to_string();
            wait_for(LIMIT, || Ok(self.registered(&prefix)? == rloc))?;
            checks.equal(
                format!("{vm} is registered by, {when}"),
                rloc.clone(),
                self.registered(&prefix)?,
            );
            let router = &self.routers[self.at];
            let routed = || Ok(link::routes_of_protocol(router, PROTOCOL)?.contains(&host(vm)));
            let has_route = wait_for(LIMIT, routed)?;
            let old = link::routes_of_protocol(&self.routers[1 - self.at], PROTOCOL)?;
            let is_gone = !old.contains(&host(vm));
            checks.that(
                format!("host route to {vm}"),
                "there and nowhere else",
                format!("there: {has_route}, elsewhere: {}", !is_gone),
                has_route && is_gone,
            );
            wait_for(SOLICITED, || Ok(self.client_knows(&prefix)? == rloc))?;
            checks.equal("the client's mapping of it", rloc.clone(), self.client_knows(&prefix)?);
        }
        Ok(())
    }

    fn outages(
        &self,
        checks: &mut Checks,
        text: &str,
        streams: Vec<(String, Seen)>,
        (begin, limit): (Instant, Duration),
    ) -> io::Result<()> {
        for (name, seen) in streams {
            let outage = seen.outage_between(begin, begin + AFTER);
            let lost = seen.lost_between(begin, begin + AFTER);
            let resumed = seen.arrived.last().is_some_and(|(_, at)| *at > begin + AFTER / 2);
            checks.that(
                format!("outage at {text}, {name}"),
                format!("at most {} ms", limit.as_millis()),
                format!(
                    "{:.1} ms, {lost} lost, {} twice, {} out of order",
                    outage.as_secs_f64() * 1e3,
                    seen.duplicates(),
                    seen.reordered()
                ),
                resumed && outage <= limit,
            );
        }
        Ok(())
    }

    /// From the VM's first frame at its new place to the Map-Register in the core.
    fn registered_at_once(
        &self,
        checks: &mut Checks,
        mark: crate::lab::capture::Mark,
        lan_mark: crate::lab::capture::Mark,
    ) {
        let frames = self.lan_captures[1].since(lan_mark);
        let first = frames.first().map(|frame| frame.time);
        let registers = self.core.since(mark);
        let register = registers.iter().find(|frame| {
            frame.datagram.as_ref().is_some_and(|packet| {
                packet.source == XTR[1]
                    && packet.destination == MS
                    && packet.control() == Some(&Control::Other(MAP_REGISTER))
            })
        });
        let after =
            register.zip(first).and_then(|(frame, first)| frame.time.duration_since(first).ok());
        let shown = after.map_or("none".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3));
        let passed = after.is_some_and(|after| after <= Duration::from_millis(10));
        checks.that("Map-Register after the VM's first frame", "at most 10 ms", shown, passed);
    }

    /// The former site was told, said so, and sends on what still comes.
    fn notified(&self, checks: &mut Checks) -> io::Result<()> {
        let old = &self.xtrs[1 - self.at];
        let away = old.counter("dynamic_eids_moved_away")?;
        checks.that("EIDs that the former site knows to be away", "2", away, away >= 2);
        let acks = old.counter("map_notify_acks_sent")?;
        checks.that("Map-Notify-Acks of the former site", "at least 2", acks, acks >= 2);
        Ok(())
    }

    /// Row 3: a source outside the range.
    fn refused(&self, checks: &mut Checks) -> io::Result<()> {
        let reason = "dyn_eid_not_allowed";
        let router = &self.xtrs[self.at];
        let before = router.drops(reason)?;
        let packet = craft::udp(&Header::new(STRANGER, CLIENT[0]), (7, 7), b"stranger", true);
        craft::send(&self.vm, packet, CLIENT[0])?;
        wait_for(LIMIT, || Ok(router.drops(reason)? > before))?;
        checks.equal(
            format!("a packet from {STRANGER} dropped as {reason}"),
            1,
            router.drops(reason)? - before,
        );
        Ok(())
    }

    /// Hosts of one subnet in two data centres, which ask their links for each other.
    fn across(&self, checks: &mut Checks) -> io::Result<()> {
        for (stays, vm) in NEIGHBOUR.into_iter().zip(VM) {
            let answer = ping(&self.stays, Header::new(stays, vm), 100, FIRST_LIMIT)?;
            checks.that(
                format!("{stays}, which stayed, pings {vm}"),
                "reply",
                answer,
                answer.is_reply(),
            );
            let answer = ping(&self.vm, Header::new(vm, stays), 100, FIRST_LIMIT)?;
            checks.that(format!("{vm} pings {stays}"), "reply", answer, answer.is_reply());
        }
        Ok(())
    }

    /// There and back over long wires.
    fn with_delay(
        &mut self,
        checks: &mut Checks,
        delay: Duration,
        limit: Duration,
    ) -> io::Result<()> {
        self.relays.iter().for_each(|relay| relay.delay(delay));
        let text = format!("{} ms one way", delay.as_millis());
        thread::sleep(Duration::from_secs(3));
        let streams = Streams::start(self)?;
        thread::sleep(Duration::from_millis(300) + 4 * delay);
        let begin = self.move_vm(Duration::ZERO)?;
        thread::sleep(AFTER);
        self.outages(checks, &text, streams.finish()?, (begin, limit))?;
        self.settled(checks, &text)?;
        self.relays.iter().for_each(|relay| relay.delay(Duration::ZERO));
        Ok(())
    }

    /// Row 9.
    fn ten_moves(&mut self, checks: &mut Checks) -> io::Result<()> {
        let session = Session::start((&self.client, CLIENT[0]), (&self.vm, VM[0]))?;
        let streams = Streams::start(self)?;
        let begin = Instant::now();
        for number in 1..=MOVES {
            self.move_vm(Duration::ZERO)?;
            let next = begin + Duration::from_secs(1) * number as u32;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.settled(checks, "after ten moves at 1/s")?;
        for (name, seen) in streams.finish()? {
            let outage = seen.outage_between(begin, begin + Duration::from_secs(MOVES as u64));
            let passed = outage < Duration::from_secs(1);
            let shown = format!("{:.1} ms, {} lost", outage.as_secs_f64() * 1e3, seen.lost());
            checks.that(format!("longest outage of ten moves, {name}"), "below 1 s", shown, passed);
        }
        let survived = session.finish();
        let passed = survived.is_ok();
        let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
        checks.that("the TCP session lives on", "every record", shown, passed);
        for xtr in &self.xtrs {
            checks.equal(
                format!("packets that went round until their TTL was out, {}", xtr.name),
                0,
                xtr.drops("hop_limit_exceeded")?,
            );
        }
        Ok(())
    }

    /// Row 5: the Map-Server says it again.
    fn notify_lost(&mut self, checks: &mut Checks) -> io::Result<()> {
        let old = self.at;
        let is_notify = move |way: Way, packet: &crate::lab::decode::Datagram| {
            way == Way::ToMember
                && packet.source == MS
                && packet.control() == Some(&Control::Other(MAP_NOTIFY))
        };
        let before = self.xtrs[old].counter("dynamic_eids_moved_away")?;
        let loss = self.relays[old].lose(1, is_notify);
        self.move_vm(Duration::ZERO)?;
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            // The VM speaks, so that it is seen.
            ping(&self.vm, Header::new(vm, client), 100, LIMIT)?;
        }
        let told = wait_for(Duration::from_secs(5), || {
            Ok(self.xtrs[old].counter("dynamic_eids_moved_away")? >= before + 2)
        })?;
        let shown = format!("lost: {}, told all the same: {told}", loss.happened());
        let passed = loss.happened() && told;
        checks.that("a lost Map-Notify is sent again", "lost once, then told", shown, passed);
        self.settled(checks, "after that")
    }

    /// Cold: the VM is in neither data centre for a while.
    fn cold(&mut self, checks: &mut Checks) -> io::Result<()> {
        self.move_vm(Duration::from_secs(4))?;
        let begin = Instant::now();
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            let header = Header::new(vm, client);
            let mut answer = ping(&self.vm, header, 100, TRY)?;
            while !answer.is_reply() && begin.elapsed() < Duration::from_secs(1) {
                answer = ping(&self.vm, header, 100, TRY)?;
            }
            checks.that(
                format!("after 4 s in no data centre, {vm} is reached again"),
                "within 1 s",
                format!("{answer}, {} ms after", begin.elapsed().as_millis()),
                answer.is_reply(),
            );
        }
        self.settled(checks, "after a cold move")
    }

    /// Row 10.
    fn powered_off(&mut self, checks: &mut Checks) -> io::Result<()> {
        let begin = Instant::now();
        link::down(&self.fabric, VM_PORT)?;
        for vm in VM {
            let prefix = host(vm).to_string();
            let gone = wait_for(WITHDRAWN.saturating_sub(begin.elapsed()), || {
                Ok(self.registered(&prefix)?.is_empty())
            })?;
            let shown = format!("{gone}, after {:.1} s", begin.elapsed().as_secs_f64());
            checks.that(format!("the VM is off: {vm} is withdrawn"), "true", shown, gone);
        }
        for (xtr, router) in self.xtrs.iter().zip(&self.routers) {
            let no_route = || {
                let routes = link::routes_of_protocol(router, PROTOCOL)?;
                Ok(!VM.iter().any(|vm| routes.contains(&host(*vm))))
            };
            let gone = wait_for(LIMIT, no_route)?;
            checks.equal(format!("host routes are gone, {}", xtr.name), true, gone);
        }
        Ok(())
    }

    /// The locators that the client's router sends packets for `prefix` to; empty without an entry.
    fn client_knows(&self, prefix: &str) -> io::Result<String> {
        let entries = self.xtr_c.ask(&Query::MapCache)?;
        let entry = entries.as_array().and_then(|entries| {
            entries.iter().find(|entry| entry["prefix"].as_str() == Some(prefix))
        });
        let rlocs = entry.and_then(|entry| entry["locators"].as_array().cloned());
        let rlocs = rlocs.unwrap_or_default();
        let rlocs = rlocs.iter().filter_map(|locator| locator["address"].as_str());
        Ok(rlocs.collect::<Vec<_>>().join(" "))
    }

    /// Who has registered `prefix`; empty for nobody.
    fn registered(&self, prefix: &str) -> io::Result<String> {
        let prefix: IpNet = prefix.parse().map_err(io::Error::other)?;
        let views: Vec<RegistrationView> =
            serde_json::from_value(self.ms.ask(&Query::Registrations)?)?;
        let sources: Vec<IpAddr> = views
            .iter()
            .filter(|view| view.prefix.is_some_and(|found| found.prefix() == prefix))
            .map(|view| view.source)
            .collect();
        Ok(sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }
}
