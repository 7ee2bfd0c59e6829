//! Columns that line up, for people.
//!
//! Promise: every cell is made safe to show here, whatever it was made of; a row is one line; on
//! a terminal no row is wider than it, and the last column gives way first.

use crate::failure::Failure;
use crate::out::{Out, Style};
use plimsoll_api::describe::words;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A column but the last is at most this wide.
const COLUMN_MAX: usize = 48;
/// The last column is never cut below this.
const LAST_MIN: usize = 20;

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
        let widths = self.widths(out.width);
        let head: Vec<Cell> = self
            .headings
            .iter()
            .map(|h| Cell::styled(h, Style::Bold))
            .collect();
        let rows = std::iter::once(&head).chain(&self.rows);
        rows.map(|row| line(row, &widths, out)).collect()
    }

    fn widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let last = self.headings.len() - 1;
        let mut widths: Vec<usize> = self.headings.iter().map(|h| h.width()).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate().take(last) {
                widths[column] = widths[column].max(cell.text.width().min(COLUMN_MAX));
            }
        }
        widths[last] = match terminal {
            Some(columns) => {
                let before: usize = widths[..last].iter().map(|w| w + 2).sum();
                columns.saturating_sub(before).max(LAST_MIN)
            }
            None => usize::MAX,
        };
        widths
    }
}

fn line(row: &[Cell], widths: &[usize], out: &Out) -> String {
    let mut line = String::new();
    for (column, cell) in row.iter().enumerate() {
        let is_last = column + 1 == row.len();
        let text = fit(&cell.text, widths[column]);
        line += &out.paint.apply(cell.style, &text);
        if !is_last {
            line.extend(std::iter::repeat_n(
                ' ',
                widths[column].saturating_sub(text.width()) + 2,
            ));
        }
    }
    line.truncate(line.trim_end().len());
    line
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
    let (mut wrapped, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let w = word.width();
        if used > 0 && used + 1 + w > room {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += w;
    }
    wrapped
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

    #[test]
    fn wrapped_lines_keep_to_the_width() {
        let wrapped = wrap("one two three four five six seven", Some(30), 5);
        assert_eq!(wrapped, "one two three four five\n     six seven");
    }
}
