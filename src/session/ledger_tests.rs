//! The ledger against a server that keeps the protocol's rules: random messages of the client's and of ours, of which
//! any may fail.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::ledger::{Ledger, Missed, Owed, Verdict};
use crate::backend::prepared::{Prepared, Statement, Statements};
use crate::wire::frontend::Parse;

/// A message, and what the server answers if all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Query,
    Parse,
    OurParse,
    Bind,
    Describe,
    Execute,
    Close,
    OurClose,
    OurQuery,
    Guard,
    /// No server gets it.
    Local,
    Sync,
    OurSync,
}

impl Sent {
    const ALL: [Self; 13] = [
        Self::Query,
        Self::Parse,
        Self::OurParse,
        Self::Bind,
        Self::Describe,
        Self::Execute,
        Self::Close,
        Self::OurClose,
        Self::OurQuery,
        Self::Guard,
        Self::Local,
        Self::Sync,
        Self::OurSync,
    ];

    fn owed(self) -> Owed {
        match self {
            Self::Query => Owed::Query,
            Self::Parse | Self::OurParse => Owed::Parse { visible: self == Self::Parse, statement: None, undo: None },
            Self::Bind => Owed::Bind,
            Self::Describe => Owed::Describe,
            Self::Execute => Owed::Execute,
            Self::Close | Self::OurClose => Owed::Close { visible: self == Self::Close, evicted: None },
            Self::OurQuery => Owed::Hidden,
            Self::Guard => Owed::Guard,
            Self::Local => Owed::Local { answer: b"1", undo: None },
            Self::Sync => Owed::Ready,
            Self::OurSync => Owed::HiddenReady,
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Self::Query => b"TDDC",
            Self::Parse | Self::OurParse => b"1",
            Self::Bind => b"2",
            Self::Describe => b"tT",
            Self::Execute => b"NDDC",
            Self::Close | Self::OurClose => b"3",
            Self::OurQuery => b"TDSC",
            Self::Guard => b"V",
            Self::Local | Self::Sync | Self::OurSync => b"",
        }
    }

    fn ends_with_ready(self) -> bool {
        matches!(self, Self::Query | Self::OurQuery | Self::Guard | Self::Sync | Self::OurSync)
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::OurParse | Self::OurClose | Self::OurQuery | Self::Guard | Self::OurSync)
    }

    /// Questions of ours go out before anything else of a batch does.
    fn begins_a_batch(self) -> bool {
        matches!(self, Self::Query | Self::OurQuery | Self::Guard)
    }
}

/// Batches: what is sent up to a Sync or as one Query, and which of the messages fails.
fn batches() -> impl Strategy<Value = Vec<(Vec<Sent>, Option<Index>)>> {
    let message = prop::sample::select(&Sent::ALL[..]);
    let batch = prop::collection::vec(message, 1..8).prop_map(|messages| {
        let alone = messages[0].begins_a_batch();
        let mut batch: Vec<_> = if alone { vec![messages[0]] } else { messages };
        batch.retain(|message| alone || !message.begins_a_batch());
        if batch.last().is_some_and(|last| !last.ends_with_ready()) {
            batch.push(Sent::Sync);
        }
        batch
    });
    prop::collection::vec((batch, prop::option::of(any::<Index>())), 1..6)
}

