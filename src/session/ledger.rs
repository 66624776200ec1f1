//! What a server still owes for the messages that it was sent, in order. Pure: frames in, verdicts out.
//!
//! Messages that clients never see (a statement prepared lazily, parameters brought up to date) have entries too, and so
//! have messages that no server sees (a Parse of what the server has already): the client's answers keep their order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::statements::Undo;
use crate::backend::prepared::Statement;
use crate::wire::backend::{
    BIND_COMPLETE, CLOSE_COMPLETE, NO_DATA, NO_PARAMETERS, PARSE_COMPLETE, TransactionStatus, put_command_complete,
    put_ready,
};

/// One owed answer.
#[derive(Debug)]
pub enum Owed {
    /// ParseComplete. The client sees it only if it sent the Parse.
    Parse { visible: bool, statement: Option<Arc<Statement>>, undo: Option<Undo> },
    /// BindComplete.
    Bind,
    /// RowDescription or NoData, after an optional ParameterDescription.
    Describe,
    /// The same, of a statement of which it shall be remembered.
    DescribeStatement(Arc<Statement>),
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete. The client sees it only if it sent the Close; else a statement of the server's makes room.
    Close { visible: bool, evicted: Option<Arc<Statement>> },
    /// ReadyForQuery for a Sync.
    Ready,
    /// The same for a Sync of ours that the client does not see.
    HiddenReady,
    /// Everything up to ReadyForQuery, for a Query or a FunctionCall.
    Query,
    /// The same for a Query that prepares a statement.
    Prepare { statement: Arc<Statement>, undo: Option<Undo> },
    /// The same for a Query of ours that the client does not see.
    Hidden,
    /// `FunctionCallResponse`, then ReadyForQuery: how far a replica has replayed, asked in front of a read.
    Guard,
    /// Everything before the Sync, for a Query that was sent as extended messages. Its `CommandComplete` comes before
    /// its transaction has committed, which to a Query it would not.
    Wrapped,
    /// `BindComplete`, one row and `CommandComplete`, for a question of ours in the client's transaction.
    Xact,
    /// ReadyForQuery for a Sync behind that, in front of a COMMIT.
    XactReady,
    /// Nothing: the client has ended what it copies in.
    CopyEnd,
    /// For a Close and a Sync of ours that show where the answers to the client's Syncs end: CloseComplete, then
    /// ReadyForQuery.
    Probe { closed: bool },
    /// Nothing from the server: we answer when it is this one's turn.
    Local { answer: &'static [u8], undo: Option<Undo> },
}

/// What to do with a frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The client must not see it.
    Drop,
    /// The client must see it in front of the next ReadyForQuery.
    Late,
    /// A ReadyForQuery that the client sees.
    Ready,
    /// An ErrorResponse to something that the client did not send.
    HiddenError,
    /// What a [guard](Owed::Guard) found.
    Guard,
    /// An ErrorResponse to nothing at all: the server ends by itself. Whether the client reads it is the session's choice.
    Farewell,
    /// CopyInResponse: the client speaks next, to a Query (which then ends by itself) or up to a Sync.
    CopyIn {
        simple: bool,
    },
    /// No server says this now.
    Violation,
}

/// What an error kept a server from doing.
#[derive(Debug)]
pub enum Missed {
    Parse(Arc<Statement>),
    Close(Arc<Statement>),
}

/// The answers to a question of ours in front of a COMMIT, up to its ReadyForQuery.
const MOST_BEFORE_COMMIT: usize = 4;

/// A usual batch owes fewer answers.
const KEPT_OWED: usize = 64;

#[derive(Debug, Default)]
pub struct Ledger {
    owed: VecDeque<Owed>,
    /// After an error the server ignores what it is sent until a Sync.
    skipping: bool,
    /// The Execute in front copies in.
    copying_in: bool,
    described: Option<Arc<Statement>>,
    /// Syncs that the server was sent while it copied in, before an error: it answered those that it had not read
    /// by then, and nobody knows which these are.
    doubtful_syncs: usize,
    /// Undone by an error, oldest first.
    undone: Vec<Undo>,
    /// What would undo the part that went well, oldest first, while all of it may run again elsewhere.
    done: Vec<Undo>,
    /// What the server did not do for the same reason, oldest first.
    missed: Vec<Missed>,
}

