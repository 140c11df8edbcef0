//! Lists that may be long: a part for each request, looked for by the daemon where it can, else by going through its parts.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use ipnet::IpNet;
use mapping::admin::{PART, Query, Request};
use mapping::eid::{EidPrefix, InstanceId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::admin::server::{ask, ask_part};

/// Parts looked through for one request; the answer says where to go on.
const PARTS: usize = 12;
/// Between two parts, so that the daemon has its time for itself.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests worked on at a time.
const AT_ONCE: usize = 2;
/// What somebody may type.
const LONGEST: usize = 100;
/// Counters in one history.
const MOST_COUNTERS: usize = 32;
/// Several viewers that ask for the same within this get the same answer.
const FRESH: Duration = Duration::from_millis(900);
/// Answers kept for that.
const MOST_KEPT: usize = 16;

/// What is looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// An EID, an EID-prefix, `rloc ADDRESS`, or words.
    #[serde(default)]
    q: String,
    /// Where to go on: the `next` of the answer before.
    #[serde(default)]
    after: String,
    /// How many.
    most: Option<usize>,
    /// Of a history: the counters, with commas between.
    #[serde(default)]
    counters: String,
    /// Of a history: which ring.
    #[serde(default)]
    ring: usize,
}

/// Looks things up.
#[derive(Debug)]
pub(super) struct Search {
    questions: mpsc::Sender<Request>,
    turns: Semaphore,
    kept: Mutex<Vec<(String, Instant, Bytes)>>,
}

/// How what was typed is understood.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Within(EidPrefix),
    Rloc(IpAddr),
    /// In lower case.
    Words(String),
}

impl Search {
    pub(super) fn new(questions: mpsc::Sender<Request>) -> Self {
        Self { questions, turns: Semaphore::new(AT_ONCE), kept: Mutex::default() }
    }

    /// Map-cache entries: `{"entries": [..], "next": ..}`.
    pub(super) async fn mappings(&self, asked: &Asked) -> Result<Bytes, String> {
        let most = asked.most.unwrap_or(PART).clamp(1, PART);
        let key = format!("m {most} {} {}", asked.after, asked.q);
        self.answer(key, async {
            let after = position(&asked.after)?;
            let find = |within, rloc, most| Query::FindMappings { within, rloc, most };
            match wanted(&asked.q)? {
                Wanted::All => self.part(find(None, None, most), after).await,
                Wanted::Within(prefix) => self.part(find(Some(prefix), None, most), after).await,
                Wanted::Rloc(rloc) => self.of_rloc(rloc, after, most).await,
                Wanted::Words(words) => {
                    let is_wanted = |entry: &Value| has_words(entry, &words, MAPPING_WORDS);
                    self.filtered(find(None, None, PART), after, most, is_wanted).await
                }
            }
        })
        .await
    }

    /// Entries that use an RLOC. Those that no mapping names, as PETRs, and those that cannot be reached are in no index.
    async fn of_rloc(
        &self,
        rloc: IpAddr,
        after: Option<EidPrefix>,
        most: usize,
    ) -> Result<Value, String> {
        let find = |rloc, most| Query::FindMappings { within: None, rloc, most };
        let indexed = ask_part(find(Some(rloc), most), None, &self.questions).await?;
        if indexed.view.as_array().is_some_and(|entries| !entries.is_empty()) {
            return match after {
                None => Ok(listed(indexed.view, indexed.next)),
                Some(_) => self.part(find(Some(rloc), most), after).await,
            };
        }
        let text = rloc.to_string();
        let is_wanted = |entry: &Value| locators(entry).any(|l| l["address"] == text);
        self.filtered(find(None, PART), after, most, is_wanted).await
    }

