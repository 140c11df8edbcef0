//! One io_uring: the operations the worker needs, typed.
#![allow(unsafe_code, reason = "submission of operations that point into memory")]
use super::buffers::BUFFER_LEN;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Submissions that fit before they must be handed over.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit: every buffer and every operation at once, several times over.
const COMPLETIONS: u32 = 4096;

/// Which operation a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The read of the wake-up counter.
    Wake,
    /// The multishot read of the TUN queue.
    Tun,
    /// The multishot receive of the socket numbered so.
    Receive(u16),
    /// The multishot receive of the ICMP socket numbered so.
    Icmp(u16),
    /// A burst.
    Send(u16),
    /// A write to the TUN.
    Write(u16),
    /// A single read of the reader numbered so.
    Single(u16),
    /// The end of a multishot read, asked for.
    Cancel,
    /// The wait for frames of the packet ring numbered so.
    Native(u16),
    /// The wait for something to read, for the reader numbered so.
    Ready(u16),
}

impl Operation {
    fn encode(self) -> u64 {
        let (kind, index) = match self {
            Self::Wake => (0, 0),
            Self::Tun => (1, 0),
            Self::Receive(index) => (2, index),
            Self::Send(index) => (3, index),
            Self::Write(index) => (4, index),
            Self::Icmp(index) => (5, index),
            Self::Native(index) => (6, index),
            Self::Single(index) => (7, index),
            Self::Cancel => (8, 0),
            Self::Ready(index) => (9, index),
        };
        kind << 16 | u64::from(index)
    }

    fn decode(user_data: u64) -> Option<Self> {
        let index = user_data as u16;
        match user_data >> 16 {
            0 => Some(Self::Wake),
            1 => Some(Self::Tun),
            2 => Some(Self::Receive(index)),
            3 => Some(Self::Send(index)),
            4 => Some(Self::Write(index)),
            5 => Some(Self::Icmp(index)),
            6 => Some(Self::Native(index)),
            7 => Some(Self::Single(index)),
            8 => Some(Self::Cancel),
            9 => Some(Self::Ready(index)),
            _ => None,
        }
    }
}

/// An operation's result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) operation: Operation,
    /// Octets, or a negated errno.
    pub(super) result: i32,
    /// The provided buffer that was filled.
    pub(super) buffer: Option<u16>,
    /// A multishot operation goes on.
    pub(super) more: bool,
}

/// A ring that one thread uses.
pub(super) struct Ring {
    uring: IoUring,
}

impl Ring {
    /// A ring with the registered files `files`, which operations name by index.
    pub(super) fn new(files: &[RawFd]) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(unavailable)?;
        uring.submitter().register_files(files)?;
        Ok(Self { uring })
    }

    /// Makes one with what is needed, and lets it go.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn try_out() -> io::Result<()> {
        let tried: io::Result<IoUring> =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(1);
        tried.map(drop)
    }

    pub(super) const fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Reads packets from `tun` into buffers of `group` until there are none.
    ///
    /// The TUN is no registered file: the kernel lets those of a killed process go some time later, and the device has to go at
    /// once, with its routes.
    pub(super) fn read_multi(&mut self, tun: BorrowedFd<'_>, group: u16) -> io::Result<()> {
        let entry = opcode::ReadMulti::new(Fd(tun.as_raw_fd()), 0, group).offset(u64::MAX).build();
        // SAFETY: the operation points at no memory of ours but the registered buffers.
        unsafe { self.push(entry, Operation::Tun) }
    }

    /// Receives datagrams from `file` into buffers of `group` until there are none.
    ///
    /// # Safety
    /// `template` must stay valid and unchanged until the operation ends.
    pub(super) unsafe fn receive_multi(
        &mut self,
        file: u32,
        group: u16,
        template: *const libc::msghdr,
        operation: Operation,
    ) -> io::Result<()> {
        let entry = opcode::RecvMsgMulti::new(Fixed(file), template, group).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, operation) }
    }

    /// Reads one packet from `tun`, if there is one, into the [`BUFFER_LEN`] octets at `start`.
    ///
    /// # Safety
    /// They must stay valid and unused until the operation ends.
    pub(super) unsafe fn read(
        &mut self,
        tun: BorrowedFd<'_>,
        start: *mut u8,
        operation: Operation,
    ) -> io::Result<()> {
        let entry = opcode::Read::new(Fd(tun.as_raw_fd()), start, BUFFER_LEN as u32)
            .offset(u64::MAX)
            .rw_flags(libc::RWF_NOWAIT)
            .build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, operation) }
    }

    /// Receives one datagram or train from `file`, if there is one.
    ///
    /// # Safety
    /// `message` and all it points at must stay valid and unused until the operation ends.
    pub(super) unsafe fn receive(
        &mut self,
        file: u32,
        message: *mut libc::msghdr,
        operation: Operation,
    ) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT as u32;
        let entry = opcode::RecvMsg::new(Fixed(file), message).flags(flags).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, operation) }
    }

    /// Ends a multishot read.
    pub(super) fn cancel(&mut self, operation: Operation) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(operation.encode()).build();
        // SAFETY: the operation points at no memory.
        unsafe { self.push(entry, Operation::Cancel) }
    }

    /// Sends a burst; never waits for room, so that bursts leave in the order they were pushed.
    ///
    /// # Safety
    /// `message` and all it points at must stay valid and unchanged until the operation ends.
    pub(super) unsafe fn send(
        &mut self,
        file: u32,
        message: *const libc::msghdr,
        burst: u16,
    ) -> io::Result<()> {
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsg::new(Fixed(file), message).flags(flags).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Operation::Send(burst)) }
    }

    /// Writes to the TUN.
    ///
    /// # Safety
    /// The `count` iovecs and all they point at must stay valid and unchanged until the operation ends.
    pub(super) unsafe fn write(
        &mut self,
        tun: BorrowedFd<'_>,
        iovecs: *const libc::iovec,
        count: u32,
        write: u16,
    ) -> io::Result<()> {
        let tun = Fd(tun.as_raw_fd());
        let entry = opcode::Writev::new(tun, iovecs, count).offset(u64::MAX).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Operation::Write(write)) }
    }

    /// Reads the wake-up counter.
    ///
    /// # Safety
    /// `counter` must stay valid and unused until the operation ends.
    pub(super) unsafe fn read_counter(&mut self, file: u32, counter: *mut u64) -> io::Result<()> {
        let len = size_of::<u64>() as u32;
        let entry = opcode::Read::new(Fixed(file), counter.cast(), len).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Operation::Wake) }
    }

    /// Waits until `descriptor` is readable, once. It is no registered file, like the TUN.
    pub(super) fn poll(&mut self, descriptor: RawFd, operation: Operation) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(descriptor), libc::POLLIN as u32).build();
        // SAFETY: the operation points at no memory.
        unsafe { self.push(entry, operation) }
    }

    /// Hands over what was pushed and waits for `want` completions or until `timeout`.
    pub(super) fn wait(&mut self, want: usize, timeout: Duration) -> io::Result<()> {
        let timespec = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        tolerate(self.uring.submitter().submit_with_args(want, &args))
    }

    /// Hands over what was pushed and takes in what is there, without waiting.
    pub(super) fn take_in(&mut self) -> io::Result<()> {
        const GET_EVENTS: u32 = 1;
        let pushed = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed; what the submissions point at is valid by the promises of those who pushed them.
        let result =
            unsafe { self.uring.submitter().enter::<libc::sigset_t>(pushed, 0, GET_EVENTS, None) };
        tolerate(result)
    }

    /// Hands over what was pushed.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        tolerate(self.uring.submit())
    }

    /// The next completion.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.uring.completion().next()?;
            if let Some(operation) = Operation::decode(entry.user_data()) {
                return Some(Completion {
                    operation,
                    result: entry.result(),
                    buffer: cqueue::buffer_select(entry.flags()),
                    more: cqueue::more(entry.flags()),
                });
            }
        }
    }

    /// # Safety
    /// What `entry` points at must stay valid until the operation ends.
    unsafe fn push(&mut self, entry: squeue::Entry, operation: Operation) -> io::Result<()> {
        let entry = entry.user_data(operation.encode());
        // SAFETY: the caller's promise.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return Ok(());
        }
        self.submit()?;
        // SAFETY: the caller's promise.
        unsafe { self.uring.submission().push(&entry) }
            .map_err(|_| io::Error::other("the submission queue stays full"))
    }
}

