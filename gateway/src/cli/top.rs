//! `isthmus top`: a running daemon, live: traffic, map-cache churn, top EIDs, locators, drops, events.
//!
//! [`model`] makes tables of two looks at the daemon, [`draw`] draws them; here is what talks to the daemon and to the terminal.

mod draw;
mod model;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::mapping::admin::Query;
use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::de::DeserializeOwned;

use super::show::{self, RoleName};
use super::{Failure, print};
use crate::admin::client;
use model::{Frame, Seen};

/// Between two frames.
const INTERVAL: Duration = Duration::from_secs(1);
/// EIDs asked for.
const MOST_EIDS: usize = 40;
/// Events kept for the screen.
const MOST_EVENTS: usize = 100;

/// Which daemon, and how.
#[derive(Debug, Args)]
#[command(after_help = "Keys: q quits, p pauses, space takes a look at once.

Rates are those of the last second; EIDs are those that carried most since they were learned. Everything comes over the admin socket;
nothing is measured for it that is not counted anyway.")]
pub(crate) struct TopArgs {
    /// Print one frame as text and end; takes a second
    #[arg(long)]
    once: bool,
    /// Columns of that frame
    #[arg(long, value_name = "COLUMNS", default_value_t = 140, requires = "once", value_parser = clap::value_parser!(u16).range(60..=400))]
    width: u16,
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_enum)]
    role: Option<RoleName>,
}

/// Shows the daemon until it is told to end.
pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let first = look(&socket, None)?;
    if args.once {
        std::thread::sleep(INTERVAL);
        let second = look(&socket, Some(&first))?;
        return print(&as_text(&Frame::new(&first, &second), args.width)?);
    }
    if !io::stdout().is_terminal() {
        let text = "standard output is no terminal: isthmus top --once prints one frame as text";
        return Err(Failure::Usage(text.to_owned()));
    }
    let mut terminal = ratatui::try_init()?;
    let done = live(&mut terminal, &socket, first);
    ratatui::try_restore()?;
    done
}

fn live(
    terminal: &mut ratatui::DefaultTerminal,
    socket: &Path,
    first: Seen,
) -> Result<(), Failure> {
    let mut frame = Frame::new(&first, &first);
    let mut last = first;
    let (mut due, mut paused) = (last.at + INTERVAL, false);
    loop {
        frame.paused = paused;
        terminal.draw(|screen| draw::frame(screen, &frame))?;
        match wait(due, paused)? {
            Wish::End => return Ok(()),
            Wish::Pause => paused = !paused,
            Wish::Redraw => {}
            Wish::Look => {
                // A daemon that is being restarted comes back: the old frame says that it is old.
                match look(socket, Some(&last)) {
                    Ok(seen) => {
                        frame = Frame::new(&last, &seen);
                        last = seen;
                    }
                    Err(failure) => frame.trouble = Some(failure.said()),
                }
                due = Instant::now() + INTERVAL;
            }
        }
    }
}

enum Wish {
    End,
    Pause,
    Redraw,
    Look,
}

/// Waits for a key, or until it is time to look again.
fn wait(due: Instant, paused: bool) -> io::Result<Wish> {
    let patience = match paused {
        true => INTERVAL,
        false => due.saturating_duration_since(Instant::now()),
    };
    if !event::poll(patience)? {
        return Ok(if paused { Wish::Redraw } else { Wish::Look });
    }
    let Event::Key(key) = event::read()? else { return Ok(Wish::Redraw) };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(match key.code {
        _ if key.kind == KeyEventKind::Release => Wish::Redraw,
        KeyCode::Char('q') | KeyCode::Esc => Wish::End,
        KeyCode::Char('c') if is_control => Wish::End,
        KeyCode::Char('p') => Wish::Pause,
        KeyCode::Char(' ') => Wish::Look,
        _ => Wish::Redraw,
    })
}

/// What the daemon says now.
fn look(socket: &Path, before: Option<&Seen>) -> Result<Seen, Failure> {
    let at = Instant::now();
    let status: ::mapping::view::StatusView = ask(socket, &Query::Status)?;
    let is_router = status.role != "mapping";
    let mut events = before.map(|seen| seen.events.clone()).unwrap_or_default();
    let after = before.and_then(|seen| seen.last_event);
    let news: ::mapping::recorder::EventsView = ask(socket, &Query::Events { after })?;
    events.extend(news.events);
    events.drain(..events.len().saturating_sub(MOST_EVENTS));
    Ok(Seen {
        at,
        counters: ask(socket, &Query::Counters)?,
        drops: ask(socket, &Query::Drops)?,
        locators: if is_router { ask(socket, &Query::Locators)? } else { Vec::new() },
        eids: match is_router {
            true => ask(socket, &Query::TopEids { most: MOST_EIDS })?,
            false => Vec::new(),
        },
        sites: if is_router { Vec::new() } else { ask(socket, &Query::Sites)? },
        events,
        last_event: news.last,
        status,
    })
}

fn ask<T: DeserializeOwned>(socket: &Path, query: &Query) -> Result<T, Failure> {
    let view = client::ask(socket, query).map_err(|error| show::ask_failure(error, socket))?;
    serde_json::from_value(view)
        .map_err(|error| Failure::Failed(format!("the answer is not understood: {error}")))
}

/// A frame as tall as what is on it, without colours.
fn as_text(frame: &Frame, width: u16) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let backend = TestBackend::new(width, draw::height(frame));
    let mut terminal = Terminal::new(backend).map_err(|error| failed(&error))?;
    terminal.draw(|screen| draw::frame(screen, frame)).map_err(|error| failed(&error))?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..buffer.area.height {
        let line: String = (0..buffer.area.width).map(|at| buffer[(at, row)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
