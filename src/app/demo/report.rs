//! Where the statements went: counted in the nodes' own logs, which the proxy can't colour. Pure.

use std::fmt::Write;

use super::workload::{Home, STATEMENTS, Statement};

/// How often each node ran each statement.
#[derive(Debug)]
pub struct Tally {
    /// The primary, then the replicas.
    nodes: Vec<String>,
    /// `runs[node][statement]`, in the order of [`STATEMENTS`].
    runs: Vec<[u64; STATEMENTS.len()]>,
    /// By node: BEGIN, COMMIT and all else that came from the application's user.
    rest: Vec<u64>,
}

impl Tally {
    /// `logs`: a node's name and what it has logged, the primary first; `login` as in the log's prefix, `user@database`.
    pub fn count<'a>(logs: impl IntoIterator<Item = (&'a str, &'a [u8])>, login: &str) -> Self {
        let mut tally = Self { nodes: Vec::new(), runs: Vec::new(), rest: Vec::new() };
        for (node, log) in logs {
            let mut runs = [0; STATEMENTS.len()];
            let mut rest = 0;
            for sql in String::from_utf8_lossy(log).lines().filter_map(|line| statement(line, login)) {
                match STATEMENTS.iter().position(|known| known.sql == sql) {
                    Some(index) => runs[index] += 1,
                    None => rest += 1,
                }
            }
            tally.nodes.push(node.to_owned());
            tally.runs.push(runs);
            tally.rest.push(rest);
        }
        tally
    }

    fn rows(&self) -> impl Iterator<Item = (&'static Statement, Vec<u64>)> {
        STATEMENTS.iter().enumerate().map(|(index, known)| (known, self.runs.iter().map(|runs| runs[index]).collect()))
    }

    /// One row per statement, one column per node.
    pub fn table(&self) -> String {
        let header = ["statement", "belongs on"].map(str::to_owned).into_iter().chain(self.nodes.iter().cloned());
        let mut rows = vec![header.collect::<Vec<_>>()];
        let row = |label: &str, home: &str, counts: &[u64]| {
            let cells = [label, home].map(str::to_owned).into_iter();
            cells.chain(counts.iter().map(u64::to_string)).collect::<Vec<_>>()
        };
        for (known, counts) in self.rows() {
            let home = match known.home {
                Home::Primary => "primary",
                Home::Replicas => "replicas",
            };
            rows.push(row(known.label, home, &counts));
        }
        rows.push(row("BEGIN, COMMIT and the like", "", &self.rest));
        table(&rows)
    }

    /// What is not as it should be: a statement that never ran, or ran where it must not, or a replica without reads.
    /// A read on the primary is no fault: there may have been no replica fit for it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (known, counts) in self.rows() {
            let (primary, replicas) = counts.split_at(1);
            match known.home {
                Home::Primary => {
                    if primary == [0] {
                        faults.push(format!("{} never ran on the primary", known.label));
                    }
                    for (node, count) in self.nodes.iter().skip(1).zip(replicas).filter(|(_, count)| **count > 0) {
                        faults.push(format!("{} ran {count} times on {node}", known.label));
                    }
                }
                Home::Replicas if replicas.iter().all(|&count| count == 0) => {
                    faults.push(format!("{} never ran on a replica", known.label));
                }
                Home::Replicas => {}
            }
        }
        for (node, runs) in self.nodes.iter().zip(&self.runs).skip(1) {
            if runs.iter().all(|&count| count == 0) {
                faults.push(format!("{node} ran no statement at all"));
            }
        }
        faults
    }
}

/// The statement in a log line of `login` (`user@database`), whichever protocol it came by.
fn statement<'a>(line: &'a str, login: &str) -> Option<&'a str> {
    let (prefix, message) = line.split_once(" LOG:  ")?;
    // "2026-01-02 03:04:05.678 UTC [123] user@database application"
    prefix.split_once("] ")?.1.split(' ').next().filter(|who| *who == login)?;
    if let Some(sql) = message.strip_prefix("statement: ") {
        return Some(sql);
    }
    // "execute <unnamed>: …"
    message.strip_prefix("execute ")?.split_once(": ").map(|(_, sql)| sql)
}

