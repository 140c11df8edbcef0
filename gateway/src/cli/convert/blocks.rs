//! Files of `NAME { KEY = VALUE }`, one in another, as OOR and lispers.net write them.

/// A part of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// `key = value`.
    Value(Line),
    /// `key = { value, value }`, a value per line of the file where it stands.
    List(Line, Vec<Line>),
    /// `name { .. }`.
    Block(Line, Vec<Self>),
    /// What is none of these.
    Other(Line),
}

/// A key, or the name of a block, with what stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Number in the file, from 1.
    pub(super) number: usize,
    /// The key.
    pub(super) key: String,
    /// Its value, without quotes; of a list, the value alone.
    pub(super) value: String,
}

/// Reads the blocks of `text`, whose first line has this number. Comments begin with `#` or `//`.
pub(super) fn read(text: &str, first: usize) -> Vec<Node> {
    let lines: Vec<(usize, String)> = (first..)
        .zip(text.lines())
        .flat_map(|(number, line)| split(strip(line)).into_iter().map(move |part| (number, part)))
        .collect();
    let mut lines = lines.into_iter().peekable();
    let mut nodes = Vec::new();
    while lines.peek().is_some() {
        nodes.extend(nodes_until_end(&mut lines));
    }
    nodes
}

type Lines = std::iter::Peekable<std::vec::IntoIter<(usize, String)>>;

fn nodes_until_end(lines: &mut Lines) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some((number, text)) = lines.next() {
        if text == "}" {
            return nodes;
        }
        if let Some(head) = text.strip_suffix('{') {
            let (key, is_list) = match head.trim().strip_suffix('=') {
                Some(key) => (key.trim(), true),
                None => (head.trim(), false),
            };
            let line = Line { number, key: key.to_owned(), value: String::new() };
            nodes.push(match is_list {
                true => Node::List(line, values_until_end(lines)),
                false => Node::Block(line, nodes_until_end(lines)),
            });
            continue;
        }
        nodes.push(match text.split_once('=') {
            Some((key, value)) => {
                let (key, value) = (key.trim().to_owned(), unquoted(value).to_owned());
                Node::Value(Line { number, key, value })
            }
            None => Node::Other(Line { number, key: text, value: String::new() }),
        });
    }
    nodes
}

fn values_until_end(lines: &mut Lines) -> Vec<Line> {
    let mut values = Vec::new();
    for (number, text) in lines.by_ref() {
        if text == "}" {
            break;
        }
        let value =
            |part: &str| Line { number, key: String::new(), value: unquoted(part).to_owned() };
        values.extend(text.split(',').filter(|part| !part.trim().is_empty()).map(value));
    }
    values
}

/// A line without its comment.
fn strip(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' || line[at..].starts_with("//") => return line[..at].trim(),
            None => {}
        }
    }
    line.trim()
}

/// Braces end a part of a line.
fn split(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        let last = parts.len() - 1;
        match c {
            '"' | '\'' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            '}' if quote.is_none() => {
                parts.extend(["}".to_owned(), String::new()]);
                continue;
            }
            '{' if quote.is_none() => {
                parts[last].push(c);
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts[last].push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lists_and_comments_keep_their_lines() {
        let text = "# head\na = 1 # one\nlist = {\n  x, \"y\"\n  z }\nb {\n c = \"p#q{\"\n d { e = 2 } }\nodd\n";
        let value = |number, key: &str, value: &str| Line {
            number,
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let item = |number, text: &str| value(number, "", text);
        assert_eq!(
            read(text, 1),
            [
                Node::Value(value(2, "a", "1")),
                Node::List(value(3, "list", ""), vec![item(4, "x"), item(4, "y"), item(5, "z")]),
                Node::Block(
                    value(6, "b", ""),
                    vec![
                        Node::Value(value(7, "c", "p#q{")),
                        Node::Block(value(8, "d", ""), vec![Node::Value(value(8, "e", "2"))]),
                    ]
                ),
                Node::Other(value(9, "odd", "")),
            ]
        );
        assert_eq!(read("a {\n b = 1\n", 1).len(), 1, "an end that is missing");
        assert_eq!(read("}\n}\na = 1\n", 1).len(), 1, "and one too many");
    }
}
