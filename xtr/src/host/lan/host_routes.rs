//! Routes to the hosts that are here, and to those that have left. Each carries protocol 204.
//!
//! A host of a dynamic-EID range need not fit the subnet of the interface it is on: a route of its own (in `main`) has the kernel ask for it
//! there, and another one (`throw` in the table of the site's traffic) keeps packets of other hosts of the site from the tunnel. A host that
//! has left is the other way round: it fits the site's prefix, but the tunnel leads to it.
use super::super::netlink_error;
use super::super::routing::{PROTOCOL, SITE_TABLE, destination_of, route, table_of, unless_gone};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The routes in the kernel.
#[derive(Debug)]
pub struct HostRoutes {
    handle: Handle,
    /// Index of the TUN.
    tun: u32,
    installed: BTreeMap<IpAddr, Vec<RouteMessage>>,
}

impl HostRoutes {
    /// None yet; what an earlier run left for hosts of these ranges is removed.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn begin(handle: Handle, tun: u32, ranges: &[IpNet]) -> io::Result<Self> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let routes: Vec<RouteMessage> = handle
                .route()
                .get(query)
                .execute()
                .try_collect()
                .await
                .map_err(|error| netlink_error("list routes", &error))?;
            for route in routes.into_iter().filter(|route| is_leftover(route, ranges)) {
                tracing::info!("removing a host route of an earlier run");
                let removal = handle.route().del(route).execute().await;
                unless_gone(removal).map_err(|error| netlink_error("remove a route", &error))?;
            }
        }
        Ok(Self { handle, tun, installed: BTreeMap::new() })
    }

    /// The host is on this interface.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn here(&mut self, address: IpAddr, interface: u32) -> io::Result<()> {
        let host = IpNet::from(address);
        self.replace(
            address,
            vec![
                route(host, MAIN, RouteType::Unicast).output_interface(interface).build(),
                route(host, SITE_TABLE, RouteType::Throw).build(),
            ],
        )
        .await
    }

    /// The hosts that are here, each with its interface.
    pub fn hosts(&self) -> Vec<(IpAddr, u32)> {
        let interface = |route: &RouteMessage| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) if table_of(route) == MAIN => Some(*index),
                _ => None,
            })
        };
        let all = self.installed.iter();
        all.filter_map(|(host, routes)| Some((*host, routes.iter().find_map(interface)?))).collect()
    }

    /// The host has left: its packets go into the tunnel.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn away(&mut self, address: IpAddr) -> io::Result<()> {
        let into_tunnel = route(IpNet::from(address), SITE_TABLE, RouteType::Unicast);
        self.replace(address, vec![into_tunnel.output_interface(self.tun).build()]).await
    }

    /// Nothing is known of the host any more.
    pub async fn remove(&mut self, address: IpAddr) {
        for route in self.installed.remove(&address).unwrap_or_default() {
            remove(&self.handle, route).await;
        }
    }

    /// Takes out everything installed.
    pub async fn remove_all(&mut self) {
        while let Some((_, routes)) = self.installed.pop_first() {
            for route in routes {
                remove(&self.handle, route).await;
            }
        }
    }

    /// First the new ones, so that no packet falls between them.
    async fn replace(&mut self, address: IpAddr, routes: Vec<RouteMessage>) -> io::Result<()> {
        let before = self.installed.remove(&address).unwrap_or_default();
        let obsolete = before.into_iter().filter(|old| {
            // One in the same table is replaced by its successor.
            !routes.iter().any(|new| table_of(new) == table_of(old))
        });
        let obsolete: Vec<RouteMessage> = obsolete.collect();
        let mut added = Vec::new();
        let mut outcome = Ok(());
        for route in routes {
            let request = self.handle.route().add(route.clone()).replace();
            match request.execute().await {
                Ok(()) => added.push(route),
                Err(error) => {
                    outcome = Err(netlink_error(&format!("install a route to {address}"), &error));
                }
            }
        }
        for route in obsolete {
            remove(&self.handle, route).await;
        }
        self.installed.insert(address, added);
        outcome
    }
}

async fn remove(handle: &Handle, route: RouteMessage) {
    if let Err(error) = handle.route().del(route).execute().await {
        tracing::debug!(%error, "host route was gone");
    }
}

/// Those in the table of the site's traffic are found with everything else in there.
fn is_leftover(found: &RouteMessage, ranges: &[IpNet]) -> bool {
    found.header.protocol == RouteProtocol::Other(PROTOCOL)
        && table_of(found) == MAIN
        && destination_of(found).is_some_and(|host| {
            host.prefix_len() == host.max_prefix_len()
                && ranges.iter().any(|range| range.contains(&host.addr()))
        })
}
