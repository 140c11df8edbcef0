//! The TUN device: one queue per worker, super-packets in both directions.
use super::sys;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Tried in turn: no packet is refused by the device, the engine looks after sizes itself.
const MTUS: [u16; 3] = [65_535, 32_768, 9_000];

/// Packets that wait for a worker, per queue.
const QUEUE_LEN: u16 = 2_000;

/// A TUN device that is up. It goes when all its queues are closed.
#[derive(Debug)]
pub(super) struct Tun {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mtu: u16,
    pub(super) queues: Vec<OwnedFd>,
}

impl Tun {
    /// Creates the device `name` with `count` queues, in the caller's network namespace; or takes it over, if `inherited` is a queue of it.
    pub(super) fn create(name: &str, count: usize, inherited: Option<OwnedFd>) -> io::Result<Self> {
        let explain = |error: io::Error| explain(name, error);
        let (first, name) = match inherited.and_then(|queue| taken_over(queue, name)) {
            Some(taken_over) => taken_over,
            None => sys::open_tun_queue(name).map_err(explain)?,
        };
        let mut queues = vec![first];
        while queues.len() < count {
            queues.push(sys::open_tun_queue(&name).map_err(explain)?.0);
        }
        let control = Socket::new(Domain::IPV4, Type::DGRAM, None)
            .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
        let mtu = MTUS.into_iter().find(|&mtu| sys::set_mtu(control.as_fd(), &name, mtu).is_ok());
        // The default of 500 is less than small packets need while a worker sends a batch.
        let _ = sys::set_queue_len(control.as_fd(), &name, QUEUE_LEN);
        // No link-local address and no router solicitations of its own; where there is no such switch, they are dropped as martians.
        let switch = format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode");
        let _ = std::fs::write(switch, "1");
        sys::set_up(control.as_fd(), &name).map_err(explain)?;
        let index = nix::net::if_::if_nametoindex(name.as_str())?;
        Ok(Self { name, index, mtu: mtu.unwrap_or(1500), queues })
    }
}

/// The queue that an earlier process left, with what waits in it; of another device, it goes with that.
fn taken_over(queue: OwnedFd, wanted: &str) -> Option<(OwnedFd, String)> {
    let name = sys::name_of_queue(queue.as_fd()).ok().filter(|name| name == wanted)?;
    sys::prepare_tun_queue(queue.as_fd()).ok()?;
    Some((queue, name))
}

fn explain(name: &str, error: io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "CAP_NET_ADMIN is missing",
        Some(libc::ENOENT | libc::ENODEV) => "/dev/net/tun is missing: load the module tun",
        Some(libc::EBUSY) => "the device is in use by another process",
        Some(libc::EINVAL) => "a device of that name exists and is no multi-queue TUN",
        _ => "the kernel refused",
    };
    io::Error::new(error.kind(), format!("cannot create the TUN device {name}: {advice} ({error})"))
}
