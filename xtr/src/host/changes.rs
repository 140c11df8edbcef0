//! News of the kernel: links, addresses, and the routes that lead to RLOCs.
use super::route_filter;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use socket2::SockRef;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;

/// Receive buffer asked for, octets: when it overflows, everything is looked at anew.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The longest message that matters, octets; a longer one is cut and still understood.
const MAX_MESSAGE: usize = 8192;
/// Messages taken in a row, before what they say is acted upon.
const BATCH: usize = 1024;
/// Octets of `struct nlmsghdr`, of `struct rtmsg` behind it, of `struct rtattr`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const ATTRIBUTE: usize = 4;
/// RTNLGRP_NEXTHOP: routes that share nexthop objects change with these.
const GROUP_NEXTHOP: u32 = 32;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// An address of this host, or a link that matters.
    pub host: bool,
    /// Any path may be another one.
    pub all_paths: bool,
    /// The paths to these RLOCs may be others.
    pub rlocs: BTreeSet<IpAddr>,
}

impl Change {
    /// Whether nothing did.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Tells of changes in the network namespace it was made in.
pub struct Changes {
    socket: TokioSocket,
    buffer: Vec<u8>,
    interest: Interest,
}

/// Whom changes concern.
#[derive(Debug, Default)]
struct Interest {
    rlocs: BTreeSet<IpAddr>,
    links: HashSet<u32>,
}

impl Changes {
    /// Starts listening; nothing is known of RLOCs and links that matter.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        // Without the privilege the usual buffer must do.
        let _ = setsockopt(&socket.socket_ref().as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER);
        let filter = route_filter::program(&BTreeSet::new());
        SockRef::from(socket.socket_ref()).attach_filter(&filter)?;
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
            GROUP_NEXTHOP,
        ];
        let mask = groups.iter().fold(0, |mask, group| mask | 1u32 << (group - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
        let buffer = Vec::with_capacity(MAX_MESSAGE);
        Ok(Self { socket, buffer, interest: Interest::default() })
    }

    /// The remote RLOCs whose routes matter from now on. Ask for the paths of new ones after this, not before.
    ///
    /// # Errors
    /// What the kernel said; then all routes are still looked at, by us.
    pub fn follow_rlocs(&mut self, rlocs: BTreeSet<IpAddr>) -> io::Result<()> {
        if rlocs == self.interest.rlocs {
            return Ok(());
        }
        let program = route_filter::program(&rlocs);
        self.interest.rlocs = rlocs;
        let socket = SockRef::from(self.socket.socket_ref());
        socket.attach_filter(&program).or_else(|error| {
            socket.detach_filter()?;
            Err(error)
        })
    }

    /// The remote RLOCs whose routes matter.
    pub fn rlocs(&self) -> &BTreeSet<IpAddr> {
        &self.interest.rlocs
    }

    /// The links (by index) that matter from now on: those with own RLOCs, and those that lead to remote ones.
    pub fn follow_links(&mut self, links: HashSet<u32>) {
        self.interest.links = links;
    }

    /// The next change that matters. Cancel-safe.
    pub async fn next(&mut self) -> Change {
        loop {
            let mut change = Change::default();
            self.buffer.clear();
            let mut received = self.socket.recv(&mut self.buffer).await;
            for _ in 0..BATCH {
                match received {
                    Ok(_) => self.interest.read(&self.buffer, &mut change),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Something was lost: anything may have changed.
                    Err(_) => (change.host, change.all_paths) = (true, true),
                }
                self.buffer.clear();
                let socket = self.socket.socket_ref();
                received = socket.recv(&mut self.buffer, libc::MSG_DONTWAIT).map(drop);
            }
            if !change.is_empty() {
                return change;
            }
        }
    }
}

impl Interest {
    /// Notes what the messages in `octets` say.
    fn read(&self, mut octets: &[u8], change: &mut Change) {
        while let Some(length) = octets.first_chunk().map(|length| u32::from_ne_bytes(*length)) {
            let length = length as usize;
            let message = &octets[..length.clamp(HEADER.min(octets.len()), octets.len())];
            self.read_one(message, change);
            let Some(rest) = octets.get(length.max(HEADER).next_multiple_of(4)..) else { return };
            octets = rest;
        }
    }

    fn read_one(&self, message: &[u8], change: &mut Change) {
        let Some(kind) = message.get(4..6).and_then(|kind| kind.try_into().ok()) else { return };
        let body = message.get(HEADER..).unwrap_or_default();
        match u16::from_ne_bytes(kind) {
            libc::RTM_NEWADDR | libc::RTM_DELADDR => change.host = true,
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                let index = body.get(4..8).and_then(|index| index.try_into().ok());
                if index.is_some_and(|index| self.links.contains(&u32::from_ne_bytes(index))) {
                    (change.host, change.all_paths) = (true, true);
                }
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                if let Some(covered) = covered(body) {
                    change.rlocs.extend(self.rlocs.range(covered));
                }
            }
            // Rules and nexthop objects.
            _ => change.all_paths = true,
        }
    }
}

