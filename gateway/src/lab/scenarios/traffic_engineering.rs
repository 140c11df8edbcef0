//! Inbound traffic of multihomed sites by priority and weight, while the policy changes (USE-CASES C).
//!
//! ```text
//!    host-r -- xtr-r ---+                +--- ISP-P 10 ms ---+
//!                       +---- core ------+                   xtr-m -- host-m
//!    host-n -- pitr ----+      |   |     +--- ISP-Q 30 ms ---+
//!                           xtr-w1 xtr-w2 -- host-w
//! ```
//! Every flow is watched in the core: which locator it takes, and when that changes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use mapping::admin::Query;
use xtr::view::TrafficView;

use crate::lab::capture::{Capture, Frame};
use crate::lab::daemons::Daemon;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Network, wait_for};
use crate::lab::probe::craft::Header;
use crate::lab::probe::many::{self, Flows, LocatorsOfFlows};
use crate::lab::probe::ping::ping;
use crate::lab::report::Checks;

mod plan;

use plan::{
    DELAY_P, DELAY_Q, EID_AGGREGATE, FOUR, HALVES, HOST_N, HOST_R, HOST_W, MIXED, P, Policy, Q,
    UNUSED, W, gateway, host_m, xtr_m, xtr_m_with_fifth,
};

pub(crate) use plan::PLAN;

/// In one line.
pub(crate) const TITLE: &str =
    "inbound traffic of multihomed sites by priority and weight, changed while it flows";

const FLOWS: u16 = 10_000;
/// Packets in a second.
const RATE: u32 = 8_000;
/// Octets of a packet, IP header included.
const LENGTH: usize = 200;
/// What 3 standard deviations of 10 000 flows are, in percentage points: 50/50, 70/30, and four locators.
const HALF_POINTS: f64 = 1.5;
const SEVENTY_POINTS: f64 = 1.4;
/// Flows that were sent twice count twice.
const OCTETS_POINTS: f64 = 2.0;
/// Flows that must move from 50/50 to 70/30, and 3 standard deviations of them.
const MOVED_PERCENT: f64 = 20.0;
const MOVED_SIGMAS: f64 = 1.2;
/// How long a change may take beyond two round trips of the longer way.
const BEYOND: Duration = Duration::from_secs(1);
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// The routing protocol number of the routes that this product owns.
const OWN_ROUTES: u8 = 204;
/// How long it may take until every locator was probed.
const ALL_PROBED: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(2);

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let bed = Bed::of(network)?;
    bed.introduce(checks)?;
    bed.halves(checks)?;
    bed.seventy_thirty(checks)?;
    // Something else between two changes: an RLOC is solicited and answered once in three seconds (RFC 9301 §5.5, §6.1).
    bed.four_locators(checks)?;
    bed.change(checks, "priorities 1/2", Policy { p: (1, 70), q: (2, 30) }, P, false)?;
    bed.both_families(checks)?;
    bed.change(checks, "priorities 2/1", Policy { p: (2, 70), q: (1, 30) }, Q, false)?;
    bed.unused(checks)?;
    bed.two_routers(checks)?;
    let away = Policy { p: (1, 70), q: (255, 30) };
    bed.change(checks, "priorities 1/255, by SIGHUP", away, P, true)?;
    bed.refused(checks)?;
    bed.eid_prefixes(checks)?;
    bed.aggregates(checks)?;
    bed.books(checks)
}

/// The pieces that it uses.
struct Bed<'a> {
    network: &'a Network,
    core: Arc<Capture>,
    host_r: Arc<Namespace>,
    host_n: Arc<Namespace>,
    host_m: Arc<Namespace>,
    host_w: Arc<Namespace>,
    xtr_m: Arc<Daemon>,
    key: String,
}

impl<'a> Bed<'a> {
    fn of(network: &'a Network) -> io::Result<Self> {
        Ok(Self {
            network,
            core: network.capture_of("core")?,
            host_r: network.namespace("host-r")?,
            host_n: network.namespace("host-n")?,
            host_m: network.namespace("host-m")?,
            host_w: network.namespace("host-w")?,
            xtr_m: network.daemon_in("xtr-m")?,
            key: network.directory().join("site-m.key").display().to_string(),
        })
    }

