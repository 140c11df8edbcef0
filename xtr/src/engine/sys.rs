//! Raw system calls that no safe crate wraps: the TUN device, socket options, memory for the kernel.
#![allow(unsafe_code, reason = "the engine's system-call corner")]
use std::ffi::{c_int, c_short, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::NonNull;

/// `struct ifreq` with the members used here; the kernel copies 40 octets.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: InterfaceValue,
}

#[repr(C)]
union InterfaceValue {
    flags: c_short,
    number: c_int,
    hardware: u16,
    _size: [u8; 24],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new(name: &str) -> io::Result<Self> {
        Ok(Self { name: device_name(name)?, value: InterfaceValue { _size: [0; 24] } })
    }

    fn name(&self) -> String {
        let octets = self.name.iter().take_while(|&&octet| octet != 0).copied().collect();
        String::from_utf8(octets).unwrap_or_default()
    }

    fn ioctl(&mut self, fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY: every request used in this file takes a pointer to a struct ifreq, and `self` is one (size proved above).
        check(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(self)) })
    }
}

/// An interface's name as the kernel takes it.
///
/// # Errors
/// `InvalidInput` if it is none.
pub(super) fn device_name(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    // One octet stays 0: the name is a C string.
    if name.len() >= libc::IFNAMSIZ || name.bytes().any(|octet| octet == 0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` is longer than an interface name may be"),
        ));
    }
    let mut octets = [0; libc::IFNAMSIZ];
    octets[..name.len()].copy_from_slice(name.as_bytes());
    Ok(octets)
}

/// Checksum, TSO4, TSO6, TSO with ECN, USO4, USO6: the super-packets the kernel may hand us.
const TUN_OFFLOADS: libc::c_ulong = 0x6f;

/// Opens one queue of the TUN device `name` (`%d` is a number the kernel chooses) and returns the device's name.
pub(super) fn open_tun_queue(name: &str) -> io::Result<(OwnedFd, String)> {
    // Non-blocking, so that the ring completes writes in order instead of handing them to a thread.
    let tun: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest::new(name)?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.value.flags = flags as c_short;
    request.ioctl(tun.as_fd(), libc::TUNSETIFF)?;
    prepare_tun_queue(tun.as_fd())?;
    Ok((tun.into(), request.name()))
}

/// Has the queue exchange super-packets behind our header.
///
/// # Errors
/// What the kernel said.
pub(super) fn prepare_tun_queue(tun: BorrowedFd<'_>) -> io::Result<()> {
    let header_len: c_int = crate::packet::VirtioNetHeader::LEN as c_int;
    // SAFETY: TUNSETVNETHDRSZ reads an int through the pointer.
    check(unsafe {
        libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, std::ptr::from_ref(&header_len))
    })?;
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, TUN_OFFLOADS) })
}

/// The name of the device that the queue belongs to.
///
/// # Errors
/// It is no TUN queue of ours, or its device is gone.
pub(super) fn name_of_queue(queue: BorrowedFd<'_>) -> io::Result<String> {
    let mut request = InterfaceRequest::new("")?;
    request.ioctl(queue, libc::TUNGETIFF)?;
    // SAFETY: TUNGETIFF has just written this member.
    let flags = i32::from(unsafe { request.value.flags });
    let wanted = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    if flags & wanted == wanted {
        Ok(request.name())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// A descriptor that the process was started with, from 3 on.
///
/// # Errors
/// There is none of that number.
pub(super) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < FIRST_INHERITED {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_GETFD reads a flag of whatever has this number.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, and the caller says that the environment of the process passed it to be taken: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Below are standard input, output and error.
const FIRST_INHERITED: RawFd = 3;

/// Whether the queue still belongs to a device.
pub(super) fn tun_is_attached(queue: BorrowedFd<'_>) -> bool {
    InterfaceRequest::new("").and_then(|mut request| request.ioctl(queue, libc::TUNGETIFF)).is_ok()
}

/// Sets the interface's MTU; `control` is any socket of the right network namespace.
pub(super) fn set_mtu(control: BorrowedFd<'_>, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name)?;
    request.value.number = c_int::from(mtu);
    request.ioctl(control, libc::SIOCSIFMTU)
}

/// Sets how many packets the interface queues (per queue of a TUN).
pub(super) fn set_queue_len(control: BorrowedFd<'_>, name: &str, len: u16) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name)?;
    request.value.number = c_int::from(len);
    request.ioctl(control, libc::SIOCSIFTXQLEN)
}

/// Brings the interface up.
pub(super) fn set_up(control: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name)?;
    request.ioctl(control, libc::SIOCGIFFLAGS)?;
    // SAFETY: SIOCGIFFLAGS has just written this member.
    let flags = unsafe { request.value.flags };
    request.value.flags = flags | libc::IFF_UP as c_short;
    request.ioctl(control, libc::SIOCSIFFLAGS)
}

/// The interface's kind of link, an `ARPHRD_` number.
pub(super) fn hardware_type(control: BorrowedFd<'_>, name: &str) -> io::Result<u16> {
    let mut request = InterfaceRequest::new(name)?;
    request.ioctl(control, libc::SIOCGIFHWADDR)?;
    // SAFETY: SIOCGIFHWADDR has just written a `struct sockaddr`, which starts with this.
    Ok(unsafe { request.value.hardware })
}

/// Sets a socket option that is an int.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    })
}

/// Sets a socket option that is an array of 32-bit words.
pub(super) fn set_words(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    words: &[u32],
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `words`, which outlive the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            words.as_ptr().cast(),
            size_of_val(words) as libc::socklen_t,
        )
    })
}

/// Attaches a classic BPF program that chooses among the sockets which share `socket`'s address and port (SO_REUSEPORT).
pub(super) fn attach_reuseport_program(
    socket: BorrowedFd<'_>,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the pointer and length describe `program`, whose own pointer and length describe the caller's slice; the kernel copies
    // both during the call and writes to neither.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    })
}

/// Reads a socket option that is an array of 32-bit words.
pub(super) fn get_words(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    words: &mut [u32],
) -> io::Result<()> {
    let mut len = size_of_val(words) as libc::socklen_t;
    // SAFETY: the pointers are to `words`, of which `len` is the size in octets, and to `len`; both outlive the call.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            words.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut len),
        )
    })
}

/// Gives the socket a filter that lets nothing through.
pub(super) fn refuse_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: std::ptr::from_mut(&mut nothing) };
    // SAFETY: the pointer and length describe `program`, and it one instruction; both outlive the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
}

/// Waits until one of `set` is as wanted, a signal comes or `timeout` is over.
pub(super) fn poll(set: &mut [libc::pollfd], timeout: std::time::Duration) -> io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let count = set.len() as libc::nfds_t;
    // SAFETY: pointer and count describe `set`, and the timeout outlives the call; no signal mask is passed.
    let result =
        unsafe { libc::ppoll(set.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) };
    match check(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

/// A `struct msghdr` of nothing.
pub(super) fn empty_message() -> libc::msghdr {
    // SAFETY: all fields are integers and raw pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Zeroed, page-aligned memory that stays where it is; pages exist once touched.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a Region owns its mapping like a Box owns its allocation; nothing in it is bound to a thread.
unsafe impl Send for Region {}

impl Region {
    /// `len` octets; must not be 0.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The first octet; valid for `len` octets as long as the Region lives.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are what mmap returned and was given, unmapped only here.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// What the last system call said.
pub(super) fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
