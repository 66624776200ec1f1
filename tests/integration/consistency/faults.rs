//! What happens to the nodes during a run: by a seeded schedule, to one or both replicas, and undone in the end.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::{LocalCluster, LocalNode, Stop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Replay is paused on one replica or on both, and resumed.
    ReplayPaused,
    /// `recovery_min_apply_delay` is 2 s on one replica or on both.
    ApplyDelay,
    /// A replica's walreceiver is frozen.
    FrozenReceiver,
    /// A whole replica is frozen.
    FrozenReplica,
    Killed,
    /// A replica is stopped for a longer time, and added again.
    Removed,
    /// One replica is paused, the other goes: its sessions have only an older one to go to.
    PausedAndKilled,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::ReplayPaused,
        Self::ApplyDelay,
        Self::FrozenReceiver,
        Self::FrozenReplica,
        Self::Killed,
        Self::Removed,
        Self::PausedAndKilled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ReplayPaused => "replay paused",
            Self::ApplyDelay => "apply delay 2 s",
            Self::FrozenReceiver => "walreceiver frozen",
            Self::FrozenReplica => "replica frozen",
            Self::Killed => "replica killed",
            Self::Removed => "replica removed",
            Self::PausedAndKilled => "paused, other killed",
        }
    }

    /// In milliseconds: how long it lasts, and how long it stays away, at most.
    fn rhythm(self) -> (u64, u64) {
        match self {
            Self::None => (100, 100),
            Self::ReplayPaused => (900, 300),
            Self::ApplyDelay => (4_000, 500),
            Self::FrozenReceiver => (1_500, 500),
            Self::FrozenReplica => (1_200, 800),
            Self::Killed => (300, 1_500),
            Self::Removed => (2_500, 1_500),
            Self::PausedAndKilled => (700, 1_200),
        }
    }

    fn hits_both(self) -> bool {
        matches!(self, Self::ReplayPaused | Self::ApplyDelay | Self::FrozenReceiver)
    }

    /// Strikes and heals until it is told to stop; then all is well.
    pub fn drive(self, cluster: &LocalCluster, mut rng: fastrand::Rng, stop: &AtomicBool) {
        let (lasts, rests) = self.rhythm();
        while !stop.load(Relaxed) {
            let first = rng.usize(..2);
            let nodes = [&cluster.replicas()[first], &cluster.replicas()[1 - first]];
            let struck = if self.hits_both() && rng.bool() { &nodes[..] } else { &nodes[..1] };
            let undo: Vec<Undo> = match self {
                Self::None => Vec::new(),
                Self::PausedAndKilled => {
                    let paused = strike(Self::ReplayPaused, nodes[0]);
                    // The other one gets ahead of it.
                    wait(rng.u64(lasts / 4..=lasts), stop);
                    vec![paused, strike(Self::Killed, nodes[1])]
                }
                _ => struck.iter().map(|node| strike(self, node)).collect(),
            };
            wait(rng.u64(lasts / 4..=lasts), stop);
            for heal in undo {
                heal();
            }
            wait(rng.u64(rests / 4..=rests), stop);
        }
    }
}

type Undo<'a> = Box<dyn FnOnce() + 'a>;

fn wait(milliseconds: u64, stop: &AtomicBool) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < until && !stop.load(Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn strike(fault: Fault, node: &LocalNode) -> Undo<'_> {
    match fault {
        Fault::ReplayPaused => {
            run(node, &["SELECT pg_wal_replay_pause()"]);
            Box::new(|| run(node, &["SELECT pg_wal_replay_resume()"]))
        }
        Fault::ApplyDelay => {
            run(node, &["ALTER SYSTEM SET recovery_min_apply_delay = '2s'", "SELECT pg_reload_conf()"]);
            Box::new(|| run(node, &["ALTER SYSTEM RESET recovery_min_apply_delay", "SELECT pg_reload_conf()"]))
        }
        Fault::FrozenReceiver => {
            let receiver = node.sql("postgres", "SELECT pid FROM pg_stat_wal_receiver").unwrap();
            // There is none while it reconnects, and it may end.
            let receiver = receiver.parse().ok().map(Pid::from_raw);
            let send = move |signal| receiver.is_some_and(|pid| kill(pid, signal).is_ok());
            let struck = send(Signal::SIGSTOP);
            Box::new(move || assert!(!struck || send(Signal::SIGCONT), "the walreceiver ended while it was frozen"))
        }
        Fault::FrozenReplica => {
            node.sigstop().unwrap();
            Box::new(|| node.sigcont().unwrap())
        }
        Fault::Killed => {
            node.kill9().unwrap();
            Box::new(|| node.start().unwrap())
        }
        Fault::Removed => {
            node.stop(Stop::Fast).unwrap();
            Box::new(|| node.start().unwrap())
        }
        Fault::None | Fault::PausedAndKilled => Box::new(|| ()),
    }
}

fn run(node: &LocalNode, statements: &[&str]) {
    for sql in statements {
        node.sql("postgres", sql).unwrap();
    }
}
