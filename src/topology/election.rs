//! Which of the nodes that can write is the primary. Pure.
//!
//! The highest timeline wins, if it goes on from the accepted one and from those of all others that can write: they are
//! older, and fenced. Two nodes on one timeline, or a timeline that left the common past elsewhere, are two histories of
//! which only one can be true, and nobody but the operator knows which: writes go nowhere. So it is too when the
//! accepted primary is gone meanwhile, because what it was has been acknowledged to clients.
//!
//! Where a node comes from is known from its timeline history, which it tells who may ask (`REPLICATION`), or from a
//! control connection that was there when it was promoted. Where neither tells, the highest timeline wins.

use super::history::{Descent, Fork, History, Lineage};
use super::view::{Alarm, Claimant, Dispute, Epoch};
use crate::types::NodeId;

/// A node of the cluster that can write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) node: NodeId,
    pub(super) timeline: u32,
    /// What it says of its past.
    pub(super) lineage: Option<&'a Lineage>,
    /// Where it was seen to leave which timeline.
    pub(super) seen: Option<Fork>,
}

impl Claim<'_> {
    fn claimant(&self) -> Claimant {
        let told = self.lineage.and_then(Lineage::last_fork);
        Claimant { node: self.node, timeline: self.timeline, fork: told.or(self.seen) }
    }

    fn descent_from(&self, timeline: u32, past: impl IntoIterator<Item = Fork>) -> Descent {
        match (self.lineage, self.seen) {
            (Some(lineage), _) => lineage.descent_from(timeline, past),
            (None, Some(fork)) if fork.timeline == timeline => Descent::Certain,
            // It may have moved on between the last look at it and its promotion.
            (None, _) => Descent::Unknown,
        }
    }

    fn is_foreign_to(&self, other: &Claim<'_>) -> bool {
        let past = other.lineage.into_iter().flat_map(Lineage::forks);
        self.descent_from(other.timeline, past) == Descent::Foreign
    }
}

