//! What a proxy does when it cannot serve what it attracts: it attracts nothing (PI-16). The TUN, and with it every announced route, goes
//! with a process whose data path is gone; here is what the process itself sees.
use super::Daemon;
use crate::config::Role;
use mapping::recorder::Told;
use std::time::{Duration, Instant};

/// The announced routes, and why they may not be there.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Withdrawn since then, for this reason.
    withdrawn: Option<(Instant, &'static str)>,
    /// When the kernel refused to put them back, the next try.
    retry: Option<Instant>,
    /// Withdrawn for good: the process ends then.
    end: Option<Instant>,
}

/// Between two tries to announce again what the kernel refused.
const RETRY: Duration = Duration::from_secs(1);

impl Announcement {
    /// Whether the routes are not to be there now.
    pub(super) const fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_some()
    }

    /// When the process ends, if it drains.
    pub(super) const fn end(&self) -> Option<Instant> {
        self.end
    }

    /// For `show status`.
    pub(super) fn note(&self, now: Instant) -> Option<String> {
        if let Some(end) = self.end {
            let seconds = end.saturating_duration_since(now).as_secs_f32().ceil();
            return Some(format!(
                "Draining: the EID aggregates are withdrawn, what still comes is forwarded for {seconds} s."
            ));
        }
        let (since, why) = self.withdrawn?;
        let seconds = now.saturating_duration_since(since).as_secs();
        Some(format!("The EID aggregates are not announced, for {seconds} s now: {why}."))
    }
}

impl Daemon {
    /// Whether the announced routes are to be withdrawn when something is wrong for long.
    pub(super) fn watches_health(&self) -> bool {
        let host = &self.config.host;
        self.config.control.role == Role::Proxy
            && host.withdraw_after.is_some()
            && !host.announce.is_empty()
    }

    /// Withdraws the announced routes, or announces them again.
    pub(super) async fn watch_health(&mut self, now: Instant) {
        let after = self.config.host.withdraw_after.filter(|_| self.watches_health());
        if self.announcement.end.is_some() {
            return;
        }
        // Nobody wants them withdrawn any more: no trouble.
        let trouble = after.and_then(|after| Some((after, self.trouble(now)?)));
        match (trouble, self.announcement.withdrawn) {
            (Some((after, (since, why))), None)
                if now.saturating_duration_since(since) >= after =>
            {
                tracing::warn!("the EID aggregates are announced no longer: {why}");
                self.record.tell(Told::error("aggregates-withdrawn", "", why));
                self.announcement.withdrawn = Some((now, why));
                self.routing.withdraw().await;
            }
            (Some((_, (_, why))), Some((since, _))) => {
                self.announcement.withdrawn = Some((since, why));
            }
            (None, Some(_)) if self.announcement.retry.is_none_or(|retry| retry <= now) => {
                let tun = self.engine.tun_index();
                match self.routing.announce(&self.config.host, tun).await {
                    Ok(()) => {
                        tracing::info!("the EID aggregates are announced again");
                        self.record.tell(Told::info(
                            "aggregates-announced",
                            "",
                            "the trouble is over",
                        ));
                        self.announcement = Announcement::default();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the EID aggregates cannot be announced again");
                        self.announcement.retry = Some(now + RETRY);
                    }
                }
            }
            _ => {}
        }
    }

    /// Begins to end: withdraws what is announced, so that routers elsewhere find another way, and has what they still send until then
    /// forwarded. `false` if nobody sends here, or is to be waited for.
    pub(super) async fn drain(&mut self, now: Instant) -> bool {
        let host = &self.config.host;
        let attracts = self.config.control.role == Role::Proxy
            && !host.announce.is_empty()
            && !self.announcement.is_withdrawn();
        if !attracts || host.drain.is_zero() {
            return false;
        }
        let drain = host.drain;
        tracing::info!(?drain, "the EID aggregates are withdrawn; what still comes is forwarded");
        self.record.tell(Told::info("draining", "", "the daemon is being stopped"));
        if let Err(error) = self.routing.drain(host, self.engine.tun_index()).await {
            tracing::warn!(%error, "what still comes is not forwarded");
        }
        self.announcement.end = Some(now + drain);
        true
    }

    /// What keeps packets for the aggregates from being served, and since when.
    fn trouble(&self, now: Instant) -> Option<(Instant, &'static str)> {
        if self.watch.missing.len() >= self.config.control.rlocs.len() {
            return Some((self.watch.own_up_at, "no own RLOC has its address and its link"));
        }
        let silent = self.control.resolvers_silent_since(now)?;
        Some((silent, "no Map-Resolver answers"))
    }
}
