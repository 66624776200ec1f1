//! Places in a cluster's history.

use std::fmt;
use std::str::FromStr;

/// A byte offset in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to here; 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// PostgreSQL's insert position can point just past a page header that is not written yet, a place that
    /// replay does not reach until more WAL comes (page header 24 bytes, at a segment start 40).
    #[must_use]
    pub fn normalised(self, segment_bytes: u64) -> Self {
        const PAGE_BYTES: u64 = 8192;
        match self.0 {
            lsn if segment_bytes > 0 && lsn % segment_bytes == 40 => Self(lsn - 40),
            lsn if lsn % PAGE_BYTES == 24 => Self(lsn - 24),
            lsn => Self(lsn),
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a WAL position: {0:?}")]
pub struct BadLsn(String);

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |hex: &str| u32::from_str_radix(hex, 16).map_err(|_| bad());
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// A point in a cluster's history. Of one system, the later of two is the greater, as long as both are in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub system: u64,
    pub timeline: u32,
    pub lsn: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn lsn_text_round_trips_and_bad_text_is_refused() {
        for (text, value) in [("0/0", 0), ("0/9002018", 0x900_2018), ("1A/FFFFFFFF", 0x1A_FFFF_FFFF)] {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(value));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for bad in ["", "0", "0/", "/0", "0/G", "1/2/3", "100000000/0", "-1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lsn_is_normalised_to_a_place_that_replay_reaches() {
        for (raw, reached) in
            [(0x900_2018, 0x900_2000), (0x900_0028, 0x900_0000), (0x900_2020, 0x900_2020), (0x900_2000, 0x900_2000)]
        {
            assert_eq!(Lsn(raw).normalised(SEGMENT), Lsn(reached), "{raw:x}");
        }
    }
}
