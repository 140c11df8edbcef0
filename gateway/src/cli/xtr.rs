//! `isthmus xtr`.

use ::xtr::daemon::DaemonError;
use ::xtr::policy::SitePolicy;

use super::{Failure, daemon, reload};
use crate::config::{self, RoleConfig};

/// Runs a site's tunnel router.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let read = |config| match config {
        RoleConfig::Xtr(config) => {
            let policy = SitePolicy::new(&config.control.eids).with_ranges(&config.host.ranges);
            Some((*config, policy))
        }
        _ => None,
    };
    daemon::run_router(args, "xtr", reload::Role { changeable: config::OF_XTR, read })
}

/// A tunnel router's end, by what the operator can do about it.
pub(super) fn failure(error: &DaemonError) -> Failure {
    match error {
        DaemonError::MissingPrivilege(_) => Failure::NoPrivilege(error.to_string()),
        DaemonError::Configuration(_) => Failure::Misfit(error.to_string()),
        DaemonError::Runtime(_) => Failure::Failed(error.to_string()),
    }
}
