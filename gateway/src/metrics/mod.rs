//! Metrics for Prometheus and whatever else reads its text: OpenMetrics, made anew for every scrape from what the daemon has counted.
//!
//! Names begin with `isthmus_`, those of the process with `process_`; units are seconds and bytes. What could be many is bounded: at
//! most [`MOST_SERIES`](mapping::telemetry::MOST_SERIES) locators, registrations and sites each have series of their own, and
//! `isthmus_series_left_out` says how many have none. Nothing is measured for a scrape but what the daemon counts anyway.

use std::collections::BTreeMap;
use std::fmt;

use mapping::admin::DropCount;
use mapping::telemetry::{HistogramView, MetricsView};
use mapping::view::StatusView;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub mod catalogue;
pub mod process;
pub mod server;
#[cfg(test)]
mod tests;

use catalogue::Kind;
use process::Process;

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older text of Prometheus, for whoever does not ask for another one.
    Prometheus,
}

impl Format {
    /// What somebody wants who accepts these content types.
    pub fn wanted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// As HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics of a daemon as text.
pub fn text(view: MetricsView, process: Option<Process>, format: Format) -> String {
    let families = families(view, process);
    let counters: Vec<String> = families
        .0
        .iter()
        .filter(|(_, family)| family.kind == Kind::Counter && !family.is_histogram())
        .map(|(name, _)| name.clone())
        .collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => older(&text, &counters),
    }
}

/// OpenMetrics describes a counter without `_total`, the older text with it; it has no end mark either.
fn older(text: &str, counters: &[String]) -> String {
    let mut old = String::with_capacity(text.len() + counters.len() * 12);
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        let described = (words.next(), words.next(), words.next(), words.next());
        match described {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest))
                if counters.binary_search_by(|known| known.as_str().cmp(name)).is_ok() =>
            {
                old.extend(["# ", what, " ", name, "_total ", rest, "\n"]);
            }
            _ => old.extend([line, "\n"]),
        }
    }
    old
}

/// Metrics by name, in their order.
#[derive(Debug, Default)]
struct Families(BTreeMap<String, Family>);

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: String,
    values: Vec<(Vec<(String, String)>, Value)>,
}

#[derive(Debug)]
enum Value {
    Whole(u64),
    Float(f64),
    Histogram(HistogramView),
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>, kind: Kind) -> fmt::Result {
        match (self, kind) {
            (Self::Whole(value), Kind::Counter) => {
                metric.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (Self::Float(value), Kind::Counter) => {
                metric.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (Self::Whole(value), Kind::Gauge) => metric.encode_gauge(value),
            (Self::Float(value), Kind::Gauge) => metric.encode_gauge(value),
            (Self::Histogram(view), _) => {
                let (sum, buckets) = in_seconds(view);
                metric.encode_histogram::<NoLabelSet>(sum, view.count, &buckets, None)
            }
        }
    }
}

impl Family {
    fn is_histogram(&self) -> bool {
        matches!(self.values.first(), Some((_, Value::Histogram(_))))
    }
}

impl Families {
    fn add(&mut self, name: &str, kind: Kind, help: &str, labels: &[(&str, &str)], value: Value) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels = labels.iter().map(owned).collect();
        let family = self.0.entry(name.to_owned());
        let family =
            family.or_insert_with(|| Family { kind, help: help.to_owned(), values: Vec::new() });
        family.values.push((labels, value));
    }

    fn float(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.add(name, kind, help, &[], Value::Float(value));
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, family) in &self.0 {
            let kind = match family.kind {
                _ if family.is_histogram() => MetricType::Histogram,
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, &family.help, None, kind)?;
            for (labels, value) in &family.values {
                if labels.is_empty() {
                    value.encode(&mut metric, family.kind)?;
                } else {
                    value.encode(&mut metric.encode_family(labels)?, family.kind)?;
                }
            }
        }
        Ok(())
    }
}

/// The sum, and the buckets with the one that has no bound.
fn in_seconds(view: &HistogramView) -> (f64, Vec<(f64, u64)>) {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let bounded: u64 = view.buckets.iter().map(|(_, count)| count).sum();
    let beyond = (f64::INFINITY, view.count.saturating_sub(bounded));
    let buckets = view.buckets.iter().map(|(bound, count)| (seconds(*bound), *count));
    (seconds(view.sum_micros), buckets.chain([beyond]).collect())
}

const DROPS: &str = "Packets dropped, by reason; isthmus show drops explains each.";
const DISCARDS: &str =
    "Control messages and records discarded, by reason; isthmus show drops explains each.";

