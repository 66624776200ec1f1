//! Rows of the catalog, as plain values.

use deadpool_postgres::Client;
use futures_util::future::try_join4;
use tokio_postgres::Row;

use super::control::ControlError;

/// The SQL that reads the catalog. Columns are taken by their place.
#[derive(Clone, Debug)]
pub struct CatalogQueries {
    /// Schema, name, worst volatility (`i`, `s` or `v`) as text; callable as `row.function`.
    pub functions: &'static str,
    /// Name.
    pub operators: &'static str,
    /// Schema, name.
    pub types: &'static str,
    /// Schema, name, why. Takes `harmless` as `$1`, a `name[]`.
    pub relations: &'static str,
    /// One text that changes whenever the others may give other rows. Must be cheap.
    pub change: &'static str,
    /// Volatile built-in functions that a replica can run.
    pub harmless: Vec<&'static str>,
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
    /// Can be called as `row.function`.
    pub field_style: bool,
}

/// An operator whose function is volatile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorRow {
    pub name: String,
}

/// A type that a volatile function casts, reads, writes or checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRow {
    pub schema: String,
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
        functions: all(&functions, |row| {
            let (schema, name, volatility) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(FunctionRow { schema, name, volatility, field_style: row.try_get(3)? })
        })?,
        operators: all(&operators, |row| Ok(OperatorRow { name: row.try_get(0)? }))?,
        types: all(&types, |row| Ok(TypeRow { schema: row.try_get(0)?, name: row.try_get(1)? }))?,
        relations: all(&relations, |row| {
            Ok(RelationRow { schema: row.try_get(0)?, name: row.try_get(1)?, why: row.try_get(2)? })
        })?,
    })
}

fn all<T>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Vec<T>, tokio_postgres::Error> {
    rows.iter().map(read).collect()
}
