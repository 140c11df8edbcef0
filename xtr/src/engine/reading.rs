//! How a worker reads its TUN queue and its sockets: a few packets at a time, or as many as there are.
//!
//! *Few*: reads that do not wait, into the buffers used last. A super-packet of 64 KiB goes on while it is in the cache, and the next
//! finds the same memory warm. While there is nothing, the worker waits in `ppoll`: the kernel wakes it there with the hint that the
//! waker is about to sleep itself, so that the packet is dealt with where it is warm; wake-ups of the ring carry no such hint.
//!
//! *Many*: a multishot read into many buffers, for floods of small packets. Meanwhile the worker waits in the ring, which also tells when
//! there is something for those who read few: a flood never ends long enough for `ppoll`.
//!
//! A reader begins with few. It takes many when packet follows packet and they are small, and goes back when they are large or rare.
#![allow(unsafe_code, reason = "operations point into the readers' memory")]
use super::buffers::{Buffers, LARGE};
use super::datagram;
use super::ring::{Completion, Operation, Ring};
use super::sys;
use super::udp::Sockets;
use libc::{iovec, msghdr, pollfd};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Reads of one descriptor at a time. More of them do not stay in the cache, fewer make shorter bursts.
pub(super) const FEW_READS: u16 = 4;
/// So many of them in a row found something: packets come faster than they are read.
const BACKLOG: u32 = 32;
/// A batch of so many, or fewer, is not worth the buffers.
const THIN: u32 = 2;
/// So many batches in a row were that thin.
const THIN_BATCHES: u32 = 64;

/// All readers of one worker: the TUN's, then one for each socket on port 4341.
pub(super) struct Readers {
    readers: Vec<Reader>,
    /// All that the worker may wait for, the readers' descriptors first. The ring is not among them: what is deferred there wakes only
    /// who waits in it.
    poll_set: Vec<pollfd>,
    first_file: u32,
}

struct Reader {
    operation: Operation,
    mode: Mode,
    /// Octets per packet or train, over the last ones.
    average: usize,
    /// Few: reads in a row that found something. Many: thin batches in a row.
    streak: u32,
    /// What this batch found.
    found: u16,
    /// Few: reads under way, or done in this batch.
    asked: u16,
    /// Few: reads that are worth a try.
    worth: u16,
    /// Few: the last read found nothing.
    is_dry: bool,
    /// The ring is to tell when there is something again.
    is_watched: bool,
    reads: [Read; FEW_READS as usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Few,
    Many,
    /// The multishot read is to end.
    Leaving,
}

/// What one read points at. Stays in place while the kernel has it.
struct Read {
    buffer: Option<u16>,
    iovec: iovec,
    message: msghdr,
}

impl Readers {
    /// `first_file` is the first socket's index among the registered files; `others` is what else ends the waiting.
    pub(super) fn new(
        tun: BorrowedFd<'_>,
        sockets: &Sockets,
        first_file: u32,
        others: impl Iterator<Item = RawFd>,
    ) -> Self {
        let wanted = |fd| pollfd { fd, events: libc::POLLIN, revents: 0 };
        let own = std::iter::once(tun.as_raw_fd());
        let own = own.chain(sockets.receive.iter().map(AsRawFd::as_raw_fd));
        let receive = (0..sockets.receive.len() as u16).map(Operation::Receive);
        let operations = std::iter::once(Operation::Tun).chain(receive);
        Self {
            readers: operations.map(Reader::new).collect(),
            poll_set: own.chain(others).map(wanted).collect(),
            first_file,
        }
    }

    /// Starts reads for those who read few, unless all of them found nothing the last time.
    pub(super) fn arm(
        &mut self,
        ring: &mut Ring,
        tun: BorrowedFd<'_>,
        tun_buffers: &mut Buffers,
        udp_buffers: &mut Buffers,
    ) -> io::Result<()> {
        if self.any_many() {
            self.watch(ring)?;
        }
        if self.all_dry() {
            return Ok(());
        }
        for (index, reader) in (0..).zip(&mut self.readers) {
            if reader.mode != Mode::Few || reader.asked > 0 {
                continue;
            }
            let count = if reader.is_dry { 1 } else { reader.worth };
            let operation = reader.operation;
            let is_tun = operation == Operation::Tun;
            for (number, read) in (0..count).zip(&mut reader.reads) {
                let buffers = if is_tun { &mut *tun_buffers } else { &mut *udp_buffers };
                let Some((buffer, start)) = buffers.take() else { break };
                let single = Operation::Single(index * FEW_READS + number);
                let pushed = match operation {
                    Operation::Receive(socket) => {
                        let message = read.message(start.as_ptr());
                        let file = self.first_file + u32::from(socket);
                        // SAFETY: readers never move and live as long as the ring, like the buffer; nobody else uses either before the
                        // completion.
                        unsafe { ring.receive(file, message, single) }
                    }
                    // SAFETY: as above, for the buffer.
                    _ => unsafe { ring.read(tun, start.as_ptr(), single) },
                };
                pushed?;
                read.buffer = Some(buffer);
                reader.asked += 1;
            }
        }
        Ok(())
    }

