//! What keeps the kernel from forwarding the packets that the rings took, and decides which those are.
//!
//! A packet socket gets a copy of a packet before routing, tc and netfilter; the kernel goes on with the packet itself. So the program that
//! selects packets for the sockets (`packet_ring_filter`) is also attached behind them, at the interface's tcx ingress hook, in
//! front of everybody else's programs, where it drops what it selects. Both are swapped at once when the selection changes.
//!
//! The attachment is a BPF link: it lives as long as the descriptor that this process holds. However the process ends, the kernel closes
//! the descriptor before anything else can be forwarded, and the packets go the way they went without us: there is no rule, route
//! or filter to clean up, and none that could swallow packets. (A blackhole route in a table of ours costs a routing lookup per packet and
//! stays behind after `kill -9`; netfilter's ingress hook can be tied to a socket as well but needs nf_tables.)
#![allow(unsafe_code, reason = "the bpf system call")]
use super::packet_ring_filter::{Answers, Instruction, Selection};
use super::packet_ring_socket::PacketSocket;
use super::sys::set_option;
use crate::config::RingIntake;
use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Weak};

/// `enum bpf_cmd`.
const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_LINK_UPDATE: c_int = 29;
/// `enum bpf_prog_type`.
const SOCKET_FILTER: u32 = 1;
const SCHED_CLS: u32 = 3;
/// `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
/// At the head of the hook's programs.
const BPF_F_BEFORE: u32 = 1 << 3;
const SO_ATTACH_BPF: c_int = 50;

/// The whole packet, or nothing.
const FOR_SOCKET: Answers = Answers { take: i32::MAX, leave: 0 };
/// TCX_DROP; TCX_NEXT: whoever else has programs there is asked.
const FOR_GATE: Answers = Answers { take: 2, leave: -1 };

/// The programs of all rings of a data plane. Dropping it gives the packets back to the kernel.
#[derive(Debug)]
pub(super) struct Gate {
    config: RingIntake,
    interfaces: Vec<Interface>,
    selection: Option<Selection>,
}

#[derive(Debug)]
struct Interface {
    index: u32,
    /// One per worker, which owns it: with the worker goes its part of the fanout, and the others get its flows.
    sockets: Vec<Weak<PacketSocket>>,
    /// Those whose worker has not begun.
    waiting: Vec<Option<Arc<PacketSocket>>>,
    /// `None` until the rings are opened.
    link: Option<OwnedFd>,
}

impl Gate {
    /// Packet sockets for `workers` workers on every interface of `config`, closed until [`Self::open`].
    pub(super) fn new(config: &RingIntake, workers: usize) -> io::Result<Self> {
        let mut interfaces = Vec::with_capacity(config.interfaces.len());
        for name in &config.interfaces {
            let explain = |error| explain(&format!("take packets from {name} by a ring"), error);
            let sockets = PacketSocket::group(name, workers).map_err(explain)?;
            let index = nix::net::if_::if_nametoindex(name.as_str())?;
            let owned: Vec<_> = sockets.into_iter().map(Arc::new).collect();
            let sockets = owned.iter().map(Arc::downgrade).collect();
            let waiting = owned.into_iter().map(Some).collect();
            interfaces.push(Interface { index, sockets, waiting, link: None });
        }
        Ok(Self { config: config.clone(), interfaces, selection: None })
    }

    /// The sockets of the worker numbered so, one per interface; from now on they are its own.
    pub(super) fn take_sockets(&mut self, worker: usize) -> Vec<Arc<PacketSocket>> {
        let of_worker = |interface: &mut Interface| interface.waiting.get_mut(worker)?.take();
        self.interfaces.iter_mut().filter_map(of_worker).collect()
    }

    /// From now on the rings get what the configuration says, but for packets to `local`, the addresses of this host.
    ///
    /// # Errors
    /// What the kernel said; then some interfaces may still select by what was.
    pub(super) fn open(&mut self, local: &[IpAddr]) -> io::Result<()> {
        let selection = Selection::new(&self.config.take, &self.config.leave, local);
        if self.selection.as_ref() == Some(&selection) {
            return Ok(());
        }
        let explain = |error| explain("select packets for the ring", error);
        let filter = load(SOCKET_FILTER, &selection.program(FOR_SOCKET)?).map_err(explain)?;
        let gate = load(SCHED_CLS, &selection.program(FOR_GATE)?).map_err(explain)?;
        // Until all of it is done nothing counts as done: the next call begins anew.
        self.selection = None;
        for interface in &mut self.interfaces {
            // First the gate: for a moment a packet is rather lost than sent twice.
            match &interface.link {
                Some(link) => update(link, &gate).or_else(unless_gone).map_err(explain)?,
                None => interface.link = Some(attach(interface.index, &gate).map_err(explain)?),
            }
            for socket in interface.sockets.iter().filter_map(Weak::upgrade) {
                let (level, filter) = (libc::SOL_SOCKET, filter.as_raw_fd());
                set_option(socket.as_fd(), level, SO_ATTACH_BPF, filter).map_err(explain)?;
            }
        }
        self.selection = Some(selection);
        Ok(())
    }
}

/// The link of an interface that was removed is dead.
fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ENOLINK) { Ok(()) } else { Err(error) }
}

fn explain(what: &str, error: io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "CAP_NET_RAW, CAP_NET_ADMIN or CAP_BPF is missing",
        Some(libc::ENOSYS) => "this kernel has no BPF: CONFIG_BPF_SYSCALL",
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            "use Linux 6.6 or later with CONFIG_NET_XGRESS, or intake = \"tun\""
        }
        Some(libc::ENODEV) => "no such interface",
        Some(libc::ENOMEM) => {
            "raise net.core.optmem_max: the program does not fit into a socket's option memory"
        }
        Some(libc::EAFNOSUPPORT) => "this kernel has no packet sockets: CONFIG_PACKET",
        _ => "the kernel refused",
    };
    io::Error::new(error.kind(), format!("cannot {what}: {advice} ({error})"))
}

/// `union bpf_attr` of BPF_PROG_LOAD.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Of BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _padding: u32,
    expected_revision: u64,
}

/// Of BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

fn load(kind: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0";
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"isthmus");
    let load = ProgramLoad {
        kind,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: the pointers in it are to `program` and a constant, which outlive the call, with the former's length.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &load) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attach(interface: u32, program: &OwnedFd) -> io::Result<OwnedFd> {
    let create = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        interface,
        attach_type: BPF_TCX_INGRESS,
        flags: BPF_F_BEFORE,
        relative: 0,
        _padding: 0,
        expected_revision: 0,
    };
    // SAFETY: there are no pointers in it.
    let descriptor = unsafe { bpf(BPF_LINK_CREATE, &create) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn update(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let update = LinkUpdate {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: there are no pointers in it.
    unsafe { bpf(BPF_LINK_UPDATE, &update) }.map(drop)
}

/// # Safety
/// `attributes` must be the start of a `union bpf_attr` as `command` takes it; pointers in it must be valid for the call.
unsafe fn bpf<T>(command: c_int, attributes: &T) -> io::Result<c_int> {
    // SAFETY: the caller's promise; the size is that of what the pointer is to.
    let result: c_long = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

#[cfg(test)]
#[path = "packet_ring_tests.rs"]
mod tests;
