//! Packets as they pass, with what became of them: `isthmus tap`.
//!
//! While nobody taps, a worker pays one relaxed load per batch and one branch per packet that is never taken. While somebody does, its
//! forwarding path runs with an output that takes notes ([`Tapped`] around the engine's own), and leaves them in a queue of fixed length
//! that nobody waits for: what finds no room is counted as lost, and told.
use crate::explain::Explainer;
use crate::marks::HeaderMarks;
use crate::packet::headers::UdpHeader;
use crate::packet::lisp;
use crate::packet::outer::{self, OuterAddresses};
use mapping::admin::{Direction, Side, TapAnswer, TapPacket, TapQuery};
use mapping::eid::InstanceId;
use mapping::wire::CONTROL_PORT;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod filter;
mod record;
mod session;
mod worker;

pub use filter::{Filter, FilterError};
pub use record::SNAP_LEN;
use record::{OuterRecord, Record};
use session::Session;
pub use session::Switch;
pub(crate) use worker::{Tap, Tapped};

/// The longest tap.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Records in one answer.
const PER_ANSWER: usize = 1024;
/// A client that does not fetch for so long is gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// The control plane's end of the tap: at most one session at a time.
#[derive(Debug)]
pub struct Tapper {
    switch: Arc<Switch>,
    /// Own RLOCs and source ports, by their index.
    rlocs: Box<[IpAddr]>,
    source_ports: Box<[u16]>,
    workers: usize,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    session: Arc<Session>,
    until: Instant,
    fetched: Instant,
    /// Packets still wanted.
    left: u64,
    /// The time of day at some moment.
    clock: (Instant, SystemTime),
}

impl Tapper {
    /// A tapper of `workers` workers that follow `switch` and do what `explainer` says.
    pub fn new(switch: Arc<Switch>, explainer: &Explainer, workers: usize) -> Self {
        Self {
            switch,
            rlocs: explainer.settings().rlocs.as_slice().into(),
            source_ports: explainer.source_ports().into(),
            workers,
            running: None,
        }
    }

    /// Begins a session and returns its number.
    ///
    /// # Errors
    /// The filter is not understood, or somebody taps already; in words.
    pub fn begin(
        &mut self,
        now: Instant,
        time_of_day: SystemTime,
        query: &TapQuery,
    ) -> Result<u64, String> {
        self.handle_timeout(now);
        if self.running.is_some() {
            return Err("somebody else taps already: one tap at a time".to_owned());
        }
        let filter: Filter =
            query.filter.parse().map_err(|error: FilterError| error.to_string())?;
        let session = self.switch.begin(filter, query.sample, query.outputs, self.workers);
        let number = session.generation();
        let length = Duration::from_millis(query.milliseconds).min(LONGEST);
        self.running = Some(Running {
            session,
            until: now + length,
            fetched: now,
            left: query.count.unwrap_or(u64::MAX),
            clock: (now, time_of_day),
        });
        Ok(number)
    }

    /// What was found since the last call.
    ///
    /// # Errors
    /// There is no such session, or no more; in words.
    pub fn fetch(&mut self, now: Instant, number: u64, stop: bool) -> Result<TapAnswer, String> {
        let running = self.running.as_mut().filter(|run| run.session.generation() == number);
        let running =
            running.ok_or("this tap is over: it was not asked for its packets in time")?;
        running.fetched = now;
        let over = stop || now >= running.until;
        if over {
            self.switch.end();
        }
        let records = running.session.fetch(PER_ANSWER);
        let more = records.len() >= PER_ANSWER / self.workers.max(1);
        let mut packets = Vec::with_capacity(records.len());
        for record in records {
            if record.direction == Direction::In {
                if running.left == 0 {
                    break;
                }
                running.left -= 1;
            }
            packets.push((record, running.clock));
        }
        if running.left == 0 {
            // What leaves for the last packet comes right behind it.
            let rest = running.session.fetch(PER_ANSWER).into_iter();
            let rest = rest.take_while(|record| record.direction == Direction::Out);
            packets.extend(rest.map(|record| (record, running.clock)));
        }
        let done = stop || running.left == 0 || (over && !more);
        let lost = running.session.take_lost();
        let packets = packets.iter().map(|(record, clock)| self.packet(record, *clock)).collect();
        if done {
            self.end();
        }
        Ok(TapAnswer { packets, lost, more, done })
    }

    /// Ends a session whose client is gone. Call it at least every few seconds.
    pub fn handle_timeout(&mut self, now: Instant) {
        let gone = |running: &Running| now >= running.fetched + PATIENCE;
        if self.running.as_ref().is_some_and(gone) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.switch.end();
        self.running = None;
    }

    fn packet(&self, record: &Record, (since, time_of_day): (Instant, SystemTime)) -> TapPacket {
        let inner = record.inner.as_ref();
        let time = time_of_day + record.at.saturating_duration_since(since);
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = &record.octets[..record.kept];
        let mut octets = Vec::new();
        if let Some(outer) = &record.outer {
            octets = self.outer_header(outer, record.len);
        }
        let header_len = octets.len();
        octets.extend_from_slice(kept);
        let instance_id = match record.side {
            Side::Core => lisp::parse(kept).ok().map(InstanceId::get),
            Side::Native => None,
        };
        let marks = lisp::marks(kept);
        let has_marks = record.side == Side::Core && marks != HeaderMarks::default();
        let marks = has_marks.then(|| marks.to_string());
        TapPacket {
            nanoseconds: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            side: record.side,
            direction: record.direction,
            verdict: record.verdict,
            reason: record.reason.map(|reason| reason.name().to_owned()),
            waited: record.waited,
            source: inner.map(|inner| inner.source),
            destination: inner.map(|inner| inner.destination),
            protocol: inner.map(|inner| inner.protocol),
            ports: inner.and_then(|inner| inner.ports),
            inner_length: inner.map(|inner| inner.total_len),
            rloc: record.rloc,
            instance_id,
            marks,
            pieces: record.pieces,
            length: header_len + record.len,
            octets: hex(&octets),
        }
    }

    /// IP and UDP header of a packet with `len` octets of LISP header and inner packet.
    fn outer_header(&self, outer: &OuterRecord, len: usize) -> Vec<u8> {
        let rlocs = &self.rlocs;
        let of_family = || rlocs.iter().find(|rloc| rloc.is_ipv4() == outer.remote.is_ipv4());
        let own = outer.own_rloc.and_then(|index| rlocs.get(index)).or_else(of_family);
        let own = own.copied().unwrap_or(outer.remote);
        let of_pool = |port: u16| self.source_ports.get(usize::from(port)).copied();
        let port = match outer.translated {
            Some(_) => Some(CONTROL_PORT),
            None => outer.port.and_then(of_pool),
        };
        let (source, destination) = match outer.port {
            Some(_) => (own, outer.remote),
            None => (outer.remote, own),
        };
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                OuterAddresses::V4 { source, destination }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                OuterAddresses::V6 { source, destination, flow_label: 0 }
            }
            _ => return Vec::new(),
        };
        let inner = vec![0; len.saturating_sub(lisp::HEADER_LEN)];
        let (mut packet, id) = (Vec::new(), InstanceId::DEFAULT);
        outer::build(addresses, outer.fields, port.unwrap_or_default(), id, &inner, &mut packet);
        packet.truncate(packet.len() - inner.len() - lisp::HEADER_LEN);
        if let Some(port) = outer.translated {
            let at = packet.len() - UdpHeader::LEN + 2;
            packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
        packet
    }
}

impl Drop for Tapper {
    fn drop(&mut self) {
        self.switch.end();
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
