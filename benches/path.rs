//! What the steps around classification cost: framing, the route decision, a lease from a pool; and what a login would
//! cost if its keys were not kept.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::auth::verifier::{DEFAULT_ITERATIONS, SALT_BYTES, Verifier};
use causeway::config::Fallback;
use causeway::metrics::Metrics;
use causeway::pool::{Attempt, Limits, Pool, Pooled};
use causeway::route::{Needs, NodeSet, Patience, Request, route};
use causeway::sql::Class;
use causeway::topology::{Ineligible, NodeLoad, NodeView, View};
use causeway::types::{Level, NodeId, WorkerId};
use causeway::wire::frame::{HEADER_BYTES, header};
use causeway::wire::frontend::{Bind, Parse, SYNC, Target, is_well_formed, tag};
use criterion::{Criterion, criterion_group, criterion_main};

/// A primary and `replicas` eligible replicas.
fn view(replicas: u16) -> View {
    let metrics = Metrics::new(2).expect("a registry of its own");
    let node = |id: u16| NodeView {
        id: NodeId(id),
        name: format!("n{id}").into(),
        role: None,
        position: None,
        sampled_at: None,
        lag_bytes: None,
        staleness: None,
        covered_at: None,
        serves_since: None,
        fenced: false,
        eligible: if id == 0 { Err(Ineligible::Primary) } else { Ok(()) },
        version: None,
        replay_paused: false,
        load: Arc::new(NodeLoad::new(metrics.node("main", &format!("n{id}")))),
        progress: Arc::default(),
    };
    View {
        nodes: (0..=replicas).map(node).collect(),
        primary: Some(NodeId(0)),
        epoch: None,
        history: Arc::default(),
        alarm: None,
    }
}

fn decide(criterion: &mut Criterion) {
    let request = |class| Request {
        class,
        hint: None,
        begins_read_only: false,
        stay: None,
        split: true,
        rescued: false,
        fallback: Fallback::Primary,
        last_replica: Some(NodeId(1)),
        avoid: NodeSet::default(),
        level: Level::Session,
        needs: Needs::default(),
        patience: Patience { guard: true, wait: Duration::from_millis(50) },
    };
    let now = Instant::now();
    for replicas in [1, 2, 8] {
        let view = view(replicas);
        criterion.bench_function(&format!("route/read, {replicas} replicas"), |bench| {
            let request = request(Class::Read);
            bench.iter(|| route(black_box(&request), &view, now, |below| fastrand::usize(..below)));
        });
    }
    let view = view(2);
    criterion.bench_function("route/write", |bench| {
        let request = request(Class::Write);
        bench.iter(|| route(black_box(&request), &view, now, |below| fastrand::usize(..below)));
    });
}

struct Idle(Instant);

impl Pooled for Idle {
    fn is_quiet(&mut self) -> bool {
        true
    }

    fn rehome(self) -> io::Result<Self> {
        Ok(self)
    }

    fn connected_at(&self) -> Instant {
        self.0
    }

    fn is_stray(&self) -> bool {
        false
    }
}

fn lease(criterion: &mut Criterion) {
    let metrics = Metrics::new(2).expect("a registry of its own");
    let minute = Duration::from_secs(60);
    let limits = Limits {
        size: 20,
        min_size: 0,
        idle_timeout: minute,
        lifetime: minute,
        wait_timeout: minute,
        login_retry: minute,
        max_waiting: 0,
        most_of_database: 0,
        most_of_user: 0,
    };
    let pool = Pool::new("bench".to_owned(), 2, limits, Box::default(), metrics.pool("main", "n0", "app", "app"));
    let (now, worker) = (Instant::now(), WorkerId(0));
    if let Attempt::Connect(place) = pool.attempt(worker) {
        place.fill(Idle(now)).release(now);
    }
    criterion.bench_function("pool/lease and release", |bench| {
        bench.iter(|| {
            let Attempt::Server(lease) = pool.attempt(black_box(worker)) else { return };
            lease.release(now);
        });
    });
}

/// The batch that most drivers send for a query.
fn frames(criterion: &mut Criterion) {
    let mut batch = Vec::new();
    Parse { name: b"", text: b"SELECT abalance FROM pgbench_accounts WHERE aid = $1", types: b"\0\0" }
        .write(&mut batch);
    Bind { portal: b"", statement: b"", rest: b"\0\0\0\x01\0\0\0\x042345\0\0" }.write(&mut batch);
    Target::Portal(b"").write(tag::DESCRIBE, &mut batch);
    batch.extend_from_slice(b"E\0\0\0\x09\0\0\0\0\0");
    batch.extend_from_slice(SYNC);
    criterion.bench_function("frames/five of a batch", |bench| {
        bench.iter(|| {
            let mut rest = black_box(&batch[..]);
            let mut well_formed = true;
            while let Ok(Some(header)) = header(rest) {
                let (frame, after) = rest.split_at(header.frame_bytes);
                well_formed &= is_well_formed(header.tag, &frame[HEADER_BYTES..]);
                rest = after;
            }
            assert!(well_formed && rest.is_empty());
        });
    });
}

fn scram(criterion: &mut Criterion) {
    criterion.bench_function("scram/keys of a password", |bench| {
        bench.iter(|| Verifier::derive(black_box("secret"), vec![7; SALT_BYTES], DEFAULT_ITERATIONS));
    });
}

criterion_group!(benches, frames, decide, lease, scram);
criterion_main!(benches);
