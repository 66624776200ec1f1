//! What the lag metrics say, of replicas that keep up and of one that does not.

use std::thread;
use std::time::{Duration, Instant};

use crate::faults::{INTERVAL, LIMIT, PROBE, cluster_with_tables};
use crate::harness::{Env, Test, wait_for};
use crate::proxy::Proxy;
use crate::traffic::{DATABASE, Traffic};

pub const TESTS: &[Test] = &[("lag::metrics_tell_the_truth", metrics_tell_the_truth)];

/// What the proxy may overstate: probes are this far apart, and nodes are busy.
const OVERSTATED: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_secs(3);

fn metrics_tell_the_truth(_: &Env) {
    let cluster = cluster_with_tables();
    let proxy = Proxy::start(&cluster, PROBE);
    let replica = &cluster.replicas()[0];
    let seconds = || proxy.node_metric("causeway_node_lag_seconds", replica.name());
    let bytes = || proxy.node_metric("causeway_node_lag_bytes", replica.name());

    // Nothing is written for a while: nothing is missing.
    let idle = Instant::now();
    while idle.elapsed() < OVERSTATED + Duration::from_secs(1) {
        assert!(seconds() < OVERSTATED.as_secs_f64(), "an idle primary looks like a lag of {} s", seconds());
        assert!(bytes() < 1.0, "{} bytes", bytes());
        thread::sleep(INTERVAL);
    }

    replica.sql("postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '3s'").unwrap();
    replica.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let traffic = Traffic::start(&proxy.target(DATABASE));
    let delay = DELAY.as_secs_f64();
    wait_for(LIMIT, "the lag is seen", || seconds() >= delay && bytes() > 0.0);
    // Only commits are delayed: all before a position can be there when its last commit is as old as the delay.
    let least = delay - INTERVAL.as_secs_f64();
    for _ in 0..10 {
        let seen = seconds();
        assert!(seen >= least && seen < delay + OVERSTATED.as_secs_f64(), "{seen} s, not {delay} s");
        assert!(bytes() > 0.0);
        thread::sleep(INTERVAL);
    }
    let other = proxy.node_metric("causeway_node_lag_seconds", cluster.replicas()[1].name());
    assert!(other < OVERSTATED.as_secs_f64(), "the other replica is said to be {other} s behind");
    traffic.assert_no_failure("while a replica was late");
    drop(traffic);
    wait_for(LIMIT, "the replica has caught up", || seconds() < OVERSTATED.as_secs_f64() && bytes() < 1.0);
}