    /// So that everybody knows the mappings.
    fn introduce(&self, checks: &mut Checks) -> io::Result<()> {
        let mut missing = 0;
        for destination in [host_m(1), host_m(2), host_m(3), host_m(4), HOST_W] {
            let header = Header::new(HOST_R, destination);
            missing += usize::from(!ping(&self.host_r, header, 100, FIRST_LIMIT)?.is_reply());
            // Nothing leads back to this host.
            ping(&self.host_n, Header::new(HOST_N, destination), 100, Duration::ZERO)?;
        }
        checks.equal("lost of the very first pings to 5 EID-prefixes", 0, missing);
        // And so that every link knows its neighbours: a kernel keeps a hundred packets for one that it has to ask for.
        let up = |name: &str, count: usize| -> io::Result<bool> {
            let locators = self.network.daemon_in(name)?.ask(&Query::Locators)?;
            let all = locators.as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(all.iter().filter(|locator| locator["state"] == "up").count() >= count)
        };
        let ready = wait_for(ALL_PROBED, || Ok(up("xtr-r", 13)? && up("pitr", 12)?))?;
        checks.that("all 13 locators answer probes", "yes", ready, ready);
        Ok(())
    }

    /// Sends `rounds` packets of each flow; what the core saw of it.
    fn send(&self, flows: Flows, rounds: u32, checks: &mut Checks) -> io::Result<LocatorsOfFlows> {
        let from = if flows.source == HOST_R { &self.host_r } else { &self.host_n };
        let to = if flows.destination == HOST_W { &self.host_w } else { &self.host_m };
        let mark = self.core.mark();
        let delivery = flows.send(from, to, (rounds, RATE))?;
        let seen = many::locators(&self.core.datagrams_since(mark), &flows);
        if delivery.arrived != delivery.sent {
            let text =
                format!("packets from {} to {} that got lost", flows.source, flows.destination);
            checks.equal(text, 0, delivery.sent - delivery.arrived);
        }
        Ok(seen)
    }

    /// Sends flows and compares their shares; once more with others if chance was against it.
    fn shares(
        &self,
        checks: &mut Checks,
        text: &str,
        (flows, rounds): (Flows, u32),
        wanted: &[(IpAddr, f64)],
        points: f64,
    ) -> io::Result<LocatorsOfFlows> {
        let seen = self.send(flows, rounds, checks)?;
        let shares = Shares::of(&seen);
        let mut good = shares.are(wanted, points);
        let mut observed = shares.to_string();
        if !good {
            // A fair choice strays that far once in 370 times. An unfair one fails with other flows too.
            let others = Flows { first_port: flows.first_port + FLOWS, ..flows };
            let again = Shares::of(&self.send(others, 1, checks)?);
            good = again.are(wanted, points);
            observed = format!("{observed}; other flows: {again}");
        }
        checks.that(text, expected(wanted, points), observed, good);
        Ok(seen)
    }

    fn halves(&self, checks: &mut Checks) -> io::Result<()> {
        let wanted = [(P, 50.0), (Q, 50.0)];
        for (who, flows) in [("xTR", of_site(1)), ("PITR", of_native(1))] {
            let text = format!("weights 50/50: shares of 10 000 flows of the {who}");
            let seen = self.shares(checks, &text, (flows, 2), &wanted, HALF_POINTS)?;
            let restless = seen.values().filter(|locators| locators.len() > 1).count();
            checks.equal(format!("flows of the {who} that used both locators"), 0, restless);
        }
        Ok(())
    }

    fn reconfigure(&self, policy: Policy) -> io::Result<Result<String, String>> {
        self.network.daemons().configure(&self.xtr_m, &xtr_m(&self.key, policy))?;
        self.xtr_m.reload()
    }