/// The addresses that a route covers.
fn covered(route: &[u8]) -> Option<RangeInclusive<IpAddr>> {
    let (&family, &length) = (route.first()?, route.get(1)?);
    let destination = destination(route.get(ROUTE..)?).unwrap_or_default();
    let behind = |width: u32| u128::MAX.checked_shr(128 - width + u32::from(length)).unwrap_or(0);
    match i32::from(family) {
        libc::AF_INET if length <= 32 => {
            let octets = destination.first_chunk::<4>().copied().unwrap_or_default();
            let first = u32::from_be_bytes(octets);
            let last = first | behind(32) as u32;
            Some(Ipv4Addr::from_bits(first).into()..=Ipv4Addr::from_bits(last).into())
        }
        libc::AF_INET6 if length <= 128 => {
            let octets = destination.first_chunk::<16>().copied().unwrap_or_default();
            let first = u128::from_be_bytes(octets);
            let last = first | behind(128);
            Some(Ipv6Addr::from_bits(first).into()..=Ipv6Addr::from_bits(last).into())
        }
        _ => None,
    }
}

/// The value of RTA_DST among the attributes of a route.
fn destination(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, _) = attributes.split_first_chunk::<ATTRIBUTE>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) == libc::RTA_DST {
            return attributes.get(ATTRIBUTE..length);
        }
        attributes = attributes.get(length.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut octets = length.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend(body);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    fn route(prefix: &str) -> Vec<u8> {
        let prefix: ipnet::IpNet = prefix.parse().expect("prefix");
        let (family, address) = match prefix.addr() {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        let mut body = vec![family as u8, prefix.prefix_len()];
        body.resize(ROUTE, 0);
        // RTA_TABLE comes first.
        body.extend([8, 0, 15, 0, 254, 0, 0, 0].map(|octet: u8| octet));
        if prefix.prefix_len() > 0 {
            body.extend((ATTRIBUTE as u16 + address.len() as u16).to_ne_bytes());
            body.extend(libc::RTA_DST.to_ne_bytes());
            body.extend(address);
        }
        message(libc::RTM_NEWROUTE, &body)
    }

    fn interest() -> Interest {
        let rlocs = ["192.0.2.77", "198.51.100.1", "2001:db8:c0::1"];
        Interest { rlocs: rlocs.map(ip).into(), links: HashSet::from([7]) }
    }

    fn read(octets: &[u8]) -> Change {
        let mut change = Change::default();
        interest().read(octets, &mut change);
        change
    }

    #[test]
    fn pb_16_a_route_concerns_the_rlocs_it_covers() {
        for (prefix, rlocs) in [
            ("0.0.0.0/0", &["192.0.2.77", "198.51.100.1"][..]),
            ("::/0", &["2001:db8:c0::1"]),
            ("192.0.2.0/24", &["192.0.2.77"]),
            ("192.0.2.77/32", &["192.0.2.77"]),
            ("192.0.2.78/32", &[]),
            ("128.0.0.0/1", &["192.0.2.77", "198.51.100.1"]),
            ("2001:db8:c0::/64", &["2001:db8:c0::1"]),
            ("2001:db8:c1::/64", &[]),
        ] {
            let rlocs = rlocs.iter().map(|text| ip(text)).collect();
            assert_eq!(read(&route(prefix)), Change { rlocs, ..Change::default() }, "{prefix}");
        }
    }

    #[test]
    fn links_that_matter_addresses_and_rules_are_told_of() {
        let link = |index: u32| {
            let body = [&[0, 0, 1, 0][..], &index.to_ne_bytes(), &[0; 8]].concat();
            message(libc::RTM_NEWLINK, &body)
        };
        assert!(read(&link(8)).is_empty());
        assert!(read(&link(7)).host);
        assert!(read(&message(libc::RTM_DELADDR, &[0; 8])).host);
        assert!(read(&message(libc::RTM_NEWRULE, &[0; 12])).all_paths);
        let several = [link(8), route("192.0.2.0/24"), link(7)].concat();
        let change = read(&several);
        assert!(change.host && change.rlocs.contains(&ip("192.0.2.77")));
        // Cut off anywhere, it does no harm.
        (0..several.len()).for_each(|length| drop(read(&several[..length])));
    }
}
