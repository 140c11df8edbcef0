//! A configuration as it is shown: its values without comments, in the order of the file.
//!
//! Comments stay behind: they may hold what somebody meant to keep to himself, such as a key that was tried. Secrets themselves are never
//! in the file.

use std::fmt::Write;

use serde_json::{Map, Value as Json};
use toml_edit::{Document, Item, TableLike, Value};

/// The values of a file as TOML; empty if it is none.
pub(crate) fn canonical(text: &str) -> String {
    let mut out = String::new();
    if let Ok(document) = Document::parse(text) {
        section(&mut out, "", document.as_table());
    }
    out
}

/// The values of a file as JSON; dates and times as text.
pub(crate) fn json(text: &str) -> Json {
    match Document::parse(text) {
        Ok(document) => json_table(document.as_table()),
        Err(_) => Json::Null,
    }
}

/// A string as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out + "\""
}

/// What is in a section: its own values, then the sections in it.
fn section(out: &mut String, path: &str, table: &dyn TableLike) {
    for (name, item) in table.iter() {
        if let Item::Value(value) = item {
            let _ = writeln!(out, "{} = {}", key(name), written(value));
        }
    }
    for (name, item) in table.iter() {
        let path = match path {
            "" => key(name),
            path => format!("{path}.{}", key(name)),
        };
        match item {
            Item::Table(inner) => {
                let only_sections = !inner.is_empty() && inner.iter().all(|(_, i)| !i.is_value());
                if !only_sections {
                    header(out, &format!("[{path}]"));
                }
                section(out, &path, inner);
            }
            Item::ArrayOfTables(tables) => {
                for inner in tables {
                    header(out, &format!("[[{path}]]"));
                    section(out, &path, inner);
                }
            }
            Item::Value(_) | Item::None => {}
        }
    }
}

fn header(out: &mut String, header: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{header}");
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => match number.value() {
            number if number.is_nan() => "nan".to_owned(),
            number => format!("{number:?}"),
        },
        Value::Boolean(boolean) => boolean.value().to_string(),
        Value::Datetime(time) => time.value().to_string(),
        Value::Array(array) => {
            let elements: Vec<String> = array.iter().map(written).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::InlineTable(table) if table.is_empty() => "{}".to_owned(),
        Value::InlineTable(table) => {
            let pair =
                |(name, value): (&str, &Value)| format!("{} = {}", key(name), written(value));
            let pairs: Vec<String> = table.iter().map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

fn json_table(table: &dyn TableLike) -> Json {
    let of_item = |(name, item): (&str, &Item)| {
        let value = match item {
            Item::Value(value) => json_value(value),
            Item::Table(inner) => json_table(inner),
            Item::ArrayOfTables(tables) => {
                Json::Array(tables.iter().map(|inner| json_table(inner)).collect())
            }
            Item::None => return None,
        };
        Some((name.to_owned(), value))
    };
    Json::Object(table.iter().filter_map(of_item).collect::<Map<_, _>>())
}

fn json_value(value: &Value) -> Json {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Boolean(boolean) => (*boolean.value()).into(),
        Value::Datetime(time) => time.value().to_string().into(),
        Value::Array(array) => array.iter().map(json_value).collect(),
        Value::InlineTable(table) => json_table(table),
    }
}

#[cfg(test)]
mod tests {
    use super::super::changes::changes;
    use super::*;
    use serde_json::json;

    const TEXT: &str = "# was: key = \"hunter2\"\n[xtr]\nname = 'a \"b\"\\c' # said so\n\
        rlocs = { p = { address = \"192.0.2.1\", weight = 0x32 } }\nlist = [1, 2,\n  # three\n  3]\n\
        \"odd key\" = \"\\u0007\\ttab\"\nnumber = 1.0\nempty = {}\n[xtr.tun]\nqueues = 2\n\n[[eid]]\nprefix = \"2001:db8::/48\"\n[[eid]]\nprefix = \"192.0.2.0/24\"\n[log]\n";

    #[test]
    fn what_is_shown_says_the_same_without_comments() {
        let shown = canonical(TEXT);
        assert!(changes(TEXT, &shown).is_empty(), "{shown}");
        assert_eq!(canonical(&shown), shown, "shown again");
        assert!(!shown.contains('#') && !shown.contains("hunter2"), "{shown}");
        assert!(shown.starts_with("[xtr]\nname = \"a \\\"b\\\"\\\\c\"\n"), "{shown}");
        assert!(shown.ends_with("[[eid]]\nprefix = \"192.0.2.0/24\"\n\n[log]\n"), "{shown}");
    }

    #[test]
    fn as_json_it_has_the_same_shape() {
        let shown = json(TEXT);
        assert_eq!(shown["xtr"]["rlocs"]["p"]["weight"], json!(50));
        assert_eq!(shown["xtr"]["list"], json!([1, 2, 3]));
        assert_eq!(shown["eid"][1]["prefix"], json!("192.0.2.0/24"));
        assert_eq!(shown["log"], json!({}));
    }
}
