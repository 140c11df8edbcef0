use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapping::admin::Request;
use mapping::discard::DiscardCounters;
use mapping::telemetry::{Histogram, INSIDE, SeriesView};
use mapping::view::WorkerView;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use xtr::counters::CounterSnapshot;
use xtr::drops::DropReason;

use super::*;

/// What a gateway with one locator says.
fn view() -> MetricsView {
    let mut histogram = Histogram::new(INSIDE);
    histogram.observe(Duration::from_micros(20));
    histogram.observe(Duration::from_secs(3));
    let reason = |reason: &DropReason| DropCount {
        reason: reason.name().to_owned(),
        count: 7,
        help: String::new(),
    };
    let mut counters = CounterSnapshot::default().by_name();
    let own = [
        ("encapsulated", "pitr_encap"),
        ("decapsulated", "petr_decap"),
        ("reencapsulated", "rtr_reencap"),
    ];
    for (general, own) in own {
        let count = counters.remove(general).expect("a counter");
        counters.insert(own.to_owned(), count + 5);
    }
    MetricsView {
        status: StatusView {
            role: "gateway".to_owned(),
            name: "pxtr\"1".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 9,
            healthy: true,
            intake: None,
            notes: Vec::new(),
            peers: Vec::new(),
            workers: vec![WorkerView {
                number: 0,
                cpu: None,
                packets: 12,
                turns: 3,
                failure: None,
            }],
        },
        counters,
        drops: DropReason::ALL.iter().map(reason).collect(),
        discards: DiscardCounters::default().all(),
        histograms: BTreeMap::from([("forwarding_convergence".to_owned(), histogram.view())]),
        series: vec![
            SeriesView::new("locator_rtt_seconds", &[("rloc", "192.0.2.1")], 0.001_5),
            SeriesView::new("locator_probes_sent_total", &[("rloc", "192.0.2.1")], 4.0),
        ],
        left_out: 0,
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
}

#[test]
fn values_are_in_base_units_with_labels() {
    let text = text(view(), Some(Process::default()), Format::OpenMetrics);
    has(&text, "# TYPE isthmus_encapsulated_packets counter");
    has(&text, "isthmus_encapsulated_packets_total{role=\"pitr\"} 5");
    has(&text, "isthmus_drops_total{reason=\"no_usable_locator\"} 7");
    has(&text, "isthmus_locator_rtt_seconds{rloc=\"192.0.2.1\"} 0.0015");
    has(&text, "isthmus_locator_probes_sent_total{rloc=\"192.0.2.1\"} 4.0");
    has(&text, "isthmus_build_info{role=\"gateway\",name=\"pxtr\\\"1\",version=\"0.1.0\"} 1");
    has(&text, "# TYPE isthmus_forwarding_convergence_seconds histogram");
    has(&text, "isthmus_forwarding_convergence_seconds_bucket{le=\"0.00001\"} 0");
    has(&text, "isthmus_forwarding_convergence_seconds_bucket{le=\"0.000025\"} 1");
    has(&text, "isthmus_forwarding_convergence_seconds_bucket{le=\"+Inf\"} 2");
    has(&text, "isthmus_forwarding_convergence_seconds_count 2");
    // What never happened is there too.
    has(&text, "isthmus_smrs_sent_total 0");
    has(&text, "# TYPE process_cpu_seconds counter");
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("isthmus_other"), "{text}");
}

#[test]
fn the_older_text_describes_counters_by_their_whole_name() {
    let text = text(view(), None, Format::Prometheus);
    has(&text, "# TYPE isthmus_drops_total counter");
    has(&text, "# TYPE isthmus_held_packets gauge");
    has(&text, "# TYPE isthmus_forwarding_convergence_seconds histogram");
    assert!(!text.contains("# EOF") && !text.contains("process_"));
    assert_eq!(Format::wanted("text/plain;version=0.0.4;q=0.5"), Format::Prometheus);
    assert_eq!(Format::wanted("application/openmetrics-text;version=1.0.0"), Format::OpenMetrics);
}

#[test]
fn op_01_every_counter_and_every_drop_is_a_metric() {
    let view = view();
    let text = text(view.clone(), None, Format::OpenMetrics);
    for drop in &view.drops {
        has(&text, &format!("isthmus_drops_total{{reason=\"{}\"}} {}", drop.reason, drop.count));
    }
    for drop in &view.discards {
        has(&text, &format!("isthmus_control_discards_total{{reason=\"{}\"}} 0", drop.reason));
    }
    for name in view.counters.keys().filter(|name| !name.starts_with("drop_")) {
        let meaning = catalogue::meaning(name).unwrap_or_else(|| panic!("{name} means nothing"));
        let value = view.counters[name];
        let total = if meaning.kind == Kind::Counter { "_total" } else { "" };
        let label = meaning.label.map_or_else(String::new, |(k, v)| format!("{{{k}=\"{v}\"}}"));
        has(&text, &format!("isthmus_{}{total}{label} {value}", meaning.metric));
    }
}

