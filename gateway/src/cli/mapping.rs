//! `isthmus mapping`.

use ::mapping::daemon::run as run_mapping;

use super::{Failure, daemon};
use crate::config::RoleConfig;

/// Runs the Map-Server and Map-Resolver.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let RoleConfig::Mapping(config) = daemon::prepare(args, "mapping")? else {
        return Err(Failure::Failed("the configuration is of another role".to_owned()));
    };
    daemon::run(args, "mapping", |around| async move {
        run_mapping(*config, around.requests, around.shutdown, around.ready)
            .await
            .map_err(|error| daemon::io_failure(&error))
    })
}
