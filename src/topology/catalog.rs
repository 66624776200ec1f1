//! Reads the catalog facts over a control connection.

use deadpool_postgres::Client;
use futures_util::future::{try_join, try_join4};
use tokio_postgres::Row;

use super::control::ControlError;
use crate::sql::{
    CatalogFacts, CatalogObject, CodeRow, FactsBuilder, FunctionRow, OperatorRow, RelationRow, TypeRow, UseRow,
    Volatility, queries,
};

/// The state of the catalog, to be compared with an earlier one.
pub(super) async fn change(client: &Client) -> Result<String, ControlError> {
    Ok(client.query_one(queries::CHANGE, &[]).await?.try_get(0)?)
}

/// Reads it all, pipelined.
pub(super) async fn load(client: &Client) -> Result<CatalogFacts, ControlError> {
    let harmless = CatalogFacts::harmless_functions();
    let (functions, operators, types, relations) = try_join4(
        client.query(queries::FUNCTIONS, &[]),
        client.query(queries::OPERATORS, &[]),
        client.query(queries::TYPES, &[]),
        client.query(queries::RELATIONS, &[&harmless]),
    )
    .await?;
    let mut facts = CatalogFacts::builder();
    for row in &functions {
        facts.function(FunctionRow {
            schema: row.try_get(0)?,
            name: row.try_get(1)?,
            volatility: Volatility::from_catalog(row.try_get(2)?),
            field_style: row.try_get(3)?,
        });
    }
    for row in &operators {
        facts.operator(OperatorRow { name: row.try_get(0)? });
    }
    for row in &types {
        facts.type_(TypeRow { schema: row.try_get(0)?, name: row.try_get(1)? });
    }
    for row in &relations {
        facts.relation(RelationRow { schema: row.try_get(0)?, name: row.try_get(1)?, why: row.try_get(2)? });
    }
    load_code(client, &mut facts).await?;
    Ok(facts.build())
}

/// What functions, triggers and the like do to the session.
async fn load_code(client: &Client, facts: &mut FactsBuilder) -> Result<(), ControlError> {
    let (code, uses) = try_join(client.query(queries::CODE, &[]), client.query(queries::USES, &[])).await?;
    for row in &code {
        facts.code(CodeRow {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            language: row.try_get(2)?,
            source: row.try_get(3)?,
        });
    }
    for row in &uses {
        facts.uses(UseRow { used: object(row, 0)?, user: object(row, 3)?, how: row.try_get(6)? });
    }
    Ok(())
}

fn object(row: &Row, at: usize) -> Result<CatalogObject<'_>, ControlError> {
    Ok(CatalogObject { kind: row.try_get(at)?, oid: row.try_get(at + 1)?, name: row.try_get(at + 2)? })
}
