//! `CONFORMANCE.md` says which requirement has which tests: by the tests' names, which begin with the requirements' numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Set it, and the page is written.
const WRITE: &str = "ISTHMUS_WRITE_PAGES";
/// Most tests named for one requirement.
const NAMED: usize = 4;

/// What the first letters of a number stand for.
const TOPICS: &[(&str, &str)] = &[
    ("CW", "Messages on the wire"),
    ("DH", "LISP header"),
    ("EN", "Encapsulation"),
    ("DE", "Decapsulation"),
    ("MT", "MTU"),
    ("MC", "Map-cache and locator selection"),
    ("RQ", "Map-Request"),
    ("RP", "Map-Reply"),
    ("PB", "RLOC-probing and reachability"),
    ("SM", "Solicit-Map-Request"),
    ("RG", "Registration by an ETR"),
    ("AU", "Authentication"),
    ("MS", "Map-Server"),
    ("MR", "Map-Resolver"),
    ("EC", "Encapsulated Control Message"),
    ("PI", "Proxy ITR"),
    ("PE", "Proxy ETR"),
    ("NI", "LISP-NAT, uRPF, routability"),
    ("MV", "Map-Versioning"),
    ("PS", "Publish and subscribe"),
    ("SE", "LISP-SEC"),
    ("CR", "Confidentiality of the data plane (RFC 8061)"),
    ("NT", "NAT traversal"),
    ("DD", "Delegated Database Tree"),
    ("GP", "LISP-GPE"),
    ("MU", "Multicast"),
    ("DY", "Dynamic EIDs"),
    ("OP", "Operations"),
];

struct Requirement {
    id: String,
    level: String,
    source: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn requirements() -> Vec<Requirement> {
    let text = include_str!("../requirements.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let [id, level, source] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {row}");
        };
        Requirement { id: id.to_owned(), level: level.to_owned(), source: source.to_owned() }
    })
    .collect()
}

/// Why a requirement has no test, by its number.
fn reasons() -> BTreeMap<&'static str, &'static str> {
    let text = include_str!("../reasons.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.flat_map(|row| {
        let (ids, reason) = row.split_once('\t').unwrap_or_else(|| panic!("two columns: {row}"));
        ids.split(' ').map(move |id| (id, reason))
    })
    .collect()
}

/// Tests by requirement, as `crate/path: name`.
fn tests() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for member in ["mapping", "xtr", "gateway", "interop-tests"] {
        for directory in ["src", "tests"] {
            let mut files = Vec::new();
            collect(&root().join(member).join(directory), &mut files);
            for file in files {
                let text = fs::read_to_string(&file).expect("source");
                let place =
                    file.strip_prefix(root()).expect("below the root").display().to_string();
                for line in text.lines() {
                    let Some(name) = function(line) else { continue };
                    for id in ids(name) {
                        found.entry(id).or_default().insert((place.clone(), name.to_owned()));
                    }
                }
            }
        }
    }
    found
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    line.split_once('(').map(|(name, _)| name)
}

/// The numbers that a name begins with: `en_08_en_09_...` has two, `mc_20_21_...` too.
fn ids(name: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut topic = None;
    for word in name.split('_') {
        let is_number = word.len() == 2 && word.bytes().all(|octet| octet.is_ascii_digit());
        match topic {
            Some(letters) if is_number => ids.push(format!("{letters}-{word}")),
            _ if TOPICS.iter().any(|(letters, _)| letters.eq_ignore_ascii_case(word)) => {
                topic =
                    TOPICS.iter().map(|t| t.0).find(|letters| letters.eq_ignore_ascii_case(word));
            }
            _ => break,
        }
    }
    ids
}

