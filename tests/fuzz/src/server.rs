//! What a server sends while it works for a session: what the client gets of it, and the messages that we look into.
//!
//! The first bytes choose what is owed and how the rest arrives.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use causeway::backend::prepared::Statements;
use causeway::session::ledger::{Ledger, Owed};
use causeway::session::relay::{Observer, Relay};
use causeway::wire::backend::{
    Authentication, CLOSE_COMPLETE, ErrorFields, PARSE_COMPLETE, TransactionStatus, authentication, backend_key,
    command_tag, data_row, error_fields, parameter_status, put_authentication, put_backend_key, put_parameter_status,
    ready_status, replayed, row_shape,
};
use causeway::wire::frame::HEADER_BYTES;
use causeway::wire::frontend::Parse;

use super::input::{Input, pieces};
use super::wire::{block_on, frames, pair, written};

pub fn survive(data: &[u8]) {
    let mut input = Input(data);
    let (choices, seed, owed) = (input.byte(), input.byte(), input.byte() & 0x0f);
    let owed = input.bytes(owed.into());
    let whole = shown(input.0, owed, choices, || usize::MAX);
    assert_eq!(whole, shown(input.0, owed, choices, pieces(seed)), "it matters how the bytes come");
    check_shown(&whole, input.0, owed, choices);
    for (message, frame) in frames(input.0) {
        looked_into(message, frame);
    }
}

/// What becomes of a server's answer.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// What the client reads.
    bytes: Vec<u8>,
    /// It ends in the middle of a frame.
    is_cut: bool,
    /// What the session learns.
    learned: Vec<String>,
    /// The server must be closed.
    broken: bool,
    settled: bool,
}

const REWORDED: &[u8] = b"SERROR\0C42601\0Mreworded\0P1\0\0";
const LOCAL_ANSWERS: [&[u8]; 2] = [PARSE_COMPLETE, CLOSE_COMPLETE];

fn owed_answer(choice: u8) -> Owed {
    let statement = || {
        let parse = Parse { name: b"", text: b"SELECT 1", types: b"\0\0" };
        Statements::new(7).intern(&parse, &Arc::default(), 0)
    };
    match choice & 0x0f {
        0 | 1 => Owed::Query,
        2 => Owed::Parse { visible: true, statement: None, undo: None },
        3 => Owed::Parse { visible: false, statement: Some(statement()), undo: None },
        4 => Owed::Bind,
        5 => Owed::Describe,
        6 => Owed::DescribeStatement(statement()),
        7 => Owed::Execute,
        8 => Owed::Close { visible: choice & 0x10 != 0, evicted: None },
        9 => Owed::Ready,
        10 => Owed::HiddenReady,
        11 => Owed::Hidden,
        12 => Owed::Guard,
        13 => Owed::CopyEnd,
        14 => Owed::Local { answer: LOCAL_ANSWERS[usize::from(choice >> 4 & 1)], undo: None },
        _ => Owed::Probe { closed: false },
    }
}

/// Feeds the relay with what a server says, and reads at the client's end.
fn shown(stream: &[u8], owed: &[u8], choices: u8, mut piece: impl FnMut() -> usize) -> Shown {
    block_on(async {
        let (mut client, theirs) = pair();
        let (mut relay, mut ledger, mut input) = (Relay::default(), Ledger::default(), BytesMut::new());
        let mut witness = Witness { learned: Vec::new(), choices };
        for choice in owed {
            ledger.push(owed_answer(*choice));
        }
        let mut rest = stream;
        let broken = loop {
            let broken = relay.walk(&input, &mut ledger, &mut witness).is_err();
            poll_fn(|cx| relay.poll_show(&mut client, &mut input, cx)).await.unwrap();
            assert_eq!(relay.pending_bytes(), 0);
            if broken || rest.is_empty() {
                break broken;
            }
            let (come, later) = rest.split_at(piece().min(rest.len()));
            input.extend_from_slice(come);
            rest = later;
        };
        drop(client);
        let is_cut = relay.is_cut();
        Shown { bytes: written(theirs), is_cut, learned: witness.learned, broken, settled: ledger.is_settled() }
    })
}

/// Notes what it is told, and decides by bits of `choices`.
struct Witness {
    learned: Vec<String>,
    choices: u8,
}

impl Witness {
    fn decides(&self, bit: u8) -> bool {
        self.choices & bit != 0
    }

    fn learn(&mut self, fact: String) {
        self.learned.push(fact);
    }
}

const KEEPS_ERRORS: u8 = 1;
const WITHHOLDS_READY: u8 = 2;
const REWORDS: u8 = 4;
const GUARD_FAILS: u8 = 8;

impl Observer for Witness {
    fn ready(&mut self, status: TransactionStatus, visible: bool) {
        self.learn(format!("ready {status:?} {visible}"));
    }

