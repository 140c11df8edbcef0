//! The measurements: what is sent, what is counted, and what is made of it.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{io, iter, thread};

use mapping::eid::{EidPrefix, InstanceId};

use super::bed::{
    Bed, CORE_LINK, CORE_TO, EDGE_LINK, HOST_LINK, Offload, Place, rloc, station, strangers,
};
use super::contender::Contender;
use super::crowd;
use super::family::Family;
use super::load::echo;
use super::load::flood::Flood;
use super::load::frames;
use super::load::tcp::Flows;
use super::meter::{Reading, counted};
use super::placement::{self, Placed};
use super::report::Column;
use crate::cli::lig;
use crate::lab::daemons::Daemons;
use crate::lab::namespace::Namespace;
use crate::lab::probe::udp::EchoServer;

/// Octets of TCP payload in a segment, for processor time per segment.
const SEGMENT: f64 = 1440.0;
/// How long a load runs before the measurement begins.
const SETTLE: Duration = Duration::from_millis(300);
/// Flows of the measurement with many.
const MANY_FLOWS: usize = 1000;

/// Values by their names.
pub(crate) type Values = BTreeMap<&'static str, f64>;

/// A measurement.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// In one line.
    pub(crate) title: &'static str,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Tcp(Offload),
    ManyFlows,
    Encap,
    Decap,
    RoundTrip,
    FirstPacket,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// How long one contender is measured in one round.
    pub(crate) time: Duration,
    /// TCP flows.
    pub(crate) flows: usize,
    /// How many packets of one flow follow each other in a flood.
    pub(crate) train: usize,
    /// EID-prefixes that the packets of a flood are spread over; 0 is the usual one.
    pub(crate) crowd: usize,
}

/// All measurements, in the order in which they are made.
pub(crate) static MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "tcp-full",
        title: "TCP, super-packets on every link (veth defaults)",
        work: Work::Tcp(Offload::Full),
    },
    Measurement {
        name: "tcp-edge-off",
        title: "TCP, packets of wire size between hosts and gateways",
        work: Work::Tcp(Offload::EdgeOff),
    },
    Measurement {
        name: "tcp-wire",
        title: "TCP, packets of wire size on every link, GRO on",
        work: Work::Tcp(Offload::Wire),
    },
    Measurement {
        name: "tcp-many",
        title: "TCP, 1000 flows, packets of wire size on every link, GRO on",
        work: Work::ManyFlows,
    },
    Measurement {
        name: "encap",
        title: "64-byte packets, 64 flows, flood: gateway 1 alone",
        work: Work::Encap,
    },
    Measurement {
        name: "decap",
        title: "64-byte packets, 64 flows, flood: gateway 2 alone",
        work: Work::Decap,
    },
    Measurement {
        name: "rtt",
        title: "UDP echo between the hosts, one at a time, everything idle",
        work: Work::RoundTrip,
    },
    Measurement {
        name: "first-packet",
        title: "first packet to an EID that gateway 1 has to look up",
        work: Work::FirstPacket,
    },
];

const TCP_COLUMNS: &[Column] = &[
    Column { value: "gbps", header: "Gbit/s", decimals: 2 },
    Column { value: "ratio", header: "x VXLAN", decimals: 2 },
    Column { value: "encap_ns", header: "encap ns/seg", decimals: 0 },
    Column { value: "decap_ns", header: "decap ns/seg", decimals: 0 },
    Column { value: "gateway_ns", header: "both ns/seg", decimals: 0 },
    Column { value: "machine_ns", header: "machine ns/seg", decimals: 0 },
];
const FLOOD_COLUMNS: &[Column] = &[
    Column { value: "kpps", header: "kpps", decimals: 0 },
    Column { value: "ratio", header: "x VXLAN", decimals: 2 },
    Column { value: "gateway_ns", header: "gateway ns/pkt", decimals: 0 },
    Column { value: "machine_ns", header: "machine ns/pkt", decimals: 0 },
    Column { value: "offered_kpps", header: "offered kpps", decimals: 0 },
];
const ROUND_TRIP_COLUMNS: &[Column] = &[
    Column { value: "rtt_us", header: "median us", decimals: 1 },
    Column { value: "added_us", header: "added to plain us", decimals: 1 },
    Column { value: "p99_us", header: "99 % us", decimals: 1 },
    Column { value: "apart_us", header: "apart us", decimals: 1 },
    Column { value: "apart_added_us", header: "added to plain us", decimals: 1 },
    Column { value: "lost", header: "lost", decimals: 0 },
];
const FIRST_PACKET_COLUMNS: &[Column] = &[
    Column { value: "first_us", header: "arrives after us", decimals: 0 },
    Column { value: "resolver_us", header: "resolver RTT us", decimals: 0 },
    Column { value: "beyond_ms", header: "beyond it ms", decimals: 3 },
    Column { value: "worst_ms", header: "worst ms", decimals: 3 },
    Column { value: "lost", header: "lost", decimals: 0 },
];

