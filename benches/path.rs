//! What the steps between classification and the first byte cost: the route decision, and a lease from a pool.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::config::Fallback;
use causeway::metrics::Metrics;
use causeway::pool::{Attempt, Limits, Pool, Pooled};
use causeway::route::{Needs, NodeSet, Patience, Request, route};
use causeway::sql::Class;
use causeway::topology::{Ineligible, NodeLoad, NodeView, View};
use causeway::types::{Level, NodeId, WorkerId};
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
}

fn lease(criterion: &mut Criterion) {
    let metrics = Metrics::new(2).expect("a registry of its own");
    let minute = Duration::from_secs(60);
    let limits = Limits { size: 20, min_size: 0, idle_timeout: minute, lifetime: minute, wait_timeout: minute };
    let pool = Pool::new("bench".to_owned(), 2, limits, metrics.pool("main", "n0", "app", "app"));
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

criterion_group!(benches, decide, lease);
criterion_main!(benches);
