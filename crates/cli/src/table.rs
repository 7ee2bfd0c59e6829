//! Columns that line up, for people.
//!
//! Promise: every cell is made safe to show here, whatever it was made of; a row is one line, but on
//! a terminal, where no line is wider than it: there the last column goes on below, and columns that
//! do not fit beside each other stand below each other, in every row alike.

use crate::failure::Failure;
use crate::out::{Out, Style};
use plimsoll_api::describe::words;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A column but the last is at most this wide.
const COLUMN_MAX: usize = 48;
/// Wrapped text is never narrower than this.
const LAST_MIN: usize = 20;
/// With less room beside the others, the last column stands below them.
const BESIDE_MIN: usize = 40;
/// How far columns that stand below others are set in, and the last one.
const INDENT: usize = 2;
const INDENT_LAST: usize = 4;
/// Lines of one cell; JSON has it whole.
const LINES_MAX: usize = 8;

/// One field of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: words(text.as_ref()),
            style,
        }
    }
}
impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::styled(text, Style::Plain)
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Rows under headings.
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(headings: &'static [&'static str]) -> Self {
        Self::named(headings.iter().map(|h| (*h).to_owned()).collect())
    }

    /// Headings that are not known beforehand; made safe to show like any cell.
    pub(crate) fn named(headings: Vec<String>) -> Self {
        Self {
            headings: headings.iter().map(|h| words(h)).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        self.lines(out).iter().try_for_each(|line| out.line(line))
    }

    /// The rows as lines, for an output of that width and colour.
    pub(crate) fn lines(&self, out: &Out) -> Vec<String> {
        let layout = self.layout(out.width);
        let head: Vec<Cell> = self
            .headings
            .iter()
            .map(|h| Cell::styled(h, Style::Bold))
            .collect();
        let rows = std::iter::once(&head).chain(&self.rows);
        rows.flat_map(|row| layout.lines(row, out)).collect()
    }

    fn layout(&self, terminal: Option<usize>) -> Layout {
        let last = self.headings.len() - 1;
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.width()).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let most = if column < last {
                    COLUMN_MAX
                } else {
                    usize::MAX
                };
                widths[column] = widths[column].max(cell.text.width().min(most));
            }
        }
        Layout::new(widths, terminal)
    }
}

/// Where each column of a table stands.
struct Layout {
    /// Of each column but the last.
    widths: Vec<usize>,
    /// Columns that begin a line of their own, below the ones before.
    breaks: Vec<bool>,
    /// Where the last column begins and how wide it is.
    last: (usize, usize),
    /// It stands below the others.
    below: bool,
}

impl Layout {
    fn new(mut widths: Vec<usize>, terminal: Option<usize>) -> Self {
        let wanted = widths.pop().unwrap_or(0);
        let columns = terminal.unwrap_or(usize::MAX);
        let (mut used, mut breaks) = (0, Vec::with_capacity(widths.len()));
        for width in &mut widths {
            *width = (*width).min(columns.saturating_sub(INDENT).max(LAST_MIN));
            let full = used > 0 && used + *width > columns;
            breaks.push(full);
            used = if full { INDENT } else { used } + *width + 2;
        }
        let room = columns.saturating_sub(used);
        let below = !widths.is_empty() && room < wanted.min(BESIDE_MIN);
        let at = if below { INDENT_LAST } else { used };
        let last = (at, columns.saturating_sub(at).max(LAST_MIN));
        Self {
            widths,
            breaks,
            last,
            below,
        }
    }

    fn lines(&self, row: &[Cell], out: &Out) -> Vec<String> {
        let mut lines = vec![String::new()];
        let add = |lines: &mut Vec<String>, text: &str, cell: &Cell| {
            if let Some(line) = lines.last_mut() {
                *line += &out.paint.apply(cell.style, text);
            }
        };
        let spaces = |n: usize| " ".repeat(n);
        let Some((last, before)) = row.split_last() else {
            return lines;
        };
        for ((cell, width), breaks) in before.iter().zip(&self.widths).zip(&self.breaks) {
            if *breaks {
                lines.push(spaces(INDENT));
            }
            let text = fit(&cell.text, *width);
            add(&mut lines, &text, cell);
            let gap = spaces(width.saturating_sub(text.width()) + 2);
            lines.last_mut().expect("there is one").push_str(&gap);
        }
        if last.text.is_empty() {
            return trimmed(lines);
        }
        let (at, width) = self.last;
        for (n, piece) in pieces(&last.text, width).iter().enumerate() {
            if n > 0 || self.below {
                lines.push(spaces(at));
            }
            add(&mut lines, piece, last);
        }
        trimmed(lines)
    }
}

