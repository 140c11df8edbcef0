//! What every viewer sees: asked for once a second while there is one, whatever the number of viewers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use mapping::admin::{Query, Request};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use crate::admin::server::{ask, ask_part};
use crate::migration::Report;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two parts of a long list, so that the daemon has its time for itself.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at the interfaces.
const LINKS_INTERVAL: Duration = Duration::from_secs(5);
/// RLOCs shown one by one; of the others, their number.
const MOST_RLOCS: usize = 200;
/// Events shown.
const MOST_EVENTS: usize = 60;

/// The latest look at the daemon, as a message of a stream of events.
#[derive(Debug)]
pub(super) struct Live {
    latest: watch::Sender<Look>,
    came: Notify,
    survey: Mutex<Survey>,
}

/// A look as a message, and when it was; `None` before the first.
pub(super) type Look = Option<(Instant, Bytes)>;

/// What takes a walk through long lists.
#[derive(Debug, Default)]
struct Survey {
    migration: Option<(Value, Instant)>,
    rlocs: Value,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { latest: watch::Sender::new(None), came: Notify::new(), survey: Mutex::default() }
    }

    /// A viewer came.
    pub(super) fn subscribe(&self) -> watch::Receiver<Look> {
        let mut receiver = self.latest.subscribe();
        let is_recent =
            |look: &Look| look.as_ref().is_some_and(|(at, _)| at.elapsed() < 2 * INTERVAL);
        if is_recent(&receiver.borrow_and_update()) {
            receiver.mark_changed();
        }
        self.came.notify_waiters();
        receiver
    }

    /// Looks at the daemon while there are viewers, until it ends.
    pub(super) async fn watch(self: Arc<Self>, questions: mpsc::Sender<Request>) {
        tokio::select! {
            () = questions.closed() => {}
            () = self.look(&questions) => {}
            () = self.walk(&questions) => {}
        }
    }

    async fn viewers(&self) {
        loop {
            let came = self.came.notified();
            if self.latest.receiver_count() > 0 {
                return;
            }
            came.await;
        }
    }

    async fn look(&self, questions: &mpsc::Sender<Request>) {
        let (mut events, mut links) = (Events::default(), Links::default());
        loop {
            self.viewers().await;
            let begun = Instant::now();
            if let Ok(view) = self.view(questions, &mut events, &mut links).await {
                self.latest.send_replace(Some((Instant::now(), message(&view))));
            }
            tokio::time::sleep(INTERVAL.saturating_sub(begun.elapsed())).await;
        }
    }

    async fn view(
        &self,
        questions: &mpsc::Sender<Request>,
        events: &mut Events,
        links: &mut Links,
    ) -> Result<Value, String> {
        let status = ask(Query::Status, questions).await?;
        let role = status["role"].as_str().unwrap_or_default().to_owned();
        events.renew(questions).await?;
        let (rlocs, migration) = {
            let survey = self.survey.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let aged = survey.migration.as_ref().map(
                |(report, at)| json!({"report": report, "age_seconds": at.elapsed().as_secs_f64()}),
            );
            (survey.rlocs.clone(), aged)
        };
        let mut view = json!({
            "unix_milliseconds": unix_milliseconds(),
            "status": status,
            "counters": ask(Query::Counters, questions).await?,
            "drops": ask(Query::Drops, questions).await?,
            "events": events.kept,
            "rlocs": rlocs,
            "migration": migration,
        });
        if role != "mapping" {
            view["interfaces"] = links.renew(questions).await;
        }
        match role.as_str() {
            "mapping" => {
                let metrics = ask(Query::Metrics, questions).await?;
                view["sites"] = sites(&metrics["series"]);
                view["sites_left_out"] = metrics["left_out"].clone();
                view["refusals"] = ask(Query::Refusals, questions).await?;
            }
            "xtr" => view["registrations"] = ask(Query::Registrations, questions).await?,
            _ => {}
        }
        Ok(view)
    }

    /// Walks through long lists, a part at a time.
    async fn walk(&self, questions: &mpsc::Sender<Request>) {
        loop {
            self.viewers().await;
            let begun = Instant::now();
            let rlocs = walk_rlocs(questions).await.unwrap_or_default();
            let migration = walk_migration(questions).await;
            {
                let mut survey =
                    self.survey.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                survey.rlocs = rlocs;
                if let Ok(report) = migration {
                    survey.migration = Some((report, Instant::now()));
                }
            }
            tokio::time::sleep(INTERVAL.saturating_sub(begun.elapsed()).max(PAUSE)).await;
        }
    }
}