impl Ledger {
    /// Notes a message on its way to the server.
    pub fn push(&mut self, owed: Owed) {
        match owed {
            Owed::CopyEnd if !self.owed.iter().any(|owed| matches!(owed, Owed::Execute)) => {}
            Owed::Ready | Owed::HiddenReady => {
                self.skipping = false;
                self.owed.push_back(owed);
            }
            _ if self.skipping => self.fail(owed),
            _ => self.owed.push_back(owed),
        }
    }

    pub fn is_settled(&self) -> bool {
        self.owed.is_empty()
    }

    /// The server answers something that the client does not see.
    pub fn is_hidden(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Hidden | Owed::Xact))
    }

    /// What the server answers is how far it has replayed.
    pub fn is_guard(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Guard))
    }

    /// True while the server ignores messages until a Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Only a [probe](Owed::Probe) can tell how many more answers will come.
    pub fn needs_probe(&self) -> bool {
        self.doubtful_syncs > 0 && self.owed.is_empty() && !self.skipping
    }

    /// The answer that is ours to give now, if it is our turn.
    pub fn local_answer(&mut self) -> Option<&'static [u8]> {
        match self.owed.front_mut() {
            Some(Owed::Local { answer, undo }) => {
                let answer = *answer;
                self.done.extend(undo.take());
                self.owed.pop_front();
                self.drop_copy_ends();
                Some(answer)
            }
            _ => None,
        }
    }

    /// Judges a frame by its tag and moves on.
    pub fn judge(&mut self, tag: u8) -> Verdict {
        let verdict = self.judge_front(tag);
        self.drop_copy_ends();
        verdict
    }

    /// Nothing comes for the end of a COPY, and a client may send one where there is no COPY.
    fn drop_copy_ends(&mut self) {
        while matches!(self.owed.front(), Some(Owed::CopyEnd)) {
            self.owed.pop_front();
        }
    }

    fn judge_front(&mut self, tag: u8) -> Verdict {
        match tag {
            // Of a question of ours, only its end and its failure matter here.
            b'1' | b'2' | b'3' if self.is_hidden() => Verdict::Drop,
            b'1' | b'2' | b'n' if matches!(self.owed.front(), Some(Owed::Wrapped)) => Verdict::Drop,
            b'V' if self.is_guard() => Verdict::Guard,
            b'D' | b'd' | b'c' | b'V' | b't' | b'H' | b'W' => self.visible(),
            b'T' | b'n' => self.described(),
            b'C' | b'I' | b's' => self.executed(),
            b'1' | b'2' | b'3' => self.completed(tag),
            b'Z' => self.ready(),
            b'E' => self.error(),
            b'N' | b'S' if matches!(self.owed.front(), Some(Owed::Hidden | Owed::Guard)) => Verdict::Drop,
            b'A' | b'N' | b'S' => Verdict::Pass,
            b'G' => self.copy_in(),
            _ => Verdict::Violation,
        }
    }

    fn visible(&self) -> Verdict {
        match self.owed.front() {
            Some(Owed::Hidden | Owed::Xact) => Verdict::Drop,
            Some(
                Owed::Wrapped
                | Owed::Query
                | Owed::Prepare { .. }
                | Owed::Execute
                | Owed::Describe
                | Owed::DescribeStatement(_),
            ) => Verdict::Pass,
            _ => Verdict::Violation,
        }
    }

    fn described(&mut self) -> Verdict {
        let verdict = self.visible();
        self.described = None;
        if let Some(Owed::Describe | Owed::DescribeStatement(_)) = self.owed.front()
            && let Some(Owed::DescribeStatement(statement)) = self.owed.pop_front()
        {
            self.described = Some(statement);
        }
        verdict
    }

    /// The next description is of a statement of which it shall be remembered.
    pub fn describes(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::DescribeStatement(_) | Owed::Hidden))
    }

    /// The statement that the last description was of.
    pub fn take_described(&mut self) -> Option<Arc<Statement>> {
        self.described.take()
    }

    fn executed(&mut self) -> Verdict {
        let verdict = self.visible();
        if let Some(Owed::Wrapped) = self.owed.front() {
            self.owed.pop_front();
            return Verdict::Late;
        }
        if let Some(Owed::Xact) = self.owed.front() {
            self.owed.pop_front();
        }
        if matches!(self.owed.front(), Some(Owed::Execute)) && verdict == Verdict::Pass {
            self.owed.pop_front();
            if std::mem::take(&mut self.copying_in) {
                // A server that copies in ignores Sync.
                self.take_syncs_of_copy();
            }
        }
        verdict
    }

    /// Removes the Syncs that the server may have read while it copied in, and gives their number. The Execute is not
    /// there any more.
    fn take_syncs_of_copy(&mut self) -> usize {
        let before = self.owed.len();
        let mut copying = true;
        self.owed.retain(|owed| {
            copying &= !ends_copy(owed);
            !(copying && matches!(owed, Owed::Ready))
        });
        before - self.owed.len()
    }

    fn completed(&mut self, tag: u8) -> Verdict {
        if let (b'3', Some(Owed::Probe { closed: closed @ false })) = (tag, self.owed.front_mut()) {
            *closed = true;
            return Verdict::Drop;
        }
        let visible = match (tag, self.owed.front_mut()) {
            (b'1', Some(Owed::Parse { visible, undo, .. })) => {
                self.done.extend(undo.take());
                *visible
            }
            (b'3', Some(Owed::Close { visible, .. })) => *visible,
            (b'2', Some(Owed::Bind)) => true,
            _ => return Verdict::Violation,
        };
        self.owed.pop_front();
        if visible { Verdict::Pass } else { Verdict::Drop }
    }

    fn ready(&mut self) -> Verdict {
        if self.doubtful_syncs > 0 && matches!(self.owed.front(), None | Some(Owed::Probe { closed: false })) {
            self.doubtful_syncs -= 1;
            self.skipping = false;
            return Verdict::Ready;
        }
        match self.owed.pop_front() {
            Some(Owed::Hidden | Owed::HiddenReady | Owed::XactReady | Owed::Guard) => Verdict::Drop,
            Some(Owed::Probe { closed: true }) => {
                self.doubtful_syncs = 0;
                Verdict::Drop
            }
            Some(Owed::Query | Owed::Ready) => Verdict::Ready,
            Some(Owed::Prepare { undo, .. }) => {
                self.done.extend(undo);
                Verdict::Ready
            }
            _ => Verdict::Violation,
        }
    }

    fn copy_in(&mut self) -> Verdict {
        match self.owed.front() {
            Some(Owed::Query) => Verdict::CopyIn { simple: true },
            Some(Owed::Execute) => {
                self.copying_in = true;
                // The client may have sent it all without waiting.
                if self.owed.iter().skip(1).any(ends_copy) { Verdict::Pass } else { Verdict::CopyIn { simple: false } }
            }
            _ => Verdict::Violation,
        }
    }

    fn error(&mut self) -> Verdict {
        if self.fails_before_commit() {
            return Verdict::Drop;
        }
        match self.owed.front_mut() {
            Some(Owed::Hidden | Owed::Guard) => return Verdict::HiddenError,
            None => return Verdict::Farewell,
            // ReadyForQuery follows.
            Some(Owed::Query) => return Verdict::Pass,
            Some(Owed::Prepare { statement, undo }) => {
                self.missed.push(Missed::Parse(Arc::clone(statement)));
                self.undone.extend(undo.take());
                return Verdict::Pass;
            }
            Some(_) => {}
        }
        if std::mem::take(&mut self.copying_in) {
            self.owed.pop_front();
            self.doubtful_syncs += self.take_syncs_of_copy();
        }
        self.skipping = true;
        while let Some(owed) = self.owed.pop_front() {
            if matches!(owed, Owed::Ready | Owed::HiddenReady) {
                self.owed.push_front(owed);
                self.skipping = false;
                break;
            }
            self.fail(owed);
        }
        Verdict::Pass
    }

    /// A question of ours in front of a COMMIT has failed: the COMMIT will say that there is nothing to commit.
    fn fails_before_commit(&mut self) -> bool {
        let Some(at) = self.owed.iter().take(MOST_BEFORE_COMMIT).position(|owed| matches!(owed, Owed::XactReady))
        else {
            return false;
        };
        for _ in 0..at {
            if let Some(owed) = self.owed.pop_front() {
                self.fail(owed);
            }
        }
        true
    }

    /// The server is gone, but all that it was sent is known to be done: what it would have answered, if nothing but
    /// `tag` can be said of it.
    pub fn answer_as_done(&mut self, tag: Option<&str>, status: TransactionStatus) -> Option<Vec<u8>> {
        let mut answers = Vec::new();
        while let Some(owed) = self.owed.pop_front() {
            match (owed, tag) {
                (Owed::Local { answer, .. }, _) => answers.extend_from_slice(answer),
                (Owed::Parse { visible: true, .. }, _) => answers.extend_from_slice(PARSE_COMPLETE),
                (Owed::Bind, _) => answers.extend_from_slice(BIND_COMPLETE),
                (Owed::Close { visible: true, .. }, _) => answers.extend_from_slice(CLOSE_COMPLETE),
                (Owed::Describe, Some(_)) => answers.extend_from_slice(NO_DATA),
                (Owed::DescribeStatement(_), Some(_)) => {
                    answers.extend_from_slice(NO_PARAMETERS);
                    answers.extend_from_slice(NO_DATA);
                }
                (Owed::Execute, Some(tag)) => put_command_complete(&mut answers, tag),
                (Owed::Query, Some(tag)) => {
                    put_command_complete(&mut answers, tag);
                    put_ready(&mut answers, status);
                }
                (Owed::Ready, _) => put_ready(&mut answers, status),
                (Owed::Xact | Owed::XactReady | Owed::Parse { .. } | Owed::Close { .. } | Owed::CopyEnd, _) => {}
                _ => return None,
            }
        }
        Some(answers)
    }

    fn fail(&mut self, owed: Owed) {
        match owed {
            Owed::Parse { statement, undo, .. } => {
                self.missed.extend(statement.map(Missed::Parse));
                self.undone.extend(undo);
            }
            Owed::Prepare { statement, undo } => {
                self.missed.push(Missed::Parse(statement));
                self.undone.extend(undo);
            }
            Owed::Local { undo, .. } => self.undone.extend(undo),
            Owed::Close { evicted, .. } => self.missed.extend(evicted.map(Missed::Close)),
            _ => {}
        }
    }

    /// Gives up on everything that is owed, as if it had failed.
    pub fn abandon(&mut self) {
        while let Some(owed) = self.owed.pop_front() {
            self.fail(owed);
        }
        self.skipping = false;
        self.copying_in = false;
        self.doubtful_syncs = 0;
    }

    /// Gives up on what was pushed since the last answer, of which the server has seen nothing: it stands as it stood
    /// then, be it `skipping` or not.
    pub fn take_back(&mut self, skipping: bool) {
        while let Some(owed) = self.owed.pop_front() {
            self.fail(owed);
        }
        self.skipping = skipping;
    }

    /// Gives memory back that only a batch of many messages needed.
    pub fn trim(&mut self) {
        self.owed.shrink_to(KEPT_OWED);
    }

    /// What errors have undone since the last call, newest first.
    pub fn take_undone(&mut self) -> impl Iterator<Item = Undo> {
        std::mem::take(&mut self.undone).into_iter().rev()
    }

    /// Takes back what went well since the last call, newest first.
    pub fn take_done(&mut self) -> impl Iterator<Item = Undo> {
        std::mem::take(&mut self.done).into_iter().rev()
    }

    /// What went well stays.
    pub fn keep_done(&mut self) {
        self.done.clear();
    }

    /// What the server did not do since the last call, newest first: one statement may be in it several times.
    pub fn take_missed(&mut self) -> impl Iterator<Item = Missed> {
        std::mem::take(&mut self.missed).into_iter().rev()
    }
}

