//! The text of a configuration file, or URLs of nodes by lines.

use std::path::Path;

use causeway::config::{Config, ConfigErrors, from_urls, read};

pub fn survive(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    check(read("c.toml", text, Path::new("/nowhere")), text);
    let mut urls = text.lines().map(str::to_owned);
    if let Some(primary) = urls.next() {
        let replicas: Vec<_> = urls.take(8).collect();
        check(from_urls(&primary, &replicas, None, None), text);
    }
}

fn check(result: Result<Config, ConfigErrors>, text: &str) {
    match result {
        Ok(config) => {
            assert!(config.workers > 0 && config.pool.size > 0 && config.limits.max_client_conn > 0);
            assert!(config.clusters.iter().all(|cluster| !cluster.nodes.is_empty()));
            assert!(!config.listeners.is_empty() && !config.clusters.is_empty());
            assert!(config.pool.min_size <= config.pool.size);
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            for error in errors.iter() {
                assert!(!error.problem.is_empty() && error.to_string().len() < 2000 + 16 * text.len(), "{error}");
                assert!(error.line.is_none_or(|line| (1..=text.len() + 1).contains(&line)));
            }
        }
    }
}