async fn walk_migration(questions: &mpsc::Sender<Request>) -> Result<Value, String> {
    let (mut sum, mut after): (Option<Report>, _) = (None, None);
    loop {
        let part = ask_part(Query::Migration, after, questions).await?;
        let parts = Report::of(part.view).map_err(|error| error.to_string())?;
        sum = Some(match sum {
            Some(sum) => sum.plus(parts),
            None => parts,
        });
        match part.next {
            Some(next) => after = Some(next),
            None => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    serde_json::to_value(sum.map(Report::finished)).map_err(|error| error.to_string())
}

/// The RLOCs that somebody should look at, then those that matter most; and how many there are, by state.
async fn walk_rlocs(questions: &mpsc::Sender<Request>) -> Result<Value, String> {
    let mut shown: Vec<Value> = Vec::new();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    let mut after = None;
    loop {
        let part = ask_part(Query::RemoteRlocs, after, questions).await?;
        let Value::Array(views) = part.view else { break };
        for view in &views {
            let state = view["state"].as_str().unwrap_or_default();
            *counted.entry(state.to_owned()).or_default() += 1;
        }
        shown.extend(views);
        shown.sort_by_key(|view| {
            let is_well = matches!(view["state"].as_str(), Some("up" | "unprobed"));
            let uses = view["mappings"].as_u64().unwrap_or_default();
            (is_well, !view["petr"].as_bool().unwrap_or_default(), std::cmp::Reverse(uses))
        });
        shown.truncate(MOST_RLOCS);
        match part.next {
            Some(next) => after = Some(next),
            None => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    let total: u64 = counted.values().sum();
    Ok(json!({"shown": shown, "by_state": counted, "total": total}))
}

/// Interfaces, which the kernel is asked for less often.
#[derive(Default)]
struct Links {
    kept: Value,
    asked: Option<Instant>,
}

impl Links {
    async fn renew(&mut self, questions: &mpsc::Sender<Request>) -> Value {
        if self.asked.is_none_or(|asked| asked.elapsed() >= LINKS_INTERVAL) {
            self.asked = Some(Instant::now());
            self.kept = ask(Query::Interfaces, questions).await.unwrap_or_default();
        }
        self.kept.clone()
    }
}

/// The newest events.
#[derive(Default)]
struct Events {
    kept: Vec<Value>,
    last: Option<u64>,
}

impl Events {
    async fn renew(&mut self, questions: &mpsc::Sender<Request>) -> Result<(), String> {
        let mut news = ask(Query::Events { after: self.last }, questions).await?;
        self.last = news["last"].as_u64().or(self.last);
        if let Value::Array(events) = news["events"].take() {
            self.kept.extend(events);
        }
        self.kept.drain(..self.kept.len().saturating_sub(MOST_EVENTS));
        Ok(())
    }
}

/// What is measured of each site, as one value per site.
fn sites(series: &Value) -> Value {
    let mut sites: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for one in series.as_array().into_iter().flatten() {
        let Some(site) = one["labels"]["site"].as_str() else { continue };
        let metric = one["metric"].as_str().unwrap_or_default();
        let name = metric.trim_start_matches("site_").trim_end_matches("_total");
        let entry = sites.entry(site).or_default();
        entry.insert(name.to_owned(), one["value"].clone());
    }
    let with_name = |(name, mut values): (&str, serde_json::Map<String, Value>)| {
        values.insert("site".to_owned(), name.into());
        Value::Object(values)
    };
    sites.into_iter().map(with_name).collect()
}

fn message(view: &Value) -> Bytes {
    Bytes::from(format!("data: {view}\n\n"))
}

#[expect(clippy::disallowed_methods, reason = "a viewer is told the time of day")]
fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_01_series_of_a_site_are_one_site() {
        let one = |metric, site: &str, value| json!({"metric": metric, "labels": {"site": site}, "value": value});
        let series = json!([
            one("site_registrations", "b", 2.0),
            one("site_registrations", "a", 1.0),
            one("site_records_refused_total", "a", 7.0),
            json!({"metric": "locator_up", "labels": {"rloc": "192.0.2.1"}, "value": 1.0}),
        ]);
        let expected = json!([
            {"site": "a", "registrations": 1.0, "records_refused": 7.0},
            {"site": "b", "registrations": 2.0},
        ]);
        assert_eq!(sites(&series), expected);
    }
}