/// A sample of the Prometheus text format.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    /// Whether the state is so, or the event ever was.
    pub fn holds(&self) -> bool {
        self.value > 0.0
    }

    /// A label's value; empty when it is not there.
    pub fn label(&self, name: &str) -> &'a str {
        let found = self.labels.split(',').find_map(|label| label.trim().strip_prefix(name)?.strip_prefix("=\""));
        found.map_or("", |value| value.trim_end_matches('"'))
    }
}

/// The samples of one metric whose labels hold no commas or quotes, as ours.
pub fn samples<'a>(text: &'a str, metric: &str) -> Vec<Sample<'a>> {
    let sample = |line: &'a str| {
        let (labels, value) = line.strip_prefix(metric)?.strip_prefix('{')?.split_once('}')?;
        Some(Sample { labels, value: value.trim().parse().ok()? })
    };
    text.lines().filter_map(sample).collect()
}

/// The proxy's own account: batches by node and reason.
pub fn reasons(metrics: &str) -> String {
    let mut rows = vec![["node", "reason", "batches"].map(str::to_owned).to_vec()];
    for sample in samples(metrics, "causeway_routed_total").iter().filter(|sample| sample.holds()) {
        rows.push(vec![
            sample.label("node").to_owned(),
            sample.label("reason").to_owned(),
            format!("{:.0}", sample.value),
        ]);
    }
    table(&rows)
}

/// A replica's worst moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    node: String,
    /// Not a number while it is not known; so are the seconds.
    bytes: f64,
    seconds: f64,
}

/// Takes what `metrics` says now into the highest lags seen; nodes without a lag (the primary) are left out.
pub fn highest_lags(lags: &mut Vec<Lag>, metrics: &str) {
    for replica in samples(metrics, "causeway_node_role") {
        if replica.holds() && replica.label("role") == "replica" {
            let node = replica.label("node");
            let now = |metric| {
                samples(metrics, metric)
                    .iter()
                    .find(|sample| sample.label("node") == node)
                    .map_or(f64::NAN, |s| s.value)
            };
            let (bytes, seconds) = (now("causeway_node_lag_bytes"), now("causeway_node_lag_seconds"));
            let index = lags.iter().position(|lag| lag.node == node).unwrap_or_else(|| {
                lags.push(Lag { node: node.to_owned(), bytes: f64::NAN, seconds: f64::NAN });
                lags.len() - 1
            });
            // `max` passes over what is not a number: not known yet.
            lags[index].bytes = lags[index].bytes.max(bytes);
            lags[index].seconds = lags[index].seconds.max(seconds);
        }
    }
}

/// The highest lag of each replica.
pub fn lag_table(lags: &[Lag]) -> String {
    let mut rows = vec![["node", "highest lag in bytes", "highest staleness in ms"].map(str::to_owned).to_vec()];
    for lag in lags {
        rows.push(vec![lag.node.clone(), format!("{:.0}", lag.bytes), format!("{:.0}", lag.seconds * 1000.0)]);
    }
    table(&rows)
}

