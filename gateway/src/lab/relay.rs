//! A wire with a length: frames between two links pass through user space, later, in order, and not all of them if so told.
//!
//! ```text
//!   core --veth-- [near   relay   far] --veth-- member
//! ```
//! It lives in a namespace of its own without addresses, so that nothing but the relay touches the frames. Links that
//! hand frames to it compute their checksums and send one wire-sized packet at a time.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

use super::decode::{self, Datagram};
use super::link;
use super::namespace::Namespace;
use super::nat::Nat;

/// The end towards the core.
pub(crate) const NEAR: &str = "near";
/// The end towards the member.
pub(crate) const FAR: &str = "far";
/// Frames under way in one direction; what comes on top is lost, as in a router's queue.
const QUEUE: usize = 16_384;
/// Longest frame: the largest IP packet and an Ethernet header.
const LONGEST: usize = 65_535 + 14;
/// Frames taken in a row before those that are due are sent.
const BATCH: usize = 64;
/// How long a relay may take to see that it is to end.
const IDLE_MS: u16 = 20;
/// `PACKET_OUTGOING` of packet(7): a frame this namespace sends.
const PACKET_OUTGOING: u8 = 4;
/// Octets of an Ethernet header.
const ETHERNET: usize = 14;

/// A direction through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the core.
    ToMember,
    /// From the member.
    ToCore,
}

/// A running relay. Dropping it ends it; what is under way is lost.
pub(crate) struct Relay {
    name: &'static str,
    wire: Namespace,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

/// A loss that was ordered by [`Relay::lose`].
#[derive(Clone, Debug)]
pub(crate) struct OrderedLoss(Arc<AtomicBool>);

impl OrderedLoss {
    /// Whether the packet came and was lost.
    pub(crate) fn happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Control {
    delay_us: AtomicU64,
    stop: AtomicBool,
    /// Whether [`Faults`] has anything, so that the usual frame is not looked into.
    faulty: AtomicBool,
    faults: Mutex<Faults>,
    translating: AtomicBool,
    nat: Mutex<Option<Nat>>,
    passed: [AtomicU64; 2],
}

#[derive(Default)]
struct Faults {
    blackholes: BTreeSet<IpAddr>,
    losses: Vec<Loss>,
    /// Stations whose frames stay on their side.
    isolated: BTreeSet<[u8; 6]>,
}

type Predicate = Box<dyn Fn(Way, &Datagram) -> bool + Send>;

struct Loss {
    /// Matching packets that pass before the one that is lost.
    spared: u32,
    matches: Predicate,
    happened: Arc<AtomicBool>,
}

/// One direction: what its thread owns.
struct Pump {
    way: Way,
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    control: Arc<Control>,
    queue: VecDeque<(Instant, Vec<u8>)>,
}

impl Relay {
    /// Starts to relay in the namespace `wire`, whose links [`NEAR`] and [`FAR`] are up, without delay.
    pub(crate) fn start(name: &'static str, wire: Namespace) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        let (near, far) = wire.run(|| Ok::<_, io::Error>((port(NEAR)?, port(FAR)?)))??;
        let (near, far) = (Arc::new(near), Arc::new(far));
        let mut relay = Self { name, wire, control, threads: Vec::new() };
        relay.pump(Way::ToMember, near.clone(), far.clone())?;
        relay.pump(Way::ToCore, far, near)?;
        Ok(relay)
    }

    /// Where it runs.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.wire
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// From now on every frame takes `delay` in each direction. No frame overtakes another.
    pub(crate) fn delay(&self, delay: Duration) {
        self.control.delay_us.store(delay.as_micros() as u64, Ordering::Release);
    }

    /// Silently swallows IP packets to `address`, both ways, until [`Relay::restore`].
    pub(crate) fn blackhole(&self, address: IpAddr) {
        self.change(|faults| {
            faults.blackholes.insert(address);
        });
    }

    /// Takes [`Relay::blackhole`] back.
    pub(crate) fn restore(&self, address: IpAddr) {
        self.change(|faults| {
            faults.blackholes.remove(&address);
        });
    }

    /// Loses the `nth` IP packet, counted from 1 and from now on, for which `matches` holds; others pass.
    pub(crate) fn lose(
        &self,
        nth: u32,
        matches: impl Fn(Way, &Datagram) -> bool + Send + 'static,
    ) -> OrderedLoss {
        let happened = Arc::new(AtomicBool::new(false));
        let loss = Loss {
            spared: nth.saturating_sub(1),
            matches: Box::new(matches),
            happened: happened.clone(),
        };
        self.change(|faults| faults.losses.push(loss));
        OrderedLoss(happened)
    }

