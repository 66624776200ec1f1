//! Pools that share a limit.

use proptest::prelude::*;

use super::tests::{Fake, ONE, TWO, connect, limits, pool_under, queue};
use super::*;

/// The turn of somebody who waits, if it has come.
fn turn(waiting: &mut Waiting<Fake>) -> Option<Turn<Fake>> {
    waiting.receiver.try_recv().ok()
}

fn fill(place: Place<Fake>, id: usize) -> Lease<Fake> {
    place.fill(Fake { id, quiet: true, connected_at: Instant::now() })
}

#[test]
fn an_idle_server_of_another_pool_makes_room() {
    let ceiling = Ceiling::new(2);
    let (one, other) = (pool_under(limits(2), &[&ceiling]), pool_under(limits(2), &[&ceiling]));
    let held = connect(&one, ONE, 1);
    connect(&one, ONE, 2).release(Instant::now());
    let mut waiting = queue(&other, TWO);
    let Some(Turn::Connect(place)) = turn(&mut waiting) else { panic!("there is room") };
    let theirs = fill(place, 3);
    // And so does one that becomes idle.
    let mut waiting = queue(&other, TWO);
    assert!(turn(&mut waiting).is_none());
    held.release(Instant::now());
    assert!(matches!(turn(&mut waiting), Some(Turn::Connect(_))));
    drop(theirs);
}

#[test]
fn a_place_goes_to_who_has_waited_longest() {
    let ceiling = Ceiling::new(1);
    let pools = [(); 3].map(|()| pool_under(limits(2), &[&ceiling]));
    let held = connect(&pools[0], ONE, 1);
    let (mut second, mut third) = (queue(&pools[2], ONE), queue(&pools[1], TWO));
    drop(held);
    let Some(Turn::Connect(place)) = turn(&mut second) else { panic!("it came first") };
    assert!(turn(&mut third).is_none());
    // Who could connect and does not passes the place on, and so does who has gone.
    drop(place);
    assert!(matches!(turn(&mut third), Some(Turn::Connect(_))));
}

/// With a limit on the database and one on the user.
#[test]
fn a_place_is_of_use_only_under_all_ceilings() {
    let (database, user, other_user) = (Ceiling::new(2), Ceiling::new(1), Ceiling::new(2));
    let ours = pool_under(limits(2), &[&database, &user]);
    let theirs = pool_under(limits(2), &[&database, &other_user]);
    let elsewhere = pool_under(limits(2), &[&user]);
    let held_elsewhere = connect(&elsewhere, ONE, 1);
    let (first, second) = (connect(&theirs, ONE, 2), connect(&theirs, ONE, 3));
    let (mut blocked, mut behind) = (queue(&ours, ONE), queue(&theirs, TWO));
    drop(first);
    assert!(turn(&mut blocked).is_none(), "its user has no room");
    assert!(matches!(turn(&mut behind), Some(Turn::Connect(_))), "who came later has");
    drop((behind, held_elsewhere));
    assert!(matches!(turn(&mut blocked), Some(Turn::Connect(_))));
    drop(second);
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, usize),
    Park(usize),
    Close(usize),
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3usize, 0..2usize).prop_map(|(pool, worker)| Step::Take(pool, worker)),
        2 => (0..8usize).prop_map(Step::Park),
        1 => (0..8usize).prop_map(Step::Close),
        1 => (0..8usize).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Never more servers than the ceiling, and nobody whose pool may grow waits while there is room, or while a server
    /// is idle anywhere under it.
    #[test]
    fn the_ceiling_holds_and_nobody_waits_below_it(most in 1..5usize, size in 1..4usize, steps in steps()) {
        let ceiling = Ceiling::new(most);
        let pools = [(); 3].map(|()| pool_under(limits(size), &[&ceiling]));
        let (mut lent, mut made) = (Vec::<Lease<Fake>>::new(), 0);
        let mut waiters = Vec::<(usize, Waiting<Fake>)>::new();
        for step in steps {
            match step {
                Step::Take(pool, worker) => match pools[pool].attempt(WorkerId(worker)) {
                    Attempt::Server(lease) => lent.push(lease),
                    Attempt::Connect(place) => {
                        made += 1;
                        lent.push(fill(place, made));
                    }
                    Attempt::Wait(waiting) => waiters.push((pool, waiting)),
                    Attempt::Full => prop_assert!(false, "there is no limit on waiters"),
                },
                Step::Park(nth) if !lent.is_empty() => lent.swap_remove(nth % lent.len()).release(Instant::now()),
                Step::Close(nth) if !lent.is_empty() => drop(lent.swap_remove(nth % lent.len())),
                Step::Leave(nth) if !waiters.is_empty() => drop(waiters.swap_remove(nth % waiters.len())),
                _ => {}
            }
            waiters.retain_mut(|(_, waiting)| match turn(waiting) {
                Some(Turn::Server(lease)) => { lent.push(lease); false }
                Some(Turn::Connect(place)) => { made += 1; lent.push(fill(place, made)); false }
                None => true,
            });
            let servers: usize = pools.iter().map(|pool| pool.core.queue.servers()).sum();
            prop_assert!(servers <= most, "{servers} servers under {most}");
            let idle = servers - lent.len();
            for (pool, _) in &waiters {
                let may_grow = pools[*pool].core.queue.servers() < size;
                prop_assert!(!may_grow || servers == most && idle == 0, "pool {pool} waits: {servers} of {most}, {idle} idle");
            }
        }
        waiters.clear();
        lent.clear();
        for pool in &pools {
            drop(pool.take_idle());
        }
        // All places were given back.
        let all: Vec<_> = (0..most).map_while(|nth| match pool_under(limits(most), &[&ceiling]).attempt(ONE) {
            Attempt::Connect(place) => Some(fill(place, nth)),
            _ => None,
        }).collect();
        prop_assert_eq!(all.len(), most);
    }
}
