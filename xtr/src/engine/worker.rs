//! One worker: waits for packets, forwards a batch, hands the results over, and again.
#![allow(unsafe_code, reason = "operations point into the worker's memory")]
use super::buffers::{BufferRef, Buffers, Pool};
use super::datagram;
use super::outbound::Bursts;
use super::outlet::Outbound;
use super::packet_ring::{PacketRings, Taken};
use super::parked::Parked;
use super::reading::{FEW_READS, Readers};
use super::ring::{Completion, Operation, Ring};
use super::udp::{PortPool, Sockets};
use super::writes::Writes;
use crate::counters::WorkerCounters;
use crate::drops::DropReason;
use crate::fib::{FibReader, FibView};
use crate::forward::{Forwarder, PathMtus};
use crate::packet::{Family, VirtioNetHeader, arrival};
use crate::policy::Policy;
use nix::sys::eventfd::EventFd;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buffers per pool, and so the packets of a batch. The more, the longer the bursts and the super-packets that many flows still make.
/// 32 MiB of addresses, but only pages that were written exist: with small packets one per buffer, with large ones few buffers go round.
const BUFFERS: u16 = 512;
/// The kernel hands over so many packets of a socket at a time; who got half of them may find more.
const MANY: usize = 16;
/// Registered files: the wake-up counter, then the sockets.
const WAKE_FILE: u32 = 0;
const FIRST_SOCKET_FILE: u32 = 1;
/// A frame or a datagram train becomes at most so many bursts or writes; with less room the worker first hands over what it has.
const ROOM_PER_BUFFER: usize = 64;
/// Frames taken from one packet ring per turn: enough for long bursts, few enough that nobody else waits long.
const FRAMES_PER_TURN: usize = 512;
/// Of these, how many destinations are looked up ahead, when that pays.
const FRAMES_AHEAD: u16 = 64;
/// How long to wait for operations that should have completed at once.
const STRAGGLERS: Duration = Duration::from_millis(5);

/// How long a worker that ends waits for what it has handed to the kernel.
const LAST_COMPLETIONS: Duration = Duration::from_secs(1);

/// A read that waits is not always told that its device went: the kernel detaches a queue after it woke the readers.
const TUN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What the engine's handle and a worker share.
#[derive(Debug)]
pub(super) struct Control {
    /// Wakes the worker.
    pub(super) event: EventFd,
    /// Set before the last wake-up.
    pub(super) stop: AtomicBool,
    /// How often the worker went round: at least once per [`TUN_CHECK_INTERVAL`], unless it is stuck.
    pub(super) turns: AtomicU64,
}

/// A worker's own descriptors.
pub(super) struct Descriptors {
    pub(super) tun: OwnedFd,
    pub(super) sockets: Sockets,
    pub(super) ports: PortPool,
    /// Intake by packet rings, beside the TUN.
    pub(super) native: PacketRings,
}

/// One worker. Its thread creates, runs and drops it.
pub(super) struct Worker<P> {
    io: Io,
    forwarder: Forwarder<P>,
    fib: FibReader,
    control: Arc<Control>,
}

/// The ring and everything its operations point at. The ring comes first, so that it goes first.
struct Io {
    ring: Ring,
    tun: Buffers,
    udp: Buffers,
    parked: Parked,
    bursts: Bursts,
    writes: Writes,
    /// Received, not yet forwarded.
    pending: VecDeque<Completion>,
    readers: Readers,
    /// Multishot reads to start (again).
    to_arm: Vec<Operation>,
    /// Bursts and writes the kernel has.
    in_flight: usize,
    receive_files: u32,
    /// The first ICMP socket's index among the files.
    icmp_files: u32,
    ports: PortPool,
    /// The table changed.
    woken: bool,
    template: Box<libc::msghdr>,
    wake_count: Box<u64>,
    counters: Arc<WorkerCounters>,
    path_mtus: Arc<PathMtus>,
    descriptors: Descriptors,
}

