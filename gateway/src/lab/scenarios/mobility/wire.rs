//! What the capture in the core says of control messages and of packets between RLOCs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use crate::lab::capture::Frame;
use crate::lab::decode::{Control, Datagram, Record};

/// Map-Notify-Ack (RFC 9301 §5.8).
const MAP_NOTIFY_ACK: u8 = 5;

/// The packets among frames, each with the time when it came.
fn packets(frames: &[Frame]) -> impl Iterator<Item = (SystemTime, &Datagram)> {
    frames.iter().filter_map(|frame| Some((frame.time, frame.datagram.as_ref()?)))
}

/// Solicit-Map-Requests to `rloc` for EIDs of `prefix`: when, and from whom.
pub(super) fn solicitations(
    frames: &[Frame],
    rloc: IpAddr,
    prefix: IpNet,
) -> Vec<(SystemTime, IpAddr)> {
    packets(frames)
        .filter(|(_, packet)| packet.destination == rloc)
        .filter(|(_, packet)| match packet.control() {
            Some(Control::MapRequest { solicits: Some(eid), .. }) => prefix.contains(eid),
            _ => false,
        })
        .map(|(time, packet)| (time, packet.source))
        .collect()
}

/// Map-Requests through the mapping system by `xtr` for EIDs of `prefix`.
pub(super) fn lookups(frames: &[Frame], xtr: IpAddr, prefix: IpNet) -> usize {
    packets(frames)
        .filter(|(_, packet)| packet.source == xtr)
        .filter(|(_, packet)| match packet.control() {
            Some(Control::MapRequest { probe: false, solicits: None, eid: Some(asked) }) => {
                prefix.contains(asked) || asked.contains(&prefix)
            }
            _ => false,
        })
        .count()
}

/// Map-Replies to `xtr`, those to RLOC-probes if `probe`, with a record of exactly `prefix`: when, and the locators that they say.
pub(super) fn replies(
    frames: &[Frame],
    xtr: IpAddr,
    prefix: IpNet,
    probe: bool,
) -> Vec<(SystemTime, Vec<IpAddr>)> {
    packets(frames)
        .filter(|(_, packet)| packet.destination == xtr)
        .filter_map(|(time, packet)| match packet.control() {
            Some(Control::MapReply { probe: is_probe, records }) if *is_probe == probe => {
                Some((time, rlocs_of(records, prefix)?))
            }
            _ => None,
        })
        .collect()
}

/// When `from` registered exactly `prefix`.
pub(super) fn registers(frames: &[Frame], from: IpAddr, prefix: IpNet) -> Vec<SystemTime> {
    packets(frames)
        .filter(|(_, packet)| packet.source == from)
        .filter(|(_, packet)| match packet.control() {
            Some(Control::MapRegister { records }) => rlocs_of(records, prefix).is_some(),
            _ => false,
        })
        .map(|(time, _)| time)
        .collect()
}

/// Map-Notifies to `rloc` with a record of exactly `prefix`: when, and the locators that they say.
pub(super) fn notifies(
    frames: &[Frame],
    rloc: IpAddr,
    prefix: IpNet,
) -> Vec<(SystemTime, Vec<IpAddr>)> {
    packets(frames)
        .filter(|(_, packet)| packet.destination == rloc)
        .filter_map(|(time, packet)| match packet.control() {
            Some(Control::MapNotify { records }) => Some((time, rlocs_of(records, prefix)?)),
            _ => None,
        })
        .collect()
}

/// How many Map-Notify-Acks `from` sent.
pub(super) fn acknowledgements(frames: &[Frame], from: IpAddr) -> usize {
    packets(frames)
        .filter(|(_, packet)| packet.source == from)
        .filter(|(_, packet)| packet.control() == Some(&Control::Other(MAP_NOTIFY_ACK)))
        .count()
}

/// When encapsulated packets from `from` to `to` came whose inner destination is `eid`.
pub(super) fn data(frames: &[Frame], from: IpAddr, to: IpAddr, eid: IpAddr) -> Vec<SystemTime> {
    packets(frames)
        .filter(|(_, packet)| (packet.source, packet.destination) == (from, to))
        .filter(|(_, packet)| packet.lisp().is_some_and(|lisp| lisp.inner.destination == eid))
        .map(|(time, _)| time)
        .collect()
}

/// The time from one moment to a later one; `None` if one of them is missing, or the other way round.
pub(super) fn between(from: Option<SystemTime>, to: Option<SystemTime>) -> Option<Duration> {
    to?.duration_since(from?).ok()
}

fn rlocs_of(records: &[Record], prefix: IpNet) -> Option<Vec<IpAddr>> {
    let record = records.iter().find(|record| record.eid == Some(prefix))?;
    Some(record.rlocs.clone())
}
