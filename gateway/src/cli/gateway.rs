//! `isthmus gateway`.

use ::xtr::daemon::run as run_router;

use super::{Failure, daemon};
use crate::config::RoleConfig;
use crate::proxy::ProxyPolicy;

/// Runs the proxy gateway.
pub(crate) fn run(args: &daemon::DaemonArgs) -> Result<(), Failure> {
    let RoleConfig::Gateway(config) = daemon::prepare(args, "gateway")? else {
        return Err(Failure::Failed("the configuration is of another role".to_owned()));
    };
    let policy = ProxyPolicy::new(&config.proxy);
    daemon::run(args, "gateway", |around| async move {
        run_router(config.router, policy, around.requests, around.shutdown, around.ready)
            .await
            .map_err(|error| super::xtr::failure(&error))
    })
}