/// What a value is compared with, in the same round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    /// Its ratio to VXLAN's, as `ratio`.
    RatioToVxlan(&'static str),
    /// What each is more than plain forwarding's, as the second names.
    AddedToPlain(&'static [(&'static str, &'static str)]),
    /// Nothing.
    Alone,
}

impl Measurement {
    /// The columns of its table; of the first, the spread over the rounds is shown.
    pub(crate) fn columns(&self) -> &'static [Column] {
        match self.work {
            Work::Tcp(_) | Work::ManyFlows => TCP_COLUMNS,
            Work::Encap | Work::Decap => FLOOD_COLUMNS,
            Work::RoundTrip => ROUND_TRIP_COLUMNS,
            Work::FirstPacket => FIRST_PACKET_COLUMNS,
        }
    }

    /// What it is compared by.
    pub(crate) fn comparison(&self) -> Comparison {
        match self.work {
            Work::Tcp(_) | Work::ManyFlows => Comparison::RatioToVxlan("gbps"),
            Work::Encap | Work::Decap => Comparison::RatioToVxlan("kpps"),
            Work::RoundTrip => {
                Comparison::AddedToPlain(&[("rtt_us", "added_us"), ("apart_us", "apart_added_us")])
            }
            Work::FirstPacket => Comparison::Alone,
        }
    }

    /// What runs on which processor, the same for every contender.
    pub(crate) fn placement(&self) -> &'static str {
        match self.work {
            Work::Tcp(_) | Work::ManyFlows => {
                "both gateways' processes on processor 0, the hosts' wherever the scheduler puts them"
            }
            Work::Encap | Work::Decap => {
                "the flood from processor 0, the gateway's process on the others"
            }
            Work::RoundTrip => {
                "all on processor 0; apart: the gateways' processes there, the hosts' on processor 1"
            }
            Work::FirstPacket => "all on processor 0",
        }
    }

    /// Whether it makes sense for this contender.
    pub(crate) fn concerns(&self, contender: &Contender) -> bool {
        !matches!(self.work, Work::FirstPacket) || contender.daemons.is_some()
    }

    /// Whether it belongs to a run without a choice.
    pub(crate) fn is_usual(&self) -> bool {
        !matches!(self.work, Work::ManyFlows)
    }

    /// Sets the links of a contender for it.
    pub(crate) fn prepare(&self, bed: &Bed) -> io::Result<()> {
        match self.work {
            Work::Tcp(offload) => offload.apply(bed),
            _ => Offload::Wire.apply(bed),
        }
    }

    /// Measures one contender once.
    pub(crate) fn take(
        &self,
        contender: &mut Contender,
        family: Family,
        extent: Extent,
        daemons: &Daemons,
    ) -> io::Result<Values> {
        match self.work {
            Work::Tcp(_) => tcp(contender, family, extent.time, extent.flows),
            Work::ManyFlows => tcp(contender, family, extent.time, MANY_FLOWS),
            Work::Encap => encap(contender, family, extent),
            Work::Decap => decap(contender, family, extent),
            Work::RoundTrip => round_trips(contender, family, extent.time),
            Work::FirstPacket => {
                contender.forget_mappings(daemons)?;
                super::greet(contender, family)?;
                let _placed = contender.place(placement::FIRST)?;
                let _ourselves = Placed::ourselves(placement::FIRST)?;
                first_packets(contender, family)
            }
        }
    }
}

