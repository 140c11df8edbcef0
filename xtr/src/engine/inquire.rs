//! What the self-diagnosis asks the kernel that no safe crate asks: whether a ring can be made, what an interface merges, whether the clock is set.
#![allow(unsafe_code, reason = "system calls with pointers")]
use super::ring::Ring;
use super::sys::{check, device_name};
use socket2::{Domain, Socket, Type};
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// Makes a ring as a worker does, and lets it go.
///
/// # Errors
/// What the kernel said, unexplained.
pub(crate) fn try_ring() -> io::Result<()> {
    Ring::try_out()
}

/// What an interface does with packets before anybody sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offloads {
    /// Receive offload in software: packets of a flow come as one.
    pub(crate) gro: bool,
    /// Send offload in software.
    pub(crate) gso: bool,
    /// Receive offload in hardware, which may lose what forwarding needs.
    pub(crate) lro: bool,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ifreq` with its pointer member.
#[repr(C)]
struct PointerRequest {
    name: [u8; libc::IFNAMSIZ],
    value: *mut EthtoolValue,
    _rest: [u8; 16],
}

const _: () = assert!(size_of::<PointerRequest>() == size_of::<libc::ifreq>());

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Of the interface `name`.
///
/// # Errors
/// There is none, or it does not tell.
pub(crate) fn offloads(name: &str) -> io::Result<Offloads> {
    let control = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
    let ask = |command| {
        let mut value = EthtoolValue { command, data: 0 };
        let mut request =
            PointerRequest { name: device_name(name)?, value: &raw mut value, _rest: [0; 16] };
        // SAFETY: SIOCETHTOOL takes a struct ifreq, and `request` is laid out as one; these commands write a struct ethtool_value to where it
        // points, which `value` is, and both outlive the call.
        check(unsafe { libc::ioctl(control.as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
        io::Result::Ok(value.data)
    };
    Ok(Offloads {
        gro: ask(ETHTOOL_GGRO)? != 0,
        gso: ask(ETHTOOL_GGSO)? != 0,
        lro: ask(ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0,
    })
}

/// Whether something keeps the clock right; `None` if the kernel does not tell.
pub(crate) fn clock_is_synchronized() -> Option<bool> {
    const TIME_ERROR: c_int = 5;
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: zero is a valid struct timex; with `modes` 0 the call only writes to it.
    let outcome = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    (outcome >= 0).then_some(outcome != TIME_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_tells_what_it_merges_and_nothing_tells_nothing() {
        assert!(offloads("lo").is_ok());
        assert!(offloads("there-is-none0").is_err());
        assert!(offloads("a-name-that-is-longer-than-names-are").is_err());
        assert!(clock_is_synchronized().is_some());
    }
}
