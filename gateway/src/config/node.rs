//! A walker over the parsed file: takes typed values, collects every error, and knows which keys were never asked for.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use config::{Map, Value, ValueKind};

use super::report::Report;

/// One value of the file with its path.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    path: String,
    report: &'a Report,
}

impl<'a> Node<'a> {
    /// The whole file.
    pub(crate) fn root(value: &'a Value, report: &'a Report) -> Self {
        Self { value, path: String::new(), report }
    }

    /// The key's path, e.g. `eid[0].prefix`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Where findings go.
    pub(crate) fn report(&self) -> &'a Report {
        self.report
    }

    /// Reports `what` is wrong here and what would be right `instead`.
    pub(crate) fn error(&self, what: &str, instead: &str) {
        self.report.error(&self.path, format!("{what}; {instead}"));
    }

    /// Says something that does not stop the start.
    pub(crate) fn warning(&self, message: &str) {
        self.report.warning(&self.path, message);
    }

    /// Text that is not empty.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::String(text) if text.is_empty() => {
                self.error("is empty", "write text or leave the key out");
                None
            }
            ValueKind::String(text) => Some(text),
            _ => self.wrong_type("write text in quotes"),
        }
    }

    /// The text when it is text, without complaint otherwise.
    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a table.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value.kind, ValueKind::Table(_))
    }

    /// Whether `key` is written in it: in the table, or in one of the tables of the list. No complaint if it is neither.
    pub(crate) fn writes(&self, key: &str) -> bool {
        let in_table = |value: &Value| match &value.kind {
            ValueKind::Table(map) => map.contains_key(key),
            _ => false,
        };
        match &self.value.kind {
            ValueKind::Array(values) => values.iter().any(in_table),
            _ => in_table(self.value),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value.kind {
            ValueKind::Boolean(value) => Some(value),
            _ => self.wrong_type("write true or false"),
        }
    }

    /// A whole number of `range`.
    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let instead = format!("write {} to {}", range.start(), range.end());
        match self.value.kind {
            ValueKind::I64(value) if range.contains(&value) => Some(value),
            ValueKind::I64(value) => {
                self.error(&format!("{value} is out of range"), &instead);
                None
            }
            _ => self.wrong_type(&instead),
        }
    }

    /// A list with at least one element.
    pub(crate) fn list(&self) -> Option<Vec<Node<'a>>> {
        let ValueKind::Array(values) = &self.value.kind else {
            // `[site]` instead of `[[site]]`: only a list of sections stands at the top of the file.
            let top = !self.path.contains(['.', '[']);
            let section = format!("write [[{}]] in double brackets", self.path);
            let is_section = top && self.is_table();
            return self.wrong_type(if is_section { &section } else { "write a list in [ ]" });
        };
        if values.is_empty() {
            self.error(
                "is an empty list",
                "write at least one element, or leave the key out where it is optional",
            );
            return None;
        }
        let node =
            |(at, value)| Node { value, path: format!("{}[{at}]", self.path), report: self.report };
        Some(values.iter().enumerate().map(node).collect())
    }

    /// A list whose elements `read` takes; elements it refuses are left out.
    pub(crate) fn list_of<T>(&self, read: impl Fn(&Node<'a>) -> Option<T>) -> Vec<T> {
        self.list().unwrap_or_default().iter().filter_map(read).collect()
    }

    /// A table.
    pub(crate) fn table(&self) -> Option<Table<'a>> {
        self.table_or("write a table")
    }

    /// A table, where something else would do as well: `instead` names all that can be written.
    pub(crate) fn table_or(&self, instead: &str) -> Option<Table<'a>> {
        match &self.value.kind {
            ValueKind::Table(map) => Some(Table {
                map,
                path: self.path.clone(),
                report: self.report,
                known: RefCell::default(),
                missing: RefCell::default(),
            }),
            _ => self.wrong_type(instead),
        }
    }

    /// Complains about the type; `None` for the caller to return.
    pub(crate) fn wrong_type<T>(&self, instead: &str) -> Option<T> {
        let what = match &self.value.kind {
            ValueKind::Nil => "is nothing".to_owned(),
            ValueKind::Boolean(value) => format!("is {value}"),
            ValueKind::String(text) => format!("is text ({text:?})"),
            ValueKind::Float(value) => format!("is a fraction ({value})"),
            ValueKind::Table(_) => "is a table".to_owned(),
            ValueKind::Array(_) => "is a list".to_owned(),
            ValueKind::I64(value) => format!("is a number ({value})"),
            ValueKind::I128(value) => format!("is a number ({value})"),
            ValueKind::U64(value) => format!("is a number ({value})"),
            ValueKind::U128(value) => format!("is a number ({value})"),
        };
        self.error(&what, instead);
        None
    }
}