    fn withholds_ready(&self) -> bool {
        self.decides(WITHHOLDS_READY)
    }

    fn parameter(&mut self, name: &[u8], value: &[u8], visible: bool) {
        self.learn(format!("parameter {name:?} {value:?} {visible}"));
    }

    fn error(&mut self, fields: &ErrorFields<'_>) -> bool {
        self.learn(format!("error {fields:?}"));
        self.decides(KEEPS_ERRORS)
    }

    fn reworded(&self, _: &[u8]) -> Option<Vec<u8>> {
        self.decides(REWORDS).then(|| REWORDED.to_vec())
    }

    fn guard(&mut self, body: &[u8]) -> bool {
        self.learn(format!("guard {:?}", replayed(body)));
        !self.decides(GUARD_FAILS)
    }

    fn hidden_error(&mut self, fields: &ErrorFields<'_>) {
        self.learn(format!("hidden error {fields:?}"));
    }

    fn hidden_row(&mut self, body: &[u8]) {
        self.learn(format!("hidden row {body:?}"));
    }

    fn hidden_description(&mut self, body: Option<&[u8]>) {
        self.learn(format!("hidden description {body:?}"));
    }

    fn copy_in(&mut self, simple: bool) {
        self.learn(format!("copy in {simple}"));
    }

    fn completed(&mut self, tag: &[u8]) {
        self.learn(format!("completed {tag:?}"));
    }

    fn farewell(&mut self, fields: &ErrorFields<'_>) {
        self.learn(format!("farewell {fields:?}"));
    }

    fn showable(&mut self) {}

    fn aside(&mut self) {}
}

/// The client gets the server's frames as they are and in their order, none of them twice, and between them nothing
/// but answers of ours. If nothing of ours was asked, it gets all of them.
fn check_shown(shown: &Shown, stream: &[u8], owed: &[u8], choices: u8) {
    let whole_frames: usize = frames(&shown.bytes).map(|(_, frame)| frame.len()).sum();
    assert_eq!(shown.is_cut, whole_frames < shown.bytes.len());
    let visible_only = owed.iter().all(|choice| {
        let owed = owed_answer(*choice);
        matches!(owed, Owed::Query | Owed::Bind | Owed::Describe | Owed::Execute | Owed::Ready | Owed::CopyEnd)
    });
    let decides_nothing = [KEEPS_ERRORS, WITHHOLDS_READY, REWORDS].iter().all(|bit| choices & bit == 0);
    if visible_only && decides_nothing {
        let whole: usize = frames(stream).map(|(_, frame)| frame.len()).sum();
        let is_farewell = shown.learned.iter().any(|fact| fact.starts_with("farewell"));
        assert!(is_farewell || stream.starts_with(&shown.bytes));
        assert!(is_farewell || shown.broken || shown.bytes.len() >= whole);
        return;
    }
    let mut sent = frames(stream);
    let mut seen = 0;
    for (message, frame) in frames(&shown.bytes) {
        seen += frame.len();
        let is_ours = LOCAL_ANSWERS.contains(&frame) || message == b'E' && &frame[HEADER_BYTES..] == REWORDED;
        assert!(is_ours || sent.any(|(_, other)| other == frame), "nobody sent {frame:?}");
    }
    let begun = &shown.bytes[seen..];
    assert!(begun.is_empty() || stream.ends_with(begun), "only the last frame may be shown in part: {begun:?}");
}

/// What is read of a message makes the same message again, as far as it can be told.
fn looked_into(message: u8, frame: &[u8]) {
    let body = &frame[HEADER_BYTES..];
    let fields = error_fields(body);
    let texts = [Some(fields.severity), Some(fields.message), fields.detail, fields.hint, Some(fields.routine)];
    assert!(texts.into_iter().flatten().all(|text| text.len() < body.len().max(1)));
    let _ = (command_tag(body), row_shape(body), ready_status(body), replayed(body));
    if let Some(values) = data_row(body) {
        assert!(values.iter().flatten().map(|value| value.len()).sum::<usize>() + 4 * values.len() + 2 <= body.len());
    }
    let mut again = Vec::new();
    match message {
        b'S' => {
            let Some((name, value)) = parameter_status(body) else { return };
            put_parameter_status(&mut again, name, value);
            assert!(frame[HEADER_BYTES..].starts_with(&again[HEADER_BYTES..]));
        }
        b'K' => {
            let Some((process_id, secret)) = backend_key(body) else { return };
            put_backend_key(&mut again, process_id, secret);
            assert_eq!(again, frame);
        }
        b'R' => {
            let Some(asked) = authentication(body).filter(|asked| !matches!(asked, Authentication::Other(_))) else {
                return;
            };
            put_authentication(&mut again, &asked);
            assert_eq!(authentication(&again[HEADER_BYTES..]), Some(asked));
        }
        _ => {}
    }
}
