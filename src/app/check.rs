//! What `causeway check` says about a configuration that is right.

use std::fmt::Write as _;

use crate::config::{ClientTls, Config, Credential};

/// The listeners, clusters, nodes and users, one on a line.
pub fn summary(config: &Config) -> String {
    let mut out = String::new();
    for listener in &config.listeners {
        let tls = match listener.tls {
            ClientTls::Disable => "no TLS",
            ClientTls::Allow { .. } => "TLS allowed",
            ClientTls::Require { .. } => "TLS required",
        };
        line(&mut out, format_args!("listener {} ({tls})", listener.address));
    }
    if let Some(metrics) = &config.metrics {
        line(&mut out, format_args!("metrics http://{}/metrics", metrics.address));
    }
    for cluster in &config.clusters {
        let databases = match cluster.databases.as_slice() {
            [] => "all databases".to_owned(),
            names => format!("databases {}", names.join(", ")),
        };
        line(&mut out, format_args!("cluster {} ({databases})", cluster.name));
        for node in &cluster.nodes {
            line(&mut out, format_args!("  node {} at {}", node.name, node.address));
        }
    }
    for (name, user) in &config.users {
        let password = match user.credential {
            Credential::None => "no password",
            Credential::Plain(_) => "plain password",
            Credential::Md5(_) => "md5 hash",
            Credential::Scram(_) => "SCRAM verifier",
        };
        let nodes = if user.server_password.is_some() { "" } else { ", none for the nodes" };
        line(&mut out, format_args!("user {name} ({password}{nodes})"));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_urls;

    #[test]
    fn the_summary_names_everything_but_secrets() {
        let url = "postgres://app:hunter2@db1/shop";
        let config = from_urls(url, &["postgres://[::1]".to_owned()], None, Some("127.0.0.1:9187")).unwrap();
        let expected = "listener 127.0.0.1:6432 (no TLS)\nmetrics http://127.0.0.1:9187/metrics\ncluster main (all \
                        databases)\n  node db1:5432 at db1:5432\n  node [::1]:5432 at [::1]:5432\nuser app (plain \
                        password)\n";
        assert_eq!(summary(&config), expected);
    }
}
