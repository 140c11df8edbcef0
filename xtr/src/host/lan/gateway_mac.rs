//! The well-known gateway MAC: a MACVLAN on a site interface that has the same MAC and the same addresses at every site, so that a host
//! that moves keeps its default gateway, and what it has in its ARP or neighbor table stays right. The kernel answers for the gateway.
use super::super::netlink_error;
use super::super::underlay::interfaces;
use super::frames::Mac;
use crate::config::GatewayMac;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, MacVlanMode};
use rtnetlink::{Handle, LinkMacVlan, LinkUnspec};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// What is set on ours: no reverse-path filter, for hosts come whose addresses are still routed elsewhere; only its own addresses are
/// answered for; no duplicate address detection, for the same gateway is at other sites too (RFC 4862 §5.4 does not know such an address).
const OWN_SETTINGS: [(&str, &str); 9] = [
    ("ipv4/conf/NAME/rp_filter", "0"),
    ("ipv4/conf/NAME/arp_ignore", "1"),
    ("ipv4/conf/NAME/arp_announce", "2"),
    ("ipv4/conf/NAME/forwarding", "1"),
    ("ipv6/conf/NAME/accept_dad", "0"),
    ("ipv6/conf/NAME/dad_transmits", "0"),
    ("ipv6/conf/NAME/addr_gen_mode", "0"),
    ("ipv6/conf/NAME/forwarding", "1"),
    ("ipv6/conf/NAME/accept_ra", "0"),
];

/// What the interface itself must not do, or hosts would learn its MAC for the gateway's addresses.
const PARENT_SETTINGS: [(&str, &str); 2] =
    [("ipv4/conf/NAME/arp_ignore", "1"), ("ipv4/conf/NAME/arp_announce", "2")];

