//! `isthmus xtr`.

use ::xtr::daemon::{DaemonError, run as run_router};
use ::xtr::policy::SitePolicy;

use super::{Failure, daemon};
use crate::config::RoleConfig;

/// Runs a site's tunnel router.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let RoleConfig::Xtr(config) = daemon::prepare(args, "xtr")? else {
        return Err(Failure::Failed("the configuration is of another role".to_owned()));
    };
    let policy = SitePolicy::new(&config.control.eids);
    daemon::run(args, "xtr", |around| async move {
        run_router(*config, policy, around.requests, around.shutdown, around.ready)
            .await
            .map_err(|error| failure(&error))
    })
}

/// A tunnel router's end, by what the operator can do about it.
pub(super) fn failure(error: &DaemonError) -> Failure {
    match error {
        DaemonError::MissingPrivilege(_) => Failure::NoPrivilege(error.to_string()),
        DaemonError::Configuration(_) => Failure::Misfit(error.to_string()),
        DaemonError::Runtime(_) => Failure::Failed(error.to_string()),
    }
}
