//! A frame on a screen.

use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::model::{Frame, Mood, Section};
use crate::cli::columns::Align;

/// The most rows of a table when there is no screen to fill.
const ROWS_AS_TEXT: usize = 15;
/// Lines around the rows of a table: its border and its header.
const AROUND: usize = 3;
/// Between two columns.
const SPACING: u16 = 2;
/// Of the notes of `show status`, so many are on the screen.
const NOTES: usize = 3;

/// Draws `frame` on all of the screen.
pub(super) fn frame(screen: &mut ratatui::Frame<'_>, frame: &Frame) {
    let head = lines(head(frame).len());
    let upper = lines(frame.traffic.rows.len().max(frame.churn.rows.len()) + AROUND);
    let [head_area, upper_area, main_area, drops_area, events_area] = Layout::vertical([
        Constraint::Length(head),
        Constraint::Length(upper),
        Constraint::Fill(rows_of(&main_rows(frame))),
        Constraint::Fill(rows_of(&[2 * frame.drops.rows.len()])),
        Constraint::Fill(rows_of(&[frame.events.rows.len()])),
    ])
    .areas(screen.area());
    screen.render_widget(Paragraph::new(head_text(frame)), head_area);
    pair(screen, upper_area, &frame.traffic, Some(&frame.churn));
    pair(screen, main_area, &frame.main, frame.locators.as_ref());
    section(screen, drops_area, &frame.drops);
    section(screen, events_area, &frame.events);
}

/// The lines that all of a frame takes.
pub(super) fn height(frame: &Frame) -> u16 {
    let upper = frame.traffic.rows.len().max(frame.churn.rows.len()) + AROUND;
    let rest = [
        rows_of(&main_rows(frame)),
        rows_of(&[2 * frame.drops.rows.len()]),
        rows_of(&[frame.events.rows.len()]),
    ];
    lines(head(frame).len() + upper) + rest.iter().sum::<u16>()
}

fn main_rows(frame: &Frame) -> [usize; 2] {
    [frame.main.rows.len(), frame.locators.as_ref().map_or(0, |section| section.rows.len())]
}

/// The height of tables beside each other, as far as that is worth a screen.
fn rows_of(tables: &[usize]) -> u16 {
    let most = tables.iter().copied().max().unwrap_or_default();
    lines(most.clamp(1, ROWS_AS_TEXT) + AROUND)
}

fn lines(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The lines above the tables, and whether each is good news.
fn head(frame: &Frame) -> Vec<(Mood, String)> {
    let paused = if frame.paused { "   [paused]" } else { "" };
    let mut lines = vec![(Mood::Usual, format!("isthmus top: {}{paused}", frame.title))];
    if let Some(trouble) = &frame.trouble {
        lines.push((Mood::Bad, format!("  this is old: {trouble}")));
    }
    lines.extend(frame.notes.iter().take(NOTES).map(|note| (Mood::Bad, format!("  {note}"))));
    if frame.notes.len() > NOTES {
        let more = frame.notes.len() - NOTES;
        lines.push((Mood::Bad, format!("  and {more} more: isthmus show status")));
    }
    lines
}

fn head_text(frame: &Frame) -> Text<'static> {
    let line = |(mood, text)| Line::styled(text, style(mood));
    Text::from(head(frame).into_iter().map(line).collect::<Vec<_>>())
}

fn pair(screen: &mut ratatui::Frame<'_>, area: Rect, left: &Section, right: Option<&Section>) {
    let Some(right) = right else { return section(screen, area, left) };
    let [one, other] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    section(screen, one, left);
    section(screen, other, right);
}

fn section(screen: &mut ratatui::Frame<'_>, area: Rect, section: &Section) {
    let block = Block::bordered().title(format!(" {} ", section.title));
    if section.rows.is_empty() {
        let said = Paragraph::new(section.empty).style(style(Mood::Quiet)).block(block);
        return screen.render_widget(said, area);
    }
    let room = usize::from(area.height).saturating_sub(AROUND);
    let shown: Vec<&(Mood, Vec<String>)> = section.rows.iter().take(room).collect();
    let widths = widths(section, &shown);
    let last = last_width(area, &widths);
    let cell = |at: usize, text: &str| {
        let alignment = match section.columns[at].1 {
            Align::Left => Alignment::Left,
            Align::Right => Alignment::Right,
        };
        Cell::from(Text::from(text.to_owned()).alignment(alignment))
    };
    let header = section.columns.iter().enumerate().map(|(at, (name, _))| cell(at, name));
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let row = |(mood, cells): &&(Mood, Vec<String>)| {
        let (mut cells, mut height) = (cells.clone(), 1);
        if let Some(text) = cells.last_mut().filter(|_| section.wraps && last > 0) {
            (*text, height) = wrapped(text, last);
        }
        let cells = cells.iter().enumerate().map(|(at, text)| cell(at, text));
        Row::new(cells).height(height).style(style(*mood))
    };
    let table = Table::new(shown.iter().map(row), widths)
        .header(header)
        .column_spacing(SPACING)
        .block(block);
    screen.render_widget(table, area);
}

/// What is left for the last column; 0 if that does not have the rest.
fn last_width(area: Rect, widths: &[Constraint]) -> usize {
    let taken = widths.iter().map(|width| match width {
        Constraint::Length(width) => width + SPACING,
        _ => 0,
    });
    let has_rest = matches!(widths.last(), Some(Constraint::Fill(_)));
    let left = area.width.saturating_sub(2).saturating_sub(taken.sum());
    if has_rest { usize::from(left) } else { 0 }
}

/// `text` in lines of so many columns, and how many lines that are.
fn wrapped(text: &str, columns: usize) -> (String, u16) {
    let (mut lines, mut column, mut count) = (String::with_capacity(text.len()), 0, 1);
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > columns {
            lines.push('\n');
            (column, count) = (0, count + 1);
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    (lines, count)
}

/// As wide as what is in it; the last column has the rest.
fn widths(section: &Section, rows: &[&(Mood, Vec<String>)]) -> Vec<Constraint> {
    let last = section.columns.len().saturating_sub(1);
    let width = |(at, (name, _)): (usize, &(&str, Align))| {
        let cells = rows.iter().filter_map(|(_, cells)| cells.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        let width = lines(widest.max(name.chars().count()));
        match section.columns[at].1 {
            Align::Left if at == last => Constraint::Fill(1),
            _ => Constraint::Length(width),
        }
    };
    section.columns.iter().enumerate().map(width).collect()
}

const fn style(mood: Mood) -> Style {
    match mood {
        Mood::Usual => Style::new(),
        Mood::Quiet => Style::new().add_modifier(Modifier::DIM),
        Mood::Bad => Style::new().fg(Color::Red),
    }
}
