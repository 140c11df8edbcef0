//! SIGUSR1: everything that `show` would say, to the log.

use mapping::admin::{Query, Request};
use tokio::sync::mpsc;

use super::render;
use crate::admin::server;

/// What is asked of the daemon; what its role does not know is left out. Of long lists, the first part.
const QUESTIONS: [(Query, &str); 15] = [
    (Query::Status, "status"),
    (Query::Interfaces, "interfaces"),
    (Query::Sites, "sites"),
    (Query::Registrations, "registrations"),
    (Query::Refusals, "refused registrations"),
    (Query::Subscriptions, "subscriptions"),
    (Query::Locators, "locators"),
    (Query::Mobility, "mobility"),
    (Query::Nat, "nat"),
    (Query::Referrals, "referrals"),
    (Query::Delegations, "delegations"),
    (Query::Traffic, "traffic"),
    (Query::Drops, "drops"),
    (Query::Counters, "counters"),
    (Query::MapCache, "map-cache"),
];

/// Logs the state of the daemon behind `requests`.
pub(crate) async fn log_state(requests: mpsc::Sender<Request>) {
    for (query, name) in QUESTIONS {
        let Ok(part) = server::ask_part(query.clone(), None, &requests).await else { continue };
        match render::view(&query, part.view) {
            Ok(text) => log_text(name, &text),
            Err(error) => tracing::warn!(%error, "{name} cannot be logged"),
        }
        if let Some(next) = part.next {
            tracing::info!(what = name, "more follow, from {next} on: isthmus show {name}");
        }
    }
    tracing::info!("that was the state");
}

/// Logs a text, a line per line.
pub(crate) fn log_text(what: &str, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        tracing::info!(what, "{line}");
    }
}
