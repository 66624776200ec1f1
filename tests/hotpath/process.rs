//! A subject as a process, with an instrument around it. It ends with the value.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::calls::Calls;
use crate::cost::Cost;
use crate::subject::Subject;

/// valgrind runs a program some fifty times slower.
const START_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    Callgrind,
    Strace,
    Nothing,
}

pub struct Process<'a> {
    pub subject: &'a Subject,
    child: Child,
    /// How many dumps callgrind has made.
    dumps: usize,
}

impl<'a> Process<'a> {
    /// Starts the subject and waits until it is ready.
    pub fn start(subject: &'a Subject, instrument: Instrument) -> Self {
        let file = |name: &str| subject.directory.path().join(name).display().to_string();
        let prefix = match instrument {
            Instrument::Callgrind => vec![
                "valgrind".to_owned(),
                "--tool=callgrind".to_owned(),
                "--compress-strings=no".to_owned(),
                "--separate-threads=yes".to_owned(),
                format!("--callgrind-out-file={}", file("profile")),
                format!("--vgdb-prefix={}", file("vgdb")),
            ],
            // The subject is our child, not strace's; -y says what a file descriptor is.
            Instrument::Strace => {
                ["strace", "-D", "-f", "-qq", "-y", "-s", "0", "-o", &file("trace")].map(str::to_owned).to_vec()
            }
            Instrument::Nothing => Vec::new(),
        };
        let program = subject.program.display().to_string();
        let words: Vec<String> = [&prefix[..], &[program], &subject.arguments].concat();
        let mut command = Command::new(&words[0]);
        let log = File::create(subject.directory.path().join("log")).unwrap();
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        subject.own(&mut command);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}: run `make install-test-deps`", words[0]));
        let mut process = Self { subject, child, dumps: 0 };
        process.wait_until("it is ready", |process| process.subject.is_ready());
        process
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `condition` holds, as long as the process runs.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + START_LIMIT;
        while !condition(self) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() >= deadline {
                let log = fs::read_to_string(self.subject.directory.path().join("log")).unwrap();
                panic!("{}: not within {START_LIMIT:?}: {what} (ended: {ended:?}):\n{log}", self.subject.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What callgrind has counted since the start or the last time, for each thread that ran.
    pub fn costs(&mut self) -> Vec<Cost> {
        let directory = self.subject.directory.path();
        // It waits for ever for a process of another user.
        let mut vgdb = Command::new("timeout");
        vgdb.args(["60", "vgdb", "dump"]).arg(format!("--pid={}", self.child.id()));
        vgdb.arg(format!("--vgdb-prefix={}", directory.join("vgdb").display()));
        self.subject.own(&mut vgdb);
        let output = vgdb.output().unwrap();
        assert!(output.status.success(), "vgdb: {}", String::from_utf8_lossy(&output.stderr));
        self.dumps += 1;
        let dump = format!("profile.{}-", self.dumps);
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let profiles = files.filter(|file| file.file_name().to_string_lossy().starts_with(&dump));
        let costs = profiles.map(|file| {
            let text = fs::read_to_string(file.path()).unwrap();
            Cost::parse(&text).unwrap_or_else(|| panic!("{} has no totals", file.path().display()))
        });
        costs.collect()
    }

    /// How long strace's file is.
    pub fn traced(&self) -> u64 {
        fs::metadata(self.trace()).unwrap().len()
    }

    /// What the thread that serves the clients has called since strace's file was `from` long.
    pub fn calls(&self, from: u64) -> Calls {
        let mut file = File::open(self.trace()).unwrap();
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        Calls::of_busiest_thread(&text)
    }

    fn trace(&self) -> PathBuf {
        self.subject.directory.path().join("trace")
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
