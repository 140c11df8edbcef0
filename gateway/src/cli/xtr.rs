//! `isthmus xtr`.

use ::xtr::config::RouterConfig;
use ::xtr::daemon::{DaemonError, Reload};
use ::xtr::policy::SitePolicy;

use super::lifecycle::Role;
use super::{Failure, daemon};
use crate::config::{self, RoleConfig};

/// Runs a site's tunnel router.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let role = Role {
        name: "xtr",
        changeable: config::OF_XTR,
        order: |config, reply| {
            let (config, policy) = read(config)?;
            Some(Reload { config, policy, reply })
        },
    };
    daemon::run_router(args, role, read)
}

fn read(config: RoleConfig) -> Option<(RouterConfig, SitePolicy)> {
    match config {
        RoleConfig::Xtr(config) => {
            let policy = SitePolicy::new(&config.control.eids).with_ranges(&config.host.ranges);
            Some((*config, policy))
        }
        _ => None,
    }
}

/// A tunnel router's end, by what the operator can do about it.
pub(super) fn failure(error: &DaemonError) -> Failure {
    match error {
        DaemonError::MissingPrivilege(_) => Failure::NoPrivilege(error.to_string()),
        DaemonError::Configuration(_) => Failure::Misfit(error.to_string()),
        DaemonError::Runtime(_) => Failure::Failed(error.to_string()),
    }
}
