//! `isthmus gateway`.

use super::{Failure, daemon, reload};
use crate::config::{self, RoleConfig};
use crate::proxy::ProxyPolicy;

/// Runs the proxy gateway.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let read = |config| match config {
        RoleConfig::Gateway(config) => {
            let policy = ProxyPolicy::new(&config.proxy);
            Some((config.router, policy))
        }
        _ => None,
    };
    daemon::run_router(args, "gateway", reload::Role { changeable: config::OF_GATEWAY, read })
}
