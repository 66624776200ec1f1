//! What is promised to reads: by default, and where cluster, database and user choose otherwise.

use std::collections::BTreeMap;

use toml::Spanned;

use super::limits::{CLIENTS, SERVERS};
use super::report::Report;
use crate::config::raw::{self, Time};
use crate::config::{Cluster, Database, document};
use crate::types::{Consistency, Level, Overrides, OwnSetting};

const LEVELS: [(&str, Level); 5] = {
    let mut levels = [("", Level::Session); 5];
    let mut at = 0;
    while at < levels.len() {
        levels[at] = (Level::ALL[at].as_str(), Level::ALL[at]);
        at += 1;
    }
    levels
};

/// What one table says.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    level: Option<&'a Spanned<String>>,
    max_staleness: Option<&'a Spanned<Time>>,
    causal_wait: Option<&'a Spanned<Time>>,
}

macro_rules! tables_that_choose {
    ($($table:ident)*) => {
        $(impl<'a> From<&'a raw::$table> for Chosen<'a> {
            fn from(raw: &'a raw::$table) -> Self {
                Self {
                    level: raw.consistency.as_ref(),
                    max_staleness: raw.max_staleness.as_ref(),
                    causal_wait: raw.causal_wait.as_ref(),
                }
            }
        })*
    };
}

tables_that_choose!(Cluster Database User);

pub fn overrides<'a>(chosen: impl Into<Chosen<'a>>, probe: &raw::Probe, report: &mut Report<'_>) -> Overrides {
    let chosen = chosen.into();
    Overrides {
        level: chosen.level.map(|level| report.word(level, &LEVELS)),
        max_staleness: chosen.max_staleness.map(|time| {
            can_be_shown(time, probe, report);
            report.time(time, &OwnSetting::MAX_STALENESS)
        }),
        causal_wait: chosen.causal_wait.map(|time| report.time(time, &OwnSetting::CAUSAL_WAIT)),
    }
}

pub fn of_all(raw: &raw::Routing, probe: &raw::Probe, report: &mut Report<'_>) -> Consistency {
    can_be_shown(&raw.max_staleness, probe, report);
    Consistency {
        level: report.word(&raw.consistency, &LEVELS),
        max_staleness: report.time(&raw.max_staleness, &OwnSetting::MAX_STALENESS),
        causal_wait: report.time(&raw.causal_wait, &OwnSetting::CAUSAL_WAIT),
    }
}

/// Staleness is counted from positions of the primary that are `probe.interval` apart: within less, none is known of
/// any replica.
fn can_be_shown(max_staleness: &Spanned<Time>, probe: &raw::Probe, report: &mut Report<'_>) {
    let [max, interval] = [max_staleness, &probe.interval].map(|time| *time.get_ref());
    if report.incomplete || max >= interval || !OwnSetting::MAX_STALENESS.contains(&max.0) {
        return;
    }
    if max_staleness.span().is_empty() {
        let problem = format!("{interval} is more than routing.max_staleness, which is {max}: set that too, to more");
        report.at(&probe.interval.span(), problem);
    } else {
        let problem =
            format!("{max} is less than probe.interval, which is {interval}: no replica can be known so well");
        report.at(&max_staleness.span(), problem);
    }
}

/// By their names, each of which some cluster must serve.
pub fn databases(file: &raw::File, clusters: &[Cluster], report: &mut Report<'_>) -> BTreeMap<String, Database> {
    let mut databases = BTreeMap::new();
    for (name, raw) in &file.databases {
        let text = report.name(name);
        if !report.incomplete && !clusters.iter().any(|cluster| cluster.serves(&text)) {
            let served: Vec<_> = clusters.iter().flat_map(|cluster| &cluster.databases).map(String::as_str).collect();
            report.at(&name.span(), format!("no cluster serves it: {}", document::unknown("database", &text, &served)));
        }
        let raw = raw.get_ref();
        let database = Database {
            max_client_connections: raw.max_db_client_connections.as_ref().map(|most| report.count(most, &CLIENTS)),
            max_connections: raw.max_db_connections.as_ref().map(|most| report.count(most, &SERVERS)),
            consistency: overrides(raw, &file.probe, report),
        };
        databases.insert(text, database);
    }
    databases
}
