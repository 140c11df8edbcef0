//! VPP with its LISP plugin: not run yet.

use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;

use super::Peer;
use super::process::Process;
use crate::matrix::plan::{Plan, Role};

pub(super) struct Vpp;

impl Peer for Vpp {
    fn name(&self) -> &'static str {
        "vpp"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_VPP"
    }

    fn locate(&self, _: Option<&Path>) -> Option<PathBuf> {
        None
    }

    fn how_to_provide(&self) -> &'static str {
        "its adapter runs nothing yet: no build of VPP with the LISP plugin was at hand"
    }

    fn start(&self, _: &Path, _: &Namespace, _: Role, _: &Plan) -> io::Result<Process> {
        Err(io::Error::other(self.how_to_provide()))
    }
}
