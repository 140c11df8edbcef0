//! Programs that can play a role in a network of the matrix: this product, and other implementations of LISP.
//!
//! Another implementation is found by an environment variable or in `PATH` and run as it is: nothing of it is in this
//! repository, and the configurations it gets are written here.

mod isthmus;
mod lispers;
mod oor;
mod process;
mod vpp;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;
pub use process::Process;

use crate::daemon::Daemon;
use crate::matrix::plan::{Family, Plan, Role};

/// A program of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// This product.
    Isthmus,
    /// Open Overlay Router.
    Oor,
    /// lispers.net.
    LispersNet,
    /// VPP with its LISP plugin.
    Vpp,
}

/// Another implementation: where it is, what it can do, how it is run.
trait Peer: Sync {
    /// As in the table; also the name of its profile in our configuration.
    fn name(&self) -> &'static str;

    /// The environment variable that says where it is.
    fn variable(&self) -> &'static str;

    /// Its executable in `PATH`, or a file that must be in the directory that [`Self::variable`] names.
    fn locate(&self, said: Option<&Path>) -> Option<PathBuf>;

    /// How to get it, for whoever does not have it.
    fn how_to_provide(&self) -> &'static str;

    /// What it is known not to do in a role of such a network: carry `inner` through its core.
    fn limitation(&self, _plan: &Plan, _role: Role, _inner: Family) -> Option<&'static str> {
        None
    }

    /// Whether it answers RLOC-probes in such a core.
    fn answers_probes(&self, _core: Family) -> bool {
        true
    }

    /// Whether its Map-Registers are signed.
    fn signs(&self) -> bool {
        true
    }

    /// Starts it and waits until it is ready to talk.
    fn start(
        &self,
        place: &Path,
        namespace: &Namespace,
        role: Role,
        plan: &Plan,
    ) -> io::Result<Process>;
}

/// A program that runs; dropping it ends it.
pub enum Running {
    /// A daemon of ours, which can be asked.
    Isthmus(Daemon),
    /// Another implementation.
    Foreign(Process),
}

impl Running {
    /// What it logged.
    pub fn log(&self) -> String {
        match self {
            Self::Isthmus(daemon) => daemon.log(),
            Self::Foreign(process) => process.log(),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.peer().map_or("isthmus", Peer::name))
    }
}

impl Program {
    /// Whether it is there; otherwise prints how to provide it.
    pub fn or_skip(self) -> bool {
        let Some(peer) = self.peer() else { return true };
        let found = locate(peer).is_some();
        if !found {
            println!("SKIP peer {}: {}", peer.name(), peer.how_to_provide());
        }
        found
    }

    /// What it is known not to do in a role of such a network: carry `inner` through its core.
    pub(crate) fn limitation(self, plan: &Plan, role: Role, inner: Family) -> Option<&'static str> {
        self.peer()?.limitation(plan, role, inner)
    }

    /// Whether it answers RLOC-probes in such a core.
    pub(crate) fn answers_probes(self, core: Family) -> bool {
        self.peer().is_none_or(|peer| peer.answers_probes(core))
    }

    /// Whether its Map-Registers are signed.
    pub(crate) fn signs(self) -> bool {
        self.peer().is_none_or(Peer::signs)
    }

    /// The profile that our configuration needs for it, and the Key ID it uses.
    pub(crate) fn profile(self) -> (&'static str, u8) {
        self.peer().map_or(("rfc9301", 1), |peer| (peer.name(), 0))
    }

    /// Starts it in a role and waits until it is ready to talk.
    pub(crate) fn start(
        self,
        namespace: &Namespace,
        role: Role,
        plan: &Plan,
    ) -> io::Result<Running> {
        let Some(peer) = self.peer() else {
            return isthmus::start(namespace, role, plan).map(Running::Isthmus);
        };
        let place = locate(peer).ok_or_else(|| io::Error::other(peer.how_to_provide()))?;
        peer.start(&place, namespace, role, plan).map(Running::Foreign)
    }

    fn peer(self) -> Option<&'static dyn Peer> {
        match self {
            Self::Isthmus => None,
            Self::Oor => Some(&oor::Oor),
            Self::LispersNet => Some(&lispers::LispersNet),
            Self::Vpp => Some(&vpp::Vpp),
        }
    }
}

pub use isthmus::xtr as xtr_configuration;

fn locate(peer: &dyn Peer) -> Option<PathBuf> {
    let said = std::env::var_os(peer.variable()).map(PathBuf::from);
    peer.locate(said.as_deref())
}

/// A program by what was said about it, or in `PATH`.
fn executable(said: Option<&Path>, name: &str) -> Option<PathBuf> {
    if let Some(said) = said {
        return said.is_file().then(|| said.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}
