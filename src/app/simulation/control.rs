//! What a node answers to the questions of the control plane: what it is, and that all has been replayed.

use std::collections::HashMap;

use super::server::LSN;
use crate::error::{Error, Fault};
use crate::wire::backend::{Severity, TransactionStatus, put_command_complete, put_error, put_ready};
use crate::wire::frame::put;
use crate::wire::frontend::{Bind, Parse, Target, tag};

/// A control connection's end at a node.
#[derive(Debug)]
pub(super) struct Control {
    is_replica: bool,
    statements: HashMap<Vec<u8>, &'static [Column]>,
    bound: &'static [Column],
    skipping: bool,
}

/// A column of an answer.
#[derive(Clone, Copy, Debug)]
enum Column {
    Standby,
    System,
    SegmentBytes,
    Version,
    Timeline,
    /// Of a primary.
    Written(&'static str),
    Replayed(&'static str),
    Paused,
}
use Column::{Paused, Replayed, SegmentBytes, Standby, System, Timeline, Version, Written};

/// By how the questions begin.
const ANSWERS: [(&str, &[Column]); 4] = [
    (
        "WITH node AS MATERIALIZED",
        &[
            Standby,
            System,
            SegmentBytes,
            Version,
            Timeline,
            Written("insert"),
            Written("flush"),
            Replayed("replay"),
            Paused,
        ],
    ),
    ("SELECT (SELECT system_identifier", &[System, SegmentBytes]),
    ("SELECT pg_current_wal_insert_lsn()", &[Written("lsn"), Written("flush"), Timeline]),
    ("SELECT pg_is_in_recovery()", &[Standby, Replayed("lsn"), Paused, Timeline]),
];

impl Column {
    /// Name, type and size of the type.
    fn description(self) -> (&'static str, u32, u16) {
        const BOOL: u32 = 16;
        const INT8: u32 = 20;
        const INT4: u32 = 23;
        const PG_LSN: u32 = 3220;
        match self {
            Self::Standby => ("standby", BOOL, 1),
            Self::System => ("system", INT8, 8),
            Self::SegmentBytes => ("segment_bytes", INT4, 4),
            Self::Version => ("version", INT4, 4),
            Self::Timeline => ("timeline", INT4, 4),
            Self::Written(name) | Self::Replayed(name) => (name, PG_LSN, 8),
            Self::Paused => ("paused", BOOL, 1),
        }
    }

    /// In binary.
    fn value(self, is_replica: bool) -> Option<Vec<u8>> {
        Some(match self {
            Self::Standby => vec![u8::from(is_replica)],
            Self::System => 7_u64.to_be_bytes().into(),
            Self::SegmentBytes => (16_u32 << 20).to_be_bytes().into(),
            Self::Version => 150_000_u32.to_be_bytes().into(),
            Self::Timeline => 1_u32.to_be_bytes().into(),
            Self::Written(_) if is_replica => return None,
            Self::Replayed(_) if !is_replica => return None,
            Self::Written(_) | Self::Replayed(_) => LSN.to_be_bytes().into(),
            Self::Paused => vec![0],
        })
    }
}

impl Control {
    pub(super) fn new(is_replica: bool) -> Self {
        Self { is_replica, statements: HashMap::new(), bound: &[], skipping: false }
    }

    /// Answers one message.
    pub(super) fn answer(&mut self, message: u8, body: &[u8], out: &mut Vec<u8>) {
        match message {
            tag::SYNC => {
                self.skipping = false;
                put_ready(out, TransactionStatus::Idle);
            }
            _ if self.skipping => {}
            tag::QUERY => {
                put_command_complete(out, "SELECT 0");
                put_ready(out, TransactionStatus::Idle);
            }
            _ => {
                if let Err(error) = self.extended(message, body, out) {
                    put_error(out, Severity::Error, &error);
                    self.skipping = true;
                }
            }
        }
    }

    fn extended(&mut self, message: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match message {
            tag::PARSE => {
                let parse = Parse::read(body)?;
                let text = String::from_utf8_lossy(parse.text);
                let known = ANSWERS.iter().find(|(begin, _)| text.starts_with(begin));
                // So sessions route without facts of the catalog.
                let unknown = || Error::new(Fault::Client, "42501", "permission denied");
                self.statements.insert(parse.name.to_vec(), known.ok_or_else(unknown)?.1);
                put(out, b'1', |_| ());
            }
            tag::DESCRIBE => {
                let Target::Statement(name) = Target::read(body)? else { return Ok(()) };
                put(out, b't', |out| out.extend([0, 0]));
                put_description(self.statements.get(name).copied().unwrap_or_default(), out);
            }
            tag::BIND => {
                self.bound = self.statements.get(Bind::read(body)?.statement).copied().unwrap_or_default();
                put(out, b'2', |_| ());
            }
            tag::EXECUTE => {
                put_row(self.bound, self.is_replica, out);
                put_command_complete(out, "SELECT 1");
            }
            tag::CLOSE => put(out, b'3', |_| ()),
            _ => {}
        }
        Ok(())
    }
}

fn put_description(columns: &[Column], out: &mut Vec<u8>) {
    put(out, b'T', |out| {
        out.extend([0, u8::try_from(columns.len()).unwrap_or(0)]);
        for column in columns {
            let (name, type_id, size) = column.description();
            out.extend_from_slice(name.as_bytes());
            out.extend([0; 7]);
            out.extend(type_id.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.extend([0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
    });
}

fn put_row(columns: &[Column], is_replica: bool, out: &mut Vec<u8>) {
    put(out, b'D', |out| {
        out.extend([0, u8::try_from(columns.len()).unwrap_or(0)]);
        for column in columns {
            match column.value(is_replica) {
                Some(value) => {
                    out.extend([0, 0, 0, u8::try_from(value.len()).unwrap_or(0)]);
                    out.extend(value);
                }
                None => out.extend([0xff; 4]),
            }
        }
    });
}
