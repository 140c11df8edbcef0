//! A multihomed site loses a provider, loudly and silently, loses both, and gets them back (USE-CASES C, 5 to 8).
//!
//! Streams of 1000 packets a second run all the time: from two LISP sites and, through the gateway, from a host without LISP to site M,
//! and from site M to one of those sites. What is printed as expected beside a limit of our own is what peers need for the same, by their
//! timers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;

use crate::lab::daemons::Daemon;
use crate::lab::network::{Network, wait_for};
use crate::lab::pressure::patiently;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::probe::stream::{Seen, Stream};
use crate::lab::relay::Relay;
use crate::lab::report::Checks;

mod icmp;
mod plan;

use plan::{DELAY_P, DELAY_Q, HOST_F, HOST_M, HOST_N, HOST_R, P, Q};

pub(crate) use plan::PLAN;

/// In one line.
pub(crate) const TITLE: &str = "a multihomed site loses a provider, with and without a sign, loses both, and gets them back; what ICMP says, true or not";

/// What the loss of a carrier may cost, beside a round trip.
const CARRIER: Duration = Duration::from_millis(200);
/// What a silent loss may cost with probes every second, and every 100 ms.
const SILENT: Duration = Duration::from_secs(3);
const SILENT_FAST: Duration = Duration::from_millis(300);
/// Until the first answer of an RLOC, when all were silent: the interval and its jitter, and the round trip.
const ONE_PROBE: Duration = Duration::from_millis(1_100);
/// By their timers, for the same.
const PEERS: &str = "peers: OOR 15-45 s, lispers.net 10-20 s, VPP never";
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// How long everything may take to be as before.
const RETURN_LIMIT: Duration = Duration::from_secs(12);
/// How long everything has to be as before to count.
const CALM: Duration = Duration::from_millis(1_500);
/// Between two looks at which locator is taken.
const LOOK: Duration = Duration::from_millis(20);
/// Who sends to M.
const SENDERS: [&str; 3] = ["xtr-r", "xtr-f", "pitr"];

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let bed = Bed::of(network)?;
    bed.introduce(checks)?;
    let streams = bed.start()?;
    thread::sleep(Duration::from_secs(2));
    checks.equal("packets lost while all is well", 0, streams.lost_since(streams.began));
    patiently(checks, |checks| bed.carrier(checks, &streams))?;
    patiently(checks, |checks| bed.silence(checks, &streams))?;
    bed.refusal(checks, &streams)?;
    // Later than the truth: who was told a lie does not listen for a while.
    bed.lies(checks, &streams)?;
    bed.all_silent(checks, &streams)?;
    bed.ended(checks, &streams)?;
    streams.finish()
}

/// A stream and its name.
struct Named {
    name: &'static str,
    stream: Stream,
}

/// All that run.
struct Streams {
    began: Instant,
    /// From R, from F, from N to M.
    inbound: [Named; 3],
    /// From M to R.
    outbound: Named,
}

impl Streams {
    fn all(&self) -> impl Iterator<Item = &Named> {
        self.inbound.iter().chain([&self.outbound])
    }

    /// Packets sent from `begin` until a quarter of a second ago that did not arrive.
    fn lost_since(&self, begin: Instant) -> usize {
        let end = Instant::now() - Duration::from_millis(250);
        self.all().map(|named| named.stream.so_far().lost_between(begin, end)).sum()
    }

    fn finish(self) -> io::Result<()> {
        self.inbound
            .into_iter()
            .chain([self.outbound])
            .try_for_each(|named| named.stream.finish().map(drop))
    }
}

/// The pieces that it uses.
struct Bed<'a> {
    network: &'a Network,
    isp_p: Arc<Relay>,
    isp_q: Arc<Relay>,
    xtr_r: Arc<Daemon>,
}

impl<'a> Bed<'a> {
    fn of(network: &'a Network) -> io::Result<Self> {
        Ok(Self {
            network,
            isp_p: network.relay_to("m-p")?,
            isp_q: network.relay_to("m-q")?,
            xtr_r: network.daemon_in("xtr-r")?,
        })
    }

