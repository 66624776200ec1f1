//! Rows of the catalog, as plain values.

use deadpool_postgres::Client;
use futures_util::future::try_join4;
use tokio_postgres::Row;

use super::control::ControlError;

/// The SQL that reads the catalog.
#[derive(Clone, Copy, Debug)]
pub struct CatalogQueries {
    /// Columns `nspname`, `proname`, `vol` (`i`, `s` or `v`), `has_procedure`, `has_aggregate`, `field_style`.
    pub functions: &'static str,
    /// Columns `nspname`, `oprname`.
    pub operators: &'static str,
    /// Column `typ`.
    pub types: &'static str,
    /// Columns `nspname`, `relname`, `why`. Takes `harmless` as `$1`, a `name[]`.
    pub relations: &'static str,
    /// One text that changes whenever the others may give other rows. Must be cheap.
    pub change: &'static str,
    /// Volatile built-in functions that a replica can run.
    pub harmless: &'static [&'static str],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogRows {
    pub functions: Vec<FunctionRow>,
    pub operators: Vec<OperatorRow>,
    pub types: Vec<TypeRow>,
    pub relations: Vec<RelationRow>,
}

/// All functions of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    pub schema: String,
    pub name: String,
    /// The worst of all overloads, as in `pg_proc.provolatile`.
    pub volatility: String,
    pub procedure: bool,
    pub aggregate: bool,
    /// Can be called as `row.function`.
    pub field_style: bool,
}

/// An operator whose function is volatile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorRow {
    pub schema: String,
    pub name: String,
}

/// A type, or a cast `source -> target`, that runs a volatile function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRow {
    pub name: String,
}

/// A relation that a replica cannot give, or gives with another meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    pub schema: String,
    pub name: String,
    pub why: String,
}

/// The state of the catalog, to be compared with an earlier one.
pub(super) async fn change(client: &Client, queries: &CatalogQueries) -> Result<String, ControlError> {
    Ok(client.query_one(queries.change, &[]).await?.try_get(0)?)
}

/// Reads it all, pipelined.
pub(super) async fn load(client: &Client, queries: &CatalogQueries) -> Result<CatalogRows, ControlError> {
    let (functions, operators, types, relations) = try_join4(
        client.query(queries.functions, &[]),
        client.query(queries.operators, &[]),
        client.query(queries.types, &[]),
        client.query(queries.relations, &[&queries.harmless]),
    )
    .await?;
    Ok(CatalogRows {
        functions: all(&functions, function)?,
        operators: all(&operators, |row| {
            Ok(OperatorRow { schema: row.try_get("nspname")?, name: row.try_get("oprname")? })
        })?,
        types: all(&types, |row| Ok(TypeRow { name: row.try_get("typ")? }))?,
        relations: all(&relations, |row| {
            Ok(RelationRow { schema: row.try_get("nspname")?, name: row.try_get("relname")?, why: row.try_get("why")? })
        })?,
    })
}

type ReadResult<T> = Result<T, tokio_postgres::Error>;

fn all<T>(rows: &[Row], read: impl Fn(&Row) -> ReadResult<T>) -> ReadResult<Vec<T>> {
    rows.iter().map(read).collect()
}

fn function(row: &Row) -> ReadResult<FunctionRow> {
    Ok(FunctionRow {
        schema: row.try_get("nspname")?,
        name: row.try_get("proname")?,
        volatility: row.try_get("vol")?,
        procedure: row.try_get("has_procedure")?,
        aggregate: row.try_get("has_aggregate")?,
        field_style: row.try_get("field_style")?,
    })
}
