//! Whether figures are within what was recorded. Pure.

use crate::Test;

pub const TESTS: &[Test] =
    &[("limits::verdicts", verdicts_are_right), ("limits::sockets", the_floor_is_four), ("limits::wakes", one_thread)];

/// How far a figure may be from the recorded one, as a share of it.
const TOLERANCE: f64 = 0.1;

/// System calls on sockets of which a query needs no more: two receive it and its answer, two send them on.
const TRANSFERS: f64 = 4.0;

/// System calls that wake other threads: a query needs none, but what is asked now and then of the control plane does.
const WAKES: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Grown,
    Same,
    Shrunk,
}

/// `slack` is how far a figure may be off whatever was recorded, also when that is nothing.
pub fn verdict(recorded: f64, measured: f64, slack: f64) -> Verdict {
    let room = (recorded * TOLERANCE).max(slack);
    if measured > recorded + room {
        Verdict::Grown
    } else if measured < recorded - room {
        Verdict::Shrunk
    } else {
        Verdict::Same
    }
}

/// Whether a query makes no more system calls on sockets than it needs.
pub fn is_frugal(transfers: f64) -> bool {
    transfers <= TRANSFERS * (1.0 + TOLERANCE)
}

/// Whether a query stays on its thread.
pub fn stays(wakes: f64) -> bool {
    wakes <= WAKES
}

fn verdicts_are_right() {
    for (recorded, measured, slack, want) in [
        (1000.0, 1000.0, 0.0, Verdict::Same),
        (1000.0, 1099.0, 0.0, Verdict::Same),
        (1000.0, 1101.0, 0.0, Verdict::Grown),
        (1000.0, 901.0, 0.0, Verdict::Same),
        (1000.0, 899.0, 0.0, Verdict::Shrunk),
        (0.0, 0.0, 0.0, Verdict::Same),
        (0.0, 0.04, 0.05, Verdict::Same),
        (0.0, 0.06, 0.05, Verdict::Grown),
        (0.1, 0.14, 0.05, Verdict::Same),
        (0.1, 0.04, 0.05, Verdict::Shrunk),
        (10.0, 11.1, 0.05, Verdict::Grown),
    ] {
        assert_eq!(verdict(recorded, measured, slack), want, "{measured} after {recorded}, slack {slack}");
    }
}

fn the_floor_is_four() {
    for (transfers, want) in [(0.0, true), (4.0, true), (4.39, true), (4.41, false), (6.0, false)] {
        assert_eq!(is_frugal(transfers), want, "{transfers}");
    }
}

fn one_thread() {
    for (wakes, want) in [(0.0, true), (0.1, true), (0.9, false), (2.0, false)] {
        assert_eq!(stays(wakes), want, "{wakes}");
    }
}
