//! Texts for positions, LSNs, durations and our own settings; and a position made of the bytes.

use std::time::Duration;

use causeway::types::{Lsn, OwnSetting, OwnValue, Position, parse_duration, show_duration};

use super::input::Input;

const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub fn survive(data: &[u8]) {
    let mut input = Input(data);
    let position = Position { system: input.u64(), timeline: input.u32(), lsn: Lsn(input.u64()) };
    let token = position.to_token();
    assert_eq!(Position::from_token(&token), Ok(position));
    assert_eq!(position.lsn.to_string().parse::<Lsn>().unwrap(), position.lsn);
    for segment_bytes in [0, 1 << 20, 16 << 20, 1 << 30] {
        let reached = position.lsn.normalised(segment_bytes);
        assert!(reached <= position.lsn && position.lsn.bytes_since(reached) <= 40);
        assert_eq!(reached.normalised(segment_bytes), reached);
    }
    damaged(&token, &mut input);
    if let Ok(text) = str::from_utf8(data) {
        read(text);
    }
}

/// A token with a changed character in it is none.
fn damaged(token: &str, input: &mut Input<'_>) {
    let (at, other) = (usize::from(input.byte()) % token.len(), char::from(input.byte() & 0x7f));
    let mut changed = token.to_owned();
    changed.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
    assert!(changed == token || Position::from_token(&changed).is_err(), "{changed}");
}

/// What is read is shown so that it is read again, and a position has one token only.
fn read(text: &str) {
    if let Ok(position) = Position::from_token(text) {
        assert_eq!(position.to_token(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
    }
    // Longer ones than any setting takes are not exact.
    if let Some(duration) = parse_duration(text).filter(|duration| *duration < A_CENTURY) {
        assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
    }
    assert!(OwnSetting::named(text).is_none() || OwnSetting::is_own_name(text));
    for setting in OwnSetting::ALL {
        match setting.parse(text) {
            Ok(value) => {
                assert_eq!(value.setting(), setting);
                assert_eq!(setting.parse(&value.to_string()), Ok(value));
                if let OwnValue::MaxStaleness(limit) = value {
                    assert!(OwnSetting::MAX_STALENESS.contains(&limit));
                }
            }
            Err(bad) => assert!(bad.message.len() < 600 && !bad.message.contains('\0')),
        }
    }
}
