//! A process that gives way to the next one, and one that follows it.
//!
//! What is announced, the rules and the TUN stay: routing daemons notice nothing, and what comes for an EID meanwhile waits in the TUN. An
//! xTR stays registered. That needs somebody who holds the TUN between the two, and lets go of it if no next one comes: the
//! service manager. Without one, the routes go with this process as in any other end.
use super::{Daemon, unix_nanos};
use crate::host::checkpoint;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Gives a queue of the TUN to whoever keeps it for the next process; whether that succeeded.
pub type Keep = Box<dyn FnOnce(OwnedFd) -> bool + Send>;

/// How a tunnel router is to end.
pub enum End {
    /// For good: it drains, withdraws and deregisters.
    Stop,
    /// The next process is about to follow.
    Restart(Keep),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "Stop",
            Self::Restart(_) => "Restart",
        })
    }
}

/// The process before.
#[derive(Debug, Default)]
pub enum Predecessor {
    /// None, or it left nothing but what is in `state-dir`.
    #[default]
    None,
    /// It gave way, and left this queue of its TUN.
    GaveWay(OwnedFd),
}

impl Predecessor {
    pub(super) fn into_queue(self) -> Option<OwnedFd> {
        match self {
            Self::None => None,
            Self::GaveWay(queue) => Some(queue),
        }
    }
}

impl Daemon {
    /// Ends without a word to anybody, if somebody keeps the TUN.
    pub(super) async fn give_way(mut self, keep: Keep) {
        self.close_map_cache();
        let kept = self.engine.spare_queue().is_ok_and(keep);
        if kept {
            tracing::info!("the tunnel device and its routes wait for the next process");
        } else {
            tracing::warn!(
                "nobody keeps the tunnel device for the next process: the routes go, and come back with it"
            );
            self.routing.remove().await;
        }
        if let Some(lan) = self.lan.take() {
            lan.finish().await;
        }
        self.close().await;
    }

    /// Keeps the map-cache for the next process, before the end.
    pub(super) fn close_map_cache(&mut self) {
        let control = &self.control;
        let mappings = || control.kept_mappings(Instant::now(), checkpoint::MOST);
        self.checkpoint.close(Duration::from_nanos(unix_nanos()), mappings);
    }

    /// Keeps the map-cache for the next process now and then, if it changed.
    pub(super) fn keep_map_cache(&mut self, now: Instant) {
        if !self.checkpoint.is_due(now) {
            return;
        }
        let (changed, mark) = self.control.mappings_changed(self.kept_mark);
        if changed {
            self.kept_mark = mark;
            let mappings = self.control.kept_mappings(now, checkpoint::MOST);
            self.checkpoint.keep(Duration::from_nanos(unix_nanos()), mappings);
        }
    }
}
