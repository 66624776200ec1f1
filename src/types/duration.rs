//! Durations as PostgreSQL reads and shows them in settings
//! (<https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES>).

use std::time::Duration;

/// From the largest. `SHOW` takes the first in which the value is a whole number.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];

/// `500ms`, `1.5 s`, `2min`; a number alone is milliseconds. To the microsecond; `None`: no duration, or negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim_matches(is_space);
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E');
    let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
    let unit = unit.trim_start_matches(is_space);
    let unit = if unit.is_empty() { "ms" } else { unit };
    let micros = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, micros)| *micros)?;
    let seconds = number.parse::<f64>().ok()? * Duration::from_micros(micros).as_secs_f64();
    let exact = Duration::try_from_secs_f64(seconds).ok()?.checked_add(Duration::from_nanos(500))?;
    Some(Duration::from_micros(u64::try_from(exact.as_micros()).ok()?))
}

/// As `SHOW` would: `500ms`, `90s`, `2min`; nothing is `0`. Parts of a microsecond are left out.
pub fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let unit = UNITS.into_iter().find(|(_, unit)| micros.is_multiple_of(u128::from(*unit)));
    match unit {
        Some((name, unit)) if micros > 0 => format!("{}{name}", micros / u128::from(unit)),
        _ => "0".to_owned(),
    }
}

/// As C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_postgresql_does() {
        for (text, micros) in [
            ("0", 0),
            ("500", 500_000),
            ("500ms", 500_000),
            (" 500 ms ", 500_000),
            ("1.5s", 1_500_000),
            (".5s", 500_000),
            ("1e3", 1_000_000),
            ("+1min", 60_000_000),
            ("1h", 3_600_000_000),
            ("2d", 172_800_000_000),
            ("250us", 250),
            ("0.1ms", 100),
            ("1.1min", 66_000_000),
            ("0.0000001s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for bad in [
            "", " ", "ms", "-1", "-1ms", "1 m", "1m", "1sec", "1MS", "1S", "1 s x", "1,5s", "0x10", "inf", "nan",
            "1e400",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_postgresql_does() {
        for (micros, text) in [
            (0, "0"),
            (500, "500us"),
            (1000, "1ms"),
            (1500, "1500us"),
            (1_000_000, "1s"),
            (90_000_000, "90s"),
            (120_000_000, "2min"),
            (86_400_000_000, "1d"),
        ] {
            assert_eq!(show_duration(Duration::from_micros(micros)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(micros in 0..=86_400_000_000_u64) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            parse_duration(&text);
        }
    }
}
