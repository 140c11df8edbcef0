//! `isthmus history`: what the counters of a running daemon were.

use std::path::PathBuf;

use ::mapping::admin::Query;
use ::mapping::recorder::{CounterHistory, HistoryView, RingView};
use clap::Args;
use serde_json::Value;

use super::again::Again;
use super::columns::Align::{Left, Right};
use super::columns::{clock, table};
use super::show::{self, RoleName};
use super::{Failure, print, print_json};
use crate::admin::client;
use crate::metrics::catalogue::{self, Kind};

/// Whose history, and of what.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus history                                every counter that moved: per second now, in half a minute, in five minutes
  isthmus history drop_no_usable_locator         when it was counted, as far back as is known
  isthmus history native_in_octets core_out_octets --json

The daemon keeps every counter every 2 s for 10 minutes, every 30 s for 2 hours, and every 5 min for a day: at most 3.4 MB. What comes
and goes (map_cache_entries, ...) is shown as it was, not per second.")]
pub(crate) struct HistoryArgs {
    /// Counters, as isthmus show counters names them; drop_ or control_ and a reason of isthmus show drops; without one, a summary of all that moved
    #[arg(value_name = "COUNTER")]
    counters: Vec<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    again: Again,
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_enum)]
    role: Option<RoleName>,
}

/// Asks the daemon and prints its answer.
pub(crate) fn run(args: &HistoryArgs) -> Result<(), Failure> {
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let query = Query::History { counters: args.counters.clone() };
    args.again.repeat(|| {
        let view =
            client::ask(&socket, &query).map_err(|error| show::ask_failure(error, &socket))?;
        match args.json {
            true => print_json(&view),
            false => print(&text(view, args.counters.is_empty())?),
        }
    })
}

fn text(view: Value, all: bool) -> Result<String, Failure> {
    let view: HistoryView = serde_json::from_value(view)
        .map_err(|error| Failure::Failed(format!("the answer is not understood: {error}")))?;
    Ok(if all { summary(&view) } else { details(&view) })
}

/// Every counter that is not 0, with how it changed last in each ring.
pub(super) fn summary(view: &HistoryView) -> String {
    let Some(finest) = view.rings.first() else { return "Nothing is recorded.\n".to_owned() };
    let spans: Vec<String> = view.rings.iter().map(|ring| span(ring.interval_seconds)).collect();
    let mut header = vec![("Counter", Left), ("Now", Right)];
    header.extend(spans.iter().map(|span| (span.as_str(), Right)));
    header.push(("Most", Right));
    header.push(("Ago", Right));
    let mut rows = Vec::new();
    for (name, values) in &finest.counters {
        let now = values.last().copied().flatten().unwrap_or_default();
        let most = most(finest, values, is_gauge(name));
        if now == 0 && most.is_none_or(|(most, _)| most <= 0.0) {
            continue;
        }
        let mut row = vec![name.clone(), now.to_string()];
        for ring in &view.rings {
            row.push(last_change(ring, name));
        }
        row.push(most.map_or_else(|| "-".to_owned(), |(most, _)| number(most)));
        row.push(most.map_or_else(|| "-".to_owned(), |(_, age)| clock(age / 1_000)));
        rows.push(row);
    }
    let known = finest.age_milliseconds.first().map_or(0, |age| age / 1_000);
    if rows.is_empty() {
        return format!("No counter moved in the last {}.\n", clock(known));
    }
    format!(
        "Per second in the last 2 s, 30 s, 5 min, and the most in any 2 s of the last {}; =N is a level, as it was then\n\n{}",
        clock(known),
        table(0, &header, &rows)
    )
}

