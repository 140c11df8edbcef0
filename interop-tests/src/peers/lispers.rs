//! lispers.net: not run yet.

use std::io;
use std::path::{Path, PathBuf};

use gateway::lab::namespace::Namespace;

use super::Peer;
use super::process::Process;
use crate::matrix::plan::{Plan, Role};

pub(super) struct LispersNet;

impl Peer for LispersNet {
    fn name(&self) -> &'static str {
        "lispers.net"
    }

    fn variable(&self) -> &'static str {
        "ISTHMUS_LISPERS"
    }

    fn locate(&self, _: Option<&Path>) -> Option<PathBuf> {
        None
    }

    fn how_to_provide(&self) -> &'static str {
        "its adapter runs nothing yet"
    }

    fn plays(&self, _: Role) -> bool {
        false
    }

    fn start(&self, _: &Path, _: &Namespace, _: Role, _: &Plan) -> io::Result<Process> {
        Err(io::Error::other(self.how_to_provide()))
    }
}
