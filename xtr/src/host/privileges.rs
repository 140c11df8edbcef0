//! Who the process is, and what it may do: as root it can become a user of its own that keeps nothing but a few capabilities.
//!
//! Of the data plane, CAP_NET_ADMIN is for the tunnel device, routes, rules and interface switches, CAP_NET_RAW for ICMP, ARP and packet sockets,
//! CAP_BPF for the program of `intake = "ring"`.
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the kernel makes tunnel devices.
const TUN: &str = "/dev/net/tun";
/// More than any data plane opens.
const DESCRIPTORS: u64 = 65_536;

/// What a tunnel router needs, to begin with.
pub const OF_ROUTER: Needs = Needs(
    CapabilitySet::NET_ADMIN.bits() | CapabilitySet::NET_RAW.bits() | CapabilitySet::BPF.bits(),
);
/// The same without the program of `intake = "ring"`.
pub const WITHOUT_RING: Needs =
    Needs(CapabilitySet::NET_ADMIN.bits() | CapabilitySet::NET_RAW.bits());
/// What a Map-Server needs.
pub const OF_MAP_SERVER: Needs = Needs(0);

/// Capabilities, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(u64);

impl Needs {
    const fn set(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.0)
    }
}

/// Has the process be `user` from now on, with these capabilities and no other, for good. `directory` (of the admin socket) is made for that
/// user if it is not there. Must be called while the process has one thread.
///
/// # Errors
/// There is no such user, or the process is not root; else what the kernel said. Then it must not go on.
pub fn become_user(user: &str, needs: Needs, directory: Option<&Path>) -> io::Result<()> {
    let named =
        |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let known = User::from_name(user)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no user {user} on this host"))
    })?;
    if known.uid == Uid::effective() {
        return keep_only(needs);
    }
    if !Uid::effective().is_root() {
        let text = format!("only root can become the user {user}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if let Some(directory) = directory {
        give(directory, &known).map_err(|e| named(&directory.display().to_string(), e))?;
    }
    if needs != OF_MAP_SERVER {
        open_to_all(Path::new(TUN));
    }
    // As far as the host lets us; what is missing shows when it is needed.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS);
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !needs.set().contains(one) && remove_capability_from_bounding_set(one).is_err() {
            // Beyond the last that the kernel knows.
            break;
        }
    }
    let groups = |gid: Gid| setgroups(&[gid]).and_then(|()| setresgid(gid, gid, gid));
    groups(known.gid).map_err(|e| named("change the group", e.into()))?;
    nix::sys::prctl::set_keepcaps(true)?;
    setresuid(known.uid, known.uid, known.uid).map_err(|e| named("change the user", e.into()))?;
    keep_only(needs)?;
    // What another user's process may be, and what this one was before the change: /proc shows its own state to it.
    nix::sys::prctl::set_dumpable(true)?;
    Ok(())
}

/// Gives up every capability but these; those that are missing stay so. Must be called while the process has one thread.
///
/// # Errors
/// What the kernel said.
pub fn keep_only(needs: Needs) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & needs.set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    Ok(set_no_new_privs(true)?)
}

/// Whether the process runs as root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// As udev has it: whoever opens the device still needs CAP_NET_ADMIN. Where it cannot be changed, opening it says so.
fn open_to_all(device: &Path) {
    let Ok(metadata) = std::fs::metadata(device) else { return };
    let mut permissions = metadata.permissions();
    if permissions.mode() & 0o006 != 0o006 {
        permissions.set_mode(0o666);
        let _ = std::fs::set_permissions(device, permissions);
    }
}

/// Makes the directory if it is not there. One of root's becomes the user's.
fn give(directory: &Path, user: &User) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::os::unix::fs::chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}