impl<P: Policy> Worker<P> {
    /// Must be called on the thread that will run it: a ring has a single issuer.
    pub(super) fn new(
        descriptors: Descriptors,
        forwarder: Forwarder<P>,
        fib: FibReader,
        control: Arc<Control>,
        counters: Arc<WorkerCounters>,
        path_mtus: Arc<PathMtus>,
        bursts: Bursts,
    ) -> io::Result<Self> {
        let io = Io::new(descriptors, &control, counters, path_mtus, bursts)?;
        Ok(Self { io, forwarder, fib, control })
    }

    /// Runs until stopped; an error is the end of the data plane.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut next_check = Instant::now() + TUN_CHECK_INTERVAL;
        while !self.control.stop.load(Ordering::Acquire) {
            self.io.arm()?;
            self.io.wait(self.timeout(Instant::now()))?;
            self.io.gather()?;
            let now = Instant::now();
            if now >= next_check {
                self.io.check_tun()?;
                self.io.descriptors.native.count_drops(&self.io.counters);
                next_check = now + TUN_CHECK_INTERVAL;
            }
            self.forwarder.handle_timeout(now);
            self.forward_batch(now)?;
            self.io.flush()?;
            self.control.turns.fetch_add(1, Ordering::Relaxed);
        }
        self.io.descriptors.native.count_drops(&self.io.counters);
        self.forwarder.give_up();
        self.io.finish(Instant::now() + LAST_COMPLETIONS)
    }

    fn timeout(&self, now: Instant) -> Duration {
        let due = self.forwarder.poll_timeout().map(|at| at.saturating_duration_since(now));
        let stragglers = self.io.in_flight > 0 || !self.io.to_arm.is_empty();
        let longest = if stragglers { STRAGGLERS } else { TUN_CHECK_INTERVAL };
        due.map_or(longest, |due| due.min(longest))
    }

    /// Forwards everything that came in.
    fn forward_batch(&mut self, now: Instant) -> io::Result<()> {
        let Self { io, forwarder, fib, .. } = self;
        let mut view = fib.enter();
        if std::mem::take(&mut io.woken) {
            forwarder.handle_fib_change();
        }
        io.forward_released(now, forwarder, &mut view)?;
        if view.wants_warming() {
            view.warm(io.pending_packets().filter_map(|packet| forwarder.destination(packet)));
        }
        while let Some(completion) = io.pending.pop_front() {
            io.make_room()?;
            match completion.operation {
                Operation::Tun => io.forward_frame(completion, now, forwarder, &mut view),
                Operation::Icmp(socket) => {
                    io.take_icmp(socket, completion, now, forwarder, &view);
                }
                _ => io.forward_datagrams(completion, now, forwarder, &mut view),
            }
            io.forward_released(now, forwarder, &mut view)?;
        }
        io.forward_rings(now, forwarder, &mut view)
    }
}