    /// From 50/50 to 70/30 while all flows are under way.
    fn seventy_thirty(&self, checks: &mut Checks) -> io::Result<()> {
        let flows = of_site(1);
        let before = self.send(flows, 1, checks)?;
        let within = 4 * DELAY_Q.max(DELAY_P) + BEYOND;
        let mark = self.core.mark();
        let ongoing = flows.start(&self.host_r, &self.host_m, RATE)?;
        thread::sleep(Duration::from_millis(200));
        let change = Capture::clock();
        let taken = self.reconfigure(Policy { p: (1, 70), q: (1, 30) })?;
        checks.equal(
            "isthmus reload, weights 70/30",
            String::from("taken over: xtr.rlocs.p.weight, xtr.rlocs.q.weight"),
            taken.unwrap_or_else(|refused| refused),
        );
        // All flows once more after that.
        let round = Duration::from_secs(1) * u32::from(FLOWS) / RATE;
        thread::sleep(within + 2 * round);
        let delivery = ongoing.finish()?;
        checks.equal("packets lost meanwhile", 0, delivery.sent - delivery.arrived);
        let frames = self.core.since(mark);
        let (late, settled) = divide(&frames, change + within);
        let after = many::locators(settled, &flows);
        let shares = Shares::of(&after);
        let wanted = [(P, 70.0), (Q, 30.0)];
        let text = format!(
            "weights 70/30: shares of the xTR's flows {} ms after the change",
            within.as_millis()
        );
        if shares.are(&wanted, SEVENTY_POINTS) {
            checks.that(text, expected(&wanted, SEVENTY_POINTS), &shares, true);
        } else {
            // Chance may be against it, but not twice.
            let others = Flows { first_port: flows.first_port + FLOWS, ..flows };
            self.shares(
                checks,
                &format!("{text}: {shares}; others"),
                (others, 1),
                &wanted,
                SEVENTY_POINTS,
            )?;
        }
        self.moved(checks, &before, &after);
        let first = late.iter().find(|frame| has_moved(frame, &before, &flows));
        let after_ms = first.and_then(|frame| frame.time.duration_since(change).ok());
        checks.that(
            "the first flow moved after",
            format!("at most {} ms", within.as_millis()),
            after_ms.map_or(String::from("none"), |after| format!("{} ms", after.as_millis())),
            after_ms.is_some_and(|after| after <= within),
        );
        let before = self.octets_of_first()?;
        let text = "weights 70/30: shares of the PITR's flows";
        self.shares(checks, text, (of_native(1), 1), &wanted, SEVENTY_POINTS)?;
        let octets: Vec<_> =
            self.octets_of_first()?.iter().zip(before).map(|(a, b)| a - b).collect();
        let share = 100.0 * octets[0] as f64 / octets.iter().sum::<u64>().max(1) as f64;
        checks.that(
            "of their octets at the first locator, by the ETR's counters",
            "70.0 % within 2 points",
            format!("{share:.1} %"),
            (share - 70.0).abs() <= OCTETS_POINTS,
        );
        Ok(())
    }

    /// Octets that arrived for the first EID-prefix on [`P`] and [`Q`].
    fn octets_of_first(&self) -> io::Result<[u64; 2]> {
        let views = self.views(&["xtr-m"])?;
        let octets = |rloc: IpAddr| {
            let arrived = views.iter().flat_map(|view| &view.arrived);
            let of_rloc = arrived.filter(|a| a.rloc == rloc && a.prefix.contains(&host_m(1)));
            of_rloc.map(|arrived| arrived.octets).sum()
        };
        Ok([octets(P), octets(Q)])
    }

    fn moved(&self, checks: &mut Checks, before: &LocatorsOfFlows, after: &LocatorsOfFlows) {
        let both = after.iter().filter_map(|(port, new)| Some((before.get(port)?.first()?, new)));
        let (mut all, mut moved, mut backwards) = (0u32, 0u32, 0u32);
        for (old, new) in both {
            all += 1;
            moved += u32::from(!new.contains(old));
            backwards += u32::from(*old == P && new.contains(&Q));
        }
        let percent = 100.0 * f64::from(moved) / f64::from(all.max(1));
        checks.that(
            "flows that moved (a fifth has to)",
            format!("at most {MOVED_PERCENT} % and 3 sigma"),
            format!("{percent:.1} %"),
            percent <= MOVED_PERCENT + MOVED_SIGMAS,
        );
        checks.equal("of them, to the locator that got less weight", 0, backwards);
    }