    /// So that everybody knows the mappings, and has measured the ways.
    fn introduce(&self, checks: &mut Checks) -> io::Result<()> {
        let mut missing = 0;
        for (name, source) in [("host-r", HOST_R), ("host-f", HOST_F)] {
            let namespace = self.network.namespace(name)?;
            let reply = ping(&namespace, Header::new(source, HOST_M), 100, FIRST_LIMIT)?;
            missing += usize::from(!reply.is_reply());
        }
        checks.equal("lost of the very first pings", 0, missing);
        // Nothing leads back to this one.
        let native = self.network.namespace("host-n")?;
        ping(&native, Header::new(HOST_N, HOST_M), 100, Duration::ZERO)?;
        let known = || {
            let cached = self.network.daemon_in("pitr")?.ask(&Query::MapCache)?;
            Ok(cached.as_array().is_some_and(|entries| !entries.is_empty()))
        };
        wait_for(FIRST_LIMIT, known)?;
        Ok(())
    }

    fn start(&self) -> io::Result<Streams> {
        let m = self.network.namespace("host-m")?;
        let towards_m = |name, host, address| {
            let from = self.network.namespace(host)?;
            let stream = Stream::start((&from, address), (&m, HOST_M))?;
            Ok::<_, io::Error>(Named { name, stream })
        };
        let inbound = [
            towards_m("site R, 1 s probes, to M", "host-r", HOST_R)?,
            towards_m("site F, 100 ms probes, to M", "host-f", HOST_F)?,
            towards_m("native N, by the gateway, 1 s probes, to M", "host-n", HOST_N)?,
        ];
        let r = self.network.namespace("host-r")?;
        let stream = Stream::start((&m, HOST_M), (&r, HOST_R))?;
        let outbound = Named { name: "M to site R", stream };
        Ok(Streams { began: Instant::now(), inbound, outbound })
    }

    /// Row 5, and the return of row 7.
    fn carrier(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        let begin = Instant::now();
        self.isp_p.cut(true)?;
        thread::sleep(Duration::from_millis(2_500));
        let round_trip = 2 * DELAY_Q.max(DELAY_P);
        let limit = CARRIER + round_trip;
        for named in streams.all() {
            let outage = named.stream.so_far().outage_between(begin, Instant::now());
            let text = format!("carrier lost at ISP-P: outage, {}", named.name);
            let expected = format!("at most {} + RTT {}", ms(CARRIER), ms(round_trip));
            let observed = format!("{} ({expected}; {PEERS})", ms(outage));
            checks.that(text, expected, observed, outage <= limit);
        }
        let begin = Instant::now();
        self.isp_p.cut(false)?;
        self.returned(checks, streams, ("the carrier is back", begin))
    }

    /// Row 6, and the return of row 7.
    fn silence(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        let begin = Instant::now();
        self.isp_p.blackhole(P);
        thread::sleep(SILENT + Duration::from_millis(500));
        for (named, limit) in streams.inbound.iter().zip([SILENT, SILENT_FAST, SILENT]) {
            let outage = outage_from(&named.stream.so_far(), begin);
            let text = format!("silent loss towards {P}: outage, {}", named.name);
            // From the last packet by the short way to the first by the long one.
            let longer = DELAY_Q - DELAY_P;
            let expected = format!("at most {} + {} of longer way", ms(limit), ms(longer));
            let observed = format!("{} ({expected}; {PEERS})", ms(outage));
            checks.that(text, expected, observed, outage <= limit + longer);
        }
        let end = Instant::now() - Duration::from_millis(250);
        let lost = streams.outbound.stream.so_far().lost_between(begin, end);
        checks.equal("packets from M lost, though nothing comes back by ISP-P", 0, lost);
        let begin = Instant::now();
        self.isp_p.restore(P);
        self.returned(checks, streams, ("ISP-P is back", begin))
    }

