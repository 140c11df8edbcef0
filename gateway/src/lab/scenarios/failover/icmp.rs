//! What ICMP says: a router of the core that has no way to a locator, a locator whose daemon has ended (PB-14, PB-15), and lies.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::decode::{Content, LISP_DATA};
use crate::lab::link;
use crate::lab::network::wait_for;
use crate::lab::probe::craft::{self, Header};
use crate::lab::report::Checks;

use super::plan::{CORE, DELAY_P, DELAY_Q, P, XTR_R};
use super::{
    Bed, CARRIER, FIRST_LIMIT, LOOK, ONE_PROBE, PEERS, RETURN_LIMIT, SILENT_FAST, Streams, ms,
};

/// ICMP codes of Destination Unreachable.
const HOST: u8 = 1;
const PORT: u8 = 3;
/// A Linux host sends one peer six errors at once, then one in this time (`icmp_ratelimit`): packets under way to P may take the one for Q.
const ICMP_PACE: Duration = Duration::from_secs(1);
/// Lies of one kind.
const LIES: usize = 50;

impl Bed<'_> {
    /// PB-14: a router of the core says that there is no way to P.
    pub(super) fn refusal(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        let core = self.network.namespace("core")?;
        let begin = Instant::now();
        link::refuse(&core, P, true)?;
        thread::sleep(Duration::from_millis(2_500));
        // The answer of the core comes at once; the first packet by ISP-Q is longer under way.
        let longer = DELAY_Q - DELAY_P;
        // Routers limit their ICMP errors: who probes every 100 ms may know by that first.
        for (named, limit) in streams.inbound.iter().zip([CARRIER, SILENT_FAST, CARRIER]) {
            let outage = named.stream.so_far().outage_between(begin, Instant::now());
            let text = format!("the core has no way to {P} and says so: outage, {}", named.name);
            let expected = format!("at most {} + {} of longer way", ms(limit), ms(longer));
            let observed = format!("{} ({expected}; {PEERS})", ms(outage));
            checks.that(text, expected, observed, outage <= limit + longer);
        }
        let begin = Instant::now();
        link::refuse(&core, P, false)?;
        self.returned(checks, streams, ("the core has a way again", begin))
    }

    /// What anybody can say: about packets that were never sent, and for others than themselves.
    pub(super) fn lies(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        let begin = Instant::now();
        let heard = || self.xtr_r.counter("unreachable_reports");
        let before = heard()?;
        let port = self.port_of_r()?;
        for number in 0..LIES {
            // Below all source ports of the data plane.
            self.lie(HOST, 1_024 + number as u16)?;
            // Only P itself knows that.
            self.lie(PORT, port)?;
        }
        thread::sleep(Duration::from_millis(500));
        let text = format!("{} forged ICMP errors about {P}: believed", 2 * LIES);
        checks.equal(text, 0, heard()? - before);
        // This one nobody can tell from the truth, but the next probe.
        self.lie(HOST, port)?;
        let believed = wait_for(FIRST_LIMIT, || Ok(heard()? > before))?;
        thread::sleep(Duration::from_millis(1_500));
        checks.that("one that quotes a packet that was sent", "a hint", believed, believed);
        let text = "packets lost by all of them";
        checks.equal(text, 0, streams.lost_since(begin));
        Ok(())
    }

    /// A source port that packets of R to P have.
    fn port_of_r(&self) -> io::Result<u16> {
        let capture = self.network.capture_of("core")?;
        let mark = capture.mark();
        thread::sleep(Duration::from_millis(100));
        let sent = capture.datagrams_since(mark);
        let port = sent.iter().find_map(|datagram| {
            let udp = datagram.udp().filter(|udp| matches!(udp.content, Content::Lisp(_)))?;
            (datagram.source == XTR_R && datagram.destination == P).then_some(udp.source_port)
        });
        port.ok_or_else(|| io::Error::other("no packet of R to P was seen"))
    }

    /// To R, as if a packet of it to P could not go on.
    fn lie(&self, code: u8, source_port: u16) -> io::Result<()> {
        let quoted = craft::udp(&Header::new(XTR_R, P), (source_port, LISP_DATA), &[0; 36], false);
        let packet = craft::unreachable(&Header::new(CORE, XTR_R), code, &quoted);
        craft::send(self.network.namespace("core")?.as_ref(), packet, XTR_R)
    }

    /// PB-15: the daemon of M has ended, its host says so for both locators; then it is back. R was lied to before and doubts what it
    /// hears for a while, the gateway was not.
    pub(super) fn ended(&self, checks: &mut Checks, streams: &Streams) -> io::Result<()> {
        let daemon = self.network.daemon_in("xtr-m")?;
        let gateway = self.network.daemon_in("pitr")?;
        let drops = || gateway.drops("no_usable_locator");
        let (before, begin) = (drops()?, Instant::now());
        self.network.daemons().kill(&daemon)?;
        let limit = CARRIER + ICMP_PACE + 2 * (DELAY_P + DELAY_Q);
        let mut took = None;
        while took.is_none() && begin.elapsed() < RETURN_LIMIT {
            thread::sleep(LOOK);
            took = (drops()? > before).then(|| begin.elapsed());
        }
        let text = "xtr-m has ended and its host says so: known for both locators at the gateway";
        let expected = format!("within {} + both RTTs", ms(CARRIER + ICMP_PACE));
        let observed =
            took.map_or_else(|| "never".to_owned(), |took| format!("{} ({expected})", ms(took)));
        checks.that(text, expected, observed, took.is_some_and(|took| took <= limit));
        self.network.daemons().restart(&daemon, self.network.namespace("xtr-m")?.as_ref())?;
        let begin = Instant::now();
        let limit = ONE_PROBE + 2 * DELAY_Q + Duration::from_millis(100);
        for named in &streams.inbound {
            let arrival = named.stream.arrival_after(begin, RETURN_LIMIT);
            let took = arrival.map_or(RETURN_LIMIT, |at| at.saturating_duration_since(begin));
            let text = format!("xtr-m runs again: first packet, {}", named.name);
            let expected = format!("within one probe, {}", ms(limit));
            checks.that(text, &expected, format!("{} ({expected})", ms(took)), took <= limit);
        }
        Ok(())
    }
}