    /// From now on there is a NAT on the wire, the member on its inside.
    pub(crate) fn translate(&self, nat: Nat) {
        *self.control.nat() = Some(nat);
        self.control.translating.store(true, Ordering::Release);
    }

    /// What `look` finds in the NAT on the wire, if there is one.
    pub(crate) fn nat<T>(&self, look: impl FnOnce(&mut Nat) -> T) -> Option<T> {
        self.control.nat().as_mut().map(look)
    }

    /// Lets no frame to or from this station pass, as a link between data centres does with the gateway that both have.
    pub(crate) fn isolate(&self, station: [u8; 6]) {
        self.change(|faults| {
            faults.isolated.insert(station);
        });
    }

    /// Takes the carrier from the member's link, or gives it back: what a pulled cable does.
    pub(crate) fn cut(&self, is_cut: bool) -> io::Result<()> {
        if is_cut { link::down(&self.wire, FAR) } else { link::up(&self.wire, FAR) }
    }

    /// Frames that were sent on in one direction.
    #[cfg(test)]
    pub(crate) fn passed(&self, way: Way) -> u64 {
        self.control.passed[way as usize].load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.control.faults();
        change(&mut faults);
        self.control.note(&faults);
    }

    fn pump(&mut self, way: Way, from: Arc<OwnedFd>, to: Arc<OwnedFd>) -> io::Result<()> {
        let mut pump =
            Pump { way, from, to, control: self.control.clone(), queue: VecDeque::new() };
        let thread = thread::Builder::new().name(format!("relay-{}", self.name));
        self.threads.push(thread.spawn(move || {
            if let Err(error) = pump.run() {
                tracing::warn!(%error, "relay ended");
            }
        })?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

impl Control {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nat(&self) -> MutexGuard<'_, Option<Nat>> {
        self.nat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a frame passes the NAT, if there is one; translates it.
    fn passes(&self, way: Way, frame: &mut [u8]) -> bool {
        if !self.translating.load(Ordering::Acquire) {
            return true;
        }
        let mut nat = self.nat();
        nat.as_mut().is_none_or(|nat| nat.translate(Instant::now(), way, frame))
    }

    fn note(&self, faults: &Faults) {
        let any = !faults.blackholes.is_empty()
            || !faults.losses.is_empty()
            || !faults.isolated.is_empty();
        self.faulty.store(any, Ordering::Release);
    }

    /// Whether this frame is to be swallowed.
    fn swallows(&self, way: Way, frame: &[u8]) -> bool {
        if !self.faulty.load(Ordering::Acquire) {
            return false;
        }
        let mut faults = self.faults();
        if faults.isolates(frame) {
            return true;
        }
        let Some(packet) = frame.get(ETHERNET..).and_then(decode::datagram) else {
            return false;
        };
        let swallowed = faults.swallow(way, &packet);
        self.note(&faults);
        swallowed
    }
}

impl Faults {
    fn isolates(&self, frame: &[u8]) -> bool {
        let is_isolated = |station: &[u8]| self.isolated.iter().any(|known| known == station);
        let stations = frame.get(..6).zip(frame.get(6..12));
        stations.is_some_and(|(to, from)| is_isolated(to) || is_isolated(from))
    }

    fn swallow(&mut self, way: Way, packet: &Datagram) -> bool {
        if self.blackholes.contains(&packet.destination) {
            return true;
        }
        for at in 0..self.losses.len() {
            let loss = &mut self.losses[at];
            if !(loss.matches)(way, packet) {
                continue;
            }
            if loss.spared == 0 {
                let loss = self.losses.remove(at);
                loss.happened.store(true, Ordering::Release);
                return true;
            }
            loss.spared -= 1;
        }
        false
    }
}

impl Pump {
    fn run(&mut self) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(self.from.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        let mut buffer = vec![0; LONGEST];
        let mut events = [EpollEvent::empty()];
        while !self.control.stop.load(Ordering::Acquire) {
            let more = self.take(&mut buffer)?;
            let due_in = self.release(Instant::now());
            if more {
                continue;
            }
            let whole_ms = due_in.map(|left| left.as_millis().min(IDLE_MS.into()) as u16);
            match (due_in, whole_ms) {
                // The poll below counts whole milliseconds only.
                (Some(left), Some(0)) => thread::sleep(left),
                (_, wait) => {
                    let wait = EpollTimeout::from(wait.unwrap_or(IDLE_MS));
                    match epoll.wait(&mut events, wait) {
                        Ok(_) | Err(nix::Error::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues what has arrived; whether there may be more.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH {
            let received = match receive(&self.from, buffer) {
                Ok(received) => received,
                Err(nix::Error::EAGAIN | nix::Error::ENETDOWN | nix::Error::EINTR) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            let Some(length) = received else { continue };
            let frame = &mut buffer[..length];
            let lost = self.control.swallows(self.way, frame);
            if !lost && self.control.passes(self.way, frame) && self.queue.len() < QUEUE {
                let delay = Duration::from_micros(self.control.delay_us.load(Ordering::Acquire));
                let due = Instant::now() + delay;
                // A delay that has become smaller must not let frames overtake.
                let due = self.queue.back().map_or(due, |&(last, _)| due.max(last));
                self.queue.push_back((due, frame.to_vec()));
            }
        }
        Ok(true)
    }

    /// Sends what is due; in how long the next one is.
    fn release(&mut self, now: Instant) -> Option<Duration> {
        while let Some((due, frame)) = self.queue.front() {
            if *due > now {
                return Some(*due - now);
            }
            if send(self.to.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).is_ok() {
                self.control.passed[self.way as usize].fetch_add(1, Ordering::Relaxed);
            }
            self.queue.pop_front();
        }
        None
    }
}

/// The length of the next frame; `None` for one that this namespace itself has sent.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Option<usize>> {
    let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?;
    let is_own = from.is_some_and(|from: LinkAddr| from.pkttype() == PACKET_OUTGOING);
    Ok((!is_own).then_some(length))
}

/// A socket for every frame of one link of the calling thread's namespace.
pub(crate) fn port(name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    let mut links = getifaddrs()?.filter(|link| link.interface_name == name);
    let address = links.find_map(|link| link.address?.as_link_addr().copied());
    let address = address.ok_or_else(|| io::Error::other(format!("no link is called {name}")))?;
    bind(socket.as_raw_fd(), &address)?;
    // Forcing needs privilege over the first user namespace; without it the kernel's own limit holds.
    if setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::probe::craft::{self, Header};

    fn frame(destination: &str, id: u16) -> Vec<u8> {
        let source = "192.0.2.1".parse().unwrap();
        let header = Header::new(source, destination.parse().unwrap());
        let mut frame = vec![0; ETHERNET];
        frame.extend(craft::echo_request(&header, id, 1, 100));
        frame
    }

    #[test]
    fn a_blackhole_swallows_one_address_and_nothing_else() {
        let control = Control::default();
        let dead = "198.51.100.21".parse().unwrap();
        control.faults().blackholes.insert(dead);
        control.note(&control.faults());
        assert!(control.swallows(Way::ToMember, &frame("198.51.100.21", 1)));
        assert!(!control.swallows(Way::ToMember, &frame("198.51.100.22", 1)));
        control.faults().blackholes.remove(&dead);
        assert!(!control.swallows(Way::ToMember, &frame("198.51.100.21", 1)));
    }

    #[test]
    fn the_frames_of_an_isolated_station_do_not_pass_either_way() {
        let control = Control::default();
        let gateway = [0, 0, 0x5e, 0, 1, 1];
        control.faults().isolated.insert(gateway);
        control.note(&control.faults());
        let plain = frame("198.51.100.21", 1);
        let (mut to, mut from) = (plain.clone(), plain.clone());
        to[..6].copy_from_slice(&gateway);
        from[6..12].copy_from_slice(&gateway);
        assert!(control.swallows(Way::ToMember, &to) && control.swallows(Way::ToCore, &from));
        assert!(!control.swallows(Way::ToMember, &plain));
        assert!(!control.swallows(Way::ToMember, &gateway));
    }

    #[test]
    fn the_nth_packet_that_matches_is_lost_once() {
        let control = Control::default();
        let happened = Arc::new(AtomicBool::new(false));
        let matches: Predicate =
            Box::new(|way, packet| way == Way::ToCore && packet.icmp().is_some());
        control.faults().losses.push(Loss { spared: 1, matches, happened: happened.clone() });
        control.note(&control.faults());
        let packet = frame("198.51.100.21", 7);
        assert!(!control.swallows(Way::ToMember, &packet));
        assert!(!control.swallows(Way::ToCore, &packet));
        assert!(!happened.load(Ordering::Acquire));
        assert!(control.swallows(Way::ToCore, &packet));
        assert!(happened.load(Ordering::Acquire));
        assert!(!control.swallows(Way::ToCore, &packet));
        assert!(!control.faulty.load(Ordering::Acquire));
    }
}
