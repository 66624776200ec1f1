//! The demo: what it tells of a proxy that does not do its work.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use causeway::app::demo::{self, DemoError, Options, Proxy};

use crate::harness::{Env, Test, block_on};

pub const TESTS: &[Test] =
    &[("demo::a_proxy_that_does_not_split_is_found_out", a_proxy_that_does_not_split_is_found_out)];

/// The address of the primary, said to be a proxy that has two replicas.
fn primary_alone(configuration: &Path) -> Proxy {
    let text = std::fs::read_to_string(configuration).unwrap();
    let settings: toml::Table = text.parse().unwrap();
    let port = settings["clusters"]["demo"]["nodes"][0]["port"].as_integer().unwrap();
    Proxy {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap())),
        metrics_text: Box::new(|| {
            let eligible = |node| format!("causeway_node_eligible{{cluster=\"demo\",node=\"{node}\"}} 1\n");
            eligible("replica1") + &eligible("replica2")
        }),
        shutdown: Box::pin(async {}),
    }
}

fn a_proxy_that_does_not_split_is_found_out(_: &Env) {
    let options = Options { once: true, replicas: 2, traffic: Duration::from_secs(1) };
    let outcome = block_on(demo::run(options, async |configuration| Ok(primary_alone(configuration))));
    let Err(DemoError::Faults(faults)) = outcome else { panic!("{outcome:?}") };
    // Each read is missed on the replicas, each replica misses all; all else is in order.
    assert_eq!(faults.iter().filter(|fault| fault.ends_with("never ran on a replica")).count(), 4, "{faults:?}");
    assert_eq!(faults.iter().filter(|fault| fault.ends_with("ran no statement at all")).count(), 2, "{faults:?}");
    assert_eq!(faults.len(), 6, "{faults:?}");
}