    /// Registrations at a Map-Server, in the same form.
    pub(super) async fn registrations(&self, asked: &Asked) -> Result<Bytes, String> {
        let most = asked.most.unwrap_or(PART).clamp(1, PART);
        let key = format!("r {most} {} {}", asked.after, asked.q);
        self.answer(key, async {
            let (after, query) = (position(&asked.after)?, Query::Registrations);
            match wanted(&asked.q)? {
                Wanted::All => self.part(query, after).await,
                Wanted::Within(prefix) => {
                    let is_wanted = |view: &Value| overlaps(view, &prefix);
                    self.filtered(query, after, most, is_wanted).await
                }
                Wanted::Rloc(rloc) => {
                    let text = rloc.to_string();
                    let is_wanted = |view: &Value| locators(view).any(|l| l["rloc"] == text);
                    self.filtered(query, after, most, is_wanted).await
                }
                Wanted::Words(words) => {
                    let is_wanted = |view: &Value| has_words(view, &words, REGISTRATION_WORDS);
                    self.filtered(query, after, most, is_wanted).await
                }
            }
        })
        .await
    }

    /// One ring of the history of some counters.
    pub(super) async fn history(&self, asked: &Asked) -> Result<Bytes, String> {
        let counters: Vec<String> =
            asked.counters.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if counters.is_empty() || counters.len() > MOST_COUNTERS {
            return Err(format!("name 1 to {MOST_COUNTERS} counters"));
        }
        let key = format!("h {} {}", asked.ring, asked.counters);
        self.answer(key, async {
            let mut view = ask(Query::History { counters }, &self.questions).await?;
            Ok(view["rings"].get_mut(asked.ring).map(Value::take).unwrap_or_default())
        })
        .await
    }

    /// The answer kept under `key`, or a new one.
    async fn answer(
        &self,
        key: String,
        make: impl Future<Output = Result<Value, String>>,
    ) -> Result<Bytes, String> {
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        // Somebody else may have asked for it meanwhile.
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let made = Bytes::from(make.await?.to_string());
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.retain(|(_, at, _)| at.elapsed() < FRESH);
        if kept.len() < MOST_KEPT {
            kept.push((key, Instant::now(), made.clone()));
        }
        Ok(made)
    }

    fn kept(&self, key: &str) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = kept.iter().find(|(known, at, _)| known == key && at.elapsed() < FRESH);
        found.map(|(.., answer)| answer.clone())
    }

    async fn part(&self, query: Query, after: Option<EidPrefix>) -> Result<Value, String> {
        let part = ask_part(query, after, &self.questions).await?;
        Ok(listed(part.view, part.next))
    }

    /// Goes through parts until `most` entries are found, or enough was looked at.
    async fn filtered(
        &self,
        query: Query,
        mut after: Option<EidPrefix>,
        most: usize,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let mut found: Vec<Value> = Vec::new();
        for _ in 0..PARTS {
            let part = ask_part(query.clone(), after, &self.questions).await?;
            if let Value::Array(entries) = part.view {
                found.extend(entries.into_iter().filter(&is_wanted));
            }
            after = part.next;
            // A part is taken whole: where to go on is where it ends.
            if after.is_none() || found.len() >= most {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(listed(Value::Array(found), after))
    }
}

fn listed(entries: Value, next: Option<EidPrefix>) -> Value {
    json!({"entries": entries, "next": next.map(|next| next.to_string())})
}

/// What was typed.
fn wanted(text: &str) -> Result<Wanted, String> {
    let text = text.trim();
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} octets"));
    }
    if text.is_empty() {
        return Ok(Wanted::All);
    }
    if let Some(rloc) = text.strip_prefix("rloc ").and_then(|rloc| rloc.trim().parse().ok()) {
        return Ok(Wanted::Rloc(rloc));
    }
    Ok(prefix(text).map_or_else(|| Wanted::Words(text.to_lowercase()), Wanted::Within))
}

/// Where to go on.
fn position(text: &str) -> Result<Option<EidPrefix>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    prefix(text).map(Some).ok_or_else(|| "`after` is no EID-prefix".to_owned())
}

