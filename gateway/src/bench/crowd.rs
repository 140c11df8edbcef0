//! A large map-cache: EID-prefixes by the hundred thousand, and the Map-Resolver that has them all.
//!
//! The entries come the way every mapping comes: gateway 1 sends a Map-Request for a packet that misses, and gets a
//! Map-Reply. A reply lists the more specific EID-prefixes below the one asked for, as RFC 9301 §5.5 has it, so that
//! one lookup brings 255 entries and a million of them take some seconds at the rate that RFC 9301 §5.3 leaves an ITR.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{CONTROL_PORT, EidRecord, LocatorRecord, MapReply, MapRequest, Message};

use super::bed::{FAR, Place, SINK, rloc, strangers};
use super::contender::Contender;
use super::family::{Family, Version};
use super::load::frames;
use crate::lab::addresses::net;
use crate::lab::namespace::Namespace;

/// Entries that one Map-Reply brings: an EID-prefix and the more specific ones below it. A Map-Reply counts its
/// records in one octet.
const GROUP: usize = 255;
/// Most entries: what fits into the prefixes below.
pub(crate) const MOST: usize = 4_000_000;
/// Lookups per second, below what an ITR may send (RFC 9301 §5.3).
const LOOKUPS_PER_SECOND: u32 = 800;
/// How long the last entries may take.
const LAST_ENTRIES: Duration = Duration::from_secs(30);
/// How often the Map-Resolver looks whether it shall end.
const IDLE: Duration = Duration::from_millis(50);
/// Record TTL of all mappings: a day.
const TTL_MINUTES: u32 = 1440;
/// Most destinations of a flood; a larger crowd is sampled evenly.
const DESTINATIONS: usize = 1 << 18;
/// Spreads consecutive numbers over a crowd: a prime near 2^32 times the golden ratio.
const SPREAD: usize = 2_654_435_761;

/// What all EID-prefixes of the crowd are in.
pub(crate) fn aggregates() -> [IpNet; 2] {
    [net(address_at(Version::V6, 0, 0).1, 36), net(Ipv4Addr::new(10, 0, 0, 0).into(), 8)]
}

/// The `k`th EID-prefix in a group, and its address.
fn address_at(version: Version, group: usize, k: usize) -> (u8, IpAddr) {
    let number = (group << 8 | k) as u64;
    match version {
        Version::V6 => {
            let upper = 0x2001_0db8_f000_0000 + number;
            (64, Ipv6Addr::from(u128::from(upper) << 64).into())
        }
        Version::V4 => (32, Ipv4Addr::from(0x0a00_0000 + number as u32).into()),
    }
}

/// The EID-prefix that one lookup is answered for.
fn covering(version: Version, group: usize) -> IpNet {
    let (length, address) = address_at(version, group, 0);
    net(address, length - 8)
}

/// An address that is in no EID-prefix of its group but the covering one.
fn left_over(version: Version, group: usize) -> IpAddr {
    address_at(version, group, GROUP).1
}

/// Destinations spread over a crowd of `entries`, no two neighbours near each other.
pub(crate) fn destinations(version: Version, entries: usize) -> Vec<IpAddr> {
    let count = entries.min(DESTINATIONS);
    let address = |n: usize| {
        let entry = n * SPREAD % count * entries / count;
        match (entry / GROUP, entry % GROUP) {
            (group, 0) => left_over(version, group),
            (group, k) => address_at(version, group, k - 1).1,
        }
    };
    (0..count).map(address).collect()
}

/// Lets gateway 1 look up `entries` EID-prefixes; returns when its map-cache has them.
pub(crate) fn gather(contender: &Contender, family: Family, entries: usize) -> io::Result<()> {
    let Some([daemon, _]) = &contender.daemons else { return Ok(()) };
    let known = || Ok::<_, io::Error>(daemon.counter("map_cache_entries")? as usize);
    let own = frames::near(family.inner);
    let groups = entries.div_ceil(GROUP);
    let deadline =
        Instant::now() + LAST_ENTRIES + Duration::from_secs(1) * groups as u32 / LOOKUPS_PER_SECOND;
    while known()? < entries {
        if Instant::now() > deadline {
            let text = format!("the map-cache has {} of {entries} entries", known()?);
            return Err(io::Error::other(text));
        }
        // Those that are known already only pass through.
        contender.bed.host1.run(move || {
            let socket = UdpSocket::bind((own, 0))?;
            for group in 0..groups {
                // Unreachable is what the sink may well be.
                let _ = socket.send_to(&[0; 16], (left_over(family.inner, group), 9));
                thread::sleep(Duration::from_secs(1) / LOOKUPS_PER_SECOND);
            }
            io::Result::Ok(())
        })??;
    }
    Ok(())
}