fn tcp(contender: &Contender, family: Family, time: Duration, count: usize) -> io::Result<Values> {
    let bed = &contender.bed;
    let _placed = contender.place(placement::FIRST)?;
    let (near, far) = (frames::near(family.inner), frames::far(family.inner));
    let flows = Flows::start((&bed.host1, near), (&bed.host2, far), count)?;
    thread::sleep(SETTLE);
    let (before, from) = (Reading::take(contender)?, flows.received());
    thread::sleep(time);
    let (after, to) = (Reading::take(contender)?, flows.received());
    flows.finish()?;
    let octets = (to - from) as f64;
    if octets == 0.0 {
        return Err(io::Error::other("no octet arrived"));
    }
    let used = after.since(&before);
    let segments = octets / SEGMENT;
    let mut values = Values::from([
        ("gbps", octets * 8.0 / used.seconds / 1e9),
        ("machine_ns", used.machine / segments),
    ]);
    if let Some([encap, decap]) = used.gateways {
        values.insert("encap_ns", encap / segments);
        values.insert("decap_ns", decap / segments);
        values.insert("gateway_ns", (encap + decap) / segments);
    }
    Ok(values)
}

/// Host 1 floods the sink; what gateway 1 sends is counted where it enters the core, and goes no further.
fn encap(contender: &Contender, family: Family, extent: Extent) -> io::Result<Values> {
    let bed = &contender.bed;
    let stations = [station_of(&bed.gw1, EDGE_LINK)?, station_of(&bed.host1, HOST_LINK)?];
    let packets = match extent.crowd {
        0 => frames::native(family.inner),
        entries => frames::native_to(&crowd::destinations(family.inner, entries)),
    };
    let frames = trains(&packets, extent.train, stations);
    let (from, to) = ((&bed.host1, HOST_LINK), (&bed.core, CORE_TO[0]));
    flood(contender, FloodWork { from, to, gateway: 0 }, frames, extent.time)
}

/// The core floods gateway 2 with what gateway 1 would send; what comes out is counted at host 2, and goes no further.
fn decap(contender: &Contender, family: Family, extent: Extent) -> io::Result<Values> {
    let bed = &contender.bed;
    let stations = [station_of(&bed.gw2, CORE_LINK)?, station_of(&bed.core, CORE_TO[1])?];
    let packets = frames::encapsulated(&contender.method, family);
    let frames = trains(&packets, extent.train, stations);
    let (from, to) = ((&bed.core, CORE_TO[1]), (&bed.host2, HOST_LINK));
    flood(contender, FloodWork { from, to, gateway: 1 }, frames, extent.time)
}

struct FloodWork<'a> {
    from: (&'a Namespace, &'static str),
    to: (&'a Namespace, &'static str),
    gateway: usize,
}

fn flood(
    contender: &Contender,
    work: FloodWork<'_>,
    frames: Vec<Vec<u8>>,
    time: Duration,
) -> io::Result<Values> {
    let kept_off =
        contender.groups.map(|groups| Placed::off(groups[work.gateway], placement::FIRST));
    let flood = Flood::start(work.from.0, work.from.1, frames, placement::FIRST)?;
    thread::sleep(SETTLE);
    let counters =
        || io::Result::Ok((counted(work.from.0, work.from.1)?, counted(work.to.0, work.to.1)?));
    let (before, (sent_before, received_before)) = (Reading::take(contender)?, counters()?);
    thread::sleep(time);
    let (after, (sent, received)) = (Reading::take(contender)?, counters()?);
    drop((flood, kept_off));
    let packets = (received.received - received_before.received) as f64;
    if packets == 0.0 {
        return Err(io::Error::other("no packet arrived"));
    }
    let used = after.since(&before);
    let mut values = Values::from([
        ("kpps", packets / used.seconds / 1e3),
        ("machine_ns", used.machine / packets),
        ("offered_kpps", (sent.sent - sent_before.sent) as f64 / used.seconds / 1e3),
    ]);
    if let Some(gateways) = used.gateways {
        values.insert("gateway_ns", gateways[work.gateway] / packets);
    }
    Ok(values)
}

