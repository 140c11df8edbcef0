//! `[log]`: what the daemon logs.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::node::{Node, Table};

/// Reads `[log] level`; `None` if the file does not say.
pub(crate) fn read(root: &Table<'_>) -> Option<String> {
    let table = root.get("log").and_then(|node| node.table())?;
    let level = table.get("level").and_then(|node| level(&node));
    table.finish();
    level
}

/// A level, or levels by module.
fn level(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    const INSTEAD: &str =
        "write error, warn, info, debug or trace, or levels by module such as \"info,xtr=debug\"";
    // A word of its own would be taken for a module.
    let is_level = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    if let Some(part) = text.split(',').map(str::trim).find(|part| !is_level(part)) {
        node.error(&format!("{part:?} is no level"), INSTEAD);
        return None;
    }
    if EnvFilter::builder().parse(text).is_err() {
        node.error(&format!("{text:?} is no level"), INSTEAD);
        return None;
    }
    Some(text.to_owned())
}
