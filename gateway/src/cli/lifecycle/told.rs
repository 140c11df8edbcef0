//! What `isthmus events` tells of a configuration that was taken over, refused, kept or given up.

use mapping::admin::{Query, Request};
use mapping::recorder::Told;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// What there is to tell of an order of the operator; `file` is where the configuration that runs came from.
pub(super) fn of_order(query: &Query, answer: &Result<Value, String>, file: &str) -> Option<Told> {
    let (kind, refused, what) = match query {
        Query::Reload => ("reload", "reload-refused", "taken over"),
        Query::Apply { .. } => ("apply", "apply-refused", "taken over"),
        Query::Undo => ("undo", "undo-refused", "returned to what was before"),
        // With nothing to confirm, nothing happened.
        Query::Confirm if answer.is_ok() => ("confirm", "", "kept"),
        _ => return None,
    };
    Some(match answer {
        Ok(view) => Told::info(kind, file, cause(what, view)),
        // Of many mistakes the first, on one line: the operator was told all of them.
        Err(why) => {
            let of_file = match query {
                Query::Apply { file, .. } => file,
                _ => file,
            };
            Told::warning(refused, of_file, why.lines().next().unwrap_or_default())
        }
    })
}

/// What there is to tell of a trial that was not confirmed in time.
pub(super) fn of_return(changed: &[&str], file: &str) -> Told {
    let keys = whole(changed.iter().copied()).join(", ");
    Told::warning("trial-ended", file, format!("not confirmed in time, returned: {keys}"))
}

fn cause(what: &str, view: &Value) -> String {
    let keys = view["changed"].as_array().map(Vec::as_slice).unwrap_or_default();
    let keys = whole(keys.iter().filter_map(Value::as_str));
    let trial = match view["unconfirmed_seconds"].as_u64() {
        Some(seconds) => format!(", on trial for {seconds} s"),
        None => String::new(),
    };
    match (keys.is_empty(), what) {
        (false, _) => format!("{what}{trial}: {}", keys.join(", ")),
        (true, "kept") => what.to_owned(),
        (true, _) => "nothing but what is in the key files".to_owned(),
    }
}

/// The keys without those that are parts of another one.
pub(in crate::cli) fn whole<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let keys: Vec<&str> = keys.collect();
    let is_part = |key: &str| {
        keys.iter()
            .filter_map(|other| key.strip_prefix(other))
            .any(|rest| rest.starts_with(['.', '[']))
    };
    keys.iter().copied().filter(|key| !is_part(key)).collect()
}

/// Has the daemon keep it, once it has time.
pub(super) async fn tell(daemon: &mpsc::Sender<Request>, told: Told) {
    // Nobody waits for the answer, and a daemon that ends keeps nothing.
    let (reply, _) = oneshot::channel();
    let _ = daemon.send(Request { query: Query::Keep(told), after: None, reply }).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::recorder::Severity;
    use serde_json::json;

    #[test]
    fn a_key_that_came_whole_is_named_once() {
        let keys = ["site[b].keys", "site[b].keys[1].id", "site[b].keys[1]", "site[b].key"];
        assert_eq!(whole(keys.into_iter()), ["site[b].keys", "site[b].key"]);
    }

    #[test]
    fn every_order_is_told_with_what_it_changed_or_why_not() {
        let taken = Ok(json!({ "changed": ["site[b].name", "log.level"] }));
        let told = of_order(&Query::Reload, &taken, "m.toml").unwrap();
        assert_eq!((told.kind, &*told.subject), ("reload", "m.toml"));
        assert_eq!(told.cause, "taken over: site[b].name, log.level");
        let keys = of_order(&Query::Reload, &Ok(json!({ "changed": [] })), "m.toml").unwrap();
        assert_eq!(keys.cause, "nothing but what is in the key files");
        let (file, text) = ("try.toml".to_owned(), String::new());
        let apply = Query::Apply { file, text, confirm_within_seconds: Some(60) };
        let trial = Ok(json!({ "changed": ["site[b].name"], "unconfirmed_seconds": 60 }));
        let told = of_order(&apply, &trial, "try.toml").unwrap();
        assert_eq!(told.cause, "taken over, on trial for 60 s: site[b].name");
        let refused =
            of_order(&apply, &Err("line 3: no\nline 4: no".to_owned()), "m.toml").unwrap();
        assert_eq!((refused.kind, refused.severity), ("apply-refused", Severity::Warning));
        assert_eq!((&*refused.subject, &*refused.cause), ("try.toml", "line 3: no"));
        assert_eq!(of_order(&Query::Confirm, &Ok(json!({})), "m.toml").unwrap().cause, "kept");
        assert_eq!(of_order(&Query::Confirm, &Err("no".to_owned()), "m.toml"), None);
        assert_eq!(of_order(&Query::Status, &taken, "m.toml"), None);
    }
}
