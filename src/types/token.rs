//! Tokens: positions as texts that clients carry from one session to another.
//!
//! `cw1_`, then hexadecimal digits in lower case: of the system identifier 16, of the timeline 8, of the LSN 16, and 8
//! of the CRC-32 of all the text before. So a token is one word in a URL, in SQL and in a comment, a position has one
//! token only, and no change of up to four neighbouring characters passes. What it means is nobody's concern: another
//! version may look otherwise.

use super::{Lsn, Position};

/// Begins the token of any version.
const MARK: &str = "cw";
const VERSION: &str = "1";
const END_OF_VERSION: char = '_';
const POSITION_DIGITS: usize = 40;
const CHECK_DIGITS: usize = 8;

/// Why a text names no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("not a token")]
    NotAToken,
    #[error("a token of a version that this Causeway does not know")]
    UnknownVersion,
    #[error("a damaged token")]
    Damaged,
}

impl Position {
    /// A text of digits, lower-case letters and `_` that [`Position::from_token`] reads, here and in later versions.
    pub fn to_token(self) -> String {
        let Self { system, timeline, lsn } = self;
        let text = format!("{MARK}{VERSION}{END_OF_VERSION}{system:016x}{timeline:08x}{:016x}", lsn.0);
        let check = crc32fast::hash(text.as_bytes());
        format!("{text}{check:08x}")
    }

    /// # Errors
    /// Not a token, a token of another version, or not as it was given out.
    pub fn from_token(token: &str) -> Result<Self, BadToken> {
        let (version, digits) =
            token.strip_prefix(MARK).and_then(|rest| rest.split_once(END_OF_VERSION)).ok_or(BadToken::NotAToken)?;
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadToken::NotAToken);
        }
        if version != VERSION {
            return Err(BadToken::UnknownVersion);
        }
        Self::from_digits(token, digits).ok_or(BadToken::Damaged)
    }

    fn from_digits(token: &str, digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != POSITION_DIGITS + CHECK_DIGITS || !digits.bytes().all(is_digit) {
            return None;
        }
        let number = |from: usize, to: usize| u64::from_str_radix(digits.get(from..to)?, 16).ok();
        let checked = token.get(..token.len() - CHECK_DIGITS)?;
        let check = number(POSITION_DIGITS, POSITION_DIGITS + CHECK_DIGITS)?;
        if check != u64::from(crc32fast::hash(checked.as_bytes())) {
            return None;
        }
        let timeline = u32::try_from(number(16, 24)?).ok()?;
        Some(Self { system: number(0, 16)?, timeline, lsn: Lsn(number(24, POSITION_DIGITS)?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(system: u64, timeline: u32, lsn: u64) -> Position {
        Position { system, timeline, lsn: Lsn(lsn) }
    }

    /// Clients keep tokens longer than a process lives: these texts stay what they are.
    #[test]
    fn tokens_stay_what_they_are() {
        for (position, token) in [
            (position(0, 0, 0), "cw1_00000000000000000000000000000000000000000573a061"),
            (
                position(7_300_000_000_000_000_001, 3, 0x1A_0900_2000),
                "cw1_654ecf52ac5a0001000000030000001a0900200007bad692",
            ),
        ] {
            assert_eq!(position.to_token(), token);
            assert_eq!(Position::from_token(token), Ok(position));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_for_its_reason() {
        let token = position(1, 2, 3).to_token();
        let cut = &token[..token.len() - 1];
        for (text, expected) in [
            ("", BadToken::NotAToken),
            ("0/9002000", BadToken::NotAToken),
            ("cw", BadToken::NotAToken),
            ("cw_", BadToken::NotAToken),
            ("cwx_00", BadToken::NotAToken),
            (&format!(" {token}"), BadToken::NotAToken),
            (&token.to_uppercase(), BadToken::NotAToken),
            (&token.replace("cw1", "cw2"), BadToken::UnknownVersion),
            ("cw10_abc", BadToken::UnknownVersion),
            ("cw1_", BadToken::Damaged),
            (cut, BadToken::Damaged),
            (&format!("{token}0"), BadToken::Damaged),
            (&format!("{token} "), BadToken::Damaged),
            (&format!("cw1_{}", "é".repeat(24)), BadToken::Damaged),
        ] {
            assert_eq!(Position::from_token(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(system: u64, timeline: u32, lsn: u64) {
            let position = position(system, timeline, lsn);
            let token = position.to_token();
            prop_assert!(token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'_')), "{}", token);
            prop_assert_eq!(Position::from_token(&token), Ok(position));
        }

        #[test]
        fn no_change_of_a_character_passes(system: u64, timeline: u32, lsn: u64, other in any::<char>()) {
            let token = position(system, timeline, lsn).to_token();
            let ascii = (0..=0x7f_u8).map(char::from).chain([other]);
            for (other, at) in ascii.flat_map(|other| (0..token.len()).map(move |at| (other, at))) {
                let mut changed = token.clone();
                changed.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
                if changed != token {
                    prop_assert!(Position::from_token(&changed).is_err(), "{}", changed);
                }
            }
        }

        #[test]
        fn characters_that_change_places_or_go_are_noticed(system: u64, timeline: u32, lsn: u64, at in 0..51_usize) {
            let token = position(system, timeline, lsn).to_token();
            let mut swapped = token.clone().into_bytes();
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            prop_assert!(swapped == token || Position::from_token(&swapped).is_err());
            let mut shorter = token;
            shorter.remove(at);
            prop_assert!(Position::from_token(&shorter).is_err());
        }

        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            prop_assert!(Position::from_token(&text).is_err());
        }
    }
}
