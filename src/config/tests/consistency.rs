//! What is promised to reads.

use super::*;
use crate::types::{Consistency, Level};

/// Unless a cluster serves all databases, those with a table must be among them.
#[test]
fn databases_that_nobody_serves() {
    let text = GOOD.replace("control = {", "databases = [\"shop\", \"hr\"]\nconsistency = \"weak\"\ncontrol = {");
    let errors = read(&format!("{text}[databases.hr]\n[databases.shp]")).unwrap_err().to_string();
    let expected = "c.toml:5: clusters.main.consistency: unknown value \"weak\"; Allowed: eventual, bounded, session, \
                    strong, primary\nc.toml:13: databases.shp: no cluster serves it: unknown database \"shp\"; did you \
                    mean \"shop\"? Allowed: shop, hr";
    assert_eq!(errors, expected);
}

#[test]
fn what_is_promised_is_said_by_the_user_then_the_database_then_the_cluster() {
    let text = GOOD.replace(
        "[[clusters.main.nodes]]",
        "consistency = \"bounded\"\nmax_staleness = \"2s\"\n[[clusters.main.nodes]]",
    ) + "consistency = \"strong\"\n[users.other]\npassword = \"SECRET\"\n[databases.shop]\nmax_staleness = \
           \"3s\"\nconsistency = \"eventual\"\n[databases.hr]\ncausal_wait = \"0s\"\n[routing]\nmax_staleness = \"4s\"";
    let config = read(&text).unwrap();
    for (database, user, level, staleness_s, wait_ms) in [
        ("x", "nobody", Level::Bounded, 2, 50),
        ("x", "other", Level::Bounded, 2, 50),
        ("x", "app", Level::Strong, 2, 50),
        ("shop", "other", Level::Eventual, 3, 50),
        ("shop", "app", Level::Strong, 3, 50),
        ("hr", "other", Level::Bounded, 2, 0),
    ] {
        let expected = Consistency {
            level,
            max_staleness: Duration::from_secs(staleness_s),
            causal_wait: Duration::from_millis(wait_ms),
        };
        assert_eq!(config.consistency(&config.clusters[0], database, user), expected, "{database} {user}");
    }
    let defaults = read(GOOD).unwrap();
    let expected = Consistency {
        level: Level::Session,
        max_staleness: Duration::from_secs(1),
        causal_wait: Duration::from_millis(50),
    };
    assert_eq!(defaults.consistency(&defaults.clusters[0], "x", "app"), expected);
    assert_eq!((defaults.routing.max_spilled_reads, defaults.routing.spill_wait), (0, Duration::from_secs(1)));
}