/// What the server sends, and what of it and of ours the client sees.
fn answers(batch: &[Sent], failing: Option<usize>) -> (Vec<u8>, Vec<u8>) {
    let (mut sent, mut seen) = (Vec::new(), Vec::new());
    let mut skipping = false;
    for (at, message) in batch.iter().enumerate() {
        let fails = !skipping && failing == Some(at) && !message.answer().is_empty();
        let answer: &[u8] = match () {
            () if fails => b"E",
            () if skipping => b"",
            () => message.answer(),
        };
        sent.extend_from_slice(answer);
        // The client hears of an error in whatever stands for a message of its own.
        let error_is_seen = fails && !matches!(message, Sent::OurQuery | Sent::Guard);
        if error_is_seen || !message.is_ours() {
            seen.extend_from_slice(answer);
        }
        if !skipping && *message == Sent::Local {
            seen.push(b'1');
        }
        skipping |= fails;
        if message.ends_with_ready() {
            skipping = false;
            sent.push(b'Z');
            if !message.is_ours() {
                seen.push(b'Z');
            }
        }
    }
    (sent, seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However many of the messages are with the server when it begins to answer.
    #[test]
    fn the_client_sees_its_answers_and_nothing_else(batches in batches(), at_once in any::<bool>()) {
        let (mut ledger, mut expected, mut seen) = (Ledger::default(), Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for (batch, failing) in &batches {
            let (sent, shown) = answers(batch, failing.map(|failing| failing.index(batch.len())));
            expected.extend(shown);
            for message in batch {
                ledger.push(message.owed());
            }
            waiting.extend(sent);
            if !at_once {
                hear(&mut ledger, &std::mem::take(&mut waiting), &mut seen)?;
                prop_assert!(ledger.is_settled() && !ledger.is_skipping());
            }
        }
        hear(&mut ledger, &waiting, &mut seen)?;
        prop_assert!(ledger.is_settled() && !ledger.is_skipping() && !ledger.needs_probe());
        prop_assert_eq!(String::from_utf8(seen), String::from_utf8(expected));
    }

    /// What a server is believed to have prepared is what it has, whatever failed.
    #[test]
    fn statements_are_where_they_are_believed_to_be(
        limit in 1..5_usize,
        batches in prop::collection::vec((prop::collection::vec(0..8_usize, 1..6), prop::option::of(any::<Index>())), 1..30),
        looks in prop::collection::vec(any::<Index>(), 30),
    ) {
        let statements = Statements::new(7);
        let all: Vec<_> = (0..8).map(|n| own(&statements, n)).collect();
        let (mut ledger, mut prepared, mut server) = (Ledger::default(), Prepared::new(limit), HashSet::new());
        for ((uses, failing), look) in batches.iter().zip(looks) {
            let messages: Vec<_> = uses.iter().flat_map(|n| bring(&all[*n], &mut prepared, &mut ledger)).collect();
            ledger.push(Owed::Ready);
            let failing = failing.map(|failing| failing.index(messages.len()));
            for message in messages.iter().take(failing.unwrap_or(messages.len())) {
                prop_assert_ne!(ledger.judge(message.run(&mut server)), Verdict::Violation);
            }
            if failing.is_some() {
                prop_assert_eq!(ledger.judge(b'E'), Verdict::Pass);
            }
            prop_assert_eq!(ledger.judge(b'Z'), Verdict::Ready);
            // As a session does when a batch is over.
            for missed in ledger.take_missed() {
                match missed {
                    Missed::Parse(statement) => prepared.forget(&statement),
                    Missed::Close(statement) => prepared.restore(statement),
                }
            }
            prop_assert!(server.len() <= limit, "{} are more than {}", server.len(), limit);
            // In another order each time, because to look is to use.
            let first = look.index(all.len());
            for statement in all[first..].iter().chain(&all[..first]) {
                prop_assert_eq!(prepared.touch(statement), server.contains(statement.name()), "{:?}", statement);
            }
        }
    }
}

fn hear(ledger: &mut Ledger, answers: &[u8], seen: &mut Vec<u8>) -> Result<(), TestCaseError> {
    let give_ours = |ledger: &mut Ledger, seen: &mut Vec<u8>| {
        while let Some(answer) = ledger.local_answer() {
            seen.extend_from_slice(answer);
        }
    };
    for tag in answers {
        give_ours(ledger, seen);
        match ledger.judge(*tag) {
            Verdict::Pass | Verdict::Ready => seen.push(*tag),
            Verdict::Drop | Verdict::HiddenError | Verdict::Guard => {}
            other => return Err(TestCaseError::fail(format!("{other:?} of {:?}", char::from(*tag)))),
        }
    }
    give_ours(ledger, seen);
    Ok(())
}

fn own(statements: &Statements, number: usize) -> Arc<Statement> {
    statements.own(&Parse { name: b"", text: format!("SELECT {number}").as_bytes(), types: b"\0\0" })
}

/// A message about a statement of the server's.
#[derive(Clone, Debug)]
enum About {
    Close(Arc<Statement>),
    Parse(Arc<Statement>),
    Bind,
}

impl About {
    /// The server does it; gives the tag of its answer.
    fn run(&self, server: &mut HashSet<Box<[u8]>>) -> u8 {
        match self {
            Self::Close(statement) => {
                server.remove(statement.name());
                b'3'
            }
            Self::Parse(statement) => {
                assert!(server.insert(statement.name().into()), "it has {statement:?} already");
                b'1'
            }
            Self::Bind => b'2',
        }
    }
}

/// A Bind, after what the server must have for it.
fn bring(statement: &Arc<Statement>, prepared: &mut Prepared, ledger: &mut Ledger) -> Vec<About> {
    let mut messages = Vec::new();
    if !prepared.touch(statement) {
        if let Some(evicted) = prepared.add(statement, &mut Vec::new()) {
            ledger.push(Owed::Close { visible: false, evicted: Some(Arc::clone(&evicted)) });
            messages.push(About::Close(evicted));
        }
        ledger.push(Owed::Parse { visible: false, statement: Some(Arc::clone(statement)), undo: None });
        messages.push(About::Parse(Arc::clone(statement)));
    }
    ledger.push(Owed::Bind);
    messages.push(About::Bind);
    messages
}