impl Drop for Ring {
    /// Ends every operation, also after a panic, so that the kernel uses no memory of ours any more, and lets go of the registered
    /// files: the kernel takes the ring itself apart in the background, and TUN device and ports must not wait for that.
    fn drop(&mut self) {
        let timeout = Some(Timespec::from(Duration::from_secs(1)));
        let _ = self.uring.submitter().register_sync_cancel(timeout, CancelBuilder::any());
        // Cancelled operations let go of their files when we next ask for completions.
        let _ = self.wait(1, Duration::ZERO);
        let _ = self.uring.submitter().unregister_files();
    }
}

/// What is no failure of the ring: a signal, the timeout, completions that wait to be taken.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Who forbids it, by what the sysctl `kernel.io_uring_disabled` says.
fn forbidden(switch: &str) -> &'static str {
    match switch.trim() {
        "2" => {
            "io_uring is disabled by this host's policy for everybody: set sysctl kernel.io_uring_disabled to 0"
        }
        "1" => {
            "io_uring is disabled by this host's policy for unprivileged users: set sysctl kernel.io_uring_disabled to 0, or \
             kernel.io_uring_group to the daemon's group"
        }
        _ => {
            "io_uring is forbidden by a seccomp filter: in a container, allow io_uring_setup, io_uring_enter and io_uring_register"
        }
    }
}

fn unavailable(error: io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring: use Linux 6.7 or later with CONFIG_IO_URING"
        }
        Some(libc::EPERM | libc::EACCES) => {
            let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            let text = format!("{} ({error})", forbidden(&switch.unwrap_or_default()));
            return io::Error::new(io::ErrorKind::PermissionDenied, text);
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old: use Linux 6.7 or later",
        Some(libc::ENOMEM) => {
            "no memory for io_uring: raise the limit of locked memory (ulimit -l)"
        }
        _ => return error,
    };
    io::Error::new(io::ErrorKind::Unsupported, format!("{advice} ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_the_ring() {
        for operation in [
            Operation::Wake,
            Operation::Tun,
            Operation::Receive(3),
            Operation::Send(u16::MAX),
            Operation::Write(255),
            Operation::Icmp(1),
            Operation::Native(2),
            Operation::Single(1),
            Operation::Cancel,
            Operation::Ready(2),
        ] {
            assert_eq!(Operation::decode(operation.encode()), Some(operation));
        }
        assert_eq!(Operation::decode(u64::MAX), None);
    }

    #[test]
    fn a_missing_io_uring_is_explained() {
        let error = unavailable(io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("6.7"), "{error}");
        let error = unavailable(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("io_uring"), "{error}");
    }

    #[test]
    fn who_forbids_io_uring_is_named() {
        for (switch, word) in [
            ("2\n", "for everybody"),
            ("1\n", "io_uring_group"),
            ("0\n", "seccomp"),
            ("", "seccomp"),
        ] {
            assert!(forbidden(switch).contains(word), "{switch}: {}", forbidden(switch));
        }
    }
}
