//! Rows of a result, as a table, JSON, CSV or Parquet.
//!
//! Promise: whatever a container wrote into a cell, no text made here holds a character that a
//! terminal obeys: tables and CSV show it as `\x1b`, JSON as `\u001b`. In CSV a text that a
//! spreadsheet would take for a formula begins with an apostrophe. Parquet holds the values
//! themselves. A file is new, and for its owner alone.

use super::Format;
use crate::failure::Failure;
use crate::out::Out;
use crate::table::{Cell, Table};
use plimsoll_api::{describe, json};
use plimsoll_lake::ParquetFile;
use plimsoll_lake::arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use plimsoll_lake::arrow::datatypes::{
    DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use plimsoll_lake::arrow::util::display::{ArrayFormatter, FormatOptions};
use plimsoll_model::WallNs;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Rows whose columns line up with each other.
const PAGE_ROWS: usize = 1000;

/// Where rows go.
pub(crate) struct Shown<'a> {
    format: Format,
    file: Option<&'a Path>,
    to: To<'a>,
    page: Option<(Vec<String>, Table, usize)>,
    begun: bool,
}

enum To<'a> {
    Out(&'a mut Out),
    /// Not made before the statement has been accepted.
    NoFile(&'a mut Out),
    Text(BufWriter<File>, &'a mut Out),
    Parquet(Box<ParquetFile>),
    Ended,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(format: Format, file: Option<&'a Path>, out: &'a mut Out) -> Self {
        let to = match file {
            Some(_) => To::NoFile(out),
            None => To::Out(out),
        };
        Self {
            format,
            file,
            to,
            page: None,
            begun: false,
        }
    }

    /// Whether a row or a heading has been written.
    pub(crate) fn begun(&self) -> bool {
        self.begun
    }

    /// Takes columns first, then rows.
    pub(crate) fn take(
        &mut self,
        columns: &SchemaRef,
        rows: Option<RecordBatch>,
    ) -> Result<(), Failure> {
        let Some(rows) = rows else {
            return Ok(());
        };
        self.begin(columns)?;
        if let To::Parquet(file) = &mut self.to {
            return Ok(file.write(&rows)?);
        }
        let names = names(columns);
        let readers = readers(&rows)?;
        for row in 0..rows.num_rows() {
            match self.format {
                Format::Json => {
                    let values = readers.iter().map(|r| r.json(row));
                    let object: Map<String, Value> = names.iter().cloned().zip(values).collect();
                    self.line(&json::line(&object))?;
                }
                Format::Csv => {
                    let cells: Vec<String> = readers.iter().map(|r| r.csv(row)).collect();
                    self.line(&cells.join(","))?;
                }
                Format::Table | Format::Parquet => self.cells(&names, &readers, row)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, columns: &SchemaRef) -> Result<(), Failure> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        if let (To::NoFile(_), Some(path)) = (&self.to, self.file) {
            let file = create(path)?;
            let To::NoFile(out) = std::mem::replace(&mut self.to, To::Ended) else {
                unreachable!("looked at just now")
            };
            self.to = match self.format {
                Format::Parquet => To::Parquet(Box::new(ParquetFile::new(file, columns)?)),
                _ => To::Text(BufWriter::new(file), out),
            };
        }
        if self.format == Format::Csv {
            let heads: Vec<String> = names(columns).iter().map(|n| field(n)).collect();
            self.line(&heads.join(","))?;
        }
        Ok(())
    }

    fn cells(
        &mut self,
        names: &[String],
        readers: &[Reader<'_>],
        row: usize,
    ) -> Result<(), Failure> {
        let page = self
            .page
            .get_or_insert_with(|| (names.to_vec(), Table::named(names.to_vec()), 0));
        page.1.row(readers.iter().map(|r| Cell::from(r.text(row))));
        page.2 += 1;
        if page.2 >= PAGE_ROWS {
            self.turn()?;
        }
        Ok(())
    }

    /// Writes the page.
    fn turn(&mut self) -> Result<(), Failure> {
        let Some((_, table, _)) = self.page.take() else {
            return Ok(());
        };
        match &mut self.to {
            To::Out(out) => table.print(out),
            To::Text(file, out) => {
                let width = out.width.take();
                let lines = table.lines(out);
                out.width = width;
                lines
                    .iter()
                    .try_for_each(|l| writeln!(file, "{l}"))
                    .map_err(Failure::Output)
            }
            To::NoFile(_) | To::Parquet(_) | To::Ended => Ok(()),
        }
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        match &mut self.to {
            To::Out(out) => out.line(text),
            To::Text(file, _) => writeln!(file, "{text}").map_err(Failure::Output),
            To::NoFile(_) | To::Parquet(_) | To::Ended => Ok(()),
        }
    }

    /// All rows have been taken; `columns` for a file without rows.
    pub(crate) fn end(mut self, columns: &SchemaRef) -> Result<(), Failure> {
        self.begin(columns)?;
        self.turn()?;
        match self.to {
            To::Text(file, _) => {
                let file = file
                    .into_inner()
                    .map_err(|e| Failure::Output(e.into_error()))?;
                file.sync_all().map_err(Failure::Output)
            }
            To::Parquet(file) => Ok(file.close()?),
            To::Out(_) | To::NoFile(_) | To::Ended => Ok(()),
        }
    }
}

/// A new file for its owner alone: rows hold what containers did.
fn create(path: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    made.map_err(|e| Failure::Data {
        what: format!("cannot make {}", path.display()),
        source: Some(Box::new(e)),
    })
}

/// Names of columns, each once: a join can give the same one twice.
fn names(columns: &SchemaRef) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for field in columns.fields() {
        let mut name = field.name().clone();
        let mut n = 1;
        while names.contains(&name) {
            n += 1;
            name = format!("{}_{n}", field.name());
        }
        names.push(name);
    }
    names
}

/// One column of some rows.
struct Reader<'a> {
    values: &'a ArrayRef,
    shown: ArrayFormatter<'a>,
}

fn readers(rows: &RecordBatch) -> Result<Vec<Reader<'_>>, Failure> {
    static OPTIONS: FormatOptions<'static> = FormatOptions::new();
    rows.columns()
        .iter()
        .map(|values| Reader::new(values, &OPTIONS))
        .collect()
}

impl<'a> Reader<'a> {
    fn new(values: &'a ArrayRef, options: &FormatOptions<'a>) -> Result<Self, Failure> {
        let shown = ArrayFormatter::try_new(values, options)
            .map_err(|e| Failure::Failed(format!("a column cannot be shown: {e}")))?;
        Ok(Self { values, shown })
    }

    fn wall(&self, row: usize) -> Option<WallNs> {
        let is_wall = matches!(
            self.values.data_type(),
            DataType::Timestamp(TimeUnit::Nanosecond, _)
        );
        is_wall.then(|| {
            WallNs(
                self.values
                    .as_primitive::<TimestampNanosecondType>()
                    .value(row),
            )
        })
    }

    /// For people; a cell of a table makes it safe.
    fn text(&self, row: usize) -> String {
        match (self.values.is_null(row), self.wall(row)) {
            (true, _) => String::new(),
            (false, Some(wall)) => describe::when(wall),
            (false, None) => self.shown.value(row).to_string(),
        }
    }

    fn csv(&self, row: usize) -> String {
        match (self.values.is_null(row), self.wall(row)) {
            (true, _) => String::new(),
            (false, Some(wall)) => wall.rfc3339(),
            (false, None) if self.values.data_type().is_numeric() => {
                self.shown.value(row).to_string()
            }
            (false, None) => field(&self.shown.value(row).to_string()),
        }
    }

    fn json(&self, row: usize) -> Value {
        if self.values.is_null(row) {
            return Value::Null;
        }
        if let Some(wall) = self.wall(row) {
            return wall.rfc3339().into();
        }
        match self.values.data_type() {
            DataType::UInt64 => self.values.as_primitive::<UInt64Type>().value(row).into(),
            DataType::Int64 => self.values.as_primitive::<Int64Type>().value(row).into(),
            DataType::Float64 => self.values.as_primitive::<Float64Type>().value(row).into(),
            DataType::Boolean => self.values.as_boolean().value(row).into(),
            of if of.is_integer() => {
                let text = self.shown.value(row).to_string();
                text.parse::<i64>().map_or(Value::String(text), Value::from)
            }
            _ => self.shown.value(row).to_string().into(),
        }
    }
}

/// A text of CSV (RFC 4180), on one line, and no formula.
fn field(text: &str) -> String {
    let mut safe = describe::words(text);
    if safe.starts_with(['=', '+', '-', '@']) {
        safe.insert(0, '\'');
    }
    match safe.contains([',', '"']) {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_are_one_line_and_no_formula() {
        assert_eq!(field("a,\"b\"\n\x1b[2J"), "\"a,\"\"b\"\"\\n\\x1b[2J\"");
        assert_eq!(field("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(field("/etc/passwd"), "/etc/passwd");
    }
}
