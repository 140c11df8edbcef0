//! Aligned columns.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// `rows` under `header`, every line indented by `indent` spaces, columns two spaces apart, nothing after the last word.
pub(crate) fn table(indent: usize, header: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|(name, _)| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let names: Vec<String> = header.iter().map(|(name, _)| (*name).to_owned()).collect();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = " ".repeat(indent);
        for (at, cell) in row.iter().enumerate().take(header.len()) {
            let fill = " ".repeat(widths[at] - cell.chars().count());
            let gap = if at == 0 { "" } else { "  " };
            match header[at].1 {
                Align::Left => line.extend([gap, cell, &fill]),
                Align::Right => line.extend([gap, &fill, cell]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time as operators know it: `00:01:02`, from a day on `1d02h`.
pub(crate) fn clock(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    if days > 0 {
        return format!("{days}d{hours:02}h");
    }
    format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60)
}

/// As [`clock`], or `absent`.
pub(crate) fn clock_or(seconds: Option<u64>, absent: &str) -> String {
    seconds.map_or_else(|| absent.to_owned(), clock)
}

/// Microseconds as milliseconds.
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let header = [("Name", Align::Left), ("Count", Align::Right), ("Help", Align::Left)];
        let rows = vec![
            vec!["a".to_owned(), "100000".to_owned(), "why".to_owned()],
            vec!["longer".to_owned(), "1".to_owned(), String::new()],
        ];
        let expected = "  Name     Count  Help\n  a       100000  why\n  longer       1\n";
        assert_eq!(table(2, &header, &rows), expected);
    }

    #[test]
    fn clocks_read_like_a_router_s() {
        assert_eq!(clock(0), "00:00:00");
        assert_eq!(clock(3_662), "01:01:02");
        assert_eq!(clock(86_399), "23:59:59");
        assert_eq!(clock(93_600), "1d02h");
        assert_eq!(clock_or(None, "never"), "never");
        assert_eq!(milliseconds(1_234), "1.234 ms");
    }
}
