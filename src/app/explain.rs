//! `causeway explain`: what a statement is taken for, and where a new session's would go now.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::config::{Cluster, Config};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::Metrics;
use crate::route::explain::{Circumstances, Origin, explain as explain_route};
use crate::session::first_request;
use crate::sql::{CatalogFacts, Classified, Classifier, Context, Property, explain as explain_text};
use crate::topology::{FactsStore, Ineligible, Topology, View};
use crate::types::Level;

/// How long it may take to reach a node and read its catalog.
const LIMIT: Duration = Duration::from_secs(15);

/// Whose statement is asked about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// The control login's, when nothing is said.
    pub database: Option<&'a str>,
    pub user: Option<&'a str>,
}

/// What is known without asking a node.
pub(super) fn without_nodes(sql: &str) -> String {
    let facts = CatalogFacts::unloaded();
    let classified = classify(sql, &facts);
    let mut rows = explain_text(sql.as_bytes(), &classified, &facts);
    rows.push(Property::new("catalog", "only what is built in; --config takes the rest from the primary"));
    table(&rows)
}

/// The same with the catalog facts of the client's database, and where its first statement would go now.
///
/// # Errors
/// No such database or user; no node of the cluster could be asked in time.
pub(super) async fn with_nodes(config: &Config, client: Client<'_>, sql: &str) -> Result<String> {
    let cluster = cluster_of(config, client.database)?;
    check_user(config, client.user)?;
    let rows = tokio::time::timeout(LIMIT, explain(config, cluster, client, sql));
    let rows = rows.await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(LIMIT);
        let message = format!("no node gave its catalog facts within {limit}");
        Err(Error::new(Fault::Node, sqlstate::CANNOT_CONNECT, message)
            .hint("Is the primary up, and may clusters.<name>.control log in to the database?"))
    })?;
    Ok(table(&rows))
}

fn cluster_of<'a>(config: &'a Config, database: Option<&str>) -> Result<&'a Cluster> {
    let cluster = match database {
        None => config.clusters.first(),
        Some(name) => config.clusters.iter().find(|cluster| cluster.serves(name)),
    };
    cluster.ok_or_else(|| {
        let message = format!("no cluster of the configuration serves database {:?}", database.unwrap_or_default());
        Error::new(Fault::Client, sqlstate::INVALID_CATALOG_NAME, message)
    })
}

fn check_user(config: &Config, user: Option<&str>) -> Result<()> {
    match user.filter(|user| !config.users.contains_key(*user)) {
        None => Ok(()),
        Some(user) => {
            let message = format!("the configuration has no user {user:?}");
            Err(Error::new(Fault::Client, sqlstate::INVALID_AUTHORIZATION, message).hint("See [users]."))
        }
    }
}

async fn explain(config: &Config, cluster: &Cluster, client: Client<'_>, sql: &str) -> Result<Vec<Property>> {
    let handle = Handle::current();
    let topology =
        Topology::start(cluster, &config.probe, &config.routing, &config.network, &Metrics::new(2)?, &handle)?;
    let store = FactsStore::new(cluster, &config.routing, &topology, &Arc::default(), &handle);
    let database = client.database.unwrap_or(&cluster.control.database);
    let facts = store.facts(database);
    facts.known().await;
    let view = settled(&topology, config).await;
    let loaded = facts.load();
    let classified = classify(sql, &loaded.facts);
    let mut rows = explain_text(sql.as_bytes(), &classified, &loaded.facts);
    if classified.refusal().is_some() {
        return Ok(rows);
    }
    let user = client.user.unwrap_or_default();
    let hints = classified.hints();
    let consistency = hints.overrides.over(config.consistency(cluster, database, user));
    let asks = consistency.level == Level::Strong;
    let asked = if asks { topology.ask_primary(Instant::now()).await.ok() } else { None };
    let circumstances = Circumstances {
        consistency,
        origin: if hints.overrides.level.is_some() { Origin::Hint } else { Origin::Configured },
        asked: asks,
        held: None,
    };
    let asked = asked.map(|sample| sample.position);
    let request = first_request(&classified, config, user, consistency, asked);
    rows.extend(explain_route(&request, &circumstances, &view, Instant::now()));
    Ok(rows)
}

/// A view in which something is known of every node, or the view that there is after some probes.
async fn settled(topology: &Topology, config: &Config) -> Arc<View> {
    let is_new = |why| matches!(why, Ineligible::NotProbed | Ineligible::LagUnknown | Ineligible::Returning);
    let all_known =
        topology.wait_for(|view| view.primary.is_some() && !view.nodes.iter().any(|n| n.eligible.is_err_and(is_new)));
    let probe = &config.probe;
    let limit = probe.timeout + probe.interval * (probe.rise + 2);
    match tokio::time::timeout(limit, all_known).await {
        Ok(view) => view,
        Err(_) => topology.view().clone(),
    }
}

fn classify(sql: &str, facts: &CatalogFacts) -> Arc<Classified> {
    let context = Context {
        facts,
        facts_version: 0,
        standard_conforming_strings: true,
        safe_encoding: true,
        now: Instant::now(),
    };
    Classifier::new(0).classify(sql.as_bytes(), &context)
}

/// A row on a line, the values below each other.
fn table(rows: &[Property]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let mut out = String::new();
    for Property { name, value } in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:width$}  {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_urls;

    #[test]
    fn values_stand_below_each_other() {
        let said = without_nodes("SELECT nextval('s')");
        let expected = "class        write\n\
                        decided by   calls a function that writes or needs the primary: nextval (writing_function)\n\
                        effects      sequence\n\
                        hint         none\n";
        assert!(said.starts_with(expected), "{said}");
        assert!(said.ends_with("catalog      only what is built in; --config takes the rest from the primary\n"));
    }

    #[test]
    fn databases_and_users_that_are_not_there_are_named() {
        let mut config = from_urls("postgres://app:x@db1/shop", &[], None, None).unwrap();
        config.clusters[0].databases = vec!["shop".to_owned()];
        for (client, said) in [
            (Client { database: Some("shpo"), user: None }, "no cluster of the configuration serves database \"shpo\""),
            (Client { database: Some("shop"), user: Some("ap") }, "the configuration has no user \"ap\""),
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let error = runtime.block_on(with_nodes(&config, client, "SELECT 1")).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