/// Columns as wide as they must be; numbers to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let numeric = |column: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column));
        rows.len() > 1 && cells.all(|cell| cell.parse::<f64>().is_ok())
    };
    let shape: Vec<_> = (0..columns).map(|column| (width(column), numeric(column))).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, &(width, numeric)) in row.iter().zip(&shape) {
            // Writing to a String does not fail.
            let _ = if numeric { write!(line, " {cell:>width$} ") } else { write!(line, " {cell:<width$} ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_give_the_statements_of_one_login() {
        let prefix = "2026-01-02 03:04:05.678 UTC [123]";
        for (line, want) in [
            ("app@demo shop LOG:  statement: SELECT 1", Some("SELECT 1")),
            ("app@demo [unknown] LOG:  statement: SELECT 1", Some("SELECT 1")),
            ("app@demo shop LOG:  execute <unnamed>: SELECT $1", Some("SELECT $1")),
            ("app@demo shop LOG:  execute s0/p1: SELECT 'a: b'", Some("SELECT 'a: b'")),
            ("app@demo shop ERROR:  cannot execute INSERT in a read-only transaction", None),
            ("app@demo shop DETAIL:  parameters: $1 = '1'", None),
            ("app@demo shop LOG:  could not receive data from client", None),
            ("causeway@demo app@demo LOG:  statement: SELECT 1", None),
            ("app@demo2 shop LOG:  statement: SELECT 1", None),
            ("@  LOG:  checkpoint starting: time", None),
        ] {
            assert_eq!(statement(&format!("{prefix} {line}"), "app@demo"), want, "{line}");
        }
    }

    /// A log in which a node ran the given statements, by index.
    fn log(statements: &[usize]) -> String {
        let line = |&index: &usize| format!("t UTC [1] app@demo shop LOG:  execute s0: {}\n", STATEMENTS[index].sql);
        statements.iter().map(line).collect()
    }

    #[test]
    fn faults_are_found() {
        let home = |home| (0..STATEMENTS.len()).filter(move |&index| STATEMENTS[index].home == home);
        let reads: Vec<_> = home(Home::Replicas).collect();
        let writes: Vec<_> = home(Home::Primary).collect();
        let all: Vec<_> = (0..STATEMENTS.len()).collect();
        let (no_first_read, no_first_write) = (&reads[1..], &writes[1..]);
        let read_and_write = [&reads[..], &writes[..1]].concat();
        let (first_read, first_write) = (STATEMENTS[reads[0]].label, STATEMENTS[writes[0]].label);
        for (primary, replicas, want) in [
            (&writes[..], [&reads[..], &reads[..]], vec![]),
            (&all, [&reads, &reads], vec![]),
            (&writes, [&reads, no_first_read], vec![]),
            (&writes, [&reads, &[]], vec!["replica2 ran no statement at all".to_owned()]),
            (&writes, [no_first_read, no_first_read], vec![format!("{first_read} never ran on a replica")]),
            (no_first_write, [&reads, &reads], vec![format!("{first_write} never ran on the primary")]),
            (&writes, [&reads, &read_and_write], vec![format!("{first_write} ran 1 times on replica2")]),
        ] {
            let logs = [("primary", log(primary)), ("replica1", log(replicas[0])), ("replica2", log(replicas[1]))];
            let tally = Tally::count(logs.iter().map(|(node, log)| (*node, log.as_bytes())), "app@demo");
            assert_eq!(tally.faults(), want);
        }
    }

    #[test]
    fn statements_have_texts_and_labels_of_their_own() {
        for (index, one) in STATEMENTS.iter().enumerate() {
            for other in &STATEMENTS[..index] {
                assert!(one.sql != other.sql && one.label != other.label, "{}", one.label);
            }
            assert!(!one.sql.contains('\n'), "{} would be several lines in a log", one.label);
        }
    }

    const METRICS: &str = r#"
# HELP causeway_routed_total Batches.
# TYPE causeway_routed_total counter
causeway_routed_total{cluster="main",node="primary",reason="write"} 12
causeway_routed_total{cluster="main",node="replica1",reason="read"} 3
causeway_routed_total{cluster="main",node="replica1",reason="hint"} 0
causeway_node_role{cluster="main",node="primary",role="replica"} 0
causeway_node_role{cluster="main",node="primary",role="primary"} 1
causeway_node_role{cluster="main",node="replica1",role="replica"} 1
causeway_node_lag_bytes{cluster="main",node="primary"} NaN
causeway_node_lag_bytes{cluster="main",node="replica1"} 8192
causeway_node_lag_seconds{cluster="main",node="replica1"} 0.25
"#;

    #[test]
    fn routes_are_shown_by_node_and_reason() {
        assert_eq!(
            reasons(METRICS),
            "  node      reason  batches\n  primary   write        12\n  replica1  read          3\n"
        );
    }

    #[test]
    fn the_highest_lag_stays() {
        let mut lags = Vec::new();
        for (bytes, seconds) in [("NaN", "NaN"), ("8192", "0.25"), ("100", "0.5"), ("NaN", "NaN")] {
            let now = METRICS.replace("8192", bytes).replace("0.25", seconds);
            highest_lags(&mut lags, &now);
        }
        assert_eq!(lags, [Lag { node: "replica1".to_owned(), bytes: 8192.0, seconds: 0.5 }]);
    }
}
