//! The nodes behind the proxies: a primary with one replica, and the table that is asked.

use causeway::app::demo::cluster::{ClusterOptions, LocalCluster};

use crate::kind::TABLE;

pub const USER: &str = "app";
pub const PASSWORD: &str = "secret";
pub const CONTROL_USER: &str = "causeway";
pub const DATABASE: &str = "hot";

pub fn cluster() -> LocalCluster {
    // The nodes' logs are not needed.
    let extra_conf = "log_statement = 'none'\n".to_owned();
    let cluster =
        LocalCluster::start(&ClusterOptions { replicas: 1, extra_conf, ..ClusterOptions::default() }).unwrap();
    cluster.create_role(USER, PASSWORD, "").unwrap();
    cluster.create_role(CONTROL_USER, PASSWORD, "IN ROLE pg_monitor").unwrap();
    cluster.create_database(DATABASE, USER).unwrap();
    // Nothing but the queries shall be going on.
    cluster.primary().sql(DATABASE, &format!("SET ROLE {USER}; {TABLE}")).unwrap();
    cluster.primary().sql(DATABASE, "VACUUM ANALYZE hot").unwrap();
    cluster.catch_up().unwrap();
    cluster
}
