//! What a hypervisor says for a VM that has just arrived: gratuitous ARP (RFC 5227 §3), unsolicited Neighbor Advertisement (RFC 4861 §7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{MsgFlags, send};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;

use super::craft::Header;
use crate::lab::namespace::Namespace;
use crate::lab::relay;

type Station = [u8; 6];

const BROADCAST: Station = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_STATION: Station = [0x33, 0x33, 0, 0, 0, 1];

/// Says once to all stations of `link` that `addresses` are those of the link's own station.
pub(crate) fn announce(
    namespace: &Namespace,
    link: &'static str,
    addresses: &[IpAddr],
) -> io::Result<()> {
    let addresses = addresses.to_vec();
    namespace.run(move || {
        let station = station_of(link)?;
        let socket = relay::port(link)?;
        for address in addresses {
            let frame = frame(address, station);
            send(socket.as_raw_fd(), &frame, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

fn station_of(link: &str) -> io::Result<Station> {
    let mut links = getifaddrs()?.filter(|found| found.interface_name == link);
    let station = links.find_map(|found| found.address?.as_link_addr()?.addr());
    station.ok_or_else(|| io::Error::other(format!("{link} has no station address")))
}

fn frame(address: IpAddr, station: Station) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            [&BROADCAST[..], &station, &[8, 6], &gratuitous_arp(address, station)].concat()
        }
        IpAddr::V6(address) => {
            let advertisement = unsolicited_advertisement(address, station);
            [&ALL_NODES_STATION[..], &station, &[0x86, 0xdd], &advertisement].concat()
        }
    }
}

fn gratuitous_arp(address: Ipv4Addr, station: Station) -> Vec<u8> {
    let address = address.octets();
    [&[0, 1, 8, 0, 6, 4, 0, 1], &station[..], &address, &[0; 6], &address].concat()
}

fn unsolicited_advertisement(address: Ipv6Addr, station: Station) -> Vec<u8> {
    // The O-flag, and the Target Link-Layer Address option.
    let head = [136, 0, 0, 0, 0x20, 0, 0, 0];
    let mut message = [&head[..], &address.octets(), &[2, 1], &station].concat();
    if let Some(packet) = Icmpv6Packet::new(&message) {
        let checksum = icmpv6::checksum(&packet, &address, &ALL_NODES);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    let header = Header { hop_limit: 255, ..Header::new(address.into(), ALL_NODES.into()) };
    header.packet(IpNextHeaderProtocols::Icmpv6, &message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtr::host::lan::frames;

    #[test]
    fn an_announcement_says_who_has_the_address() {
        for address in ["172.16.4.7", "2001:db8:e004::7"] {
            let address: IpAddr = address.parse().unwrap();
            let said = frames::parse(&frame(address, [0x52, 0x54, 0, 0, 0, 7])).unwrap().unwrap();
            assert_eq!((said.has, said.tentative, said.asks_for), (address, false, None));
            assert_eq!(said.mac, frames::Mac([0x52, 0x54, 0, 0, 0, 7]));
        }
    }
}
