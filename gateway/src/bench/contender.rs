//! Who carries the packets between the two gateways.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use rtnetlink::LinkVxlan;

use super::bed::{
    Bed, CORE_LINK, EDGE_LINK, FAR, NEAR, Place, SINK, neighbour, rloc, strangers,
    strangers_aggregates,
};
use super::crowd::{self, Resolver};
use super::family::{Family, Version};
use super::peer;
use super::placement::Placed;
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
    /// Another LISP implementation: a shell command that runs it in one gateway.
    Peer(String),
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
    /// EID-prefixes in gateway 1's map-cache beside those of the sites.
    pub(crate) crowd: usize,
}

/// A contender with its network, ready to carry packets.
pub(crate) struct Contender {
    /// As in the tables.
    pub(crate) name: String,
    /// How it carries them.
    pub(crate) method: Method,
    /// The daemons of gateway 1 and gateway 2, if it has any.
    pub(crate) daemons: Option<[Daemon; 2]>,
    /// The process groups of what runs in gateway 1 and gateway 2, if anything does.
    pub(crate) groups: Option<[u32; 2]>,
    /// Our mapping system, if it has one.
    mapping_system: Option<Daemon>,
    /// Answers gateway 1's lookups in place of the mapping system.
    _resolver: Option<Resolver>,
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
/// Room in the map-cache beside a crowd.
const USUAL_ENTRIES: usize = 10_000;
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
        let mut contender = Self {
            name: name.to_owned(),
            method: method.clone(),
            daemons: None,
            groups: None,
            mapping_system: None,
            _resolver: None,
            bed,
        };
        let bed = &contender.bed;
        match method {
            Method::Plain => bed.route_natively()?,
            Method::Vxlan => set_up_vxlan(bed, family.outer)?,
            Method::Isthmus(variant) => {
                bed.welcome_strangers()?;
                if variant.crowd > 0 {
                    contender._resolver = Some(Resolver::start(&bed.ms, family.outer)?);
                }
                let (mapping_system, xtrs) = start_daemons(bed, variant, family.outer, daemons)?;
                contender.mapping_system = Some(mapping_system);
                contender.daemons = Some(xtrs);
                contender.groups_of_daemons();
            }
            Method::Peer(command) => {
                contender.groups = Some(peer::start(bed, command, family.outer, daemons)?);
            }
        }
        Ok(contender)
    }

    /// Has its processes run on processor `cpu`, until what is returned is dropped.
    pub(crate) fn place(&self, cpu: usize) -> io::Result<Placed> {
        let gateways = self.groups.iter().flatten().copied();
        let groups: Vec<_> =
            gateways.chain(self.mapping_system.as_ref().map(Daemon::pid)).collect();
        Placed::on(&groups, cpu)
    }

    /// Starts gateway 1's daemon once more, with an empty map-cache. It does not take its leave before: its site
    /// stays registered, and nobody hears that it has gone.
    pub(crate) fn forget_mappings(&mut self, daemons: &Daemons) -> io::Result<()> {
        if let Some([near, _]) = &self.daemons {
            daemons.kill(near)?;
            daemons.restart(near, &self.bed.gw1)?;
        }
        self.groups_of_daemons();
        Ok(())
    }

    fn groups_of_daemons(&mut self) {
        if let Some([near, far]) = &self.daemons {
            self.groups = Some([near.pid(), far.pid()]);
        }
    }
}