fn families(view: MetricsView, process: Option<Process>) -> Families {
    let mut families = Families::default();
    let is_router = view.status.role != "mapping";
    of_status(&mut families, &view.status);
    let zeros = catalogue::CONTROL.iter().filter(|_| is_router).map(|meaning| (meaning.counter, 0));
    let mut counters: BTreeMap<&str, u64> = zeros.collect();
    counters.extend(view.counters.iter().map(|(name, value)| (name.as_str(), *value)));
    for (name, value) in counters {
        // The drops have reasons, which say more.
        if !name.starts_with("drop_") && !name.starts_with("kernel_udp_") {
            of_counter(&mut families, name, value);
        }
    }
    let reasons = |families: &mut Families, metric: &str, help: &str, drops: &[DropCount]| {
        for drop in drops {
            let labels = [("reason", drop.reason.as_str())];
            families.add(metric, Kind::Counter, help, &labels, Value::Whole(drop.count));
        }
    };
    reasons(&mut families, "isthmus_drops", DROPS, &view.drops);
    reasons(&mut families, "isthmus_control_discards", DISCARDS, &view.discards);
    for (name, histogram) in view.histograms {
        let known = catalogue::HISTOGRAMS.iter().find(|(known, _)| *known == name);
        let help = known.map_or("A histogram.", |(_, help)| help);
        let name = format!("isthmus_{name}_seconds");
        families.add(&name, Kind::Counter, help, &[], Value::Histogram(histogram));
    }
    for series in &view.series {
        let metric = series.metric.strip_suffix("_total").unwrap_or(&series.metric);
        let known = catalogue::SERIES.iter().find(|(known, ..)| *known == metric);
        let (kind, help) = known.map_or((Kind::Gauge, "A value."), |(_, kind, help)| (*kind, help));
        let labels: Vec<(&str, &str)> =
            series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let name = format!("isthmus_{metric}");
        families.add(&name, kind, help, &labels, Value::Float(series.value));
    }
    let left_out =
        "Locators, registrations and sites without series of their own: there are too many.";
    families.float("isthmus_series_left_out", Kind::Gauge, left_out, view.left_out as f64);
    if let Some(process) = process {
        of_process(&mut families, &process);
    }
    families
}

fn of_counter(families: &mut Families, name: &str, value: u64) {
    match catalogue::meaning(name) {
        Some(meaning) => {
            let metric = format!("isthmus_{}", meaning.metric);
            let labels: Vec<_> = meaning.label.into_iter().collect();
            families.add(&metric, meaning.kind, meaning.help, &labels, Value::Whole(value));
        }
        None => {
            let help = "Counters that are in no list of their own, by name.";
            let labels = [("counter", name)];
            families.add("isthmus_other", Kind::Counter, help, &labels, Value::Whole(value));
        }
    }
}

fn of_status(families: &mut Families, status: &StatusView) {
    let labels = [
        ("role", status.role.as_str()),
        ("name", status.name.as_str()),
        ("version", status.version.as_str()),
    ];
    let info = "Who this is; always 1.";
    families.add("isthmus_build_info", Kind::Gauge, info, &labels, Value::Whole(1));
    let healthy =
        "Whether the daemon finds nothing wrong: 1, else 0; isthmus show status says what.";
    let is_healthy = Value::Whole(u64::from(status.healthy));
    families.add("isthmus_healthy", Kind::Gauge, healthy, &[], is_healthy);
    let uptime = "Time since the daemon started.";
    families.float("isthmus_uptime_seconds", Kind::Gauge, uptime, status.uptime_seconds as f64);
    for worker in &status.workers {
        let number = worker.number.to_string();
        let labels = [("worker", number.as_str())];
        let up = Value::Whole(u64::from(worker.failure.is_none()));
        let running = "Whether a worker of the data plane runs: 1, else 0.";
        families.add("isthmus_worker_up", Kind::Gauge, running, &labels, up);
        let packets = "Packets that a worker of the data plane took in, from both sides.";
        let value = Value::Whole(worker.packets);
        families.add("isthmus_worker_packets", Kind::Counter, packets, &labels, value);
    }
}

fn of_process(families: &mut Families, process: &Process) {
    let Process {
        cpu_seconds,
        resident_bytes,
        virtual_bytes,
        open_descriptors,
        most_descriptors,
        threads,
        started,
    } = *process;
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory.", virtual_bytes),
        ("process_open_fds", "File descriptors that are open.", open_descriptors),
        ("process_max_fds", "File descriptors that may be open.", most_descriptors),
        ("process_threads", "Threads.", threads),
        ("process_start_time_seconds", "When the process started, since 1970.", started),
    ];
    for (name, help, value) in gauges {
        families.float(name, Kind::Gauge, help, value);
    }
    let help = "Processor time, user and system.";
    families.float("process_cpu_seconds", Kind::Counter, help, cpu_seconds);
}
