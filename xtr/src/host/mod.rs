//! The host side: what a tunnel router reads from and writes into the kernel's networking.
//!
//! | file | what |
//! |---|---|
//! | `routing` | routes and rules owned while running, all with protocol 204 |
//! | `underlay` | own addresses, paths to remote RLOCs |
//! | `changes`, `route_filter` | news of links, addresses and the routes that matter |
//! | `sysctl` | switches without which nothing is forwarded |
//! | `sockets` | UDP sockets of the control plane, raw sockets for ICMP errors |
//! | `udp_errors` | datagrams that the kernel refused |
//! | `lan` | hosts of dynamic-EID ranges on the site's links |
//! | `names` | DNS names of peers, resolved and followed |
//! | `doctor` | what of the host keeps a daemon from its work, and what mends it |
//! | `checkpoint` | the map-cache over a restart |
//! | `privileges` | the user and the capabilities of the process |
//! | `nonces` | what makes nonces grow over a restart |
pub mod changes;
pub(crate) mod checkpoint;
pub mod doctor;
pub mod lan;
pub(crate) mod map_versions;
pub mod names;
pub(crate) mod nonces;
pub mod privileges;
mod route_filter;
pub mod routing;
pub mod sockets;
mod state_file;
pub mod sysctl;
pub mod udp_errors;
pub mod underlay;

use std::io;

/// What the kernel refused, with what was being done.
pub(crate) fn netlink_error(what: &str, error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            let kernel = message.to_io();
            io::Error::new(kernel.kind(), format!("{what}: {kernel}"))
        }
        other => io::Error::other(format!("{what}: {other}")),
    }
}

/// Whether the process may change the network and send ICMP: CAP_NET_ADMIN and CAP_NET_RAW are effective. The name of what is missing
/// otherwise.
///
/// # Errors
/// The first missing capability.
pub fn check_privileges() -> Result<(), &'static str> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_NET_RAW: u64 = 1 << 13;
    let effective = capabilities();
    if effective & CAP_NET_ADMIN == 0 {
        Err("CAP_NET_ADMIN")
    } else if effective & CAP_NET_RAW == 0 {
        Err("CAP_NET_RAW")
    } else {
        Ok(())
    }
}

/// The effective capabilities of the process, a bit each.
pub(crate) fn capabilities() -> u64 {
    effective_capabilities(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_process_status() {
        let status = "Name:\tx\nCapPrm:\t00\nCapEff:\t0000000000003000\n";
        assert_eq!(effective_capabilities(status), 0x3000);
        assert_eq!(effective_capabilities(""), 0);
    }
}