    /// Another EID-prefix has another locator-set, at the same time.
    fn four_locators(&self, checks: &mut Checks) -> io::Result<()> {
        let all: f64 = FOUR.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let wanted = FOUR.map(|(rloc, weight)| (rloc, 100.0 * f64::from(weight) / all));
        let text = "another EID-prefix, weights 30/20/20/10";
        self.shares(checks, text, (of_site(2), 2), &wanted, HALF_POINTS).map(drop)
    }

    fn both_families(&self, checks: &mut Checks) -> io::Result<()> {
        let wanted = MIXED.map(|rloc| (rloc, 50.0));
        let text = "locators of both families, weights 50/50, from the xTR with both";
        self.shares(checks, text, (of_site(3), 1), &wanted, HALF_POINTS)?;
        let text = "from the PITR, which has no IPv6: the IPv4 one has it all";
        self.shares(checks, text, (of_native(3), 1), &[(MIXED[0], 100.0)], 0.0).map(drop)
    }

    fn unused(&self, checks: &mut Checks) -> io::Result<()> {
        let text = "weights 0/50 and priority 255: the one in the middle has it all";
        self.shares(checks, text, (of_site(4), 1), &[(UNUSED[1], 100.0)], 0.0).map(drop)
    }

    /// Takes over a policy that leads everything to one locator.
    fn change(
        &self,
        checks: &mut Checks,
        what: &str,
        policy: Policy,
        only: IpAddr,
        by_signal: bool,
    ) -> io::Result<()> {
        if by_signal {
            self.network.daemons().configure(&self.xtr_m, &xtr_m(&self.key, policy))?;
            self.xtr_m.hang_up()?;
        } else if let Err(refused) = self.reconfigure(policy)? {
            checks.that(format!("{what}: reload"), "taken over", refused, false);
        }
        thread::sleep(4 * DELAY_Q.max(DELAY_P) + BEYOND);
        for (who, flows) in [("xTR", of_site(1)), ("PITR", of_native(1))] {
            let text = format!("{what}: shares of the {who}'s flows");
            self.shares(checks, &text, (flows, 1), &[(only, 100.0)], 0.0)?;
        }
        Ok(())
    }

    fn two_routers(&self, checks: &mut Checks) -> io::Result<()> {
        let flows = Flows { destination: HOST_W, ..of_site(1) };
        let wanted = W.map(|rloc| (rloc, 50.0));
        let text = "a site's two routers, one locator each, merged by the Map-Server";
        self.shares(checks, text, (flows, 1), &wanted, HALF_POINTS).map(drop)
    }

    /// A key that cannot change: the reload is refused by its name, and the weights beside it stay as they were.
    fn refused(&self, checks: &mut Checks) -> io::Result<()> {
        let text = xtr_m(&self.key, HALVES).replace("queues = 1", "queues = 2");
        self.network.daemons().configure(&self.xtr_m, &text)?;
        let refused = match self.xtr_m.reload()? {
            Ok(taken) => taken,
            Err(refused) => refused,
        };
        let named = refused.contains("xtr.tun.queues: cannot change while the daemon runs");
        let observed = if named { "refused by its name".to_owned() } else { refused };
        checks.that(
            "isthmus reload, weights 50/50 and another number of queues",
            "refused by its name",
            observed,
            named,
        );
        let flows = Flows { count: 500, ..of_site(1) };
        let text = "after that: shares, as before";
        self.shares(checks, text, (flows, 1), &[(P, 100.0)], 0.0).map(drop)
    }