    /// All goes by ISP-P again, without a loss and without going back and forth.
    fn returned(
        &self,
        checks: &mut Checks,
        streams: &Streams,
        (what, begin): (&str, Instant),
    ) -> io::Result<()> {
        let mut ways = SENDERS.map(|sender| Ways { sender, ..Ways::default() });
        let (mut back, mut quiet) = (None, Instant::now());
        while begin.elapsed() < RETURN_LIMIT && quiet.elapsed() < CALM {
            thread::sleep(LOOK);
            for way in &mut ways {
                let sender = self.network.daemon_in(way.sender)?;
                way.look(&sender)?;
            }
            if ways.iter().all(|way| way.taken.last() == Some(&P)) {
                back.get_or_insert_with(|| begin.elapsed());
            } else {
                (back, quiet) = (None, Instant::now());
            }
        }
        checks.that(
            format!("{what}: all traffic takes it again"),
            format!("after its hold-down, within {} s", RETURN_LIMIT.as_secs()),
            back.map_or_else(
                || "never".to_owned(),
                |took| format!("{} (hold-down: 3 probes)", ms(took)),
            ),
            back.is_some(),
        );
        checks.equal(format!("{what}: packets lost"), 0, streams.lost_since(begin));
        let moves = ways.map(|way| way.taken.len().saturating_sub(1));
        let text = format!("{what}: moves between locators of {}", SENDERS.join(", "));
        checks.that(text, "[1, 1, 1]", format!("{moves:?}"), moves == [1; 3]);
        Ok(())
    }

    /// Row 8.
    fn all_silent(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        self.isp_p.blackhole(P);
        self.isp_q.blackhole(Q);
        let drops = || self.xtr_r.drops("no_usable_locator");
        let is_counted = || Ok(drops()? > 0);
        let counted = wait_for(2 * SILENT, is_counted)?;
        let text = "both providers silent: packets are dropped and counted as no_usable_locator";
        checks.that(text, "more than 0", drops()?, counted);
        let requests = || self.xtr_r.counter("map_requests_sent");
        let (before, begin) = (requests()?, Instant::now());
        thread::sleep(Duration::from_secs(4));
        let rate = (requests()? - before) as f64 / begin.elapsed().as_secs_f64();
        let text = "Map-Requests of xtr-r meanwhile";
        checks.that(text, "at most 1/s", format!("{rate:.1}/s"), rate <= 1.0);
        let begin = Instant::now();
        self.isp_p.restore(P);
        self.isp_q.restore(Q);
        let limit = ONE_PROBE + 2 * DELAY_Q + Duration::from_millis(100);
        for named in streams.all() {
            let arrival = named.stream.arrival_after(begin, RETURN_LIMIT);
            let took = arrival.map_or(RETURN_LIMIT, |at| at.saturating_duration_since(begin));
            let text = format!("both are back: first packet, {}", named.name);
            let expected = format!("within one probe, {}", ms(limit));
            checks.that(text, &expected, format!("{} ({expected})", ms(took)), took <= limit);
        }
        Ok(())
    }
}

/// The way that a sender's packets for M take, looked at again and again.
#[derive(Debug, Default)]
struct Ways {
    sender: &'static str,
    /// Packets to P and Q so far.
    sent: Option<[u64; 2]>,
    /// What was taken, in order, without repetitions.
    taken: Vec<IpAddr>,
}

impl Ways {
    fn look(&mut self, sender: &Daemon) -> io::Result<()> {
        let locators = sender.ask(&Query::Locators)?;
        let packets = |rloc: IpAddr| {
            let mut views = locators.as_array().into_iter().flatten();
            let view = views.find(|view| view["address"] == rloc.to_string());
            view.and_then(|view| view["packets"].as_u64()).unwrap_or_default()
        };
        let sent = [packets(P), packets(Q)];
        if let Some(before) = self.sent.replace(sent) {
            let mut used: Vec<IpAddr> = [P, Q]
                .into_iter()
                .zip(before.iter().zip(sent))
                .filter(|(_, (before, now))| now > *before)
                .map(|(rloc, _)| rloc)
                .collect();
            // In the look that sees the move, what was taken before was taken first.
            used.sort_by_key(|rloc| Some(rloc) != self.taken.last());
            self.taken.extend(used);
            self.taken.dedup();
        }
        Ok(())
    }
}

/// The longest silence that ended after `begin`, until now if it lasts.
fn outage_from(seen: &Seen, begin: Instant) -> Duration {
    let now = Instant::now();
    let last =
        seen.arrived.last().map_or(now - begin, |(_, at)| now.saturating_duration_since(*at));
    seen.outage_between(begin, now).max(last)
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}
