//! What a topology knows of histories after real promotions, against what the timeline history files say.

use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{LocalCluster, LocalNode};
use causeway::topology::{Fork, Holds};
use causeway::types::{Lsn, NodeId, Position, Role};
use tokio_postgres::Client;

use crate::harness::{Env, Test, block_on, wait_for};
use crate::positions::{LIMIT, Watched, connect, soon, started};

pub const TESTS: &[Test] = &[
    ("forks::a_promotion_tells_what_is_lost", a_promotion_tells_what_is_lost),
    ("forks::a_promotion_that_nobody_saw_tells_nothing", a_promotion_that_nobody_saw_tells_nothing),
];

const INTERVAL: Duration = Duration::from_millis(100);

/// Streams from another node, or from nobody.
pub fn follow(replica: &LocalNode, upstream: Option<&LocalNode>) {
    let source = upstream.map_or(String::new(), |node| {
        let directory = node.socket_dir().display();
        format!("host={directory} port={} user=postgres application_name={}", node.port(), replica.name())
    });
    replica.sql("postgres", &format!("ALTER SYSTEM SET primary_conninfo = '{source}'")).unwrap();
    replica.sql("postgres", "ALTER SYSTEM SET primary_slot_name = ''").unwrap();
    replica.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let wanted = upstream.map_or(String::new(), |node| node.port().to_string());
    wait_for(LIMIT, "the replica follows as it was told", || {
        let receiving = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        replica.sql("postgres", receiving).unwrap() == wanted
    });
}

/// The last line of a timeline's history file: which timeline was left, and where.
fn history_file(node: &LocalNode, timeline: u32) -> Fork {
    let text = node.sql("postgres", &format!("SELECT pg_read_file('pg_wal/{timeline:08X}.history')")).unwrap();
    let mut fields = text.lines().last().unwrap().split('\t');
    let timeline = fields.next().unwrap().parse().unwrap();
    Fork { timeline, at: fields.next().unwrap().parse().unwrap() }
}

async fn write(watched: &Watched, writer: &Client) -> Position {
    writer.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    watched.position().await.position
}

/// Ends the primary and promotes another node; gives the fork that its history file names.
fn fail_over(watched: &Watched, from: &LocalNode, to: &LocalNode, id: NodeId, timeline: u32) -> Fork {
    from.kill9().unwrap();
    to.promote().unwrap();
    let view = watched.await_view(|view| view.primary == Some(id));
    let fork = history_file(to, timeline);
    assert!(view.history.is_of(view.epoch.unwrap().system, timeline));
    assert_eq!(view.history.last_fork(), Some(fork));
    fork
}

fn a_promotion_tells_what_is_lost(_: &Env) {
    let cluster = started("");
    let watched = Watched::start(&cluster, INTERVAL);
    let [primary, one, two] = [0, 1, 2].map(|index| &cluster.nodes()[index]);
    let holds = |position| watched.topology.view().history.holds(position);

    let (kept, asked_at, lost) = block_on(async {
        let writer = connect(&cluster, 0).await;
        let kept = write(&watched, &writer).await;
        for id in [NodeId(1), NodeId(2)] {
            assert_eq!(watched.topology.wait_for_replay(kept, &[id], soon(LIMIT)).await, Some(id));
        }
        follow(one, None);
        follow(two, None);
        let asked_at = Instant::now();
        (kept, asked_at, write(&watched, &writer).await)
    });
    let fork = fail_over(&watched, primary, one, NodeId(1), 2);
    assert_eq!((fork.timeline, holds(kept)), (1, Holds::Yes));
    assert_eq!(holds(lost), Holds::Lost { forked_at: fork.at });
    assert_eq!(holds(Position { lsn: fork.at, ..lost }), Holds::Yes);
    // What the old primary had is known, to whoever saw it by then.
    let known = watched.topology.sample_of(NodeId(0), asked_at).unwrap();
    assert_eq!((known.position, known.role()), (lost, Role::Primary));
    assert_eq!(watched.topology.sample_of(NodeId(0), Instant::now()), None);

    // The other replica has what lies before the fork, when it has come to the new timeline.
    follow(two, Some(one));
    let second = block_on(async {
        let writer = connect(&cluster, 1).await;
        let second = write(&watched, &writer).await;
        assert_eq!((second.timeline, holds(second)), (2, Holds::Yes));
        for wanted in [second, kept] {
            let met = watched.topology.wait_for_replay(wanted, &[NodeId(2)], soon(LIMIT)).await;
            assert_eq!(met, Some(NodeId(2)));
        }
        let beyond = Position { lsn: Lsn(fork.at.0 + 8), ..kept };
        let met = watched.topology.wait_for_replay(beyond, &[NodeId(2)], soon(INTERVAL)).await;
        assert_eq!(met, None, "it has replayed further, but not this");
        second
    });
    watched.await_view(|view| view.nodes[2].eligible.is_ok());
    let last = fail_over(&watched, one, two, NodeId(2), 3);
    assert_eq!((last.timeline, holds(kept), holds(second)), (2, Holds::Yes, Holds::Yes));
    assert_eq!(holds(lost), Holds::Lost { forked_at: fork.at });
    assert_eq!(holds(Position { lsn: Lsn(last.at.0 + 8), ..second }), Holds::Lost { forked_at: last.at });
    assert_eq!(holds(Position { timeline: 4, ..second }), Holds::Future);
}

/// Ends our control connections to a node; they are made anew when they are needed.
fn cut(cluster: &LocalCluster, index: usize) {
    let end =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'causeway-control'";
    assert!(!cluster.nodes()[index].sql("postgres", end).unwrap().is_empty());
}

fn a_promotion_that_nobody_saw_tells_nothing(_: &Env) {
    let cluster = started("");
    // It is probed when a test says so.
    let watched = Watched::start(&cluster, Duration::from_secs(60));
    let [primary, one] = [0, 1].map(|index| &cluster.nodes()[index]);
    let written = block_on(async { write(&watched, &connect(&cluster, 0).await).await });
    primary.kill9().unwrap();
    cut(&cluster, 1);
    one.promote().unwrap();
    // Crash recovery leaves a replay position that is no fork.
    one.kill9().unwrap();
    one.start().unwrap();
    watched.topology.report_failure(NodeId(0));
    watched.topology.probe_now(NodeId(1));
    let view = watched.await_view(|view| view.primary == Some(NodeId(1)));
    let replayed = one.sql("postgres", "SELECT pg_last_wal_replay_lsn()").unwrap();
    assert!(replayed.parse::<Lsn>().unwrap() > history_file(one, 2).at, "the trap that this is about");
    assert_eq!((view.history.last_fork(), view.history.holds(written)), (None, Holds::Unknown));
}
