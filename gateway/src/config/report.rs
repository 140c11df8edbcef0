//! Findings about a configuration file, each with the line of its key.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, TomlError, Value};

/// One thing wrong, or doubtful, in a configuration file. Its text is one line:
/// `file:line: key: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file as the operator named it.
    pub file: String,
    /// Line number from 1; `None` when the file could not be read.
    pub line: Option<usize>,
    /// The key's path, e.g. `eid[0].prefix`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Collects findings while the readers walk the file; shared by every node of it.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    lines: HashMap<String, usize>,
    errors: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Finding>>,
}

impl Report {
    /// Reads the lines of all keys of `text`; a syntax error is the only finding there can be.
    pub(crate) fn new(file: &Path, text: &str) -> Result<Self, Finding> {
        let file = file.display().to_string();
        let document =
            Document::parse(text).map_err(|error| syntax_finding(&file, text, &error))?;
        let index = LineIndex::new(text);
        let mut lines = HashMap::new();
        index_table(&mut lines, &index, "", document.as_table());
        Ok(Self { file, lines, errors: RefCell::default(), warnings: RefCell::default() })
    }

    /// The line of `path`, or of the nearest table around it that is written in the file.
    pub(crate) fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(&line) = self.lines.get(path) {
                return line;
            }
            let Some(cut) = path.rfind(['.', '[']) else { return 1 };
            path = &path[..cut];
        }
    }

    /// Something that stops the start.
    pub(crate) fn error(&self, path: &str, message: impl Into<String>) {
        self.errors.borrow_mut().push(self.finding(path, message.into()));
    }

    /// Something to say that does not stop the start.
    pub(crate) fn warning(&self, path: &str, message: impl Into<String>) {
        self.warnings.borrow_mut().push(self.finding(path, message.into()));
    }

    fn finding(&self, path: &str, message: String) -> Finding {
        Finding {
            file: self.file.clone(),
            line: Some(self.line(path)),
            key: path.to_owned(),
            message,
        }
    }

    /// Errors and warnings, each in the order of the file.
    pub(crate) fn into_findings(self) -> (Vec<Finding>, Vec<Finding>) {
        let sort = |cell: RefCell<Vec<Finding>>| {
            let mut findings = cell.into_inner();
            findings.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
            findings
        };
        (sort(self.errors), sort(self.warnings))
    }
}

/// What the TOML parser could not read, on the line where it stopped.
fn syntax_finding(file: &str, text: &str, error: &TomlError) -> Finding {
    let line = error.span().map_or(1, |span| LineIndex::new(text).line(span.start));
    let message = error.message().replace('\n', ", ");
    Finding {
        file: file.to_owned(),
        line: Some(line),
        key: String::new(),
        message: format!("not TOML: {message}"),
    }
}

/// Offsets of line starts, for offset to line in logarithmic time.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn new(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|&(_, octet)| octet == b'\n');
        Self(std::iter::once(0).chain(starts.map(|(at, _)| at + 1)).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }
}

fn index_table(
    lines: &mut HashMap<String, usize>,
    index: &LineIndex,
    path: &str,
    table: &dyn TableLike,
) {
    for (name, _) in table.iter() {
        let Some((key, item)) = table.get_key_value(name) else { continue };
        let child = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let header = item.as_table().and_then(|table| table.span());
        if let Some(span) = header.or_else(|| key.span()) {
            lines.insert(child.clone(), index.line(span.start));
        }
        index_item(lines, index, &child, item);
    }
}

fn index_item(lines: &mut HashMap<String, usize>, index: &LineIndex, path: &str, item: &Item) {
    match item {
        Item::Table(table) => index_table(lines, index, path, table),
        Item::ArrayOfTables(tables) => {
            for (at, table) in tables.iter().enumerate() {
                let child = format!("{path}[{at}]");
                if let Some(span) = table.span() {
                    lines.insert(child.clone(), index.line(span.start));
                }
                index_table(lines, index, &child, table);
            }
        }
        Item::Value(value) => index_value(lines, index, path, value),
        Item::None => {}
    }
}

fn index_value(lines: &mut HashMap<String, usize>, index: &LineIndex, path: &str, value: &Value) {
    match value {
        Value::InlineTable(table) => index_table(lines, index, path, table),
        Value::Array(array) => {
            for (at, element) in array.iter().enumerate() {
                let child = format!("{path}[{at}]");
                if let Some(span) = element.span() {
                    lines.insert(child.clone(), index.line(span.start));
                }
                index_value(lines, index, &child, element);
            }
        }
        _ => {}
    }
}
