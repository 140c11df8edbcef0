//! `isthmus gateway`.

use ::xtr::config::RouterConfig;
use ::xtr::daemon::Reload;

use super::lifecycle::Role;
use super::{Failure, daemon};
use crate::config::{self, RoleConfig};
use crate::proxy::ProxyPolicy;

/// Runs the proxy gateway.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let role = Role {
        name: "gateway",
        changeable: config::OF_GATEWAY,
        order: |config, reply| {
            let (config, policy) = read(config)?;
            Some(Reload { config, policy, reply })
        },
    };
    daemon::run_router(args, role, read)
}

fn read(config: RoleConfig) -> Option<(RouterConfig, ProxyPolicy)> {
    match config {
        RoleConfig::Gateway(config) => {
            let policy = ProxyPolicy::new(&config.proxy);
            Some((config.router, policy))
        }
        _ => None,
    }
}
