//! The thin part: looks at this host, in this network namespace. What cannot be read is left out: no finding is better than a wrong one.
use super::{Facts, LinkFact, RingFact, TunFact, Wanted};
use crate::engine::inquire;
use crate::host::underlay::{self, Netlink, PathQuestion};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

/// Looks at what `wanted` needs.
pub async fn collect(wanted: &Wanted) -> Facts {
    let mut facts = Facts {
        capabilities: crate::host::capabilities(),
        io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled"),
        forwarding_v4: read::<u8>("/proc/sys/net/ipv4/ip_forward").map(|value| value != 0),
        forwarding_v6: read::<u8>("/proc/sys/net/ipv6/conf/all/forwarding").map(|value| value != 0),
        rp_filter: rp_filters(),
        rmem_max: read("/proc/sys/net/core/rmem_max"),
        memlock: limit(Resource::RLIMIT_MEMLOCK),
        descriptors: limit(Resource::RLIMIT_NOFILE).unwrap_or(u64::MAX),
        taken: taken(wanted),
        clock_synchronized: inquire::clock_is_synchronized(),
        unix_seconds: crate::daemon::unix_seconds(),
        ..Facts::default()
    };
    if wanted.router {
        facts.ring = ring();
        facts.tun = tun();
        facts.tun_name_taken =
            Path::new("/sys/class/net").join(&wanted.tun).exists() && !wanted.tun.is_empty();
    }
    if let Ok(netlink) = Netlink::open() {
        look_at_links(&netlink, wanted, &mut facts).await;
        for &(_, rloc) in &wanted.peers {
            let source =
                wanted.addresses.iter().find(|own| own.is_ipv4() == rloc.is_ipv4()).copied();
            facts.paths.push(path(&netlink, PathQuestion { rloc, source }).await);
        }
    }
    facts
}

async fn look_at_links(netlink: &Netlink, wanted: &Wanted, facts: &mut Facts) {
    let handle = netlink.handle();
    let (Ok(links), Ok(addresses)) =
        (underlay::interfaces(&handle).await, underlay::own_addresses(&handle).await)
    else {
        return;
    };
    for address in &wanted.addresses {
        let is_loopback = address.is_ipv4() && address.is_loopback();
        let Some(index) = addresses.get(address) else {
            if !is_loopback {
                facts.missing_addresses.push(*address);
            }
            continue;
        };
        let Some(link) = links.get(index).filter(|link| !link.loopback) else { continue };
        if facts.links.iter().any(|known| known.name == link.name) {
            continue;
        }
        facts.links.push(LinkFact {
            underlay: true,
            underlay_ipv6: address.is_ipv6(),
            ..fact(link)
        });
    }
    for name in &wanted.interfaces {
        if facts.links.iter().any(|known| known.name == *name) {
            continue;
        }
        let link = links.values().find(|link| link.name == *name);
        let missing = LinkFact { name: name.clone(), missing: true, ..LinkFact::default() };
        facts.links.push(link.map_or(missing, fact));
    }
}

fn fact(link: &underlay::Interface) -> LinkFact {
    let offloads = inquire::offloads(&link.name).ok();
    LinkFact {
        name: link.name.clone(),
        running: link.running,
        mtu: link.mtu,
        offloads: offloads.map(|one| [one.gro, one.gso, one.lro]),
        ..LinkFact::default()
    }
}

async fn path(netlink: &Netlink, question: PathQuestion) -> Option<(u16, String)> {
    let handle = netlink.handle();
    let interfaces = underlay::interfaces(&handle).await.ok()?;
    // A peer on this very host is there.
    if underlay::own_addresses(&handle).await.ok()?.contains_key(&question.rloc) {
        return Some((u16::MAX, "lo".to_owned()));
    }
    let path = underlay::find_path(&handle, question, 0, &interfaces).await?;
    Some((
        path.mtu,
        interfaces.get(&path.interface).map(|one| one.name.clone()).unwrap_or_default(),
    ))
}

fn ring() -> RingFact {
    match inquire::try_ring() {
        Ok(()) => RingFact::Works,
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => RingFact::Forbidden,
            Some(libc::ENOSYS) => RingFact::Missing,
            Some(libc::EINVAL) => RingFact::TooOld,
            Some(libc::ENOMEM) => RingFact::NoMemory,
            _ => RingFact::Failed(error.to_string()),
        },
    }
}

fn tun() -> TunFact {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => TunFact::Usable,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => TunFact::Missing,
            ErrorKind::PermissionDenied => TunFact::Denied,
            // ENODEV: the node is there, the module is not.
            _ if error.raw_os_error() == Some(libc::ENODEV) => TunFact::Missing,
            _ => TunFact::Failed(error.to_string()),
        },
    }
}

/// The ports that somebody has: those that cannot be bound without sharing.
fn taken(wanted: &Wanted) -> Vec<(IpAddr, u16, Option<String>)> {
    let mut taken = Vec::new();
    for &address in &wanted.addresses {
        for &port in &wanted.ports {
            let address = SocketAddr::new(address, port);
            if is_taken(address) {
                taken.push((address.ip(), port, holder(port)));
            }
        }
    }
    taken
}

fn is_taken(address: SocketAddr) -> bool {
    let Ok(socket) = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
    else {
        return false;
    };
    if address.is_ipv6() && socket.set_only_v6(true).is_err() {
        return false;
    }
    socket.bind(&address.into()).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Which process has a UDP port, as `name (pid)`.
fn holder(port: u16) -> Option<String> {
    let sockets = ["/proc/net/udp", "/proc/net/udp6"]
        .map(|file| fs::read_to_string(file).unwrap_or_default());
    let inodes: Vec<String> = sockets
        .iter()
        .flat_map(|text| text.lines().skip(1))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, hex) = fields.get(1)?.rsplit_once(':')?;
            (u16::from_str_radix(hex, 16).ok()? == port)
                .then(|| format!("socket:[{}]", fields.get(9)?).into())?
        })
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let Ok(files) = fs::read_dir(path.join("fd")) else { continue };
        let has_it = |file: fs::DirEntry| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            inodes.iter().any(|inode| target == Path::new(inode))
        };
        if files.flatten().any(has_it) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("{} ({})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}

fn rp_filters() -> Vec<(String, u8)> {
    let directory = "/proc/sys/net/ipv4/conf";
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let value = |entry: fs::DirEntry| {
        let value = read(&entry.path().join("rp_filter").to_string_lossy())?;
        Some((entry.file_name().to_string_lossy().into_owned(), value))
    };
    entries.filter_map(value).collect()
}

fn limit(resource: Resource) -> Option<u64> {
    let (_, hard) = getrlimit(resource).ok()?;
    (hard != RLIM_INFINITY).then_some(hard)
}

fn read<T: FromStr>(file: &str) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
