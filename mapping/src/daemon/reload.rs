//! Another configuration while messages come.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::{ClusterConfig, MappingConfig};
use crate::ddt::DdtConfig;

use super::Daemon;

/// A configuration to take over. What sockets, store and the Delegated Database Tree are made of must be as before.
#[derive(Debug)]
pub struct Reload {
    /// The configuration.
    pub config: Box<MappingConfig>,
    /// What became of it: an error says what cannot change, and then nothing has.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// What cannot change while the daemon runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    listen: Vec<IpAddr>,
    state_dir: Option<PathBuf>,
    cluster: Option<ClusterConfig>,
    ddt: DdtConfig,
}

impl Fixed {
    pub(super) fn of(config: &MappingConfig) -> Self {
        Self {
            listen: config.listen.clone(),
            state_dir: config.state_dir.clone(),
            cluster: config.cluster.clone(),
            ddt: config.ddt.clone(),
        }
    }

    /// The first thing that another configuration has otherwise.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (self.listen == other.listen, "listen"),
            (self.state_dir == other.state_dir, "state-dir"),
            (self.cluster == other.cluster, "what [cluster] says"),
            (self.ddt == other.ddt, "what [ddt] says"),
        ];
        parts.into_iter().find_map(|(same, name)| (!same).then_some(name))
    }
}

impl Daemon {
    /// Takes over what differs.
    pub(super) fn reload(&mut self, now: Instant, reload: Reload) {
        let Reload { config, reply } = reload;
        let outcome = match self.fixed.differs(&Fixed::of(&config)) {
            Some(what) => Err(format!(
                "{what} cannot change while the daemon runs; restart it, or take the change back and reload"
            )),
            None => {
                self.name.clone_from(&config.name);
                self.server.reconfigure(now, *config);
                Ok(())
            }
        };
        // Whoever asked may be gone by now.
        drop(reply.send(outcome));
    }
}