    /// One of few reads is done: the same as a multishot read would have said. `None` if there is no such read.
    pub(super) fn completed(
        &mut self,
        index: u16,
        result: i32,
        tun: &mut Buffers,
        udp: &mut Buffers,
    ) -> Option<Completion> {
        let reader = self.readers.get_mut(usize::from(index / FEW_READS))?;
        let read = &mut reader.reads[usize::from(index % FEW_READS)];
        let operation = reader.operation;
        let buffers = if operation == Operation::Tun { tun } else { udp };
        let buffer = read.buffer.take()?;
        if result < 0 {
            reader.streak = 0;
            buffers.put_back(buffer);
            return Some(Completion { operation, result, buffer: None, more: true });
        }
        reader.streak += 1;
        let mut result = result;
        if let Operation::Receive(_) = operation {
            buffers.write_start(buffer, &datagram::header(&read.message, result as u32));
            result += datagram::PAYLOAD_START as i32;
        }
        Some(Completion { operation, result, buffer: Some(buffer), more: true })
    }

    /// A read of `operation` found so many octets.
    #[inline]
    pub(super) fn found(&mut self, operation: Operation, octets: usize) {
        if let Some(reader) = self.of(operation) {
            reader.average = (7 * reader.average + octets) / 8;
            reader.found = reader.found.saturating_add(1);
        }
    }