impl Io {
    fn new(
        descriptors: Descriptors,
        control: &Control,
        counters: Arc<WorkerCounters>,
        path_mtus: Arc<PathMtus>,
        bursts: Bursts,
    ) -> io::Result<Self> {
        let sockets = &descriptors.sockets;
        let receive_files = sockets.receive.len() as u32;
        let mut files: Vec<RawFd> = vec![control.event.as_raw_fd()];
        files.extend(sockets.receive.iter().chain(&sockets.send).map(AsRawFd::as_raw_fd));
        let icmp_files = files.len() as u32;
        files.extend(sockets.icmp.iter().map(|(_, socket)| socket.as_raw_fd()));
        let ring = Ring::new(&files)?;
        let mut template = Box::new(super::sys::empty_message());
        template.msg_namelen = datagram::NAME_LEN as libc::socklen_t;
        template.msg_controllen = datagram::CONTROL_LEN as _;
        let operations = 2 + receive_files as usize + sockets.icmp.len() + descriptors.native.len();
        let mut to_arm = Vec::with_capacity(operations);
        to_arm.push(Operation::Wake);
        to_arm.extend((0..sockets.icmp.len() as u16).map(Operation::Icmp));
        to_arm.extend((0..descriptors.native.len() as u16).map(Operation::Native));
        let natives = (0..descriptors.native.len())
            .filter_map(|index| descriptors.native.descriptor(index))
            .map(|descriptor| descriptor.as_raw_fd());
        let icmp = sockets.icmp.iter().map(|(_, socket)| socket.as_raw_fd());
        let reserve = (2 * receive_files as u16 * FEW_READS).min(BUFFERS / 2);
        let others = std::iter::once(control.event.as_raw_fd()).chain(icmp).chain(natives);
        Ok(Self {
            readers: Readers::new(descriptors.tun.as_fd(), sockets, FIRST_SOCKET_FILE, others),
            tun: Buffers::new(ring.uring(), 0, BUFFERS, 2 * FEW_READS)?,
            udp: Buffers::new(ring.uring(), 1, BUFFERS, reserve)?,
            parked: Parked::new(),
            ring,
            bursts,
            writes: Writes::new(),
            pending: VecDeque::with_capacity(4 * usize::from(BUFFERS)),
            to_arm,
            in_flight: 0,
            receive_files,
            icmp_files,
            ports: descriptors.ports,
            template,
            wake_count: Box::new(0),
            counters,
            path_mtus,
            woken: false,
            descriptors,
        })
    }

