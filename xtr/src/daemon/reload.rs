//! Another configuration while packets flow: all of it is taken over, or nothing changes.
use super::lan::Prepared;
use super::start::{names_of, underlay_without_native};
use super::{Daemon, lan};
use crate::config::{GatewayMac, HostConfig, Intake, OwnRloc, RouterConfig};
use crate::host::lan::gateway_mac;
use crate::host::names::Names;
use crate::policy::Policy;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// A configuration to take over. Only what [`ControlPlane::reconfigure`](crate::control::ControlPlane::reconfigure), the policy and
/// the routes and rules of the host depend on may differ from the one before, and no own RLOC.
#[derive(Debug)]
pub struct Reload<P> {
    /// The configuration.
    pub config: RouterConfig,
    /// Its admission rules.
    pub policy: P,
    /// What became of it: an error says what cannot change, and then nothing has.
    pub reply: oneshot::Sender<Result<(), String>>,
}

impl Daemon {
    /// Takes over what differs; `policy` is the one in force, before and after.
    pub(super) async fn reload<P: Policy>(&mut self, policy: &mut Arc<P>, reload: Reload<P>) {
        let Reload { config, policy: wanted, reply } = reload;
        let outcome = self.take_over(policy, Arc::new(wanted), config).await;
        // Whoever asked may be gone by now.
        let _ = reply.send(outcome);
    }

    /// Gateways that are new are there before anything leads to them, those that go stay until nothing does.
    async fn take_over<P: Policy>(
        &mut self,
        policy: &mut Arc<P>,
        wanted: Arc<P>,
        mut config: RouterConfig,
    ) -> Result<(), String> {
        check_fixed(&self.config, &config)?;
        if policy.checks_registration() != wanted.checks_registration() {
            return Err(format!("whether sources must be registered {RESTART}"));
        }
        let before: Vec<u32> = self.gateways.links().iter().map(|link| link.index).collect();
        let gateways = config.host.gateways.clone();
        let outcome = match self.add_gateways(&gateways).await {
            Ok(()) => {
                lan::include(&self.gateways, &mut config);
                self.take_over_rest(policy, wanted, config).await
            }
            Err(error) => Err(error.to_string()),
        };
        let kept = self.config.host.gateways.clone();
        if outcome.is_err()
            && let Err(again) = self.put_back(&kept, &before).await
        {
            tracing::error!(error = %again, "the gateways could not be put back");
        }
        self.gateways.shrink_to(&kept).await;
        outcome
    }

    /// The gateways that were there, which hosts are reached by; `before` are the indexes that they had.
    async fn put_back(&mut self, kept: &[GatewayMac], before: &[u32]) -> io::Result<()> {
        self.gateways.extend_to(kept).await?;
        if let Some(lan) = &mut self.lan
            && self.gateways.of(kept).map(|link| link.index).ne(before.iter().copied())
        {
            let wanted = lan::lan_config(&self.config.host);
            let setup = lan.prepare(&wanted, &self.gateways).await?;
            lan.renew(setup).await;
        }
        Ok(())
    }

    async fn add_gateways(&mut self, wanted: &[GatewayMac]) -> io::Result<()> {
        gateway_mac::check(&self.netlink.handle(), wanted).await?;
        self.gateways.extend_to(wanted).await
    }

    /// What is to go from the host's routing goes while the data plane still takes it, what is new comes when it takes it already: so
    /// no packet finds one without the other.
    async fn take_over_rest<P: Policy>(
        &mut self,
        policy: &mut Arc<P>,
        wanted: Arc<P>,
        config: RouterConfig,
    ) -> Result<(), String> {
        check_ring(&self.config, &config)?;
        let refused = underlay_without_native(&self.netlink, &config).await;
        let refused = refused.map_err(|error| error.to_string())?;
        let tun = self.engine.tun_index();
        let on = (&self.netlink, &self.gateways, tun);
        let links = lan::prepare(self.lan.as_ref(), on, (&self.config, &config)).await;
        let links = links.map_err(|error| error.to_string())?;
        self.routing.shrink_to(&config.host, tun, &refused).await;
        self.engine.replace_policy(Arc::clone(&wanted));
        if let Err(error) = self.route(&config.host, &refused).await {
            self.routing.shrink_to(&self.config.host, tun, &refused).await;
            self.engine.replace_policy(Arc::clone(policy));
            let before = self.config.host.clone();
            if let Err(again) = self.route(&before, &refused).await {
                tracing::error!(error = %again, "what was routed before could not be put back");
            }
            if let Prepared::First(lan) = links {
                lan.finish().await;
            }
            return Err(error.to_string());
        }
        *policy = wanted;
        let mut last = None;
        match links {
            Prepared::Same => {}
            Prepared::First(lan) => self.lan = Some(lan),
            Prepared::Other(setup) => {
                if let Some(lan) = &mut self.lan {
                    lan.renew(setup).await;
                }
            }
            Prepared::Last => last = self.lan.take(),
        }
        let now = Instant::now();
        let names = names_of(&config);
        if names != names_of(&self.config) {
            self.names = Names::follow(&names);
        }
        self.control.reconfigure(now, &config.control);
        self.control.set_dynamic_ranges(now, &config.host.ranges);
        self.config = config;
        self.take_health(now, &refused).await;
        self.carry_out();
        if let Some(lan) = last {
            lan.finish().await;
        }
        Ok(())
    }