/// Every `.rs` file below a directory that is not a test.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_counter_of_the_source_has_a_meaning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtr/src/control");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut counted = BTreeSet::new();
    for path in files.iter().filter(|path| !path.components().any(|c| c.as_os_str() == "tests")) {
        let text = fs::read_to_string(path).expect("source");
        for call in text.split("self.count(").skip(1) {
            // A name, or a choice of names.
            let call = call.split(");").next().unwrap_or_default();
            counted.extend(call.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    assert!(counted.len() > 50, "{counted:?}");
    let known: BTreeSet<&str> = catalogue::CONTROL.iter().map(|m| m.counter).collect();
    let unknown: Vec<_> = counted.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "give these a meaning in metrics/catalogue.rs: {unknown:?}");
}

#[test]
fn meanings_are_sentences_and_unambiguous() {
    let mut names = BTreeSet::new();
    let mut series = BTreeSet::new();
    for meaning in [catalogue::DATA, catalogue::CONTROL, catalogue::MAPPING].into_iter().flatten() {
        assert!(names.insert(meaning.counter), "{} twice", meaning.counter);
        assert!(series.insert((meaning.metric, meaning.label)), "{} twice", meaning.metric);
        assert!(meaning.help.ends_with('.') && !meaning.help.contains(['"', '\\', '\n']));
    }
    for (name, _, help) in catalogue::SERIES {
        assert!(help.ends_with('.') && names.insert(name), "{name}");
    }
}

/// A request to a server whose daemon answers [`view`].
async fn fetch(request: &str) -> String {
    let (sender, mut questions) = mpsc::channel::<Request>(4);
    let server = server::Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    let serving = tokio::spawn(server.serve(sender));
    let daemon = tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let answer = serde_json::to_value(view()).unwrap();
            question.reply.send(Ok(answer.into())).unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    daemon.abort();
    serving.await.unwrap();
    answer
}

#[tokio::test]
async fn scrapers_are_served_and_nobody_else() {
    let get = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")
    };
    let old = fetch(&get("/metrics", "")).await;
    assert!(old.starts_with("HTTP/1.1 200 OK\r\n"), "{old}");
    assert!(old.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{old}");
    let new = fetch(&get("/metrics", "Accept: application/openmetrics-text\r\n")).await;
    assert!(new.ends_with("# EOF\n"), "{new}");
    assert!(fetch(&get("/", "")).await.starts_with("HTTP/1.1 404 "));
    let post = get("/metrics", "Content-Length: 0\r\n").replacen("GET", "POST", 1);
    let refused = fetch(&post).await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"));
    assert!(fetch("no HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

/// The names of all series of all roles, as Prometheus has them.
fn every_name() -> BTreeSet<String> {
    let mut router = view();
    router.series = catalogue::SERIES
        .iter()
        .map(|(metric, kind, _)| {
            let total = if *kind == Kind::Counter { "_total" } else { "" };
            SeriesView::new(&format!("{metric}{total}"), &[("site", "a")], 1.0)
        })
        .collect();
    let histogram = Histogram::new(INSIDE).view();
    let histograms = catalogue::HISTOGRAMS.iter();
    router.histograms =
        histograms.map(|(name, _)| ((*name).to_owned(), histogram.clone())).collect();
    let mut server = view();
    server.status.role = "mapping".to_owned();
    let counts = mapping::server::Count::ALL.iter().map(|count| count.name());
    let sizes = catalogue::MAPPING.iter().map(|meaning| meaning.counter);
    server.counters = counts.chain(sizes).map(|name| (name.to_owned(), 1)).collect();
    let process = Some(Process::default());
    let texts = [router, server].map(|view| text(view, process, Format::Prometheus));
    let series = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    series.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect()
}

/// The metrics that a text speaks of.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let of_ours = words.filter(|word| word.starts_with("isthmus_") || word.starts_with("process_"));
    of_ours.map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_speak_of_metrics_that_there_are() {
    let known = every_name();
    assert!(known.contains("isthmus_negative_map_replies_sent_total"), "{known:#?}");
    for file in ["isthmus-alerts.yml", "isthmus-dashboard.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(file);
        let text = fs::read_to_string(path).expect(file);
        let named = named(&text);
        assert!(named.len() > 10, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn alerts_name_reasons_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/isthmus-alerts.yml");
    let text = fs::read_to_string(path).expect("rules");
    let mut seen = 0;
    for list in text.split("reason=~\"").skip(1) {
        for reason in list.split('"').next().unwrap_or_default().split('|') {
            let is_ours = DropReason::ALL.iter().any(|known| known.name() == reason);
            assert!(is_ours || reason.starts_with("kernel_udp_"), "{reason}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn the_dashboard_is_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/isthmus-dashboard.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).expect("dashboard")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    assert!(panels.iter().all(|panel| panel["title"].is_string() && panel["gridPos"].is_object()));
}

/// Runs promtool with this on its standard input; `None` if there is none.
fn promtool(arguments: &[&str], input: &str) -> Option<std::process::Output> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_none(), "promtool is not installed");
        println!("SKIP: promtool is not installed (Debian package prometheus)");
        return None;
    };
    child.stdin.take().expect("input").write_all(input.as_bytes()).expect("written");
    Some(child.wait_with_output().expect("promtool runs"))
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let mut server = view();
    server.status.role = "mapping".to_owned();
    server.counters = catalogue::MAPPING.iter().map(|m| (m.counter.to_owned(), 1)).collect();
    for view in [view(), server] {
        let text = text(view, Some(Process::default()), Format::Prometheus);
        let Some(output) = promtool(&["check", "metrics"], &text) else { return };
        assert!(output.status.success(), "{output:?}\n{text}");
    }
}

#[test]
fn promtool_takes_the_alerts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/isthmus-alerts.yml");
    let path = path.to_str().expect("a path").to_owned();
    let Some(output) = promtool(&["check", "rules", &path], "") else { return };
    assert!(output.status.success(), "{output:?}");
}
