//! What strace saw: system calls by name, and which of them were on sockets.

use std::collections::BTreeMap;

use crate::Test;

pub const TESTS: &[Test] = &[("calls::traces", traces_are_read)];

/// What sends or receives, also on what is no socket (a wake-up across threads is a write).
const TRANSFERS: [&str; 10] =
    ["read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg", "sendmmsg"];

/// What one thread called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// By name: all system calls, begun ones too.
    pub by_name: BTreeMap<String, u64>,
    /// Those that sent to or received from a socket, or would have, had it been ready.
    pub transfers: u64,
    /// Those that wake another thread, or wait for one.
    pub wakes: u64,
}

impl Calls {
    /// Reads lines of `strace -f -y`, `101 sendto(7<socket:[55]>, ""..., 20, 0, NULL, 0) = 20`; gives the calls of the
    /// thread that sent and received most.
    pub fn of_busiest_thread(trace: &str) -> Self {
        let mut threads = BTreeMap::<&str, Self>::new();
        for line in trace.lines() {
            let Some((thread, event)) = line.split_once(' ') else { continue };
            // A call that others interrupted in the trace ends in a line of its own: `<... read resumed>`. Signals and
            // ends of threads begin with `---` and `+++`.
            let Some((name, arguments)) = event.trim_start().split_once('(') else { continue };
            if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                threads.entry(thread).or_default().add(name, arguments);
            }
        }
        threads.into_values().max_by_key(|calls| calls.transfers).unwrap_or_default()
    }

    fn add(&mut self, name: &str, arguments: &str) {
        *self.by_name.entry(name.to_owned()).or_default() += 1;
        self.transfers += u64::from(TRANSFERS.contains(&name) && is_socket(arguments));
        let wakes = name == "futex" || name == "write" && arguments.contains("<anon_inode:[eventfd]>");
        self.wakes += u64::from(wakes);
    }
}

/// Whether the first argument is a socket: `7<socket:[55]>`, or `7<TCP:[…]>` where strace knows more.
fn is_socket(arguments: &str) -> bool {
    let number = arguments.trim_start_matches(|digit: char| digit.is_ascii_digit());
    ["<socket:", "<TCP", "<UNIX"].iter().any(|kind| number.starts_with(kind))
}

fn traces_are_read() {
    for (trace, want, transfers, wakes) in [
        ("", &[][..], 0, 0),
        ("101 sendto(7<socket:[5]>, \"\"..., 20, 0, NULL, 0) = 20\n", &[("sendto", 1)][..], 1, 0),
        ("101 recvfrom(7<socket:[5]>, 0x1, 9, 0, NULL, NULL) = -1 EAGAIN (x)\n", &[("recvfrom", 1)], 1, 0),
        ("101   writev(7<TCP:[5]>, [], 2) = 9\n101 writev(1</dev/null>, [], 1) = 1\n", &[("writev", 2)], 1, 0),
        ("101 write(4<anon_inode:[eventfd]>, \"\"..., 8) = 8\n", &[("write", 1)], 0, 1),
        (
            "7 epoll_wait(3<anon_inode:[eventpoll]>,  <unfinished ...>\n7 <... epoll_wait resumed>[], 1, 0) = 0\n",
            &[("epoll_wait", 1)],
            0,
            0,
        ),
        ("7 read(9<socket:[1]>,  <unfinished ...>\n7 futex(0x1, FUTEX_WAIT) = 0\n", &[("futex", 1), ("read", 1)], 1, 1),
        ("7 --- SIGTERM {si_signo=SIGTERM} ---\n7 +++ exited with 0 +++\n", &[], 0, 0),
        (
            "7 read(9<UNIX:[1]>, 1) = 1\n8 read(9<TCP:[1]>, 1) = 1\n8 readv(9<TCP:[1]>, 1) = 1\n7 getpid() = 1\n",
            &[("read", 1), ("readv", 1)],
            2,
            0,
        ),
        ("cut", &[], 0, 0),
    ] {
        let by_name = want.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(Calls::of_busiest_thread(trace), Calls { by_name, transfers, wakes }, "{trace}");
    }
}