/// A setting, with `NAME` in the place of the interface, and its value.
type Setting = (&'static str, String);

/// The gateways, as long as they are there.
#[derive(Debug)]
pub struct Gateways {
    handle: Handle,
    links: Vec<GatewayLink>,
}

/// One of them.
#[derive(Debug)]
pub struct GatewayLink {
    /// The index of its interface.
    pub index: u32,
    /// The name of its interface.
    pub name: String,
    /// What it is.
    pub config: GatewayMac,
    /// The index of the parent.
    parent: u32,
    /// The parent's settings as they were.
    before: Vec<Setting>,
}

impl Gateways {
    /// None.
    pub const fn none(handle: Handle) -> Self {
        Self { handle, links: Vec::new() }
    }

    /// Makes them, instead of those that an earlier run left, configured or not.
    ///
    /// # Errors
    /// What the kernel said; then none is left.
    pub async fn install(handle: Handle, configs: &[GatewayMac]) -> io::Result<Self> {
        let mut gateways = Self { handle, links: Vec::new() };
        gateways.remove_leftovers().await?;
        if let Err(error) = gateways.extend_to(configs).await {
            gateways.remove().await;
            return Err(error);
        }
        Ok(gateways)
    }

    /// Makes those that are not there yet, and gives the others the addresses that they lack. One with another MAC is made anew.
    ///
    /// # Errors
    /// What the kernel said; what was done until then stays.
    pub async fn extend_to(&mut self, configs: &[GatewayMac]) -> io::Result<()> {
        for config in configs {
            let GatewayMac { interface, mac, addresses } = config;
            let at = self.links.iter().position(|link| link.config.interface == *interface);
            match at {
                Some(at) if self.links[at].config.mac == *mac => {
                    for address in addresses {
                        if !self.links[at].config.addresses.contains(address) {
                            let index = self.links[at].index;
                            let what = format!("give the gateway {mac} on {interface} {address}");
                            let assigned = self.assign(index, *address).await;
                            assigned.map_err(|error| netlink_error(&what, &error))?;
                            self.links[at].config.addresses.push(*address);
                        }
                    }
                }
                _ => {
                    if let Some(at) = at {
                        let other = self.links.remove(at);
                        self.remove_one(other).await;
                    }
                    self.add(config).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes those, and the addresses, that are not among these; what is gone already is no error.
    pub async fn shrink_to(&mut self, configs: &[GatewayMac]) {
        for mut link in std::mem::take(&mut self.links) {
            let is_same = |wanted: &&GatewayMac| {
                (&wanted.interface, wanted.mac) == (&link.config.interface, link.config.mac)
            };
            let Some(wanted) = configs.iter().find(is_same) else {
                self.remove_one(link).await;
                continue;
            };
            for address in &link.config.addresses {
                if !wanted.addresses.contains(address)
                    && let Err(error) = self.unassign(link.index, *address).await
                {
                    tracing::debug!(%error, %address, "address of a gateway was gone");
                }
            }
            link.config.clone_from(wanted);
            self.links.push(link);
        }
    }

    /// Every gateway.
    pub fn links(&self) -> &[GatewayLink] {
        &self.links
    }

    /// Those that are to be there; others leave soon.
    pub fn of<'a>(&'a self, wanted: &'a [GatewayMac]) -> impl Iterator<Item = &'a GatewayLink> {
        self.links.iter().filter(|link| {
            let is_it = |wanted: &GatewayMac| {
                (&wanted.interface, wanted.mac) == (&link.config.interface, link.config.mac)
            };
            wanted.iter().any(is_it)
        })
    }

    /// Removes them, and gives the interfaces their settings back.
    pub async fn remove(&mut self) {
        for link in std::mem::take(&mut self.links) {
            self.remove_one(link).await;
        }
    }

    async fn remove_one(&self, link: GatewayLink) {
        if let Err(error) = self.handle.link().del(link.index).execute().await {
            tracing::debug!(%error, link.name, "gateway was gone");
        }
        give_back(link.parent, &link.before);
    }

    async fn add(&mut self, config: &GatewayMac) -> io::Result<()> {
        let GatewayMac { interface, mac, addresses } = config;
        let parent = nix::net::if_::if_nametoindex(interface.as_str())?;
        let name = format!("{NAME}{parent}");
        let what = format!("make the gateway {mac} on {interface}");
        let link = LinkMacVlan::new(&name, parent, MacVlanMode::Private);
        let link = link.address(mac.0.to_vec()).build();
        self.handle.link().add(link).execute().await.map_err(|e| netlink_error(&what, &e))?;
        let index = nix::net::if_::if_nametoindex(name.as_str())?;
        let (config, before) = (config.clone(), before(interface));
        let alias = LinkUnspec::new_with_index(index).alias(alias(interface, &before)).build();
        // From here on `remove` undoes whatever was done, or a later run does.
        self.links.push(GatewayLink { index, name: name.clone(), parent, config, before });
        self.handle.link().set(alias).execute().await.map_err(|e| netlink_error(&what, &e))?;
        set(&PARENT_SETTINGS, interface)?;
        set(&OWN_SETTINGS, &name)?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(|e| netlink_error(&what, &e))?;
        for &address in addresses {
            self.assign(index, address).await.map_err(|e| netlink_error(&what, &e))?;
        }
        Ok(())
    }

    /// The address alone: its subnet is where it is, not where this gateway is.
    async fn assign(&self, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(index, address, length).replace();
        if address.is_ipv6() {
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
        }
        request.execute().await
    }

    async fn unassign(&self, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
        let addresses = self.handle.address().get().set_link_index_filter(index);
        let mut found = addresses.set_address_filter(address).execute();
        while let Some(message) = found.try_next().await? {
            self.handle.address().del(message).execute().await?;
        }
        Ok(())
    }

    /// Removes what an earlier run left that died without a word, and gives its interfaces their settings back.
    async fn remove_leftovers(&self) -> io::Result<()> {
        let mut links = self.handle.link().get().execute();
        let mut found: Vec<LinkMessage> = Vec::new();
        while let Some(link) =
            links.try_next().await.map_err(|error| netlink_error("list interfaces", &error))?
        {
            if name_of(&link).starts_with(NAME) {
                found.push(link);
            }
        }
        for link in found {
            let name = name_of(&link);
            let alias = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
                _ => None,
            });
            let is_ours = alias.is_some_and(|alias| alias.starts_with(ALIAS))
                // One that died before it had changed anything.
                || alias.is_none() && !link.header.flags.contains(LinkFlags::Up);
            if !is_ours {
                let text = format!("an interface {name} exists that is none of ours");
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            tracing::info!(name, "removing a gateway of an earlier run");
            let parent = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Link(parent) => Some(*parent),
                _ => None,
            });
            let removed = self.handle.link().del(link.header.index).execute().await;
            removed.map_err(|error| netlink_error(&format!("remove {name}"), &error))?;
            if let (Some(parent), Some(alias)) = (parent, alias) {
                give_back(parent, &settings_in(alias));
            }
        }
        Ok(())
    }
}

/// What the names of ours begin with; the index of the parent follows.
const NAME: &str = "isthmus-gw";
/// What the alias of ours begins with: how a later run recognises what this one left.
const ALIAS: &str = "Isthmus gateway on ";

/// The alias of a gateway also keeps the settings that its interface had: it lasts exactly as long as what was set instead.
fn alias(interface: &str, before: &[Setting]) -> String {
    let settings = before.iter().map(|(setting, value)| format!(" {setting}={value}"));
    format!("{ALIAS}{interface}{}", settings.collect::<String>())
}

/// The settings that an alias keeps; nothing but those that we change.
fn settings_in(alias: &str) -> Vec<Setting> {
    let words = alias.split_whitespace().filter_map(|word| word.split_once('='));
    let known = words.filter_map(|(setting, value)| {
        let (setting, _) = PARENT_SETTINGS.iter().find(|(known, _)| *known == setting)?;
        value.parse::<u8>().ok().map(|value| (*setting, value.to_string()))
    });
    known.collect()
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// The settings of an interface that are to be changed, as they are.
fn before(interface: &str) -> Vec<Setting> {
    let mut before = Vec::new();
    for (setting, value) in PARENT_SETTINGS {
        let was = fs::read_to_string(path(setting, interface)).unwrap_or_default();
        if !was.trim().is_empty() && was.trim() != value {
            before.push((setting, was.trim().to_owned()));
        }
    }
    before
}

/// Gives an interface its settings back; it may be gone by now, or have another name.
fn give_back(interface: u32, before: &[Setting]) {
    let Ok(name) = nix::net::if_::if_indextoname(interface) else { return };
    for (setting, value) in before {
        if let Err(error) = fs::write(path(setting, &name.to_string_lossy()), value) {
            tracing::warn!(%error, setting, value, "cannot give an interface its setting back");
        }
    }
}

fn path(setting: &str, interface: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(setting.replace("NAME", interface))
}

/// Changes settings of an interface.
fn set(settings: &[(&str, &str)], interface: &str) -> io::Result<()> {
    for (setting, value) in settings {
        let path = path(setting, interface);
        let Ok(was) = fs::read_to_string(&path) else {
            // A kernel without IPv6 has none of its settings.
            continue;
        };
        if was.trim() != *value {
            fs::write(&path, value).map_err(|error| {
                io::Error::new(error.kind(), format!("set {} to {value}: {error}", path.display()))
            })?;
        }
    }
    Ok(())
}

/// The Ethernet address of an interface, and its own link-local address if it has one.
///
/// # Errors
/// What the kernel said; `NotFound` without an Ethernet address.
pub async fn station(handle: &Handle, interface: u32) -> io::Result<(Mac, Option<IpAddr>)> {
    let mut links = handle.link().get().match_index(interface).execute();
    let link =
        links.try_next().await.map_err(|error| netlink_error("read an interface", &error))?;
    let mac = link.and_then(|link| {
        link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(octets) => octets.try_into().ok().map(Mac),
            _ => None,
        })
    });
    let mac = mac.ok_or_else(|| {
        let name = nix::net::if_::if_indextoname(interface).unwrap_or_default();
        let text = format!("{} is no Ethernet interface", name.to_string_lossy());
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let addresses = super::super::underlay::assigned_addresses(handle).await?;
    let is_link_local = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let own =
        addresses.into_iter().find(|(address, at)| *at == interface && is_link_local(address));
    Ok((mac, own.map(|(address, _)| address)))
}

/// Whether every gateway's MAC is one that its interface does not have itself.
///
/// # Errors
/// Which has.
pub async fn check(handle: &Handle, configs: &[GatewayMac]) -> io::Result<()> {
    let present = interfaces(handle).await?;
    for GatewayMac { interface, mac, .. } in configs {
        let index = present.iter().find(|(_, found)| found.name == *interface).map(|(i, _)| *i);
        let Some(index) = index else { continue };
        if station(handle, index).await?.0 == *mac {
            let text =
                format!("{interface} itself has the MAC {mac} of the gateway: give it another");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_alias_keeps_is_read_again_and_nothing_else() {
        let before = vec![
            ("ipv4/conf/NAME/arp_ignore", "0".to_owned()),
            ("ipv4/conf/NAME/arp_announce", "1".to_owned()),
        ];
        let text = alias("lan0", &before);
        assert!(text.starts_with(ALIAS) && text.len() < 256, "{text}");
        assert_eq!(settings_in(&text), before);
        assert_eq!(settings_in(&alias("lan0", &[])), []);
        for forged in [
            "Isthmus gateway on lan0 ipv4/ip_forward=0",
            "Isthmus gateway on lan0 ipv4/conf/NAME/arp_ignore=../../x",
            "Isthmus gateway on ipv4/conf/NAME/arp_ignore",
        ] {
            assert_eq!(settings_in(forged), [], "{forged}");
        }
    }
}