/// A table of the file. [`Table::finish`] must end every reader: it reports unknown and missing keys.
pub(crate) struct Table<'a> {
    map: &'a Map<String, Value>,
    path: String,
    report: &'a Report,
    known: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<(&'static str, String)>>,
}

impl<'a> Table<'a> {
    /// Reports something about the table as a whole.
    pub(crate) fn error(&self, what: &str, instead: &str) {
        self.report.error(&self.path, format!("{what}; {instead}"));
    }

    /// The value of `key`, which is a known key from now on.
    pub(crate) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.map.get(key).map(|value| self.child(key, value))
    }

    /// Whether `key` is written in the file; does not make it a known key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of `key`; [`Table::finish`] reports it as missing when it is not there. `example` is what to write.
    pub(crate) fn require(&self, key: &'static str, example: &str) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            self.missing.borrow_mut().push((key, example.to_owned()));
        }
        node
    }

    /// What `read` makes of `key`; `default` when the key is absent (or refused, which is reported).
    pub(crate) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> T {
        self.get(key).and_then(|node| read(&node)).unwrap_or(default)
    }

    /// Every entry of a table whose keys are the operator's own names, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Node<'a>)> {
        let mut entries: Vec<_> =
            self.map.iter().map(|(name, value)| (name.as_str(), self.child(name, value))).collect();
        entries.sort_by_key(|(name, node)| (self.report.line(&node.path), *name));
        entries
    }

    /// Reports every key that no reader asked for, and every required one that is neither there nor misspelt.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        let mut misspelt = Vec::new();
        for name in self.map.keys().filter(|name| !known.contains(&name.as_str())) {
            let meant = nearest(name, known.iter().copied());
            let hint = match meant {
                Some(key) => format!("did you mean {key:?}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.report.error(&self.join(name), format!("unknown key; {hint}"));
            misspelt.extend(meant);
        }
        for (key, example) in self.missing.borrow().iter() {
            if !misspelt.contains(key) {
                let message = format!("missing; write {key} = {example}");
                self.report.error(&self.join(key), message);
            }
        }
    }

    fn child(&self, key: &str, value: &'a Value) -> Node<'a> {
        Node { value, path: self.join(key), report: self.report }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The word of `known` that `name` was probably meant to be.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known
        .map(|key| (distance(name, key), key))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, key)| key)
}

/// Edits between two words, a swap of neighbours being one; `_` and `-` and letter case are equal.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let (a, b) = (fold(a), fold(b));
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitute = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substitute.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_errors_and_nothing_else() {
        let known = ["map-resolvers", "map-servers", "rlocs", "name"];
        assert_eq!(nearest("map_resolvers", known.into_iter()), Some("map-resolvers"));
        assert_eq!(nearest("map-resolver", known.into_iter()), Some("map-resolvers"));
        assert_eq!(nearest("rloc", known.into_iter()), Some("rlocs"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("weight", "weight"), 0);
        assert_eq!(distance("wieght", "weight"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("Source_Ports", "source-ports"), 0);
        assert_eq!(distance("", "abc"), 3);
    }
}
