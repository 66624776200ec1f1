//! What callgrind counted: instructions, and calls of the allocator.
//!
//! The format: <https://valgrind.org/docs/manual/cl-format.html>, with names written out (`--compress-strings=no`).

use crate::Test;

pub const TESTS: &[Test] = &[("cost::profiles", profiles_are_read)];

/// Functions that give memory: glibc's, and those that mimalloc (`mi_malloc`) and jemalloc (`_rjem_mallocx`) have, which
/// would be linked into the binary. Rust's own are inlined into whoever allocates.
const ALLOCATORS: [&str; 12] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "zalloc",
    "malloc_aligned",
    "zalloc_aligned",
    "realloc_aligned",
    "mallocx",
    "rallocx",
];

/// What a thread did since the last dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub instructions: u64,
    pub allocations: u64,
}

impl Cost {
    /// Reads a profile; `None` when it has no totals.
    pub fn parse(profile: &str) -> Option<Self> {
        let mut cost = Self::default();
        let (mut caller, mut callee) = ("", "");
        let mut totals = None;
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                caller = function(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = function(name);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                // One entry may use another.
                if allocates(callee) && !allocates(caller) {
                    cost.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
                }
            } else if let Some(sum) = line.strip_prefix("totals: ") {
                totals = sum.split(' ').next()?.parse().ok();
            }
        }
        cost.instructions = totals?;
        Some(cost)
    }
}

/// A name without the depth of recursion behind it (`realloc'2`).
fn function(name: &str) -> &str {
    name.split_once('\'').map_or(name, |(name, _)| name)
}

fn allocates(function: &str) -> bool {
    ALLOCATORS.contains(&function.trim_start_matches("mi_").trim_start_matches("_rjem_"))
}

fn profiles_are_read() {
    let profile = |body: &str| format!("version: 1\nevents: Ir\n\n{body}\ntotals: 900\n");
    let call =
        |caller: &str, callee: &str, times: u64| format!("fn={caller}\n0 5\ncfn={callee}\ncalls={times} 0\n0 7\n");
    for (name, text, want) in [
        ("nothing", String::new(), None),
        ("cut short", "events: Ir\nfn=main\n0 5\n".to_owned(), None),
        ("no call", profile("fn=main\n0 5\n"), Some((900, 0))),
        ("another function", profile(&call("main", "mallocator", 7)), Some((900, 0))),
        ("each entry", profile(&(call("a", "malloc", 3) + &call("b", "calloc", 2))), Some((900, 5))),
        ("growth", profile(&call("a", "realloc", 4)), Some((900, 4))),
        ("one entry uses another", profile(&(call("a", "realloc", 4) + &call("realloc", "malloc", 3))), Some((900, 4))),
        ("recursion", profile(&(call("a", "calloc'2", 2) + &call("calloc'2", "malloc", 2))), Some((900, 2))),
        ("other libraries", profile(&(call("a", "mi_zalloc", 2) + &call("b", "_rjem_mallocx", 3))), Some((900, 5))),
        ("releases", profile(&call("a", "free", 9)), Some((900, 0))),
        ("two events", "events: Ir Bc\ntotals: 12 3\n".to_owned(), Some((12, 0))),
    ] {
        let want = want.map(|(instructions, allocations)| Cost { instructions, allocations });
        assert_eq!(Cost::parse(&text), want, "{name}");
    }
}