fn round_trips(contender: &Contender, family: Family, time: Duration) -> io::Result<Values> {
    let _placed = contender.place(placement::FIRST)?;
    let together = echoes(contender, family, time, placement::FIRST)?;
    let quantile = |times: &echo::Times, share| {
        times.quantile_us(share).ok_or_else(|| io::Error::other("no echo came back"))
    };
    let mut values = Values::from([
        ("rtt_us", quantile(&together, 0.5)?),
        ("p99_us", quantile(&together, 0.99)?),
        ("lost", together.lost as f64),
    ]);
    if thread::available_parallelism().is_ok_and(|processors| processors.get() > placement::SECOND)
    {
        let apart = echoes(contender, family, time, placement::SECOND)?;
        values.insert("apart_us", quantile(&apart, 0.5)?);
        values.insert("lost", (together.lost + apart.lost) as f64);
    }
    Ok(values)
}

/// Round trips between hosts on processor `cpu`.
fn echoes(
    contender: &Contender,
    family: Family,
    time: Duration,
    cpu: usize,
) -> io::Result<echo::Times> {
    let _ourselves = Placed::ourselves(cpu)?;
    let server = EchoServer::start(&contender.bed.host2, frames::far(family.inner))?;
    let source = frames::near(family.inner);
    echo::round_trips(&contender.bed.host1, source, server.address(), time)
}

/// Lookups that the resolver's round trip time is the median of.
const LOOKUPS: usize = 21;

fn first_packets(contender: &Contender, family: Family) -> io::Result<Values> {
    let bed = &contender.bed;
    let source = frames::near(family.inner);
    let destinations = strangers().map(|prefix| prefix.addr());
    let destinations = destinations.filter(|a| a.is_ipv4() == source.is_ipv4()).collect();
    let times = echo::first_packets((&bed.host1, source), &bed.host2, destinations)?;
    let (Some(median), Some(worst)) = (times.quantile_us(0.5), times.quantile_us(1.0)) else {
        return Err(io::Error::other("no first packet arrived"));
    };
    let resolver = resolver_round_trip(contender, family)?;
    Ok(Values::from([
        ("first_us", median),
        ("resolver_us", resolver),
        ("beyond_ms", (median - resolver) / 1e3),
        ("worst_ms", (worst - resolver) / 1e3),
        ("lost", times.lost as f64),
    ]))
}

/// From a Map-Request to the Map-Reply, in microseconds. Gateway 2 is as far from the Map-Resolver as gateway 1, and
/// has not asked for these EID-prefixes: nobody is answered twice within a second.
fn resolver_round_trip(contender: &Contender, family: Family) -> io::Result<f64> {
    let own = rloc(Place::Far, family.outer);
    let resolver = rloc(Place::MappingSystem, family.outer);
    let mut times = contender.bed.gw2.run(move || {
        let time = |prefix| {
            thread::sleep(Duration::from_millis(5));
            lig::round_trip(EidPrefix::new(InstanceId::default(), prefix), resolver, own)
        };
        strangers().take(LOOKUPS).map(time).collect::<io::Result<Vec<_>>>()
    })??;
    times.sort();
    Ok(times[LOOKUPS / 2].as_secs_f64() * 1e6)
}

/// A flood's frames in the order in which they are sent: `train` packets of a flow follow each other.
fn trains(packets: &[Vec<u8>], train: usize, stations: [[u8; 6]; 2]) -> Vec<Vec<u8>> {
    let frame = |packet| frames::frame(stations[0], stations[1], packet);
    packets.iter().flat_map(|packet| iter::repeat_n(frame(packet), train)).collect()
}

fn station_of(namespace: &Namespace, link: &'static str) -> io::Result<[u8; 6]> {
    let address = station(namespace, link)?;
    address.addr().ok_or_else(|| io::Error::other(format!("link {link} has no station address")))
}
