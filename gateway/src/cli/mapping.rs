//! `isthmus mapping`.

use std::io;

use ::mapping::daemon::run as run_mapping;
use clap::Args;

use super::{Failure, daemon};
use crate::config::RoleConfig;

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
    let daemon::Prepared { config, service, .. } = daemon::prepare(&args.daemon, "mapping")?;
    let RoleConfig::Mapping(mut config) = config else {
        return Err(Failure::Failed("the configuration is of another role".to_owned()));
    };
    if args.start_empty && config.state_dir.is_none() {
        let text = "--start-empty is for a configuration with `state-dir`".to_owned();
        return Err(Failure::Usage(text));
    }
    config.start_empty = args.start_empty;
    daemon::run(&args.daemon, "mapping", &service, |around| async move {
        run_mapping(*config, around.requests, around.shutdown, around.ready).await.map_err(
            |error| match error.kind() {
                // The state directory cannot be one.
                io::ErrorKind::InvalidInput => Failure::Misfit(error.to_string()),
                _ => daemon::io_failure(&error),
            },
        )
    })
}