    fn check_tun(&self) -> io::Result<()> {
        if super::sys::tun_is_attached(self.descriptors.tun.as_fd()) {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::NotConnected, TUN_GONE))
        }
    }

    /// Starts the reads that ended or never began, if the kernel has buffers for them.
    fn arm(&mut self) -> io::Result<()> {
        let Self { ring, readers, tun, udp, to_arm, template, wake_count, .. } = self;
        let (icmp_files, descriptors) = (self.icmp_files, &self.descriptors);
        let mut result = Ok(());
        tun.refill();
        udp.refill();
        to_arm.retain(|operation| {
            let started = match operation {
                Operation::Wake => {
                    let count = &raw mut **wake_count;
                    // SAFETY: the box lives as long as the ring, and nobody else uses what is in it.
                    unsafe { ring.read_counter(WAKE_FILE, count) }
                }
                Operation::Tun if tun.any_with_kernel() => {
                    ring.read_multi(descriptors.tun.as_fd(), tun.group())
                }
                Operation::Native(index) => {
                    match descriptors.native.descriptor(usize::from(*index)) {
                        Some(socket) => ring.poll(socket.as_raw_fd(), *operation),
                        None => return false,
                    }
                }
                Operation::Receive(socket) | Operation::Icmp(socket) if udp.any_with_kernel() => {
                    let first = match operation {
                        Operation::Icmp(_) => icmp_files,
                        _ => FIRST_SOCKET_FILE,
                    };
                    let file = first + u32::from(*socket);
                    let template = &raw const **template;
                    // SAFETY: the box lives as long as the ring, and what is in it never changes.
                    unsafe { ring.receive_multi(file, udp.group(), template, *operation) }
                }
                _ => return true,
            };
            if let Err(error) = started {
                result = Err(error);
            }
            false
        });
        result?;
        readers.arm(ring, descriptors.tun.as_fd(), tun, udp)
    }

    /// Hands over what was pushed and waits for something to do, or until `timeout`.
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.woken { Duration::ZERO } else { timeout };
        let is_flooded = self.readers.any_many() && self.readers.all_dry();
        if is_flooded || !self.readers.any_few() {
            // What could not be armed for want of buffers waits for those that are under way, and for nothing else.
            let want = self.in_flight + usize::from(self.to_arm.is_empty());
            self.ring.wait(want.max(1), timeout)?;
            return self.reap().map(drop);
        }
        if self.readers.all_dry() {
            self.ring.take_in()?;
            if self.reap()? {
                return Ok(());
            }
            self.readers.poll(timeout)?;
            self.arm()?;
        } else if !self.readers.any_asked() && self.in_flight > 0 {
            // No buffers: what is under way has them.
            self.ring.wait(1, timeout)?;
        }
        self.ring.take_in()?;
        self.reap().map(drop)
    }

    /// Takes all completions: what was sent frees its buffers, what was received waits to be forwarded. Whether there was anything but that.
    fn reap(&mut self) -> io::Result<bool> {
        let mut found = false;
        while let Some(mut completion) = self.ring.next_completion() {
            if let Operation::Single(index) = completion.operation {
                let Self { readers, tun, udp, .. } = self;
                let read = readers.completed(index, completion.result, tun, udp);
                let Some(read) = read else { continue };
                completion = read;
            }
            found |= match completion.operation {
                Operation::Send(_) | Operation::Write(_) | Operation::Cancel => false,
                _ => completion.result != -libc::EAGAIN,
            };
            match completion.operation {
                Operation::Send(burst) => {
                    self.in_flight -= 1;
                    let Self { bursts, tun, udp, parked, counters, descriptors, .. } = self;
                    let native = &mut descriptors.native;
                    let refused = bursts.completed(burst, completion.result, counters, |buffer| {
                        release(buffer, tun, udp, parked, native);
                    });
                    if let Some((locator, len)) = refused {
                        self.refused_for_size(locator, len);
                    }
                }
                Operation::Write(write) => {
                    self.in_flight -= 1;
                    let Self { writes, tun, udp, parked, counters, descriptors, .. } = self;
                    let native = &mut descriptors.native;
                    writes.completed(write, completion.result, counters, |buffer| {
                        release(buffer, tun, udp, parked, native);
                    });
                }
                Operation::Wake => {
                    self.woken = true;
                    self.to_arm.push(Operation::Wake);
                }
                operation @ Operation::Native(index) => {
                    if completion.result < 0 || completion.result & i32::from(libc::POLLERR) != 0 {
                        self.descriptors.native.clear_error(usize::from(index));
                    }
                    self.to_arm.push(operation);
                }
                operation @ (Operation::Tun | Operation::Receive(_) | Operation::Icmp(_)) => {
                    if !completion.more && self.readers.ended(operation) {
                        self.to_arm.push(operation);
                    }
                    if completion.result >= 0 && completion.buffer.is_some() {
                        self.readers.found(operation, completion.result as usize);
                        self.pending.push_back(completion);
                    } else {
                        check_read(operation, completion.result)?;
                    }
                }
                Operation::Ready(reader) => self.readers.ready(reader),
                Operation::Single(_) | Operation::Cancel => {}
            }
        }
        Ok(found)
    }

    /// Takes in what else is there before anything is forwarded: batching is what makes small packets cheap. Without load there is nothing,
    /// and nothing waits.
    fn gather(&mut self) -> io::Result<()> {
        let mut known = 0;
        while self.pending.len() >= known + MANY && self.pending.len() < usize::from(BUFFERS) {
            known = self.pending.len();
            self.ring.take_in()?;
            self.reap()?;
        }
        let mut tun = (0, 0);
        let mut udp = (0, 0);
        for completion in &self.pending {
            let (octets, count) =
                if completion.operation == Operation::Tun { &mut tun } else { &mut udp };
            *octets += completion.result as usize;
            *count += 1;
        }
        for (buffers, (octets, count)) in [(&mut self.tun, tun), (&mut self.udp, udp)] {
            if count > 0 {
                buffers.adapt(octets, count);
            }
        }
        self.readers.adapt(&mut self.ring, &mut self.to_arm)
    }

    #[cold]
    fn refused_for_size(&self, locator: IpAddr, len: usize) {
        if self.path_mtus.refused(Instant::now(), locator, len) {
            self.counters.path_mtu_lowered();
        }
    }

    /// Waits for what was handed to the kernel, to count it. What is read meanwhile counts as never received.
    fn finish(&mut self, until: Instant) -> io::Result<()> {
        while self.in_flight > 0 && Instant::now() < until {
            self.ring.wait(1, STRAGGLERS)?;
            self.reap()?;
        }
        Ok(())
    }

    /// Forwards what was held and need not wait any longer, before anything that came later.
    fn forward_released<P: Policy>(
        &mut self,
        now: Instant,
        forwarder: &mut Forwarder<P>,
        view: &mut FibView<'_>,
    ) -> io::Result<()> {
        while let Some(held) = forwarder.next_released(view) {
            self.make_room()?;
            let (frame, resumed) = held.into_parts();
            let Some((buffer, frame)) = self.parked.park(frame) else {
                self.counters.dropped(DropReason::BuffersExhausted, resumed.packets());
                continue;
            };
            let mut out = Outbound::new(&mut self.bursts, &mut self.writes, buffer, frame);
            forwarder.resume(now, view, resumed, frame, &mut out);
            let operations = out.operations();
            self.parked.settle(buffer.id, operations);
        }
        Ok(())
    }

    /// Makes sure that one more buffer's packets find slots, as far as that is in our hands.
    fn make_room(&mut self) -> io::Result<()> {
        let is_full = self.bursts.room() < ROOM_PER_BUFFER
            || self.writes.room() < ROOM_PER_BUFFER
            || !self.parked.has_room();
        if is_full {
            self.flush()?;
            self.ring.submit()?;
            self.reap()?;
        }
        Ok(())
    }

    /// Puts everything that was gathered into the ring, in order.
    fn flush(&mut self) -> io::Result<()> {
        let Self { ring, bursts, writes, in_flight, receive_files, descriptors, .. } = self;
        let first_send = FIRST_SOCKET_FILE + *receive_files;
        for (index, socket, message) in bursts.flush() {
            // SAFETY: the burst's slot, its scratch and the buffers it points into stay until its completion is reaped, and live
            // as long as the ring.
            unsafe { ring.send(first_send + socket as u32, message, index) }?;
            *in_flight += 1;
        }
        for (index, iovecs, count) in writes.flush() {
            // SAFETY: as above, for the write's slot.
            unsafe { ring.write(descriptors.tun.as_fd(), iovecs, count, index) }?;
            *in_flight += 1;
        }
        Ok(())
    }

    /// The packets read from the TUN that wait to be forwarded.
    fn pending_packets(&self) -> impl Iterator<Item = &[u8]> {
        let frames = self.pending.iter().filter(|frame| frame.operation == Operation::Tun);
        frames.filter_map(|frame| {
            let frame = self.tun.peek(frame.buffer?, frame.result as usize)?;
            frame.get(VirtioNetHeader::LEN..)
        })
    }

    fn forward_frame<P: Policy>(
        &mut self,
        completion: Completion,
        now: Instant,
        forwarder: &mut Forwarder<P>,
        view: &mut FibView<'_>,
    ) {
        let (Some(id), len) = (completion.buffer, completion.result as usize) else { return };
        let Some(frame) = self.tun.claim(id, len) else { return };
        let buffer = BufferRef { pool: Pool::Tun, id };
        let mut out = Outbound::new(&mut self.bursts, &mut self.writes, buffer, frame);
        forwarder.from_native(now, view, frame, &mut out);
        let operations = out.operations();
        self.tun.settle(id, operations);
    }

    /// Takes what the packet rings have, a bounded number from each.
    fn forward_rings<P: Policy>(
        &mut self,
        now: Instant,
        forwarder: &mut Forwarder<P>,
        view: &mut FibView<'_>,
    ) -> io::Result<()> {
        for ring in 0..self.descriptors.native.len() {
            for frame in 0..FRAMES_PER_TURN {
                if view.wants_warming() && frame % usize::from(FRAMES_AHEAD) == 0 {
                    let frames = self.descriptors.native.waiting(ring, FRAMES_AHEAD);
                    let packets = frames.filter_map(|frame| frame.get(arrival::HEADERS_LEN..));
                    view.warm(packets.filter_map(|packet| forwarder.destination(packet)));
                }
                self.make_room()?;
                let Self { descriptors, bursts, writes, counters, .. } = self;
                let native = &mut descriptors.native;
                let Some(taken) = native.take(ring) else { break };
                counters.ring_frame();
                match taken {
                    Taken::Packet(buffer, frame) => {
                        let mut out = Outbound::new(bursts, writes, buffer, frame);
                        match arrival::take(frame) {
                            Ok(frame) => forwarder.from_native(now, view, frame, &mut out),
                            Err(reason) => forwarder.drop_from_native(now, reason),
                        }
                        let operations = out.operations();
                        native.settle(buffer, operations);
                    }
                    Taken::CutOff => forwarder.drop_from_native(now, DropReason::NativeCutOff),
                }
                self.forward_released(now, forwarder, view)?;
            }
        }
        Ok(())
    }

    fn take_icmp<P: Policy>(
        &mut self,
        socket: u16,
        completion: Completion,
        now: Instant,
        forwarder: &mut Forwarder<P>,
        view: &FibView<'_>,
    ) {
        let (Some(id), len) = (completion.buffer, completion.result as usize) else { return };
        let Some(octets) = self.udp.claim(id, len) else { return };
        let family = self.descriptors.sockets.icmp.get(usize::from(socket)).map(|icmp| icmp.0);
        if let (Some(family), Some((sender, message))) = (family, datagram::raw(octets)) {
            let message = match family {
                Family::V4 => datagram::icmpv4(message),
                Family::V6 => Some(message),
            };
            let ports = self.ports;
            if let Some(message) = message {
                forwarder.handle_icmp(now, view, sender, message, |port| ports.contains(port));
            }
        }
        self.udp.settle(id, 0);
    }

    fn forward_datagrams<P: Policy>(
        &mut self,
        completion: Completion,
        now: Instant,
        forwarder: &mut Forwarder<P>,
        view: &mut FibView<'_>,
    ) {
        let (Some(id), len) = (completion.buffer, completion.result as usize) else { return };
        let Some(octets) = self.udp.claim(id, len) else { return };
        let buffer = BufferRef { pool: Pool::Udp, id };
        let mut out = Outbound::new(&mut self.bursts, &mut self.writes, buffer, octets);
        if let Operation::Receive(socket) = completion.operation {
            forwarder.set_arrival(usize::from(socket));
        }
        match datagram::parse(octets) {
            Some(received) if received.payload.is_empty() => {
                forwarder.drop_from_core(now, DropReason::LispHeaderTruncated);
            }
            Some(received) => {
                let sender = (received.source, received.fields);
                let train = (received.payload, received.segment_size);
                forwarder.train_from_core(now, view, sender, train, &mut out);
            }
            None => forwarder.drop_from_core(now, DropReason::OuterTruncated),
        }
        let operations = out.operations();
        self.udp.settle(id, operations);
    }
}