/// A Map-Resolver that knows the crowd, and the sites that are there without it; ends when dropped.
pub(crate) struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts to answer in `namespace`.
    pub(crate) fn start(namespace: &Namespace, outer: Version) -> io::Result<Self> {
        let address = SocketAddr::new(rloc(Place::Resolver, outer), CONTROL_PORT);
        let socket = namespace.run(move || UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(IDLE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = namespace.spawn(move || {
            let mut buffer = vec![0; 65_535];
            while !stopped.load(Ordering::Acquire) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                if let Some((reply, to)) = answer(&buffer[..length], outer) {
                    // A reply that is lost is asked for again.
                    let _ = socket.send_to(&reply, to);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

/// The Map-Reply to an encapsulated Map-Request, and where it goes.
fn answer(octets: &[u8], outer: Version) -> Option<(Vec<u8>, SocketAddr)> {
    let Ok(Message::Encapsulated(ecm)) = Message::parse(octets) else { return None };
    let request: MapRequest = ecm.map_request().ok()?;
    let eid = request.records.first()?.eid.prefix()?.first().address;
    let itr = request.itr_rloc_for(rloc(Place::Resolver, outer))?;
    let reply = MapReply::new(request.nonce, records(eid, outer)?);
    Some((Message::MapReply(reply).to_vec(), SocketAddr::new(itr, ecm.source.port())))
}

/// What is known of an EID; `None` if nothing is.
fn records(eid: IpAddr, outer: Version) -> Option<Vec<EidRecord>> {
    let record = |prefix: IpNet, place| {
        let locator = LocatorRecord::new(rloc(place, outer), 1, 100);
        EidRecord::new(EidPrefix::new(InstanceId::default(), prefix), TTL_MINUTES, vec![locator])
    };
    let sites = [(FAR, Place::Far), (SINK, Place::Sink)];
    let sites = sites.iter().flat_map(|(site, to)| [(site.prefix6(), *to), (site.prefix4(), *to)]);
    let strangers = strangers().map(|prefix| (prefix, Place::Far));
    if let Some((prefix, place)) = sites.chain(strangers).find(|(prefix, _)| prefix.contains(&eid))
    {
        return Some(vec![record(prefix, place)]);
    }
    let (version, group) = group_of(eid)?;
    let members = (0..GROUP - 1).map(|k| {
        let (length, address) = address_at(version, group, k);
        net(address, length)
    });
    let all = std::iter::once(covering(version, group)).chain(members);
    Some(all.map(|prefix| record(prefix, Place::Sink)).collect())
}

fn group_of(eid: IpAddr) -> Option<(Version, usize)> {
    aggregates().iter().find(|aggregate| aggregate.contains(&eid))?;
    Some(match eid {
        IpAddr::V6(eid) => {
            let upper = (u128::from(eid) >> 64) as u64 - 0x2001_0db8_f000_0000;
            (Version::V6, (upper >> 8) as usize)
        }
        IpAddr::V4(eid) => (Version::V4, ((u32::from(eid) - 0x0a00_0000) >> 8) as usize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn destinations_are_one_per_entry() {
        for version in [Version::V4, Version::V6] {
            for entries in [1, 255, 256, 10_000] {
                let all: HashSet<_> = destinations(version, entries).into_iter().collect();
                assert_eq!(all.len(), entries, "{version} {entries}");
                assert!(all.iter().all(|eid| group_of(*eid).is_some()));
            }
            assert_eq!(destinations(version, 1_000_000).len(), DESTINATIONS);
        }
    }

    #[test]
    fn a_lookup_brings_a_whole_group() {
        for version in [Version::V4, Version::V6] {
            let records = records(left_over(version, 7), Version::V4).unwrap();
            assert_eq!(records.len(), GROUP);
            let prefixes: HashSet<_> = records.iter().map(|r| r.eid.prefix().unwrap()).collect();
            assert_eq!(prefixes.len(), GROUP);
            let (_, last) = address_at(version, 7, GROUP - 2);
            assert_eq!(group_of(last), Some((version, 7)));
        }
    }

    #[test]
    fn the_sites_are_known_and_others_are_not() {
        let of = |eid: &str| records(eid.parse().unwrap(), Version::V4);
        let far = of(&FAR.host6(0).to_string()).unwrap();
        assert_eq!(far[0].usable_locators().next().unwrap().0, rloc(Place::Far, Version::V4));
        assert!(of("2001:db8:a::1").is_none());
        assert!(of("192.0.2.1").is_none());
        let most = covering(Version::V6, MOST / GROUP);
        assert!(aggregates()[0].contains(&most));
        assert!(aggregates()[1].contains(&covering(Version::V4, MOST / GROUP)));
    }
}