fn trimmed(mut lines: Vec<String>) -> Vec<String> {
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// Text in at most [`LINES_MAX`] lines of at most `width` columns; words that are longer are broken.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let mut lines = filled(text, width, true);
    if lines.len() > LINES_MAX {
        lines.truncate(LINES_MAX);
        let end = lines.last_mut().expect("there are some");
        *end = fit(&format!("{end} …"), width);
    }
    lines
}

/// Text in lines of at most `width` columns; a word that is longer is broken, or has a line of its own.
fn filled(text: &str, width: usize, breaks: bool) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    let mut words = text.split(' ');
    let mut word = words.next().unwrap_or_default();
    loop {
        let beside = used + usize::from(used > 0);
        if beside + word.width() <= width || used == 0 && !breaks {
            if used > 0 {
                line.push(' ');
            }
            line += word;
            used = beside + word.width();
            match words.next() {
                Some(next) => word = next,
                None => break,
            }
        } else if breaks && (used == 0 || word.width() > width && width - used > width / 3) {
            let gap = usize::from(used > 0);
            line.push_str(&" ".repeat(gap));
            let end = within(word, width - used - gap);
            line += &word[..end];
            word = &word[end..];
            lines.push(std::mem::take(&mut line));
            used = 0;
        } else {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
    }
    lines.push(line);
    lines
}

/// How many bytes of a text, at least one character, are within that many columns.
fn within(text: &str, width: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width && at > 0 {
            return at;
        }
    }
    text.len()
}

/// The beginning of a text in at most `width` columns.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut fitted, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        fitted.push(c);
    }
    fitted + "…"
}

/// Text in lines of at most `width` columns, each after the first indented.
pub(crate) fn wrap(text: &str, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let room = width.saturating_sub(indent).max(LAST_MIN);
    let below = format!("\n{}", " ".repeat(indent));
    filled(text, room, false).join(&below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_are_cut_by_columns() {
        assert_eq!(fit("日本語テキスト", 7), "日本語…");
        assert_eq!(fit("short", 7), "short");
    }

    #[test]
    fn cells_are_safe_whatever_they_are_made_of() {
        assert_eq!(Cell::from("a\x1b[31mb\n").text, "a\\x1b[31mb\\n");
    }

    fn alerts() -> Table {
        let mut table = Table::new(&["TIME", "CONTAINER", "ALERT", "WHAT"]);
        table.row([
            "2026-11-21 17:52:16.845Z".into(),
            "plimsoll-demo-web-1".into(),
            "A-1795283536845-00004-4e2874".into(),
            "Shell started by a server: dash was started by python3.11, which listens on a port"
                .into(),
        ]);
        table
    }

    fn at(width: Option<usize>) -> Vec<String> {
        let mut out = Out::new(false);
        (out.width, out.paint) = (width, crate::out::Paint { on: false });
        alerts().lines(&out)
    }

    #[test]
    fn what_matters_is_never_cut_on_a_terminal_and_no_line_is_wider_than_it() {
        for width in [40, 60, 80, 100, 120, 160, 200] {
            let lines = at(Some(width));
            assert!(
                lines.iter().all(|l| l.width() <= width),
                "{width}: {lines:#?}"
            );
            let all: String = lines.concat().split_whitespace().collect();
            assert!(all.ends_with("python3.11,whichlistensonaport"), "{all}");
        }
    }

    #[test]
    fn columns_stand_below_each_other_where_there_is_no_room_beside() {
        let lines = at(Some(60));
        assert_eq!(lines[0], "TIME                      CONTAINER");
        assert_eq!(lines[1], "  ALERT");
        assert_eq!(lines[2], "    WHAT");
        assert_eq!(lines[3], "2026-11-21 17:52:16.845Z  plimsoll-demo-web-1");
        assert_eq!(lines[4], "  A-1795283536845-00004-4e2874");
        assert!(lines[5].starts_with("    Shell started by a server"));
    }

    #[test]
    fn a_row_is_one_line_for_programs() {
        assert_eq!(at(None).len(), 2);
    }

    #[test]
    fn words_that_are_too_long_are_broken_and_texts_without_end_are_ended() {
        assert_eq!(
            pieces("a /very/long/path b", 8),
            ["a /very/", "long/pat", "h b"]
        );
        let endless = pieces(&"x ".repeat(1000), 10);
        assert_eq!(endless.len(), LINES_MAX);
        assert!(endless.last().unwrap().ends_with('…'));
    }

    #[test]
    fn wrapped_lines_keep_to_the_width() {
        let wrapped = wrap("one two three four five six seven", Some(30), 5);
        assert_eq!(wrapped, "one two three four five\n     six seven");
    }
}