fn span(seconds: u64) -> String {
    match seconds {
        seconds if seconds >= 60 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// What a ring says of the time since its last sample but one.
fn last_change(ring: &RingView, name: &str) -> String {
    let values = ring.counters.get(name).map(Vec::as_slice).unwrap_or_default();
    let count = values.len();
    if is_gauge(name) {
        let before = count.checked_sub(2).and_then(|at| values[at]);
        return before.map_or_else(|| "-".to_owned(), |value| format!("={value}"));
    }
    let rate = count.checked_sub(1).and_then(|at| rate(ring, values, at));
    rate.map_or_else(|| "-".to_owned(), number)
}

/// The highest rate, or the highest level, and how long ago that was in milliseconds.
fn most(ring: &RingView, values: &CounterHistory, is_level: bool) -> Option<(f64, u64)> {
    let at = |place: usize| match is_level {
        true => values[place].map(|value| value as f64),
        false => rate(ring, values, place),
    };
    let known = (0..values.len()).filter_map(|place| {
        Some((at(place)?, ring.age_milliseconds.get(place).copied().unwrap_or_default()))
    });
    known.fold(None, |best: Option<(f64, u64)>, (value, age)| match best {
        Some((most, _)) if most > value => best,
        _ => Some((value, age)),
    })
}

/// Per second, between the sample before this one and this one; a counter that was not there yet was 0.
fn rate(ring: &RingView, values: &[Option<u64>], place: usize) -> Option<f64> {
    let before = place.checked_sub(1)?;
    let span =
        ring.age_milliseconds.get(before)?.saturating_sub(*ring.age_milliseconds.get(place)?);
    let grown = values[place]?.saturating_sub(values[before].unwrap_or_default());
    (span > 0).then(|| grown as f64 * 1_000.0 / span as f64)
}

/// Every sample of the counters at which one of them had changed.
pub(super) fn details(view: &HistoryView) -> String {
    let names: Vec<&String> =
        view.rings.first().map(|ring| ring.counters.keys().collect()).unwrap_or_default();
    let rates: Vec<String> = names
        .iter()
        .map(|name| if is_gauge(name) { "level".to_owned() } else { format!("{name}/s") })
        .collect();
    let mut header = vec![("Ago", Right)];
    for (name, rate) in names.iter().zip(&rates) {
        header.extend([(name.as_str(), Right), (rate.as_str(), Right)]);
    }
    let mut text = String::new();
    for ring in &view.rings {
        let rows = samples(ring, &names);
        let known = ring.age_milliseconds.first().map_or(0, |age| age / 1_000);
        text += &format!("Every {} for {}", span(ring.interval_seconds), clock(known));
        text += &match rows.is_empty() {
            true => ": nothing changed\n\n".to_owned(),
            false => format!("\n{}\n", table(2, &header, &rows)),
        };
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn samples(ring: &RingView, names: &[&String]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for place in 1..ring.age_milliseconds.len() {
        let changed = |name: &&String| {
            let values = &ring.counters[*name];
            values[place] != values[place - 1]
        };
        if !names.iter().any(changed) {
            continue;
        }
        let mut row = vec![clock(ring.age_milliseconds[place] / 1_000)];
        for name in names {
            let values = &ring.counters[*name];
            row.push(values[place].map_or_else(|| "-".to_owned(), |value| value.to_string()));
            row.push(match rate(ring, values, place) {
                Some(rate) if !is_gauge(name) => number(rate),
                _ => "-".to_owned(),
            });
        }
        rows.push(row);
    }
    rows
}

fn is_gauge(name: &str) -> bool {
    catalogue::meaning(name).is_some_and(|meaning| meaning.kind == Kind::Gauge)
}

/// As many digits as tell something.
fn number(value: f64) -> String {
    match value {
        value if value < 10.0 && value.fract() != 0.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::mapping::recorder::Recorder;
    use ::mapping::view::CountersView;
    use std::time::{Duration, Instant};

    /// 10 packets a second for 60 s, but 100 a second between 20 s and 22 s; the map-cache grows by one every 30 s.
    fn recorded(counters: &[&str]) -> HistoryView {
        let start = Instant::now();
        let mut recorder = Recorder::new(start, Duration::ZERO);
        let mut packets = 0;
        for second in 0..=60 {
            packets += if (21..=22).contains(&second) { 100 } else { 10 };
            let counters = CountersView::from([
                ("native_in_packets".to_owned(), packets),
                ("map_cache_entries".to_owned(), second / 30),
                ("drop_no_usable_locator".to_owned(), 0),
            ]);
            recorder.handle_timeout(start + Duration::from_secs(second), || counters);
        }
        let counters: Vec<String> = counters.iter().map(|name| (*name).to_owned()).collect();
        recorder.history_view(start + Duration::from_secs(60), &counters).expect("a view")
    }

    #[test]
    fn the_summary_says_what_moves_and_when_it_moved_most() {
        let expected = "\
Per second in the last 2 s, 30 s, 5 min, and the most in any 2 s of the last 00:01:00; =N is a level, as it was then

Counter            Now  2 s  30 s  5 min  Most       Ago
map_cache_entries    2   =1    =1      -     2  00:00:00
native_in_packets  790   10    10      -   100  00:00:38
";
        assert_eq!(summary(&recorded(&[])), expected);
        let still = summary(&recorded(&["drop_no_usable_locator"]));
        assert_eq!(still, "No counter moved in the last 00:01:00.\n");
    }

    #[test]
    fn the_details_leave_out_where_nothing_changed() {
        let text = details(&recorded(&["map_cache_entries"]));
        let expected = "\
Every 2 s for 00:01:00
       Ago  map_cache_entries  level
  00:00:30                  1      -
  00:00:00                  2      -

Every 30 s for 00:01:00
       Ago  map_cache_entries  level
  00:00:30                  1      -
  00:00:00                  2      -

Every 5 min for 00:01:00: nothing changed
";
        assert_eq!(text, expected);
        let packets = details(&recorded(&["native_in_packets"]));
        assert!(
            packets.contains("00:00:30                490                   16\n"),
            "{packets}"
        );
    }
}
