//! Who carries the packets between the two gateways.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rtnetlink::LinkVxlan;

use super::bed::{Bed, CORE_LINK, FAR, NEAR, Place, SINK, neighbour, rloc};
use super::family::{Family, Version};
use crate::lab::addresses::Site;
use crate::lab::daemons::{Daemon, Daemons};
use crate::lab::link;
use crate::lab::namespace::Namespace;

/// A way to carry packets between the gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The kernel forwards; the core carries EIDs.
    Plain,
    /// The kernel's VXLAN.
    Vxlan,
    /// Our daemons.
    Isthmus(Variant),
}

/// A build and configuration of our daemons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Another build of this program; this one without.
    pub(crate) program: Option<PathBuf>,
    /// More lines for `[xtr]`.
    pub(crate) lines: String,
    /// Workers per daemon; `None` is the daemon's own choice.
    pub(crate) workers: Option<u16>,
}

/// A contender with its network, ready to carry packets.
pub(crate) struct Contender {
    /// As in the tables.
    pub(crate) name: String,
    /// How it carries them.
    pub(crate) method: Method,
    /// The daemons of gateway 1 and gateway 2, if it has any.
    pub(crate) daemons: Option<[Daemon; 2]>,
    /// Its network.
    pub(crate) bed: Bed,
}

/// Link-layer addresses of the VXLAN devices of gateway 1 and gateway 2.
pub(crate) const VXLAN_STATIONS: [[u8; 6]; 2] =
    [[0x02, 0, 0, 0, 0x42, 1], [0x02, 0, 0, 0, 0x42, 2]];
/// The VXLAN network between the hosts.
pub(crate) const VNI: u32 = 42;
/// The VXLAN network towards the sink.
const SINK_VNI: u32 = 43;
/// RFC 7348 §5.
pub(crate) const VXLAN_PORT: u16 = 4789;
/// What fits into the edge links.
const VXLAN_MTU: u32 = 1500;

impl Contender {
    /// Sets up a contender for one family combination.
    pub(crate) fn set_up(
        name: &str,
        method: &Method,
        family: Family,
        daemons: &Daemons,
    ) -> io::Result<Self> {
        let bed = Bed::bring_up(name)?;
        let processes = match method {
            Method::Plain => {
                bed.route_natively()?;
                None
            }
            Method::Vxlan => {
                set_up_vxlan(&bed, family.outer)?;
                None
            }
            Method::Isthmus(variant) => Some(start_daemons(&bed, variant, family.outer, daemons)?),
        };
        Ok(Self { name: name.to_owned(), method: method.clone(), daemons: processes, bed })
    }
}

/// Devices with the kernel's defaults, one more on gateway 1 for what ends in the sink.
fn set_up_vxlan(bed: &Bed, outer: Version) -> io::Result<()> {
    let place = |place| rloc(place, outer);
    let tunnels = [
        (&bed.gw1, "vxlan0", VNI, Place::Near, Place::Far, vec![FAR]),
        (&bed.gw2, "vxlan0", VNI, Place::Far, Place::Near, vec![NEAR]),
        (&bed.gw1, "vxlan1", SINK_VNI, Place::Near, Place::Sink, vec![SINK]),
    ];
    for (gateway, device, vni, from, to, sites) in tunnels {
        let stations = match from {
            Place::Near => VXLAN_STATIONS,
            _ => [VXLAN_STATIONS[1], VXLAN_STATIONS[0]],
        };
        add_vxlan(gateway, device, vni, (place(from), place(to)), stations[0])?;
        for site in sites {
            for (prefix, next_hop) in [(site.prefix6(), PEER6), (site.prefix4(), PEER4)] {
                neighbour(gateway, device, next_hop, stations[1])?;
                link::route(gateway, prefix, Some(next_hop), device)?;
            }
        }
    }
    Ok(())
}

