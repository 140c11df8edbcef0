//! Looks after the routes and rules of the host.
use super::Daemon;
use mapping::recorder::Told;
use std::time::{Duration, Instant};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// When to look next, and whether the kernel refused something the last time.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    due: Option<Instant>,
    is_refused: bool,
}

impl Daemon {
    /// Puts back routes and rules that somebody took out.
    pub(super) async fn look_after_routing(&mut self, now: Instant) {
        if self.upkeep.due.is_some_and(|due| now < due) {
            return;
        }
        self.upkeep.due = Some(now + INTERVAL);
        match self.routing.mend().await {
            Ok(mended) => {
                self.upkeep.is_refused = false;
                if mended > 0 {
                    tracing::warn!(mended, "routes or rules of ours were gone; they are back");
                    let what = format!("{mended} were gone, and are back");
                    self.record.tell(Told::warning("routing-restored", "routes and rules", &what));
                }
            }
            Err(error) if !self.upkeep.is_refused => {
                self.upkeep.is_refused = true;
                tracing::warn!(%error, "routes or rules of ours are gone");
                let what = error.to_string();
                self.record.tell(Told::error("routing-gone", "routes and rules", &what));
            }
            Err(_) => {}
        }
    }
}
