//! How often the threads of a process gave up their core to wait: proc(5), `voluntary_ctxt_switches`.

use std::fs;

use crate::Test;

pub const TESTS: &[Test] = &[("switches::statuses", statuses_are_read)];

/// Of all threads that the process has now.
pub fn of(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may have ended since.
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    statuses.filter_map(|status| voluntary(&status)).sum()
}

fn voluntary(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

fn statuses_are_read() {
    for (status, want) in [
        ("", None),
        ("Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n", Some(150)),
        ("nonvoluntary_ctxt_switches:\t545\n", None),
    ] {
        assert_eq!(voluntary(status), want, "{status}");
    }
}