    /// An EID-prefix comes and goes while another one's traffic flows.
    fn eid_prefixes(&self, checks: &mut Checks) -> io::Result<()> {
        let ms = self.network.daemon_in("ms")?;
        let registered = || -> io::Result<bool> {
            let registrations = ms.ask(&Query::Registrations)?;
            Ok(registrations.to_string().contains("2001:db8:e007:5::/64"))
        };
        let ongoing = of_site(1).start(&self.host_r, &self.host_m, RATE)?;
        let policy = Policy { p: (1, 70), q: (255, 30) };
        self.network.daemons().configure(&self.xtr_m, &xtr_m_with_fifth(&self.key, policy))?;
        let taken = self.xtr_m.reload()?.unwrap_or_else(|refused| refused);
        let known = wait_for(LIMIT, registered)?;
        let header = Header::new(HOST_R, host_m(5));
        let answer = ping(&self.host_r, header, 100, FIRST_LIMIT)?;
        let observed = if known { answer.to_string() } else { taken };
        let text = "isthmus reload with another EID-prefix: a ping to it";
        checks.that(text, "registered, and a reply", observed, known && answer.is_reply());

        let gone = self.reconfigure(policy)?.is_ok() && wait_for(LIMIT, || Ok(!registered()?))?;
        let text = "isthmus reload without it: its registration";
        checks.that(text, "gone", if gone { "gone" } else { "still there" }, gone);
        let delivery = ongoing.finish()?;
        checks.equal("packets lost meanwhile", 0, delivery.sent - delivery.arrived);
        Ok(())
    }

    /// The PITR announces another aggregate, and then no longer, while it carries traffic.
    fn aggregates(&self, checks: &mut Checks) -> io::Result<()> {
        let pitr = self.network.daemon_in("pitr")?;
        let namespace = self.network.namespace("pitr")?;
        let more: IpNet = "192.0.2.0/24".parse().map_err(io::Error::other)?;
        let key = self.network.directory().join("site-pitr.key").display().to_string();
        let ongoing = of_native(1).start(&self.host_n, &self.host_m, RATE)?;
        let mut seen = Vec::new();
        for aggregates in [&[EID_AGGREGATE, "192.0.2.0/24"][..], &[EID_AGGREGATE]] {
            self.network.daemons().configure(&pitr, &gateway(&key, aggregates))?;
            if let Err(refused) = pitr.reload()? {
                checks.that("the PITR's reload", "taken over", refused, false);
            }
            let routes = link::routes_of_protocol(&namespace, OWN_ROUTES)?;
            seen.push(if routes.contains(&more) { "there" } else { "gone" });
            thread::sleep(Duration::from_millis(100));
        }
        checks.equal(
            "the PITR reloads with another aggregate, and without it: its route",
            String::from("there, gone"),
            seen.join(", "),
        );
        let delivery = ongoing.finish()?;
        let lost = delivery.sent - delivery.arrived;
        checks.equal("packets lost meanwhile", 0, lost);
        Ok(())
    }

    /// What the ITRs counted is what the ETRs counted.
    fn books(&self, checks: &mut Checks) -> io::Result<()> {
        let quiet = || Ok(self.sent()? == self.arrived()?);
        // The last packets may be under way.
        wait_for(LIMIT, quiet)?;
        let (sent, arrived) = (self.sent()?, self.arrived()?);
        let shown = |(packets, octets): (u64, u64)| format!("{packets} packets, {octets} octets");
        checks.equal("counted at both ITRs, and at the three ETRs", shown(sent), shown(arrived));
        let (mut places, mut apart) = (0, Vec::new());
        let views = self.views(&["xtr-r", "pitr"])?;
        for arrived in self.views(&["xtr-m", "xtr-w1", "xtr-w2"])?.iter().flat_map(|v| &v.arrived) {
            let of_place = views
                .iter()
                .flat_map(|view| &view.sent)
                .filter(|sent| sent.prefix == arrived.prefix && sent.rloc == Some(arrived.rloc));
            let sent: u64 = of_place.map(|sent| sent.packets).sum::<u64>();
            places += usize::from(arrived.packets > 0);
            if sent != arrived.packets {
                apart.push(format!("{} {}", arrived.prefix, arrived.rloc));
            }
        }
        checks.equal("(EID-prefix, RLOC) pairs with traffic that differ", 0, apart.len());
        // Two of the first EID-prefix, four, two families, one that is used, two routers.
        checks.equal("such pairs", 11, places);
        self.told(checks)
    }

    /// Priority and weight for multicast are carried as configured.
    fn told(&self, checks: &mut Checks) -> io::Result<()> {
        let registrations = self.network.daemon_in("ms")?.ask(&Query::Registrations)?;
        let all = registrations.as_array().map(Vec::as_slice).unwrap_or_default();
        let locators = all.iter().filter_map(|one| one["locators"].as_array()).flatten();
        let of_p = locators.filter(|locator| locator["rloc"] == P.to_string());
        let told: BTreeSet<String> = of_p
            .map(|l| format!("{}/{}", l["multicast_priority"], l["multicast_weight"]))
            .collect();
        let told: Vec<_> = told.into_iter().collect();
        checks.equal("mpriority/mweight at the Map-Server", String::from("7/8"), told.join(", "));
        Ok(())
    }

