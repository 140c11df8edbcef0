//! `isthmus mapping`.

use std::io;

use ::mapping::daemon::{Reload, run_reloadable};
use clap::Args;

use super::lifecycle::Role;
use super::{Failure, daemon};
use crate::config::{self, RoleConfig};

/// How a Map-Server and Map-Resolver is run.
#[derive(Debug, Args)]
pub(crate) struct MappingArgs {
    #[command(flatten)]
    daemon: daemon::DaemonArgs,
    /// If the state in `state-dir` is damaged, rename it and start with none; without this the daemon refuses to start
    #[arg(long)]
    start_empty: bool,
}

/// Runs the Map-Server and Map-Resolver.
pub(crate) fn run(args: &MappingArgs) -> Result<(), Failure> {
    let prepared = daemon::prepare(&args.daemon, "mapping")?;
    let start_empty = args.start_empty;
    if let RoleConfig::Mapping(config) = &prepared.config
        && start_empty
        && config.state_dir.is_none()
    {
        let text = "--start-empty is for a configuration with `state-dir`".to_owned();
        return Err(Failure::Usage(text));
    }
    let role = Role {
        name: "mapping",
        changeable: config::OF_MAPPING,
        order: |config, reply| match config {
            RoleConfig::Mapping(config) => Some(Reload { config, reply }),
            _ => None,
        },
    };
    daemon::run(&args.daemon, prepared, role, |config, around, reloads| async move {
        let RoleConfig::Mapping(mut config) = config else {
            return Err(daemon::of_another_role());
        };
        config.start_empty = start_empty;
        let daemon::Surroundings { requests, shutdown, ready, .. } = around;
        // A restart is an end: what is registered is in `state-dir`.
        let shutdown = async { drop(shutdown.await) };
        run_reloadable(*config, requests, reloads, shutdown, ready).await.map_err(|error| {
            match error.kind() {
                // The state directory cannot be one.
                io::ErrorKind::InvalidInput => Failure::Misfit(error.to_string()),
                _ => daemon::io_failure(&error),
            }
        })
    })
}