/// A server that copies in takes rows, Sync and Flush; by any other message the client ends it, well or not.
fn ends_copy(owed: &Owed) -> bool {
    !matches!(owed, Owed::Ready | Owed::Local { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(visible: bool) -> Owed {
        Owed::Parse { visible, statement: None, undo: None }
    }

    fn local() -> Owed {
        Owed::Local { answer: b"1", undo: None }
    }

    /// Pushes what was sent, feeds the tags, and gives what the client sees: tags, `.` for a frame it does not see.
    fn client_sees(sent: Vec<Owed>, tags: &str) -> String {
        let mut ledger = Ledger::default();
        for owed in sent {
            ledger.push(owed);
        }
        let mut seen = String::new();
        for tag in tags.bytes() {
            while let Some(answer) = ledger.local_answer() {
                seen.push(char::from(answer[0]));
            }
            seen.push(match ledger.judge(tag) {
                Verdict::Pass | Verdict::Ready | Verdict::CopyIn { .. } => char::from(tag),
                Verdict::Drop => '.',
                Verdict::Late => 'c',
                Verdict::HiddenError => '!',
                Verdict::Guard => 'v',
                Verdict::Farewell => '†',
                Verdict::Violation => '?',
            });
        }
        if !ledger.is_settled() {
            seen.push('…');
        }
        seen
    }

    #[test]
    fn the_client_sees_the_answers_to_what_it_sent() {
        use Owed::{
            Bind, Close, CopyEnd, Describe, Execute, Guard, Hidden, HiddenReady, Query, Ready, Wrapped, Xact, XactReady,
        };
        let cases: Vec<(Vec<Owed>, &str, &str)> = vec![
            (vec![Query], "TDDCZ", "TDDCZ"),
            (vec![Query], "TDCTDCZ", "TDCTDCZ"),
            (vec![Query], "NTDEZ", "NTDEZ"),
            (vec![Hidden, Query], "TDCSZTDCSZ", ".....TDCSZ"),
            (vec![Hidden, Query], "EZTDCZ", "!.TDCZ"),
            (vec![Guard, Hidden, Query], "VZTDCSZTDCZ", "v......TDCZ"),
            (vec![Guard, Query], "EZTDCZ", "!.TDCZ"),
            (vec![Query, Guard], "VZVZ", "VZv."),
            (vec![parse(true), Bind, Describe, Execute, Ready], "12TDCZ", "12TDCZ"),
            (vec![parse(true), Bind, Describe, Execute, Ready], "12nCZ", "12nCZ"),
            (vec![parse(true), Describe, Ready], "1tTZ", "1tTZ"),
            (vec![parse(false), Bind, Execute, Ready], "12DCZ", ".2DCZ"),
            (vec![parse(false), Close { visible: false, evicted: None }, Bind, Execute, Ready], "132IZ", "..2IZ"),
            (vec![local(), Bind, Execute, Ready], "2DCZ", "12DCZ"),
            (vec![Bind, Execute, local(), Bind, Execute, Ready], "2DC2CZ", "2DC12CZ"),
            (vec![parse(true), Bind, Execute, local(), Ready], "EZ", "EZ"),
            (vec![parse(true), Bind, Execute, Ready], "12DEZ", "12DEZ"),
            (vec![Bind, Execute], "2Ds", "2Ds"),
            (vec![Bind, Execute, Ready], "2GC", "2GC"),
            (vec![Bind, Execute, Ready, CopyEnd, Ready], "2GCZ", "2GCZ"),
            (vec![Bind, Execute, CopyEnd, Bind, Execute, Ready], "2GC2DCZ", "2GC2DCZ"),
            (vec![Bind, Execute, CopyEnd, Ready], "2DCZ", "2DCZ"),
            (vec![Bind, Execute, parse(true), CopyEnd, Bind, Execute, Ready], "2DC12DCZ", "2DC12DCZ"),
            (vec![Bind, Execute, parse(true), CopyEnd], "2DC1", "2DC1"),
            (vec![Bind, Execute, local(), CopyEnd, Bind, Ready], "2C2Z", "2C12Z"),
            (vec![Bind, Execute, CopyEnd, Ready], "2GEZ", "2GEZ"),
            (vec![Bind, Execute, Ready], "2GEZ", "2GEZ"),
            (vec![Bind, Execute, Query, Ready, Query], "2GEZTDCZ", "2GEZTDCZ"),
            (vec![Query], "GCZ", "GCZ"),
            (vec![Query], "HddcCZ", "HddcCZ"),
            (vec![Bind, Execute, Ready], "2DC", "2DC…"),
            (vec![Bind, Execute, Ready], "D", "?…"),
            (vec![], "Z", "?"),
            (vec![], "NAS", "NAS"),
            (vec![], "E", "†"),
            (vec![Query], "DCZE", "DCZ†"),
            (vec![Describe, HiddenReady], "tTZ", "tT."),
            (vec![parse(true), Describe, HiddenReady], "EZ", "E."),
            (vec![Wrapped, parse(false), Xact, Ready], "12nC12DCZ", "...c....Z"),
            (vec![Wrapped, Xact, Ready], "12TDDC2DCZ", "..TDDc...Z"),
            (vec![Wrapped, Xact, Ready], "NEZ", "NEZ"),
            (vec![Wrapped, Xact, Ready], "12nC2DCEZ", "...c...EZ"),
            (vec![parse(true), Bind, Execute, Xact, Ready], "12C2DCZ", "12C...Z"),
            (vec![parse(false), Xact, XactReady, Query], "12DCZCZ", ".....CZ"),
            (vec![parse(false), Xact, XactReady, Query], "EZCZ", "..CZ"),
            (vec![Xact, XactReady, Bind, Execute, Ready], "2EZ2CZ", "...2CZ"),
        ];
        for (sent, tags, seen) in cases {
            let shown = format!("{sent:?}");
            assert_eq!(client_sees(sent, tags), seen, "{shown} answered by {tags}");
        }
    }

    #[test]
    fn a_probe_shows_whether_a_sync_in_a_failed_copy_was_answered() {
        for (answers, shown) in [("Z3Z", 1), ("ZZ3Z", 2)] {
            let mut ledger = Ledger::default();
            ledger.push(Owed::Execute);
            ledger.push(Owed::Ready);
            assert_eq!(ledger.judge(b'G'), Verdict::CopyIn { simple: false });
            assert_eq!(ledger.judge(b'E'), Verdict::Pass);
            assert!(ledger.is_settled() && ledger.is_skipping() && !ledger.needs_probe());
            ledger.push(Owed::CopyEnd);
            ledger.push(Owed::Ready);
            let (first, rest) = answers.as_bytes().split_first().unwrap();
            assert_eq!(ledger.judge(*first), Verdict::Ready);
            assert!(ledger.needs_probe());
            ledger.push(Owed::Probe { closed: false });
            let verdicts: Vec<Verdict> = rest.iter().map(|&tag| ledger.judge(tag)).collect();
            assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Ready).count() + 1, shown, "{answers}");
            assert!(ledger.is_settled() && !ledger.needs_probe());
        }
    }

    #[test]
    fn what_is_taken_back_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.push(Owed::Bind);
        ledger.judge(b'E');
        ledger.push(Owed::Ready);
        ledger.take_back(true);
        ledger.push(Owed::Execute);
        assert!(ledger.is_settled() && ledger.is_skipping());
    }

    #[test]
    fn after_an_error_nothing_is_owed_until_sync() {
        let mut ledger = Ledger::default();
        ledger.push(Owed::Bind);
        ledger.push(Owed::Execute);
        assert_eq!(ledger.judge(b'E'), Verdict::Pass);
        assert!(ledger.is_settled() && ledger.is_skipping());
        ledger.push(Owed::Bind);
        assert!(ledger.is_settled());
        ledger.push(Owed::Ready);
        assert_eq!(ledger.judge(b'Z'), Verdict::Ready);
    }
}
