//! Collects a batch from a client's bytes: one Query, or the extended messages up to Sync or Flush. Pure.

use crate::error::{Error, Fault, Result, sqlstate};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{is_well_formed, tag};

/// What bounds a client's messages.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_message_bytes: usize,
    pub max_batch_bytes: usize,
    /// What comes before a Sync is ignored, malformed or not, and not held.
    pub skipping: bool,
}

/// PostgreSQL's bound for messages that hold no data (`PQ_SMALL_MESSAGE_LIMIT` in its `libpq.h`).
const SMALL_MESSAGE_BYTES: usize = 10_000;

/// How a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Query,
    FunctionCall,
    Sync,
    Flush,
    /// No Sync yet, but a Query or FunctionCall comes next: the server takes them in turn.
    Interrupted,
    /// As much as may be held, or up to a message that is malformed: the rest is passed on as it comes.
    Overflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// The first `bytes` of the input.
    Batch {
        bytes: usize,
        end: End,
    },
    /// More must be read; with how many bytes in all the next message would be whole.
    More {
        whole_at: usize,
    },
    /// Messages that mean nothing now: `bytes` of the input and of what follows it.
    Discard {
        bytes: usize,
    },
    Terminate,
}

/// Where collecting stands, so that no byte is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collector {
    scanned: usize,
}

impl Collector {
    /// Looks at what has come since the last call; starts anew after a batch.
    pub fn collect(&mut self, input: &[u8], bounds: &Bounds) -> Result<Collected> {
        let collected = self.scan(input, bounds);
        if !matches!(collected, Ok(Collected::More { .. })) {
            self.scanned = 0;
        }
        collected
    }

    /// The bytes of the whole messages of a batch that has not ended; it starts anew.
    pub fn take_scanned(&mut self) -> usize {
        std::mem::take(&mut self.scanned)
    }

    fn scan(&mut self, input: &[u8], bounds: &Bounds) -> Result<Collected> {
        loop {
            let start = self.scanned;
            let Some(header) = header(&input[start..])? else {
                return Ok(Collected::More { whole_at: start + HEADER_BYTES });
            };
            check(header.tag, header.frame_bytes, bounds)?;
            let alone = start == 0;
            let end = match header.tag {
                tag::SYNC => Some(End::Sync),
                tag::TERMINATE if alone => return Ok(Collected::Terminate),
                _ if bounds.skipping => return Ok(Collected::Discard { bytes: header.frame_bytes }),
                tag::QUERY | tag::FUNCTION_CALL if !alone => return Ok(batch(start, End::Interrupted)),
                tag::QUERY => Some(End::Query),
                tag::FUNCTION_CALL => Some(End::FunctionCall),
                tag::FLUSH => Some(End::Flush),
                tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL if alone => {
                    return Ok(Collected::Discard { bytes: header.frame_bytes });
                }
                tag::TERMINATE | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {
                    return Ok(batch(start, End::Interrupted));
                }
                _ => None,
            };
            let whole_at = start + header.frame_bytes;
            match end {
                _ if whole_at > bounds.max_batch_bytes => return Ok(batch(start, End::Overflow)),
                _ if whole_at > input.len() => return Ok(Collected::More { whole_at }),
                _ if !bounds.skipping && !is_well_formed(header.tag, &input[start + HEADER_BYTES..whole_at]) => {
                    return Ok(batch(start, End::Overflow));
                }
                Some(end) => return Ok(batch(whole_at, end)),
                None => self.scanned = whole_at,
            }
        }
    }
}

fn batch(bytes: usize, end: End) -> Collected {
    Collected::Batch { bytes, end }
}

