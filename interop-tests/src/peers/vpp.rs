//! VPP with its LISP plugin.

use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;

use super::process::Process;
use super::{Peer, executable};
use crate::matrix::plan::{Plan, Role};

pub(super) struct Vpp;

impl Peer for Vpp {
    fn name(&self) -> &'static str {
        "vpp"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_VPP"
    }

    fn locate(&self, said: Option<&Path>) -> Option<PathBuf> {
        executable(said, "vpp")
    }

    fn how_to_provide(&self) -> &'static str {
        "build VPP (fd.io) up to 25.02 with its LISP plugin and set ISTHMUS_VPP=/path/to/vpp"
    }

    fn plays(&self, role: Role) -> bool {
        matches!(role, Role::Site(_))
    }

    fn start(&self, _: &Path, _: &Namespace, _: Role, _: &Plan) -> io::Result<Process> {
        Err(io::Error::other("written, but never seen to work"))
    }
}
