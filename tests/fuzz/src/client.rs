//! What a client sends after its login: how it is cut into batches, and the messages that we look into.
//!
//! The first two bytes choose limits and how the rest arrives.

use causeway::session::batch::{Bounds, Collected, Collector, End, check};
use causeway::wire::frame::HEADER_BYTES;
use causeway::wire::frontend::{Bind, Parse, Target, is_well_formed, put_query, query, tag};

use super::input::{Input, pieces};
use super::wire::frames;

pub fn survive(data: &[u8]) {
    let mut input = Input(data);
    let (limits, seed) = (input.byte(), input.byte());
    let bounds = Bounds {
        max_batch_bytes: 16 << (limits & 7),
        max_message_bytes: 16 << (limits >> 3 & 7),
        skipping: limits & 0x40 != 0,
    };
    let whole = batches(input.0, &bounds, || usize::MAX);
    let in_pieces = batches(input.0, &bounds, pieces(seed));
    assert_eq!(whole, in_pieces, "it matters how the bytes come");
    for (_, frame) in frames(input.0) {
        looked_into(frame);
    }
}

/// What a session would take from this stream, one after the other, up to its end.
fn batches(stream: &[u8], bounds: &Bounds, mut piece: impl FnMut() -> usize) -> Vec<Result<Collected, String>> {
    let (mut start, mut come, mut taken) = (0, 0, Vec::new());
    let mut collector = Collector::default();
    while start <= stream.len() {
        let here = stream.get(start..come).unwrap_or_default();
        let collected = collector.collect(here, bounds).map_err(|error| error.to_string());
        match collected {
            Ok(Collected::More { whole_at }) => {
                assert!(whole_at > here.len() && whole_at <= here.len() + bounds.max_batch_bytes + HEADER_BYTES);
                if come == stream.len() {
                    break;
                }
                come = come.saturating_add(piece()).min(stream.len());
                continue;
            }
            Ok(Collected::Batch { bytes, end }) => {
                check_batch(&here[..bytes], end, bounds);
                start += bytes;
            }
            Ok(Collected::Discard { bytes }) => start += bytes,
            Ok(Collected::Terminate) | Err(_) => {}
        }
        let goes_on = matches!(collected, Ok(Collected::Batch { end, .. }) if end != End::Overflow)
            || matches!(collected, Ok(Collected::Discard { .. }));
        taken.push(collected);
        if !goes_on {
            break;
        }
    }
    taken
}

/// Whole messages within the limits, of which the last is the end.
fn check_batch(batch: &[u8], end: End, bounds: &Bounds) {
    assert!(batch.len() <= bounds.max_batch_bytes);
    let (mut bytes, mut last) = (0, None);
    for (message, frame) in frames(batch) {
        let is_first = bytes == 0;
        bytes += frame.len();
        last = Some(message);
        check(message, frame.len(), bounds).unwrap();
        assert!(bounds.skipping || is_well_formed(message, &frame[HEADER_BYTES..]));
        let ends = matches!(message, tag::SYNC | tag::FLUSH | tag::QUERY | tag::FUNCTION_CALL);
        assert!(!ends || bytes == batch.len(), "a batch goes on behind its end");
        assert!(is_first || !matches!(message, tag::QUERY | tag::FUNCTION_CALL));
    }
    assert_eq!(bytes, batch.len(), "a part of a message");
    match end {
        End::Query => assert_eq!(last, Some(tag::QUERY)),
        End::FunctionCall => assert_eq!(last, Some(tag::FUNCTION_CALL)),
        End::Sync => assert_eq!(last, Some(tag::SYNC)),
        End::Flush => assert_eq!(last, Some(tag::FLUSH)),
        End::Interrupted => assert!(last.is_some()),
        End::Overflow => {}
    }
}

/// What is read of a message makes the same message again.
fn looked_into(frame: &[u8]) {
    let (message, body) = (frame[0], &frame[HEADER_BYTES..]);
    let mut again = Vec::new();
    let read = match message {
        tag::QUERY => query(body).map(|text| put_query(&mut again, text)),
        tag::PARSE => Parse::read(body).map(|parse| parse.write(&mut again)),
        tag::BIND => Bind::read(body).map(|bind| {
            let values: usize = bind.parameters().map(<[u8]>::len).sum();
            assert!(values <= bind.rest.len());
            bind.write(&mut again);
        }),
        tag::DESCRIBE | tag::CLOSE => Target::read(body).map(|target| target.write(message, &mut again)),
        _ => return,
    };
    assert_eq!(read.is_ok(), is_well_formed(message, body));
    assert!(read.is_err() || again == frame);
}
