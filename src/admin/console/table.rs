//! Rows as SHOW gives them.

use std::fmt::Display;

use crate::wire::backend::{ColumnType, put_data_row, put_row_description};

#[derive(Debug, Default)]
pub(super) struct Table {
    columns: Vec<(&'static str, ColumnType)>,
    rows: Vec<Vec<Option<String>>>,
}

/// A value of a row, before it is known whether it has one.
pub(super) type Value = Option<String>;

#[expect(clippy::unnecessary_wraps, reason = "it stands beside values that a row may lack")]
pub(super) fn text(value: impl Display) -> Value {
    Some(value.to_string())
}

pub(super) fn maybe(value: Option<impl Display>) -> Value {
    value.map(|value| value.to_string())
}

impl Table {
    /// The names that begin with `#` are of numbers.
    pub(super) fn new(names: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => (name, ColumnType::Integer),
            None => (*name, ColumnType::Text),
        };
        Self { columns: names.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, values: [Value; N]) {
        debug_assert_eq!(N, self.columns.len(), "a value for each column");
        self.rows.push(values.into());
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_row_description(out, &self.columns);
        for row in &self.rows {
            put_data_row(out, row);
        }
    }
}
