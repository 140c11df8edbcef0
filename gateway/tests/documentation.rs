//! The pages for operators say what is so: links lead somewhere, verbs, options, scenarios and counters exist, and what is shown as a
//! configuration is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway::config::{self, Environment};

/// The README is for who sees the product for the first time.
const README_LINES: usize = 170;
const README_COLUMNS: usize = 160;

/// A page of the repository.
struct Page {
    /// From the root of the repository.
    name: String,
    path: PathBuf,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// Every page, but not what is built, or hidden.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                directories.push(path);
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(&path).expect("a page");
                let name = path.strip_prefix(root()).expect("inside").display().to_string();
                pages.push(Page { name, path, text });
            }
        }
    }
    assert!(pages.len() >= 10, "only {} pages", pages.len());
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}

/// Its lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((at + 1, line))
    })
}

/// The code blocks in `language`, each with the line that it begins after.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, bool)> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(name)) => open = Some((at + 1, String::new(), name.trim() == language)),
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|block| block.2)),
            (Some((_, block, _)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.into_iter().map(|(at, block, _)| (at, block)).collect()
}

/// What is between backquotes.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The destinations of the links in a line, but for those in code.
fn links(line: &str) -> Vec<String> {
    let outside: String = line
        .split('`')
        .enumerate()
        .map(|(n, part)| if n % 2 == 0 { part } else { "code" })
        .collect();
    let rests = outside.split("](").skip(1);
    rests.filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The anchors of a page's headings, as the web sites that show such pages make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
    });
    let slug = |title: &str| -> String {
        let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let directory = page.path.parent().expect("a directory");
        for (line, text) in prose(&page.text) {
            for link in links(text) {
                if link.contains("://") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
                let target = if file.is_empty() { page.path.clone() } else { directory.join(file) };
                let found = target.exists()
                    && (anchor.is_empty()
                        || fs::read_to_string(&target)
                            .is_ok_and(|text| anchors(&text).contains(anchor)));
                if !found {
                    dead.push(format!("{}:{line}: {link}", page.name));
                }
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

fn isthmus(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus")).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What the command line knows.
struct CommandLine {
    /// Each verb's help.
    verbs: BTreeMap<String, String>,
    scenarios: BTreeSet<String>,
}

impl CommandLine {
    fn read() -> Self {
        let help = isthmus(&["--help"]);
        let commands = help.split("Commands:").nth(1).expect("verbs");
        let words = commands.lines().skip(1).take_while(|line| !line.is_empty());
        let names = words.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let verbs = names.filter_map(|line| line.split_whitespace().next()).map(|verb| {
            let help = isthmus(&[verb, "--help"]);
            (verb.to_owned(), help)
        });
        let scenarios = isthmus(&["lab", "--list"]);
        let scenarios = scenarios.lines().filter_map(|line| line.split_whitespace().next());
        Self { verbs: verbs.collect(), scenarios: scenarios.map(str::to_owned).collect() }
    }

    /// What is wrong with `isthmus` and these words.
    fn complaint(&self, words: &[&str]) -> Option<String> {
        let (verb, rest) = words.split_first()?;
        if verb.starts_with('-') || *verb == "ROLE" || *verb == "VERB" {
            return None;
        }
        for verb in verb.split('|') {
            let Some(help) = self.verbs.get(verb) else {
                return Some(format!("no verb is called {verb}"));
            };
            for word in rest {
                let option = word.trim_matches(['[', ']']).split('=').next().unwrap_or(word);
                if option.starts_with("--") && option.len() > 2 && !help.contains(option) {
                    return Some(format!("{verb} has no {option}"));
                }
            }
            let Some(first) = rest.first().filter(|word| is_name(word)) else { continue };
            if verb == "show" && !help.contains(&format!("- {first}:")) {
                return Some(format!("show knows no {first}"));
            }
            if verb == "lab" && !self.scenarios.contains(*first) {
                return Some(format!("no scenario is called {first}"));
            }
        }
        None
    }
}

/// A name in small letters, not a place where one is to be put.
fn is_name(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !word.starts_with('-')
}

/// Every command line of `isthmus` in a piece of code, as words.
fn commands(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut words = code.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let is_program = word == "isthmus" || word.ends_with("/isthmus");
        if !is_program || words.peek().is_none_or(|next| next.starts_with(['-', '/'])) {
            continue;
        }
        let mut line = Vec::new();
        while let Some(next) = words.peek() {
            let next = next.trim_end_matches([',', ';', ')']);
            if next.is_empty() || "&|#<>".contains(&next[..1]) || next == "isthmus" {
                break;
            }
            line.push(next);
            words.next();
        }
        found.push(line);
    }
    found
}

#[test]
fn every_verb_option_and_scenario_in_the_pages_exists() {
    let known = CommandLine::read();
    assert!(known.verbs.len() >= 20, "{:?}", known.verbs.keys());
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for page in pages() {
        let spans = prose(&page.text)
            .flat_map(|(at, line)| code_spans(line).map(move |span| (at, span.to_owned())));
        let shell = blocks(&page.text, "sh").into_iter().flat_map(|(at, block)| {
            let lines: Vec<_> = block.lines().map(|line| (at, line.to_owned())).collect();
            lines
        });
        for (line, code) in spans.chain(shell) {
            // Files and units have the name too: only what begins with it, or is run by another program, is a command.
            let code = code.replace("cargo run --release --", "isthmus");
            let code = code.split(" # ").next().unwrap_or_default();
            for words in commands(code) {
                seen.extend(words.first().map(|verb| (*verb).to_owned()));
                if let Some(complaint) = known.complaint(&words) {
                    wrong.push(format!("{}:{line}: {complaint}", page.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let silent: Vec<_> =
        known.verbs.keys().filter(|verb| !seen.contains(*verb) && *verb != "help").collect();
    assert!(silent.is_empty(), "no page tells of {silent:?}");
}

#[test]
fn configurations_in_the_pages_are_right() {
    let environment = Environment { directory: root().join("configs"), host: None };
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (line, block) in blocks(&page.text, "toml") {
            seen += 1;
            if let Err(refused) = config::parse(Path::new(&page.name), &block, &environment) {
                let errors = refused.errors.iter();
                wrong.extend(
                    errors.map(|error| format!("{} after line {line}: {error}", page.name)),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 3, "only {seen} configurations");
}

/// Reasons and counters have underscores, and little else has.
#[test]
fn every_counter_in_the_pages_for_operators_is_on_the_page_of_counters() {
    let other = [
        "rp_filter",
        "ip_forward",
        "arp_ignore",
        "arp_announce",
        "rmem_max",
        "io_uring",
        "rt_protos",
        "promtool",
        "severity_text",
        "probe_loss_percent",
        "severity_number",
    ];
    let counters = fs::read_to_string(root().join("gateway/COUNTERS.md")).expect("the page");
    let operators = [
        "README.md",
        "gateway/README.md",
        "gateway/GUIDE.md",
        "gateway/TROUBLESHOOTING.md",
        "gateway/EXERCISES.md",
        "mapping/README.md",
        "xtr/OPERATION.md",
    ];
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| operators.contains(&&*page.name)) {
        for (line, text) in prose(&page.text) {
            for span in code_spans(text) {
                let words = span.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-".contains(c));
                for word in words.filter(|word| word.contains('_')) {
                    let plain = word.trim_start_matches("drop_").trim_start_matches("control_");
                    let is_counter = plain.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                    let known = counters.contains(word) || counters.contains(plain);
                    let is_other = other.iter().any(|other| word.contains(other));
                    if is_counter && !known && !is_other {
                        wrong.push(format!("{}:{line}: {word}", page.name));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "no such counters:\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).expect("the page");
    let lines = text.lines().count();
    assert!(lines <= README_LINES, "{lines} lines: details belong into the pages that it names");
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= README_COLUMNS, "line {} has {columns} characters", at + 1);
    }
    for command in ["cargo run --release -- lab", "cargo test --workspace"] {
        assert!(text.contains(command), "{command}");
    }
}