/// Devices with the kernel's defaults, one more on gateway 1 for what ends in the sink.
fn set_up_vxlan(bed: &Bed, outer: Version) -> io::Result<()> {
    let place = |place| rloc(place, outer);
    let of = |site: &Site| [site.prefix6(), site.prefix4()];
    let sink = of(SINK).into_iter().chain(crowd::aggregates()).collect();
    let tunnels = [
        (&bed.gw1, "vxlan0", VNI, Place::Near, Place::Far, of(FAR).to_vec()),
        (&bed.gw2, "vxlan0", VNI, Place::Far, Place::Near, of(NEAR).to_vec()),
        (&bed.gw1, "vxlan1", SINK_VNI, Place::Near, Place::Sink, sink),
    ];
    for (gateway, device, vni, from, to, prefixes) in tunnels {
        let stations = match from {
            Place::Near => VXLAN_STATIONS,
            _ => [VXLAN_STATIONS[1], VXLAN_STATIONS[0]],
        };
        add_vxlan(gateway, device, vni, (place(from), place(to)), stations[0])?;
        for next_hop in [PEER6, PEER4] {
            neighbour(gateway, device, next_hop, stations[1])?;
        }
        for prefix in prefixes {
            let next_hop = if prefix.addr().is_ipv4() { PEER4 } else { PEER6 };
            link::route(gateway, prefix, Some(next_hop), device)?;
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
) -> io::Result<(Daemon, [Daemon; 2])> {
    let program = match &variant.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    let mapping_system = start_mapping_system(program.clone(), bed, outer, daemons)?;
    let keys = daemons.directory().display().to_string();
    let start = |gateway: &Namespace, place| {
        let text = xtr_configuration(place, outer, variant, &keys);
        daemons.add_from(program.clone(), "xtr", gateway, &text)
    };
    let processes = [start(&bed.gw1, Place::Near)?, start(&bed.gw2, Place::Far)?];
    wait_for_registrations(&mapping_system)?;
    Ok((mapping_system, processes))
}

/// How long all registrations may take.
const REGISTERED_WITHIN: Duration = Duration::from_secs(20);

/// Waits until every EID-prefix is registered: what is looked up before is taken for nobody's for a minute.
fn wait_for_registrations(mapping_system: &Daemon) -> io::Result<()> {
    let expected = 2 * [NEAR, FAR, SINK].len() + strangers().count();
    let deadline = Instant::now() + REGISTERED_WITHIN;
    loop {
        let registrations = mapping_system.ask(&Query::Registrations)?;
        let count = registrations.as_array().map_or(0, Vec::len);
        if count >= expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            let text = format!("only {count} of {expected} EID-prefixes are registered");
            return Err(io::Error::other(format!("{text}\n{}", mapping_system.log_tail())));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A Map-Server and Map-Resolver for both sites.
pub(crate) fn start_mapping_system(
    program: PathBuf,
    bed: &Bed,
    outer: Version,
    daemons: &Daemons,
) -> io::Result<Daemon> {
    for site in [NEAR, FAR] {
        // Contenders with daemons share the keys.
        if !daemons.directory().join(format!("site-{}.key", site.name)).exists() {
            daemons.write_key(site.name)?;
        }
    }
    let keys = daemons.directory().display().to_string();
    let text = mapping_configuration(outer, &keys);
    daemons.add_from(program, "mapping", &bed.ms, &text)
}

fn mapping_configuration(outer: Version, keys: &str) -> String {
    let mut text = format!("[mapping]\nlisten = [\"{}\"]\n", rloc(Place::MappingSystem, outer));
    let strangers = strangers_aggregates();
    for (site, prefixes, more_specific) in
        [(NEAR, &[NEAR][..], &[][..]), (FAR, &[FAR, SINK], &strangers)]
    {
        let prefixes: Vec<_> =
            prefixes
                .iter()
                .flat_map(|site| [site.prefix6(), site.prefix4()])
                .map(|prefix| format!("\"{prefix}\""))
                .chain(more_specific.iter().map(|prefix| {
                    format!("{{ prefix = \"{prefix}\", accept-more-specifics = true }}")
                }))
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
    let map_resolver = match place {
        Place::Near if variant.crowd > 0 => rloc(Place::Resolver, outer),
        _ => map_server,
    };
    let limit = USUAL_ENTRIES + variant.crowd;
    let tun = variant.workers.map(|n| format!("tun = {{ queues = {n} }}\n")).unwrap_or_default();
    let mut text = format!(
        "[xtr]\nname = \"{}\"\nrlocs = {{ {} }}\n\
         map-servers = [{{ address = \"{map_server}\", key-id = 1, key-file = \"{keys}/site-{}.key\" }}]\n\
         map-resolvers = [\"{map_resolver}\"]\nmap-cache-limit = {limit}\nprobe = \"off\"\n{tun}{}\n",
        site.name,
        rlocs.join(", "),
        site.name,
        variant.lines,
    );
    let mut eids: Vec<_> = eids
        .iter()
        .flat_map(|(site, set)| [(site.prefix6(), *set), (site.prefix4(), *set)])
        .collect();
    if place == Place::Far {
        eids.extend(strangers().map(|prefix| (prefix, "core")));
    }
    for (prefix, locator_set) in eids {
        text.push_str(&format!(
            "\n[[eid]]\nprefix = \"{prefix}\"\nlocator-set = \"{locator_set}\"\n\
             interfaces = [\"{EDGE_LINK}\"]\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;

    #[test]
    fn every_file_passes_the_products_own_check() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().display().to_string();
        for site in [NEAR, FAR] {
            let key = directory.path().join(format!("site-{}.key", site.name));
            fs::write(&key, format!("0123456789abcdef of {}", site.name)).unwrap();
            fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        }
        let lines = "intake = \"tun\"".to_owned();
        let variant = Variant { program: None, lines, workers: Some(1), crowd: 1_000_000 };
        for outer in [Version::V4, Version::V6] {
            let files = [
                mapping_configuration(outer, &keys),
                xtr_configuration(Place::Near, outer, &variant, &keys),
                xtr_configuration(Place::Far, outer, &variant, &keys),
            ];
            for text in files {
                let path = directory.path().join("file.toml");
                fs::write(&path, &text).unwrap();
                if let Err(refused) = config::load(&path, None) {
                    panic!("{:?}\n{text}", refused.errors);
                }
            }
        }
    }
}
