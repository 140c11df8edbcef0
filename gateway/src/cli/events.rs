//! `isthmus events`: what happened to a running daemon.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ::mapping::admin::Query;
use ::mapping::recorder::EventsView;
use clap::Args;

use super::columns::Align::Left;
use super::columns::table;
use super::logging::rfc3339;
use super::show::{self, RoleName};
use super::{Failure, print, print_json};
use crate::admin::client;

/// How often it is looked for new events.
const INTERVAL: Duration = Duration::from_millis(500);

/// Whose events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus events                         the last 2048: time, severity, what, to whom, why
  isthmus events --follow                and what comes, until Ctrl-C
  isthmus events --follow --json         a line of JSON per event

Events are: RLOCs and own RLOCs that go down and come back, routes and path MTUs, registrations, SMRs sent and received, hosts that
come and go, refusals, subscriptions, NATs, reloads, withdrawn aggregates. They are in memory and begin with the daemon; of a kind that
comes in masses, some are left out, and the next one says how many.")]
pub(crate) struct EventsArgs {
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print JSON; with --follow, a line per event
    #[arg(long)]
    json: bool,
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_enum)]
    role: Option<RoleName>,
}

/// Asks the daemon and prints its answer, again and again if that is wanted.
pub(crate) fn run(args: &EventsArgs) -> Result<(), Failure> {
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let view = ask(&socket, None)?;
    if !args.follow {
        return match args.json {
            true => print_json(&view),
            false => print(&text(&view)),
        };
    }
    write(&view, args.json)?;
    let mut last = view.last;
    loop {
        std::thread::sleep(INTERVAL);
        let view = ask(&socket, last)?;
        write(&view, args.json)?;
        last = view.last;
    }
}

fn ask(socket: &Path, after: Option<u64>) -> Result<EventsView, Failure> {
    let view = client::ask(socket, &Query::Events { after })
        .map_err(|error| show::ask_failure(error, socket))?;
    serde_json::from_value(view)
        .map_err(|error| Failure::Failed(format!("the answer is not understood: {error}")))
}

/// What is new while it is followed.
fn write(view: &EventsView, json: bool) -> Result<(), Failure> {
    if view.events.is_empty() {
        return Ok(());
    }
    if !json {
        return print(&lines(view));
    }
    let mut text = String::new();
    for event in &view.events {
        text += &serde_json::to_string(event).map_err(|e| Failure::Failed(e.to_string()))?;
        text.push('\n');
    }
    print(&text)
}

/// A table of events.
pub(super) fn text(view: &EventsView) -> String {
    match view.events.is_empty() {
        true => "Nothing happened yet.\n".to_owned(),
        false => lines(view),
    }
}

fn lines(view: &EventsView) -> String {
    let columns = ["Time", "Severity", "Event", "Subject", "Cause"].map(|name| (name, Left));
    let mut rows = Vec::new();
    for event in &view.events {
        let time = UNIX_EPOCH + Duration::from_millis(event.unix_milliseconds);
        let left_out = match event.left_out {
            0 => String::new(),
            more => format!(" (and {more} of them before that)"),
        };
        rows.push(vec![
            format!("{}Z", &rfc3339(time)[..23]),
            event.severity.name().to_owned(),
            event.kind.clone(),
            event.subject.clone(),
            format!("{}{left_out}", event.cause),
        ]);
    }
    let text = table(0, &columns, &rows);
    match view.lost {
        0 => text,
        lost => format!("{lost} events were not seen in time\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::mapping::recorder::{Recorder, Told};
    use std::time::Instant;

    #[test]
    fn events_are_lines_with_time_and_cause() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start, Duration::from_secs(1_795_446_245));
        assert_eq!(text(&recorder.events_view(None)), "Nothing happened yet.\n");
        recorder.tell(start, Told::warning("rloc-down", "192.0.2.1", "RLOC-probes go unanswered"));
        let later = start + Duration::from_millis(1_500);
        recorder.tell(later, Told::info("smr-sent", "2001:db8::/32", "to 192.0.2.7"));
        let expected = "\
Time                      Severity  Event      Subject        Cause
2026-11-23T15:04:05.000Z  warning   rloc-down  192.0.2.1      RLOC-probes go unanswered
2026-11-23T15:04:06.500Z  info      smr-sent   2001:db8::/32  to 192.0.2.7
";
        assert_eq!(text(&recorder.events_view(None)), expected);
    }
}