/// The primary; why there is none although some node can write; or nothing.
pub(super) fn elect(
    accepted: Option<Epoch>,
    history: &History,
    claims: &[Claim<'_>],
) -> (Option<NodeId>, Option<Alarm>) {
    let oldest = accepted.map_or(0, |epoch| epoch.timeline);
    let younger = || claims.iter().filter(|claim| claim.timeline >= oldest);
    // Of several on the highest timeline, the one that was accepted goes first, then the first.
    let is_accepted = |claim: &Claim<'_>| accepted.is_some_and(|epoch| epoch.primary == claim.node);
    let rank = |claim: &&Claim<'_>| (claim.timeline, is_accepted(claim), std::cmp::Reverse(claim.node));
    let Some(top) = younger().max_by_key(rank) else { return (None, None) };
    let alarm = |one: Claimant, other: Claimant, dispute| (None, Some(Alarm { one, other, dispute }));
    if let Some(epoch) = accepted {
        let before = claims.iter().find(|claim| is_accepted(claim) && claim.timeline == epoch.timeline);
        let before = before.map_or(
            Claimant { node: epoch.primary, timeline: epoch.timeline, fork: history.last_fork() },
            Claim::claimant,
        );
        if top.timeline == epoch.timeline && top.node != epoch.primary {
            // Equal timelines are not equal histories, not even when the first of the two is gone by now.
            return alarm(before, top.claimant(), Dispute::SameTimeline);
        }
        if top.timeline > epoch.timeline && top.descent_from(epoch.timeline, history.forks()) == Descent::Foreign {
            return alarm(before, top.claimant(), Dispute::OtherBranch);
        }
    }
    for other in younger().filter(|other| other.node != top.node) {
        if other.timeline == top.timeline {
            return alarm(top.claimant(), other.claimant(), Dispute::SameTimeline);
        }
        if top.is_foreign_to(other) {
            return alarm(other.claimant(), top.claimant(), Dispute::OtherBranch);
        }
    }
    (Some(top.node), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Lsn;

    const SYSTEM: u64 = 7;

    fn lineage(timeline: u32, forks: &[(u32, u64)]) -> Lineage {
        let lines: Vec<String> = forks.iter().map(|(timeline, at)| format!("{timeline}\t0/{at:X}\tx")).collect();
        Lineage::parse(timeline, lines.join("\n").as_bytes()).unwrap()
    }

    /// Who is accepted, on which lineage.
    fn accepted(node: u16, lineage: &Lineage) -> (Option<Epoch>, History) {
        let mut history = History::default();
        history.accept_lineage(SYSTEM, lineage);
        (Some(Epoch { system: SYSTEM, timeline: lineage.timeline(), primary: NodeId(node) }), history)
    }

    fn told(node: u16, lineage: &Lineage) -> Claim<'_> {
        Claim { node: NodeId(node), timeline: lineage.timeline(), lineage: Some(lineage), seen: None }
    }

    fn silent(node: u16, timeline: u32) -> Claim<'static> {
        Claim { node: NodeId(node), timeline, lineage: None, seen: None }
    }

    /// `n` is the primary's number; `a=b SameTimeline` an alarm between two nodes.
    fn show((primary, alarm): (Option<NodeId>, Option<Alarm>)) -> String {
        let alarm = alarm.map(|alarm| format!("{}/{} {:?}", alarm.one.node.0, alarm.other.node.0, alarm.dispute));
        let primary = primary.map(|node| node.0.to_string());
        alarm.or(primary).unwrap_or_else(|| "nobody".to_owned())
    }

    #[test]
    fn the_highest_timeline_wins_if_it_descends_from_the_others() {
        let [one, two, other_two] = [lineage(1, &[]), lineage(2, &[(1, 100)]), lineage(2, &[(1, 90)])];
        let [three, three_of_one, three_of_other] =
            [lineage(3, &[(1, 100), (2, 200)]), lineage(3, &[(1, 120)]), lineage(3, &[(1, 90), (2, 200)])];
        let nothing = || (None, History::default());
        let seen = |node, timeline, left| Claim {
            seen: Some(Fork { timeline: left, at: Lsn(100) }),
            ..silent(node, timeline)
        };
        for (case, (epoch, history), claims, expected) in [
            ("none", nothing(), vec![], "nobody"),
            ("the first", nothing(), vec![told(0, &one)], "0"),
            ("both at the start", nothing(), vec![told(0, &one), told(1, &two)], "1"),
            ("equal at the start", nothing(), vec![told(0, &two), told(1, &other_two)], "0/1 SameTimeline"),
            ("equal and silent", nothing(), vec![silent(0, 2), silent(1, 2)], "0/1 SameTimeline"),
            ("unrelated at the start", nothing(), vec![told(0, &two), told(1, &three_of_one)], "0/1 OtherBranch"),
            ("of another two", nothing(), vec![told(0, &two), told(1, &three_of_other)], "0/1 OtherBranch"),
            ("three generations", nothing(), vec![told(0, &one), told(1, &three), told(2, &two)], "1"),
            ("it goes on", accepted(1, &two), vec![told(1, &two)], "1"),
            ("a former primary", accepted(1, &two), vec![told(1, &two), told(0, &one)], "1"),
            ("a former primary alone", accepted(1, &two), vec![told(0, &one)], "nobody"),
            ("a promotion", accepted(0, &one), vec![told(1, &two)], "1"),
            ("a promotion beside it", accepted(0, &one), vec![told(0, &one), told(1, &two)], "1"),
            ("two steps", accepted(0, &one), vec![told(2, &three)], "2"),
            ("nobody can tell", accepted(1, &two), vec![told(1, &two), silent(2, 3)], "2"),
            ("it was seen to follow", accepted(1, &two), vec![told(1, &two), seen(2, 3, 2)], "2"),
            ("it was seen too early", accepted(1, &two), vec![told(1, &two), seen(2, 3, 1)], "2"),
            ("a second promotion", accepted(1, &two), vec![told(1, &two), told(2, &other_two)], "1/2 SameTimeline"),
            ("the same, the first gone", accepted(1, &two), vec![told(2, &other_two)], "1/2 SameTimeline"),
            ("a number higher", accepted(1, &two), vec![told(1, &two), told(2, &three_of_one)], "1/2 OtherBranch"),
            ("the same, the first gone", accepted(1, &two), vec![told(2, &three_of_one)], "1/2 OtherBranch"),
            ("from another two", accepted(1, &two), vec![told(2, &three_of_other)], "1/2 OtherBranch"),
            ("two successors", accepted(0, &one), vec![told(1, &two), told(2, &other_two)], "1/2 SameTimeline"),
            ("an unrelated pair", accepted(0, &one), vec![told(1, &two), told(2, &three_of_one)], "1/2 OtherBranch"),
            ("the accepted node goes on", accepted(1, &two), vec![told(1, &three)], "1"),
        ] {
            assert_eq!(show(elect(epoch, &history, &claims)), expected, "{case}");
        }
    }
}