/// `[instance]prefix`, as EID-prefixes are written; a lone address is a host.
fn prefix(text: &str) -> Option<EidPrefix> {
    let (instance, text) = match text.strip_prefix('[') {
        Some(rest) => {
            let (instance, text) = rest.split_once(']')?;
            (InstanceId::new(instance.parse().ok()?)?, text.trim())
        }
        None => (InstanceId::DEFAULT, text),
    };
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let prefix = text.parse().ok().or_else(host)?;
    Some(EidPrefix::new(instance, prefix))
}

/// What of a map-cache entry words are looked for in.
const MAPPING_WORDS: &[&str] = &["prefix", "state", "forwarding", "via"];
/// The same of a registration.
const REGISTRATION_WORDS: &[&str] = &["site", "name", "source", "xtr_id", "action"];

/// Whether all words are in it: in its fields, its EID-prefix, its locators.
fn has_words(view: &Value, words: &str, fields: &[&str]) -> bool {
    let mut text = String::new();
    let mut add = |value: &Value| {
        if let Some(value) = value.as_str() {
            text.push_str(&value.to_lowercase());
            text.push('\n');
        }
    };
    fields.iter().for_each(|field| add(&view[*field]));
    add(&view["prefix"]["prefix"]);
    for locator in locators(view) {
        ["address", "rloc", "state", "unusable"].iter().for_each(|field| add(&locator[*field]));
    }
    words.split_whitespace().all(|word| text.contains(word))
}

fn locators(view: &Value) -> impl Iterator<Item = &Value> {
    view["locators"].as_array().into_iter().flatten()
}

/// Whether the registered EID-prefix is in `wanted`, or covers it.
fn overlaps(view: &Value, wanted: &EidPrefix) -> bool {
    serde_json::from_value::<EidPrefix>(view["prefix"].clone())
        .is_ok_and(|prefix| prefix.covers(wanted) || wanted.covers(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_01_what_is_typed_is_understood() {
        let within = |text: &str| Wanted::Within(prefix(text).unwrap());
        assert_eq!(wanted("  "), Ok(Wanted::All));
        assert_eq!(wanted("203.0.113.9"), Ok(within("203.0.113.9/32")));
        assert_eq!(wanted("2001:db8::/32"), Ok(within("2001:db8::/32")));
        assert_eq!(prefix("[7]10.0.0.0/8").unwrap().instance_id().get(), 7);
        assert_eq!(wanted("rloc 192.0.2.1"), Ok(Wanted::Rloc("192.0.2.1".parse().unwrap())));
        assert_eq!(wanted("203.0.11"), Ok(Wanted::Words("203.0.11".to_owned())));
        assert_eq!(wanted("DROP me"), Ok(Wanted::Words("drop me".to_owned())));
        assert!(wanted(&"x".repeat(LONGEST + 1)).is_err());
        assert_eq!(position(""), Ok(None));
        assert!(position("tomorrow").is_err() && position("[x]10.0.0.0/8").is_err());
    }

    #[test]
    fn op_01_words_are_found_wherever_they_are() {
        let entry = json!({"prefix": "10.0.0.0/8", "state": "complete", "forwarding": "drop:no_usable_locator", "via": "map-reply",
            "locators": [{"address": "192.0.2.1", "state": "down", "unusable": "RLOC-probes go unanswered"}]});
        let has = |words| has_words(&entry, words, MAPPING_WORDS);
        assert!(has("drop") && has("10.0 down") && has("192.0.2.1") && has("unanswered"));
        assert!(!has("native") && !has("drop up"));
        let registration = json!({"prefix": {"instance_id": 0, "prefix": "10.0.0.0/8"}, "site": "Alpha", "name": null, "locators": []});
        assert!(has_words(&registration, "alpha", REGISTRATION_WORDS));
        assert!(has_words(&registration, "10.0.0", REGISTRATION_WORDS));
        assert!(overlaps(&registration, &prefix("10.1.0.0/16").unwrap()));
        assert!(!overlaps(&registration, &prefix("11.0.0.0/8").unwrap()));
    }
}