fn page(
    requirements: &[Requirement],
    tests: &BTreeMap<String, BTreeSet<(String, String)>>,
) -> String {
    let reasons = reasons();
    let is_tested = |requirement: &&Requirement| tests.contains_key(&requirement.id);
    let done = requirements.iter().filter(is_tested).count();
    let mut page = format!(
        "# Conformance\n\n\
         Made by `ISTHMUS_WRITE_PAGES=1 cargo test -p interop-tests --test conformance` from the names of the tests and `requirements.tsv`. A test that begins \
         with a requirement's number is there to show that it is met; \"not done\" says that no test claims to, and why (`reasons.tsv`). Sources without a \
         word before them are RFCs.\n\n\
         {done} of {} requirements have a test.\n",
        requirements.len()
    );
    for (letters, topic) in TOPICS {
        let prefix = format!("{letters}-");
        let of_topic: Vec<_> = requirements.iter().filter(|r| r.id.starts_with(&prefix)).collect();
        let done = of_topic.iter().copied().filter(is_tested).count();
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {topic}: {done} of {}\n\n| number | level | source | tests |\n|---|---|---|---|\n",
            of_topic.len()
        );
        for Requirement { id, level, source } in of_topic {
            let reason = reasons.get(id.as_str()).copied().unwrap_or("nobody has said why");
            let said = tests.get(id).map_or_else(|| format!("not done: {reason}"), named);
            let _ = writeln!(page, "| {id} | {level} | {source} | {said} |");
        }
    }
    page
}

fn named(tests: &BTreeSet<(String, String)>) -> String {
    let shown = tests.iter().take(NAMED);
    let mut said: Vec<String> =
        shown.map(|(place, name)| format!("[`{name}`](../{place})")).collect();
    if tests.len() > NAMED {
        said.push("and others".to_owned());
    }
    said.join(", ")
}

#[test]
fn the_page_of_conformance_is_what_the_tests_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFORMANCE.md");
    let wanted = page(&requirements(), &tests());
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &wanted).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let tests = tests();
    // A test that came since may be missing there; what is there has to be right.
    let status = |line: &str| line.split("[`").next().unwrap_or_default().to_owned();
    let wrong: Vec<_> = wanted
        .lines()
        .zip(found.lines().chain(std::iter::repeat("")))
        .filter(|(wanted, found)| status(wanted) != status(found) || !is_right(found, &tests))
        .collect();
    assert!(
        wrong.is_empty() && wanted.lines().count() == found.lines().count(),
        "CONFORMANCE.md is old: {WRITE}=1 cargo test -p interop-tests --test conformance\n{wrong:#?}"
    );
}

/// Whether the tests that a row names are there.
fn is_right(row: &str, tests: &BTreeMap<String, BTreeSet<(String, String)>>) -> bool {
    let id = row.split(" | ").next().and_then(|cell| cell.strip_prefix("| ")).unwrap_or_default();
    row.split("[`").skip(1).all(|link| {
        let Some((name, place)) = link.split_once("`](../") else { return false };
        let place = place.split(')').next().unwrap_or_default();
        tests.get(id).is_some_and(|tests| tests.contains(&(place.to_owned(), name.to_owned())))
    })
}

#[test]
fn what_has_no_test_has_a_reason_and_nothing_else_has() {
    let (tests, reasons) = (tests(), reasons());
    let untested: BTreeSet<String> =
        requirements().into_iter().map(|r| r.id).filter(|id| !tests.contains_key(id)).collect();
    let explained: BTreeSet<String> = reasons.keys().map(|id| (*id).to_owned()).collect();
    assert_eq!(untested, explained);
    assert!(reasons.values().all(|reason| !reason.is_empty() && !reason.contains('|')));
}

#[test]
fn every_number_in_a_test_s_name_is_a_requirement() {
    let known: BTreeSet<String> = requirements().into_iter().map(|r| r.id).collect();
    let unknown: Vec<_> = tests().into_iter().filter(|(id, _)| !known.contains(id)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn numbers_of_names() {
    assert_eq!(ids("en_08_outer_ecn_is_a_copy"), ["EN-08"]);
    assert_eq!(ids("pi_12_pi_13_a_gateway"), ["PI-12", "PI-13"]);
    assert_eq!(ids("mc_20_21_shares"), ["MC-20", "MC-21"]);
    assert_eq!(ids("so_12_many"), [""; 0]);
    assert_eq!(ids("de_duplicated"), [""; 0]);
}
