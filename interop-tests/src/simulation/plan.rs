//! How large a simulation is, and what its sites are like.
use super::weather::Weather;
use mapping::auth::Covered;
use mapping::config::{Algorithm, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix};
use mapping::eid::{Eid, EidPrefix, InstanceId};
use mapping::timers;
use mapping::wire::XtrIdentity;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use xtr::config::{
    ControlConfig, DynamicRange, Endpoint, LocalEid, MapServer, OwnRloc, ProbeConfig, Role,
    Subscribe,
};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// Sites, each with one xTR; at most 4096.
    pub sites: u32,
    /// Sites that each site talks to, fewer than half of them.
    pub correspondents: u32,
    /// Hosts that move between sites.
    pub movers: u32,
    /// Map-Servers, which are Map-Resolvers too; every site registers at all of them.
    pub servers: u8,
    /// The weather at the start.
    pub weather: Weather,
    /// Between two packets of a site once it has talked to every correspondent, on average.
    pub packet_interval: Duration,
    /// How RLOCs are probed; `None` = not at all.
    pub probe: Option<ProbeConfig>,
    /// When sites begin to talk: after everybody has registered.
    pub quiet: Duration,
    /// By when each site has talked to every correspondent once.
    pub filled: Duration,
}

impl Plan {
    /// A small network in fair weather.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            sites: 60,
            correspondents: 15,
            movers: 0,
            servers: 2,
            weather: Weather::FAIR,
            packet_interval: Duration::from_secs(1),
            probe: Some(ProbeConfig::default()),
            quiet: Duration::from_secs(5),
            filled: Duration::from_secs(60),
        }
    }

    pub(super) fn server_address(&self, server: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, server + 1).into()
    }

    pub(super) fn server_config(&self, server: u8) -> MappingConfig {
        let address = self.server_address(server);
        let mut config = MappingConfig::new(format!("ms{server}"), vec![address]);
        config.sites = (0..self.sites)
            .map(|site| {
                let algorithms = vec![Algorithm::HmacSha256];
                let key = SiteKey { id: 1, secret: secret(site), algorithms };
                let own = |prefix| SitePrefix { prefix, accept_more_specifics: true };
                let roams = roams(site).then(|| own(roaming_range()));
                let prefixes = [own(prefix(site))].into_iter().chain(roams).collect();
                let mut config = Site::new(format!("site {site}"), vec![key], prefixes);
                config.site_id = Some(site_id(site));
                config
            })
            .collect();
        config
    }

    /// The xTR of a site.
    pub(super) fn router_config(&self, site: u32) -> ControlConfig {
        let servers =
            (0..self.servers).map(|server| Endpoint::Address(self.server_address(server)));
        let map_server = |endpoint| MapServer {
            endpoint,
            key_id: 1,
            secret: secret(site),
            algorithm: Algorithm::HmacSha256,
            covers: Covered::Message,
            profile: Profile::Rfc9301,
        };
        let identity = XtrIdentity { xtr_id: u128::from(site) + 1, site_id: site_id(site) };
        ControlConfig {
            rlocs: rlocs(site),
            map_resolvers: servers.clone().collect(),
            map_servers: servers.map(map_server).collect(),
            eids: vec![LocalEid { prefix: prefix(site), locator_set: Vec::new() }],
            probe: self.probe,
            record_ttl_minutes: if site % 4 == 2 { 10 } else { timers::RECORD_TTL_MINUTES },
            proxy_reply: has_proxy_reply(site),
            identity: Some(identity),
            subscribe: subscribes(site).then(Subscribe::default),
            ..ControlConfig::of(Role::Xtr)
        }
    }
}

/// The site interface of a site with hosts that move.
pub(super) const LAN: &str = "lan0";

/// Whether hosts that move may be there.
pub(super) fn roams(site: u32) -> bool {
    site % 5 == 3 && site < 80
}

/// Theirs in all sites.
fn roaming_range() -> EidPrefix {
    EidPrefix::new(
        InstanceId::DEFAULT,
        ipnet::Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 16).into(),
    )
}

/// A host that moves.
pub(super) fn mover(index: usize) -> Eid {
    let IpAddr::V4(first) = roaming_range().first().address else { unreachable!("an IPv4 range") };
    Eid::new(InstanceId::DEFAULT, Ipv4Addr::from_bits(first.to_bits() + 1 + index as u32).into())
}

/// What a site knows of them.
pub(super) fn dynamic_ranges(site: u32) -> Vec<DynamicRange> {
    let range = DynamicRange {
        range: roaming_range(),
        locator_set: Vec::new(),
        interfaces: vec![LAN.to_owned()],
        timeout: DynamicRange::TIMEOUT,
        limit: DynamicRange::LIMIT,
        extended_subnet: false,
    };
    roams(site).then_some(range).into_iter().collect()
}

fn site_id(site: u32) -> u64 {
    u64::from(site) + 1
}

fn secret(site: u32) -> Secret {
    Secret::new(format!("the secret of site {site}").into_bytes())
}

/// Whether the Map-Servers answer for it.
pub(super) fn has_proxy_reply(site: u32) -> bool {
    (site / 8).is_multiple_of(2)
}

/// Whether its xTR subscribes to what it looks up.
pub(super) fn subscribes(site: u32) -> bool {
    site % 10 == 9
}

/// Whether there are packets between two sites: their EIDs are of one family.
pub(super) fn can_talk(one: u32, other: u32) -> bool {
    one != other && prefix(one).prefix().addr().is_ipv4() == prefix(other).prefix().addr().is_ipv4()
}

/// Every other four sites have IPv6 EIDs.
pub(super) fn prefix(site: u32) -> EidPrefix {
    let [_, _, high, low] = site.to_be_bytes();
    let net = if (site / 4).is_multiple_of(2) {
        ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, high, low, 0), 24).into()
    } else {
        let group = 0xe000 | u16::from_be_bytes([high, low]);
        ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, 0, 0), 48).into()
    };
    EidPrefix::new(InstanceId::DEFAULT, net)
}

/// The host of a site that talks and is talked to.
pub(super) fn host(site: u32) -> Eid {
    let first = prefix(site).first();
    let address = match first.address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + 7).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + 7).into(),
    };
    Eid::new(first.instance_id, address)
}

/// Half of the sites have a second locator: a backup, or one that shares the load, of the same family or IPv6.
pub(super) fn rlocs(site: u32) -> Vec<OwnRloc> {
    let [_, _, high, low] = site.to_be_bytes();
    let rloc = |name: &str, address, priority| OwnRloc::new(name, address, priority, 50);
    let v4 = |net| IpAddr::from(Ipv4Addr::new(198, net, high, low));
    let first = rloc("a", v4(18), 1);
    match site % 8 {
        1 | 5 => vec![first, rloc("b", v4(19), 1)],
        3 => vec![first, rloc("b", v4(19), 2)],
        7 => {
            let [high, low] = [u16::from(high), u16::from(low)];
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0, 0, 0, high, low + 1);
            vec![first, rloc("b", v6.into(), 1)]
        }
        _ => vec![first],
    }
}
