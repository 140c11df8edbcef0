//! `COUNTERS.md` says what the code says: every counter, every reason to drop, and what to do about it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use gateway::metrics::catalogue::{self, Kind, Meaning};
use mapping::discard::Discard;
use mapping::server::Count;
use xtr::drops::DropReason;

/// Set it, and the page is written.
const WRITE: &str = "ISTHMUS_WRITE_PAGES";

fn page() -> String {
    let mut page = String::from(
        "# Counters\n\n\
         Made by `ISTHMUS_WRITE_PAGES=1 cargo test -p gateway --test counters_page` from the lists in the code: change it there.\n\n\
         `isthmus show counters` and `isthmus history` have the names of the first column, `isthmus show drops` the reasons; the second column is the \
         metric that Prometheus sees. A dropped packet has one reason and is counted once.\n\n\
         ## Why packets are dropped\n\n\
         Metric `isthmus_drops_total{reason=\"...\"}`; in `show counters` with `drop_` before it. `isthmus tap drop` shows the packets.\n\n\
         | reason | what it means, and what to do |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        row(&mut page, &[reason.name(), reason.help()]);
    }
    page += "\nThe kernel drops some before: `kernel_udp_checksum` (a wrong UDP checksum), `kernel_udp_buffer` (the receive buffer was full).\n";
    page += "\n## Why control messages are discarded\n\n\
        Metric `isthmus_control_discards_total{reason=\"...\"}`; in `show drops` of a gateway or xTR with `control_` before it.\n\n\
        | reason | what it means, and what to do |\n|---|---|\n";
    for reason in Discard::ALL {
        row(&mut page, &[reason.name(), reason.help()]);
    }
    page += "\n## Data plane (gateway, xTR)\n\n";
    table(&mut page, catalogue::DATA.iter().copied());
    page += "\n## Control plane (gateway, xTR)\n\n";
    table(&mut page, catalogue::CONTROL.iter().copied());
    page += "\n## Map-Server and Map-Resolver\n\n";
    let counts = Count::ALL.iter().map(|count| Meaning {
        counter: count.name(),
        kind: Kind::Counter,
        metric: count.name(),
        label: None,
        help: count.help(),
    });
    table(&mut page, counts.chain(catalogue::MAPPING.iter().copied()));
    page += "\n## By locator, registration, site\n\nAt most 256 of each have series; `isthmus_series_left_out` counts the others.\n\n| metric | what it means |\n|---|---|\n";
    for (metric, kind, help) in catalogue::SERIES {
        row(&mut page, &[&format!("`isthmus_{metric}{}`", total(*kind)), help]);
    }
    page += "\n## Histograms\n\n| metric | what it means |\n|---|---|\n";
    for (name, help) in catalogue::HISTOGRAMS {
        row(&mut page, &[&format!("`isthmus_{name}_seconds`"), help]);
    }
    page
}

fn table(page: &mut String, meanings: impl Iterator<Item = Meaning>) {
    *page += "| counter | metric | what it means |\n|---|---|---|\n";
    for meaning in meanings {
        let label = meaning
            .label
            .map_or_else(String::new, |(name, value)| format!("{{{name}=\"{value}\"}}"));
        let metric = format!("`isthmus_{}{}{label}`", meaning.metric, total(meaning.kind));
        row(page, &[meaning.counter, &metric, meaning.help]);
    }
}

const fn total(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::Gauge => "",
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

#[test]
fn op_01_the_page_of_counters_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COUNTERS.md");
    let wanted = page();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &wanted).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "COUNTERS.md is old: {WRITE}=1 cargo test -p gateway --test counters_page"
    );
}
