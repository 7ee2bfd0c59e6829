//! Rows become columns.

use crate::tables::{Table, Type};
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Int64Builder, RecordBatch, StringViewBuilder,
    TimestampNanosecondBuilder, UInt64Builder,
};
use datafusion::arrow::error::ArrowError;
use std::borrow::Cow;
use std::sync::Arc;

/// One field of a row.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    U64(u64),
    I64(i64),
    Bool(bool),
    Time(i64),
}

impl<'a> Value<'a> {
    /// A text, or nothing where it is empty.
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        if text.is_empty() {
            Value::Null
        } else {
            Value::Text(text)
        }
    }
    pub(crate) fn bytes(text: &'a plimsoll_model::Text) -> Self {
        Value::text(text.to_str_lossy())
    }
    pub(crate) fn opt<T>(value: Option<T>, make: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Value::Null, make)
    }
    pub(crate) fn u64(n: impl Into<u64>) -> Self {
        Value::U64(n.into())
    }
}

enum Builder {
    Text(StringViewBuilder),
    U64(UInt64Builder),
    I64(Int64Builder),
    Bool(BooleanBuilder),
    Time(TimestampNanosecondBuilder),
}

impl Builder {
    fn new(of: Type) -> Self {
        match of {
            // most texts come again and again: kept once
            Type::Text => Builder::Text(StringViewBuilder::new().with_deduplicate_strings()),
            Type::U64 => Builder::U64(UInt64Builder::new()),
            Type::I64 => Builder::I64(Int64Builder::new()),
            Type::Bool => Builder::Bool(BooleanBuilder::new()),
            Type::Time => Builder::Time(TimestampNanosecondBuilder::new().with_timezone("+00:00")),
        }
    }

    fn push(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Builder::Text(b), Value::Text(v)) => b.append_value(v),
            (Builder::U64(b), Value::U64(v)) => b.append_value(*v),
            (Builder::I64(b), Value::I64(v)) => b.append_value(*v),
            (Builder::Bool(b), Value::Bool(v)) => b.append_value(*v),
            (Builder::Time(b), Value::Time(v)) => b.append_value(*v),
            (builder, value) => {
                debug_assert!(
                    matches!(value, Value::Null),
                    "{value:?} in another type's column"
                );
                builder.push_null();
            }
        }
    }

    fn push_null(&mut self) {
        match self {
            Builder::Text(b) => b.append_null(),
            Builder::U64(b) => b.append_null(),
            Builder::I64(b) => b.append_null(),
            Builder::Bool(b) => b.append_null(),
            Builder::Time(b) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::U64(b) => Arc::new(b.finish()),
            Builder::I64(b) => Arc::new(b.finish()),
            Builder::Bool(b) => Arc::new(b.finish()),
            Builder::Time(b) => Arc::new(b.finish()),
        }
    }
}

/// Rows of one table in the making.
pub(crate) struct Rows {
    table: Table,
    builders: Vec<Builder>,
    count: usize,
}

impl Rows {
    pub(crate) fn new(table: Table) -> Self {
        let builders = table.columns().map(|c| Builder::new(c.of)).collect();
        Self {
            table,
            builders,
            count: 0,
        }
    }

    /// A row, in the order of the table's columns.
    pub(crate) fn push<'v>(&mut self, values: impl IntoIterator<Item = &'v Value<'v>>) {
        let mut pushed = 0;
        for (builder, value) in self.builders.iter_mut().zip(values) {
            builder.push(value);
            pushed += 1;
        }
        // a short row would shift every later one
        for builder in &mut self.builders[pushed..] {
            builder.push_null();
        }
        debug_assert_eq!(pushed, self.builders.len(), "{:?}", self.table);
        self.count += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.count = 0;
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(self.table.schema(), columns)
    }
}