fn release(
    buffer: BufferRef,
    tun: &mut Buffers,
    udp: &mut Buffers,
    parked: &mut Parked,
    native: &mut PacketRings,
) {
    match buffer.pool {
        Pool::Tun => tun.release(buffer.id),
        Pool::Udp => udp.release(buffer.id),
        Pool::Parked => parked.release(buffer.id),
        Pool::Native(_) | Pool::Large => native.release(buffer),
    }
}

const TUN_GONE: &str = "the TUN device is gone";

/// Whether a read that ended may be started again.
fn check_read(operation: Operation, result: i32) -> io::Result<()> {
    let error = io::Error::from_raw_os_error(-result);
    match (operation, -result) {
        // No buffer was free, or nothing to worry about.
        (_, ..=0 | libc::ENOBUFS | libc::EAGAIN | libc::ECANCELED | libc::EINTR | libc::ENOMEM) => {
            Ok(())
        }
        (_, libc::EINVAL | libc::EOPNOTSUPP) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("multishot reads do not work here: use Linux 6.7 or later ({error})"),
        )),
        (Operation::Tun, _) => Err(io::Error::new(error.kind(), format!("{TUN_GONE}: {error}"))),
        (_, libc::EBADF | libc::EFAULT | libc::ENOTSOCK) => Err(error),
        // An error of one datagram, or of the network: the socket goes on.
        _ => Ok(()),
    }
}