    fn views(&self, names: &[&str]) -> io::Result<Vec<TrafficView>> {
        let view = |name: &&str| {
            let answer = self.network.daemon_in(name)?.ask(&Query::Traffic)?;
            serde_json::from_value(answer).map_err(io::Error::from)
        };
        names.iter().map(view).collect()
    }

    /// Packets and octets that both ITRs sent to the sites M and W.
    fn sent(&self) -> io::Result<(u64, u64)> {
        let views = self.views(&["xtr-r", "pitr"])?;
        let ours = |prefix: &ipnet::IpNet| {
            [host_m(1), host_m(2), host_m(3), host_m(4), HOST_W].iter().any(|h| prefix.contains(h))
        };
        let sent = views.iter().flat_map(|view| &view.sent).filter(|sent| ours(&sent.prefix));
        Ok(sent.fold((0, 0), |sum, one| (sum.0 + one.packets, sum.1 + one.octets)))
    }

    fn arrived(&self) -> io::Result<(u64, u64)> {
        let views = self.views(&["xtr-m", "xtr-w1", "xtr-w2"])?;
        let arrived = views.iter().flat_map(|view| &view.arrived);
        Ok(arrived.fold((0, 0), |sum, one| (sum.0 + one.packets, sum.1 + one.octets)))
    }
}

/// Flows of the remote site to site M's EID-prefix number `n`.
fn of_site(n: u16) -> Flows {
    let (source, destination) = (HOST_R, host_m(n));
    Flows { source, destination, first_port: 10_000, count: FLOWS, length: LENGTH }
}

/// The same from the host that knows nothing of LISP.
fn of_native(n: u16) -> Flows {
    Flows { source: HOST_N, ..of_site(n) }
}

/// How many flows took which locator, in percent; a flow that took several counts for the first.
struct Shares(Vec<(IpAddr, f64)>);

impl Shares {
    fn of(flows: &LocatorsOfFlows) -> Self {
        let locators: BTreeSet<IpAddr> = flows.values().flatten().copied().collect();
        let share = |rloc: IpAddr| {
            let count = flows.values().filter(|used| used.first() == Some(&rloc)).count();
            (rloc, 100.0 * count as f64 / flows.len().max(1) as f64)
        };
        Self(locators.into_iter().map(share).collect())
    }

    /// Whether these locators, and no others, have these shares within some percentage points.
    fn are(&self, wanted: &[(IpAddr, f64)], points: f64) -> bool {
        let near = |(rloc, share): &(IpAddr, f64)| {
            self.0.iter().any(|(seen, has)| seen == rloc && (has - share).abs() <= points)
        };
        self.0.len() == wanted.len() && wanted.iter().all(near)
    }
}

impl Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares: Vec<_> =
            self.0.iter().map(|(rloc, share)| format!("{share:.1} {rloc}")).collect();
        write!(f, "{}", shares.join(", "))
    }
}

fn expected(wanted: &[(IpAddr, f64)], points: f64) -> String {
    let shares: Vec<_> = wanted.iter().map(|(rloc, share)| format!("{share:.1} {rloc}")).collect();
    format!("{} within {points} points", shares.join(", "))
}

/// Frames before a moment, and the packets from it on.
fn divide(
    frames: &[Frame],
    moment: SystemTime,
) -> (&[Frame], impl Iterator<Item = &crate::lab::decode::Datagram>) {
    let at = frames.partition_point(|frame| frame.time < moment);
    let (before, after) = frames.split_at(at);
    (before, after.iter().filter_map(|frame| frame.datagram.as_ref()))
}

fn has_moved(frame: &Frame, before: &LocatorsOfFlows, flows: &Flows) -> bool {
    let now = many::locators(&frame.datagram, flows);
    now.iter().any(|(port, rlocs)| before.get(port).is_some_and(|old| old.is_disjoint(rlocs)))
}