    /// Whether, and how soon, the announced routes are withdrawn may be said otherwise now.
    async fn take_health(&mut self, now: Instant, refused: &BTreeSet<String>) {
        if self.watches_health() {
            return self.control.watch_resolvers(now);
        }
        self.control.forget_resolvers();
        if self.announcement.is_withdrawn() && self.announcement.end().is_none() {
            let withdrawn = std::mem::take(&mut self.announcement);
            let host = self.config.host.clone();
            if let Err(error) = self.route(&host, refused).await {
                tracing::error!(%error, "the EID aggregates cannot be announced again yet");
                self.announcement = withdrawn;
            }
        }
    }

    /// Installs what is not there yet; what is withdrawn for want of health stays so.
    async fn route(&mut self, host: &HostConfig, refused: &BTreeSet<String>) -> io::Result<()> {
        let tun = self.engine.tun_index();
        self.routing.extend_to(host, tun, refused).await?;
        if self.announcement.is_withdrawn() {
            Ok(())
        } else {
            self.routing.announce(host, tun).await
        }
    }
}

const RESTART: &str =
    "cannot change while the daemon runs; restart it, or take the change back and reload";

/// What the sockets and rings of the data plane were opened for must be the same.
fn check_fixed(before: &RouterConfig, after: &RouterConfig) -> Result<(), String> {
    check_rlocs(&before.control.rlocs, &after.control.rlocs)?;
    if before.data.rlocs != after.data.rlocs {
        return Err(format!("the order of the own RLOCs {RESTART}"));
    }
    let by_ring = matches!(before.data.intake, Intake::Ring(_));
    if by_ring && before.host.gateways != after.host.gateways {
        return Err(format!("with intake = \"ring\", gateways of [[dynamic-eid]] {RESTART}"));
    }
    Ok(())
}

/// The rings select by what they were opened for.
fn check_ring(before: &RouterConfig, after: &RouterConfig) -> Result<(), String> {
    let by_ring = matches!(before.data.intake, Intake::Ring(_));
    if by_ring && before.data.intake != after.data.intake {
        return Err(format!("with intake = \"ring\", EID-prefixes and interfaces {RESTART}"));
    }
    Ok(())
}

/// The addresses of the own RLOCs are the same, whatever their names.
fn check_rlocs(before: &[OwnRloc], after: &[OwnRloc]) -> Result<(), String> {
    let stranger = |these: &[OwnRloc], those: &[OwnRloc]| {
        let is_new = |rloc: &&OwnRloc| those.iter().all(|other| other.address != rloc.address);
        these.iter().find(is_new).cloned()
    };
    match stranger(after, before).or_else(|| stranger(before, after)) {
        Some(OwnRloc { name, address, .. }) => {
            Err(format!("the address of rlocs.{name}, {address}, {RESTART}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_rloc_cannot_change_and_is_named() {
        let rloc = |name, address: &str| OwnRloc::new(name, address.parse().unwrap(), 1, 50);
        let before = [rloc("p", "192.0.2.1"), rloc("q", "192.0.2.2")];
        let weighed = [rloc("first", "192.0.2.1"), OwnRloc { weight: 70, ..before[1].clone() }];
        assert_eq!(check_rlocs(&before, &weighed), Ok(()));
        let moved = [rloc("p", "192.0.2.1"), rloc("q", "192.0.2.3")];
        let error = check_rlocs(&before, &moved).unwrap_err();
        assert!(error.starts_with("the address of rlocs.q, 192.0.2.3, cannot change"), "{error}");
        let error = check_rlocs(&before, &before[..1]).unwrap_err();
        assert!(error.starts_with("the address of rlocs.q, 192.0.2.2, cannot change"), "{error}");
    }
}