    /// After a batch: who reads few and who many from now on. `to_arm` are the multishot reads to start.
    pub(super) fn adapt(&mut self, ring: &mut Ring, to_arm: &mut Vec<Operation>) -> io::Result<()> {
        for reader in &mut self.readers {
            let found = std::mem::take(&mut reader.found);
            match reader.mode {
                Mode::Few => {
                    reader.judge(found);
                    if reader.streak >= BACKLOG && reader.average < LARGE {
                        to_arm.push(reader.operation);
                        reader.turn(Mode::Many);
                    }
                }
                Mode::Many if found > 0 => {
                    let is_thin = u32::from(found) <= THIN;
                    reader.streak = if is_thin { reader.streak + 1 } else { 0 };
                    if reader.average < LARGE && reader.streak < THIN_BATCHES {
                        continue;
                    }
                    match to_arm.iter().position(|waiting| *waiting == reader.operation) {
                        Some(waiting) => {
                            to_arm.swap_remove(waiting);
                            reader.turn(Mode::Few);
                        }
                        None => {
                            ring.cancel(reader.operation)?;
                            reader.turn(Mode::Leaving);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A multishot read ended; whether to start it again.
    pub(super) fn ended(&mut self, operation: Operation) -> bool {
        let Some(reader) = self.of(operation) else { return true };
        if reader.mode == Mode::Leaving {
            reader.turn(Mode::Few);
        }
        reader.mode == Mode::Many
    }

    /// Whether anyone reads few, so that the ring alone does not say when there is something.
    pub(super) fn any_few(&self) -> bool {
        self.readers.iter().any(|reader| reader.mode == Mode::Few)
    }

    /// Whether anyone reads many.
    pub(super) fn any_many(&self) -> bool {
        self.readers.iter().any(|reader| reader.mode == Mode::Many)
    }

    /// There is something for the reader numbered so.
    pub(super) fn ready(&mut self, index: u16) {
        if let Some(reader) = self.readers.get_mut(usize::from(index)) {
            reader.is_watched = false;
            reader.is_dry = false;
        }
    }

    /// Has the ring tell when there is something for those who read few and found nothing.
    fn watch(&mut self, ring: &mut Ring) -> io::Result<()> {
        for ((index, reader), wanted) in (0..).zip(&mut self.readers).zip(&self.poll_set) {
            if reader.mode == Mode::Few && reader.is_dry && !reader.is_watched {
                ring.poll(wanted.fd, Operation::Ready(index))?;
                reader.is_watched = true;
            }
        }
        Ok(())
    }

    /// Whether few reads are under way.
    pub(super) fn any_asked(&self) -> bool {
        self.readers.iter().any(|reader| reader.asked > 0)
    }

    /// Whether all who read few found nothing the last time.
    pub(super) fn all_dry(&self) -> bool {
        self.readers.iter().all(|reader| reader.is_dry || reader.mode != Mode::Few)
    }

    /// Waits until there is something to read, also for the ring.
    pub(super) fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        sys::poll(&mut self.poll_set, timeout)?;
        for (reader, ready) in self.readers.iter_mut().zip(&self.poll_set) {
            reader.is_dry &= ready.revents == 0;
        }
        Ok(())
    }

    fn of(&mut self, operation: Operation) -> Option<&mut Reader> {
        let index = match operation {
            Operation::Tun => 0,
            Operation::Receive(socket) => 1 + usize::from(socket),
            _ => return None,
        };
        self.readers.get_mut(index)
    }
}

impl Reader {
    fn new(operation: Operation) -> Self {
        let read = || Read {
            buffer: None,
            iovec: super::outbound::EMPTY_IOVEC,
            message: sys::empty_message(),
        };
        Self {
            operation,
            mode: Mode::Few,
            average: 0,
            streak: 0,
            found: 0,
            asked: 0,
            worth: 1,
            is_dry: true,
            is_watched: false,
            reads: std::array::from_fn(|_| read()),
        }
    }

    /// What the reads of this batch say of the next one.
    fn judge(&mut self, found: u16) {
        let is_under_way = self.reads.iter().any(|read| read.buffer.is_some());
        if self.asked == 0 || is_under_way {
            return;
        }
        self.is_dry = found < self.asked;
        if found > 0 {
            let worth = if self.is_dry { found + 1 } else { 2 * self.worth };
            self.worth = worth.min(FEW_READS);
        }
        self.asked = 0;
    }

    fn turn(&mut self, mode: Mode) {
        self.mode = mode;
        self.streak = 0;
        self.is_dry = false;
    }
}

impl Read {
    /// A message that puts everything where a multishot read would.
    fn message(&mut self, start: *mut u8) -> *mut msghdr {
        let at = |offset| start.wrapping_add(offset).cast();
        self.iovec = iovec { iov_base: at(datagram::PAYLOAD_START), iov_len: datagram::ROOM };
        self.message.msg_name = at(datagram::HEADER_LEN);
        self.message.msg_namelen = datagram::NAME_LEN as libc::socklen_t;
        self.message.msg_control = at(datagram::HEADER_LEN + datagram::NAME_LEN);
        self.message.msg_controllen = datagram::CONTROL_LEN as _;
        self.message.msg_iov = &raw mut self.iovec;
        self.message.msg_iovlen = 1;
        self.message.msg_flags = 0;
        &raw mut self.message
    }
}

#[cfg(test)]
mod tests {
    use super::super::udp;
    use super::*;
    use crate::packet::OuterFields;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Readers of a socket that stands for the TUN, and of one for datagrams.
    struct Bed {
        // First, so that no operation outlives what it points at.
        ring: Ring,
        readers: Readers,
        buffers: [Buffers; 2],
        to_arm: Vec<Operation>,
        device: UnixDatagram,
        host: UnixDatagram,
        peer: UdpSocket,
        socket: IpAddr,
        _sockets: Sockets,
    }

    impl Bed {
        fn new() -> Option<Self> {
            let (device, host) = UnixDatagram::pair().unwrap();
            let receiver = udp::receive_socket(HERE, 0).unwrap();
            let peer = UdpSocket::bind((HERE, 0)).unwrap();
            peer.connect(receiver.local_addr().unwrap().as_socket().unwrap()).unwrap();
            let sockets = Sockets { receive: vec![receiver], send: vec![], icmp: [].into() };
            let ring = match Ring::new(&[sockets.receive[0].as_raw_fd()]) {
                Ok(ring) => ring,
                Err(error) => {
                    println!("SKIP: no io_uring: {error}");
                    return None;
                }
            };
            let group = |group| Buffers::new(ring.uring(), group, 64, 2 * FEW_READS).unwrap();
            Some(Self {
                buffers: [group(0), group(1)],
                readers: Readers::new(device.as_fd(), &sockets, 0, std::iter::empty()),
                ring,
                to_arm: Vec::new(),
                device,
                host,
                peer,
                socket: HERE,
                _sockets: sockets,
            })
        }

        /// One turn of a worker; what was read.
        fn turn(&mut self) -> Vec<(Operation, Vec<u8>)> {
            let [tun, udp] = &mut self.buffers;
            if self.readers.all_dry() {
                self.readers.poll(Duration::ZERO).unwrap();
            }
            self.readers.arm(&mut self.ring, self.device.as_fd(), tun, udp).unwrap();
            self.ring.take_in().unwrap();
            let mut read = Vec::new();
            while let Some(completion) = self.ring.next_completion() {
                let Operation::Single(index) = completion.operation else { continue };
                let done = self.readers.completed(index, completion.result, tun, udp).unwrap();
                let Some(id) = done.buffer else { continue };
                let len = done.result as usize;
                self.readers.found(done.operation, len);
                let buffers = if done.operation == Operation::Tun { &mut *tun } else { &mut *udp };
                read.push((done.operation, buffers.claim(id, len).unwrap().to_vec()));
                buffers.settle(id, 0);
            }
            self.readers.adapt(&mut self.ring, &mut self.to_arm).unwrap();
            read
        }
    }

    #[test]
    fn few_reads_tell_what_a_multishot_read_would() {
        let Some(mut bed) = Bed::new() else { return };
        assert!(bed.turn().is_empty(), "nothing is asked for that is not there");
        for n in 0..5u8 {
            bed.peer.send(&[n; 3]).unwrap();
            bed.host.send(&[n; 7]).unwrap();
        }
        let mut read = Vec::new();
        for _ in 0..6 {
            read.extend(bed.turn());
        }
        let of = |wanted| read.iter().filter(move |(operation, _)| *operation == wanted);
        let frames: Vec<_> = of(Operation::Tun).map(|(_, octets)| octets.clone()).collect();
        assert_eq!(frames, (0..5).map(|n| vec![n; 7]).collect::<Vec<_>>(), "in order");
        for ((_, octets), n) in of(Operation::Receive(0)).zip(0..5) {
            let received = datagram::parse(&mut octets.clone()).map(|received| {
                assert_eq!(received.source, bed.socket);
                assert_eq!(received.fields, OuterFields { ttl: 64, tos: 0 });
                received.payload.to_vec()
            });
            assert_eq!(received, Some(vec![n; 3]));
        }
        assert_eq!(of(Operation::Receive(0)).count(), 5);
        assert!(bed.readers.all_dry() && !bed.readers.any_asked());
    }

    #[test]
    fn small_packets_without_a_gap_are_read_many_at_a_time_until_they_are_large_or_rare() {
        let Some(mut bed) = Bed::new() else { return };
        for reason in ["large", "rare"] {
            for _ in 0..50 {
                // Never more than the socket holds, and never none.
                for _ in 0..FEW_READS {
                    bed.host.send(&[1; 60]).unwrap();
                }
                bed.turn();
                if bed.to_arm == [Operation::Tun] {
                    break;
                }
            }
            assert_eq!(bed.to_arm, [Operation::Tun], "{reason}");
            while bed.host.set_nonblocking(true).is_ok() && bed.device.recv(&mut [0; 64]).is_ok() {
                bed.device.set_nonblocking(true).unwrap();
            }
            assert!(bed.readers.ended(Operation::Tun), "goes on");
            let (batches, octets) = if reason == "large" { (8, 60_000) } else { (64, 60) };
            for batch in 0..batches {
                assert_eq!(bed.to_arm, [Operation::Tun], "{reason}, batch {batch}");
                bed.readers.found(Operation::Tun, octets);
                bed.readers.adapt(&mut bed.ring, &mut bed.to_arm).unwrap();
                if bed.to_arm.is_empty() {
                    break;
                }
            }
            assert!(bed.to_arm.is_empty() && bed.readers.any_few(), "{reason}");
            // What made it leave must not make it come back at once.
            bed.readers.readers[0].average = 60;
        }
    }

    #[test]
    fn while_one_reads_many_the_ring_tells_of_the_others() {
        let Some(mut bed) = Bed::new() else { return };
        assert!(bed.turn().is_empty());
        bed.readers.readers[1].turn(Mode::Many);
        for _ in 0..2 {
            bed.host.send(&[7; 9]).unwrap();
            let [tun, udp] = &mut bed.buffers;
            bed.readers.arm(&mut bed.ring, bed.device.as_fd(), tun, udp).unwrap();
            assert!(bed.readers.readers[0].is_watched && bed.readers.all_dry());
            bed.ring.wait(1, Duration::from_secs(5)).unwrap();
            let told = bed.ring.next_completion().map(|completion| completion.operation);
            assert_eq!(told, Some(Operation::Ready(0)));
            bed.readers.ready(0);
            assert_eq!(bed.turn(), [(Operation::Tun, vec![7; 9])]);
            while !bed.readers.all_dry() {
                assert!(bed.turn().is_empty());
            }
        }
        bed.readers.ready(9);
    }

    #[test]
    fn many_reads_end_before_few_begin() {
        let Some(mut bed) = Bed::new() else { return };
        bed.readers.readers[0].turn(Mode::Many);
        bed.readers.found(Operation::Tun, 1 << 20);
        bed.readers.adapt(&mut bed.ring, &mut bed.to_arm).unwrap();
        assert_eq!(bed.readers.readers[0].mode, Mode::Leaving, "the kernel has it");
        assert!(!bed.readers.ended(Operation::Tun));
        assert_eq!(bed.readers.readers[0].mode, Mode::Few);
    }
}
