//! Getting the right to make network namespaces: as root directly, otherwise through a user namespace of one's own.

use std::fs::{self, OpenOptions};
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};

/// Why the lab cannot run here, for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPrivilege {
    /// Neither root nor a user namespace.
    #[error(
        "making network namespaces needs root, or user namespaces for ordinary users (unshare: {0}); \
         try sudo, or see kernel.unprivileged_userns_clone, user.max_user_namespaces and \
         kernel.apparmor_restrict_unprivileged_userns"
    )]
    UserNamespace(nix::Error),
    /// The user namespace came without a usable identity.
    #[error("the user namespace could not be set up: {0}")]
    Identity(#[from] io::Error),
    /// Namespaces would be possible, but daemons need TUN devices in them.
    #[error(
        "/dev/net/tun cannot be opened ({0}); the daemons need TUN devices: try sudo, or load the \
         module tun, or give this container the device"
    )]
    Tun(io::Error),
    /// The right is there but the kernel refuses a network namespace.
    #[error("no network namespace could be made: {0}")]
    NetworkNamespace(nix::Error),
}

/// Makes this process able to create network namespaces. Call it while the process has one thread.
///
/// Root keeps its identity. Anyone else enters a new user namespace in which they are root over new network
/// namespaces only.
pub(crate) fn acquire() -> Result<(), NoPrivilege> {
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(NoPrivilege::Tun)?;
    if geteuid().is_root() {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(()),
            Err(nix::Error::EPERM) => {}
            Err(error) => return Err(NoPrivilege::NetworkNamespace(error)),
        }
    }
    enter_user_namespace()
}

fn enter_user_namespace() -> Result<(), NoPrivilege> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(NoPrivilege::UserNamespace)?;
    map_identity(uid, gid)?;
    Ok(())
}

/// `setgroups` must be denied before an ordinary user may write gid_map (user_namespaces(7)).
fn map_identity(uid: Uid, gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