/// The other end of a VXLAN device, as a next hop.
const PEER6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
/// See [`PEER6`].
const PEER4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn add_vxlan(
    gateway: &Namespace,
    device: &'static str,
    vni: u32,
    (local, remote): (IpAddr, IpAddr),
    station: [u8; 6],
) -> io::Result<()> {
    let underlay = link::index(gateway, CORE_LINK)?;
    gateway.netlink(move |netlink| async move {
        let mut vxlan = LinkVxlan::new(device, vni).dev(underlay).port(VXLAN_PORT);
        vxlan = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => vxlan.local(local).remote(remote),
            (IpAddr::V6(local), IpAddr::V6(remote)) => vxlan.local6(local).remote6(remote),
            _ => vxlan,
        };
        // Injected packets carry no outer checksum, which VXLAN over IPv6 takes only when told to.
        let vxlan = if local.is_ipv6() { vxlan.udp_zero_csum6_rx(true) } else { vxlan };
        let vxlan = vxlan.address(station.to_vec()).mtu(VXLAN_MTU).up().build();
        netlink.link().add(vxlan).execute().await
    })
}

/// A mapping system in the core and an xTR in each gateway.
fn start_daemons(
    bed: &Bed,
    variant: &Variant,
    outer: Version,
    daemons: &Daemons,
) -> io::Result<[Daemon; 2]> {
    let program = match &variant.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    for site in [NEAR, FAR] {
        daemons.write_key(site.name)?;
    }
    let keys = daemons.directory().display().to_string();
    let mapping = mapping_configuration(outer, &keys);
    daemons.add_from(program.clone(), "mapping", &bed.ms, &mapping)?;
    let start = |gateway: &Namespace, place| {
        let text = xtr_configuration(place, outer, variant, &keys);
        daemons.add_from(program.clone(), "xtr", gateway, &text)
    };
    Ok([start(&bed.gw1, Place::Near)?, start(&bed.gw2, Place::Far)?])
}

fn mapping_configuration(outer: Version, keys: &str) -> String {
    let mut text = format!("[mapping]\nlisten = [\"{}\"]\n", rloc(Place::MappingSystem, outer));
    for (site, prefixes) in [(NEAR, vec![NEAR]), (FAR, vec![FAR, SINK])] {
        let prefixes: Vec<_> = prefixes
            .iter()
            .flat_map(|site| [site.prefix6(), site.prefix4()])
            .map(|prefix| format!("\"{prefix}\""))
            .collect();
        text.push_str(&format!(
            "\n[[site]]\nname = \"{0}\"\nkeys = [{{ id = 1, file = \"{keys}/site-{0}.key\" }}]\n\
             eid-prefixes = [{1}]\n",
            site.name,
            prefixes.join(", ")
        ));
    }
    text
}

fn xtr_configuration(place: Place, outer: Version, variant: &Variant, keys: &str) -> String {
    let (site, rlocs, eids): (&Site, &[_], Vec<_>) = match place {
        Place::Near => (NEAR, &[("core", Place::Near)], vec![(NEAR, "core")]),
        _ => {
            let rlocs = &[("core", Place::Far), ("sink", Place::Sink)];
            (FAR, rlocs, vec![(FAR, "core"), (SINK, "sink")])
        }
    };
    let rlocs: Vec<_> = rlocs
        .iter()
        .map(|&(name, place)| format!("{name} = {{ address = \"{}\" }}", rloc(place, outer)))
        .collect();
    let map_server = rloc(Place::MappingSystem, outer);
    let tun = variant.workers.map(|n| format!("tun = {{ queues = {n} }}\n")).unwrap_or_default();
    let mut text = format!(
        "[xtr]\nname = \"{}\"\nrlocs = {{ {} }}\n\
         map-servers = [{{ address = \"{map_server}\", key-id = 1, key-file = \"{keys}/site-{}.key\" }}]\n\
         map-resolvers = [\"{map_server}\"]\nprobe-interval = \"off\"\n{tun}{}\n",
        site.name,
        rlocs.join(", "),
        site.name,
        variant.lines,
    );
    for (site, locator_set) in eids {
        for prefix in [site.prefix6(), site.prefix4()] {
            text.push_str(&format!(
                "\n[[eid]]\nprefix = \"{prefix}\"\nlocator-set = \"{locator_set}\"\ninterfaces = [\"{}\"]\n",
                super::bed::EDGE_LINK
            ));
        }
    }
    text
}
