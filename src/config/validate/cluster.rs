//! Clusters and their nodes.

use std::ops::Range;

use toml::Spanned;

use super::consistency::overrides;
use super::report::{Report, SecretSource};
use crate::config::raw::{self, ALL_DATABASES};
use crate::config::{Address, CONSOLE_DATABASES, Cluster, Control, Node, ServerTls, SslMode};

/// A node's index has 16 bits.
const MAX_NODES: usize = 1000;

/// What may be there only once, with the place where it is.
#[derive(Default)]
struct Taken {
    addresses: Vec<(Range<usize>, Address)>,
    databases: Vec<(Range<usize>, String)>,
}

pub fn clusters(file: &raw::File, report: &mut Report<'_>) -> Vec<Cluster> {
    if file.clusters.is_empty() {
        let problem = "there is none; add [clusters.main], with its nodes as [[clusters.main.nodes]]";
        report.missing(&(0..0), "clusters", problem);
    }
    let mut taken = Taken::default();
    // In the order of the file, so that the second of two is the one that is wrong.
    let mut raw: Vec<_> = file.clusters.iter().collect();
    raw.sort_by_key(|(name, _)| name.span().start);
    raw.into_iter().map(|(name, cluster)| build(name, cluster, &file.probe, &mut taken, report)).collect()
}

fn build(
    name: &Spanned<String>,
    cluster: &Spanned<raw::Cluster>,
    probe: &raw::Probe,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Cluster {
    let raw = cluster.get_ref();
    Cluster {
        name: report.name(name),
        databases: databases(name, raw, taken, report),
        nodes: nodes(name, raw, taken, report),
        server_tls: ServerTls {
            mode: report.word(&raw.server_tls_sslmode, &SslMode::NAMES),
            root_cert_file: raw.server_tls_ca_file.as_ref().map(|path| report.file(path)),
        },
        control: control(name, raw, report),
        consistency: overrides(raw, probe, report),
    }
}

fn databases(name: &Spanned<String>, raw: &raw::Cluster, taken: &mut Taken, report: &mut Report<'_>) -> Vec<String> {
    if raw.databases.is_empty() {
        report.missing(&name.span(), "databases", "is empty; name databases, or leave it out to serve all of them");
    }
    let mut names = Vec::new();
    for database in &raw.databases {
        let text = report.name(database);
        if CONSOLE_DATABASES.contains(&text.as_str()) {
            report.at(
                &database.span(),
                format!("{text:?} is the admin console; a database of this name cannot be served"),
            );
        }
        let all = |name: &str| name == ALL_DATABASES;
        let clash = taken.databases.iter().find(|(_, other)| *other == text || all(other) || all(&text));
        let problem = clash.map(|(other, clash)| {
            format!(
                "database {text:?} is served already by {}, which has {clash:?}; the databases of a cluster must be \
                 in no other",
                report.document.mention(other)
            )
        });
        // The default is not in the text; the cluster is.
        let is_default = database.span().is_empty();
        match problem {
            Some(problem) if is_default => report.missing(&name.span(), "databases", problem),
            Some(problem) => report.at(&database.span(), problem),
            None => {}
        }
        taken.databases.push((if is_default { name.span() } else { database.span() }, text.clone()));
        names.push(text);
    }
    if names.iter().any(|name| name == ALL_DATABASES) { Vec::new() } else { names }
}

fn nodes(name: &Spanned<String>, raw: &raw::Cluster, taken: &mut Taken, report: &mut Report<'_>) -> Vec<Node> {
    match raw.nodes.len() {
        0 => {
            let table = format!("[[clusters.{}.nodes]]", name.get_ref());
            let problem = format!("there is none; add {table} with name = \"a\" and host = \"10.0.0.1\"");
            report.missing(&name.span(), "nodes", problem);
        }
        1..=MAX_NODES => {}
        count => report.at(&name.span(), format!("{count} nodes are too many; allowed are 1 to {MAX_NODES}")),
    }
    let mut names: Vec<&Spanned<String>> = Vec::new();
    let mut nodes = Vec::new();
    for raw in &raw.nodes {
        let name = report.required(&raw.span(), "name", raw.get_ref().name.as_ref(), "\"a\"");
        if let Some(name) = name {
            if let Some(first) = names.iter().find(|first| first.get_ref() == name.get_ref()) {
                let problem = format!(
                    "{:?} is the name of {} too; each node of a cluster needs its own",
                    name.get_ref(),
                    report.document.mention(&first.span())
                );
                report.at(&name.span(), problem);
            }
            names.push(name);
        }
        let address = address(raw, taken, report);
        if let (Some(name), Some(address)) = (name, address) {
            nodes.push(Node { name: report.name(name), address });
        }
    }
    nodes
}

fn address(raw: &Spanned<raw::Node>, taken: &mut Taken, report: &mut Report<'_>) -> Option<Address> {
    let node = raw.get_ref();
    let port = report.count(&node.port, &(1..=65_535));
    let host = report.required(&raw.span(), "host", node.host.as_ref(), "\"10.0.0.1\"")?;
    let Some(address) = Address::of_host(host.get_ref(), port) else {
        let problem = format!(
            "{:?} is no host; allowed are a name, an IP address, and the directory of a Unix socket, which starts \
             with /; the port has its own setting",
            host.get_ref()
        );
        report.at(&host.span(), problem);
        return None;
    };
    if let Some((other, _)) = taken.addresses.iter().find(|(_, other)| other.same_as(&address)) {
        let problem =
            format!("{address} is the address of {} too; each node needs its own", report.document.mention(other));
        report.at(&host.span(), problem);
    }
    taken.addresses.push((host.span(), address.clone()));
    Some(address)
}

fn control(name: &Spanned<String>, raw: &raw::Cluster, report: &mut Report<'_>) -> Control {
    let Some(control) = &raw.control else {
        let problem = "is missing: the login that watches the nodes; write for example control = { user = \
                       \"causeway\", password_file = \"control.password\" }";
        report.missing(&name.span(), "control", problem);
        return Control { user: String::new(), password: None, database: String::new() };
    };
    let login = control.get_ref();
    let user = report.required(&control.span(), "user", login.user.as_ref(), "\"causeway\"");
    let found = report.secret(SecretSource {
        key: "password",
        text: login.password.as_ref(),
        file: login.password_file.as_ref(),
        env: login.password_env.as_ref(),
    });
    Control {
        user: user.map(|user| report.name(user)).unwrap_or_default(),
        password: found.and_then(|found| found.secret),
        database: report.name(&login.database),
    }
}