/// # Errors
/// A message type or length that PostgreSQL would end the connection for.
pub fn check(message: u8, frame_bytes: usize, bounds: &Bounds) -> Result<()> {
    let limit = match message {
        tag::QUERY | tag::PARSE | tag::BIND | tag::FUNCTION_CALL | tag::COPY_DATA => bounds.max_message_bytes,
        tag::EXECUTE
        | tag::DESCRIBE
        | tag::CLOSE
        | tag::SYNC
        | tag::FLUSH
        | tag::COPY_DONE
        | tag::COPY_FAIL
        | tag::TERMINATE => SMALL_MESSAGE_BYTES,
        _ => return Err(Error::protocol(format!("invalid frontend message type {message}"))),
    };
    if frame_bytes <= limit {
        return Ok(());
    }
    let message = format!("message {:?} of {frame_bytes} bytes is longer than {limit}", char::from(message));
    Err(Error::new(Fault::Client, sqlstate::PROTOCOL_VIOLATION, message)
        .hint("limits.max_message_size bounds what a client may send at once."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_message_bytes: 1000, max_batch_bytes: 100, skipping: false };

    /// Messages of 10 bytes, or 5 without a body; a small letter is a malformed one.
    fn frames(tags: &str) -> Vec<u8> {
        let frame = |tag: u8| -> Vec<u8> {
            let body: &[u8] = match tag {
                b'Q' => b"abcd\0",
                b'P' => b"\0a\0\0\0",
                b'C' | b'D' => b"Sabc\0",
                b'H' | b'S' => b"",
                _ => b"\0\0abc",
            };
            let tag = if tag == b'q' { b'Q' } else { tag };
            [&[tag, 0, 0, 0, 4 + u8::try_from(body.len()).unwrap()], body].concat()
        };
        tags.bytes().flat_map(frame).collect()
    }

    #[test]
    fn batches_end_where_the_server_would_answer() {
        let cases = [
            ("Q", batch(10, End::Query)),
            ("QQ", batch(10, End::Query)),
            ("F", batch(10, End::FunctionCall)),
            ("PBDES", batch(45, End::Sync)),
            ("PBDESPB", batch(45, End::Sync)),
            ("PBH", batch(25, End::Flush)),
            ("PBQ", batch(20, End::Interrupted)),
            ("PBX", batch(20, End::Interrupted)),
            ("PBd", batch(20, End::Interrupted)),
            ("S", batch(5, End::Sync)),
            ("X", Collected::Terminate),
            ("dc", Collected::Discard { bytes: 10 }),
            ("PB", Collected::More { whole_at: 25 }),
            ("", Collected::More { whole_at: 5 }),
            ("PPPPPPPPPPPPPPPPP", batch(100, End::Overflow)),
            ("q", batch(0, End::Overflow)),
            ("PBq", batch(20, End::Interrupted)),
        ];
        for (tags, expected) in cases {
            assert_eq!(Collector::default().collect(&frames(tags), &BOUNDS).unwrap(), expected, "{tags}");
        }
    }

    #[test]
    fn messages_that_postgresql_would_not_take_are_refused() {
        for bad in [&b"Q\0\0\0\x03"[..], b"Q\x80\0\0\0", b"z\0\0\0\x04", b"S\0\0\x27\x11", b"\0\0\0\0\x04"] {
            assert!(Collector::default().collect(bad, &BOUNDS).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn malformed_messages_are_not_held_unless_they_are_skipped() {
        let malformed = [&frames("PB")[..], b"D\0\0\0\x05X", &frames("S")].concat();
        assert_eq!(Collector::default().collect(&malformed, &BOUNDS).unwrap(), batch(20, End::Overflow));
        let skipping = Bounds { skipping: true, ..BOUNDS };
        let (mut rest, mut taken) = (&malformed[..], Vec::new());
        while !rest.is_empty() {
            let (bytes, is_held) = match Collector::default().collect(rest, &skipping).unwrap() {
                Collected::Discard { bytes } => (bytes, false),
                Collected::Batch { bytes, end: End::Sync } => (bytes, true),
                other => panic!("{other:?}"),
            };
            taken.push(is_held);
            rest = &rest[bytes..];
        }
        assert_eq!(taken, [false, false, false, true], "only the Sync counts");
    }

    #[test]
    fn a_message_longer_than_a_batch_overflows_before_it_is_read() {
        assert_eq!(Collector::default().collect(b"Q\0\0\x01\0sele", &BOUNDS).unwrap(), batch(0, End::Overflow));
    }

    proptest! {
        /// However the bytes arrive, the batch is the same.
        #[test]
        fn pieces_make_no_difference(tags in "[PBDEC]{0,8}[SHQFq]", cut in 1..20usize) {
            let input = frames(&tags);
            let whole = Collector::default().collect(&input, &BOUNDS).unwrap();
            let mut collector = Collector::default();
            let mut have = 0;
            let piecewise = loop {
                have = (have + cut).min(input.len());
                match collector.collect(&input[..have], &BOUNDS).unwrap() {
                    Collected::More { .. } if have < input.len() => {}
                    other => break other,
                }
            };
            prop_assert_eq!(piecewise, whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(input: Vec<u8>) {
            let _ = Collector::default().collect(&input, &BOUNDS);
        }
    }
}
