//! What sessions did and saw, on one clock; written and read as text, one operation a line.
//!
//! ```text
//! s1 0..10 write #1 r0=1 r1=1              # `write?`: nobody knows, `write!`: rolled back
//! s1 10..11 give t1                        # the session's position, as a token
//! s2 12..13 take t1
//! s2 20..30 read session replica1 r0=1#1   # `strong`, `bounded:500`, …; `@7` after the node: snapshot 7
//! ```
//!
//! Instants are milliseconds from the beginning in the text, nanoseconds in the values.

use std::fmt;

use causeway::types::Level;

/// Nanoseconds since the history began.
pub type Nanos = u64;
pub type Register = u32;
/// How often a register was written: PostgreSQL lets one write of a register follow the other, so the order of its
/// versions is the order of the commits. A register starts at 0.
pub type Version = u64;
/// Unique in a history; 0 made all registers.
pub type WriteId = u64;
pub type Token = u32;

pub const MILLISECOND: Nanos = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    RolledBack,
    /// The connection was lost before the answer.
    Unknown,
}

/// What a read shows of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    pub register: Register,
    pub version: Version,
    pub write: WriteId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    pub level: Level,
    /// What was committed this long before the read began is seen.
    pub staleness: Option<Nanos>,
}

/// 0 is the primary, n is replica n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub u8);

impl Node {
    pub const PRIMARY: Self = Self(0);

    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("replica") {
            Some(number) => number.parse().ok().map(Self),
            None => (name == "primary").then_some(Self::PRIMARY),
        }
    }
}

/// One transaction that wrote, in one go or over several statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub id: WriteId,
    pub outcome: Outcome,
    /// The version is not always told.
    pub registers: Vec<(Register, Option<Version>)>,
}

/// One statement that read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub promise: Promise,
    pub node: Node,
    /// Reads with the same number were made in one REPEATABLE READ transaction.
    pub snapshot: Option<u32>,
    pub values: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Write(Write),
    Read(Read),
    /// The session gave its position away.
    Give(Token),
    /// What the session reads from here on is not older than that.
    Take(Token),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub session: u32,
    /// Of a write, when what commits it was sent; of a read in a transaction, when its BEGIN was.
    pub invoked: Nanos,
    pub returned: Nanos,
    pub what: What,
}

/// The operations of a session are in its order; those of different sessions are in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(pub Vec<Op>);

impl History {
    pub fn reads(&self) -> impl Iterator<Item = (&Op, &Read)> {
        self.0.iter().filter_map(|op| match &op.what {
            What::Read(read) => Some((op, read)),
            _ => None,
        })
    }

    /// Panics where `text` is not in the notation above.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self(lines.map(|line| parse_op(line).unwrap_or_else(|| panic!("not an operation: {line}"))).collect())
    }
}

fn parse_op(line: &str) -> Option<Op> {
    let mut words = line.split_whitespace();
    let session = words.next()?.strip_prefix('s')?.parse().ok()?;
    let (invoked, returned) = words.next()?.split_once("..")?;
    let (invoked, returned) = (parse_instant(invoked)?, parse_instant(returned)?);
    let what = match words.next()? {
        verb @ ("write" | "write?" | "write!") => {
            let id = words.next()?.strip_prefix('#')?.parse().ok()?;
            let outcome = match verb {
                "write" => Outcome::Committed,
                "write?" => Outcome::Unknown,
                _ => Outcome::RolledBack,
            };
            What::Write(Write { id, outcome, registers: words.map(parse_written).collect::<Option<_>>()? })
        }
        "read" => What::Read(parse_read(words)?),
        "give" => What::Give(words.next()?.strip_prefix('t')?.parse().ok()?),
        "take" => What::Take(words.next()?.strip_prefix('t')?.parse().ok()?),
        _ => return None,
    };
    Some(Op { session, invoked, returned, what })
}

fn parse_instant(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction: Nanos = format!("{fraction:0<6}").parse().ok()?;
    Some(whole.parse::<Nanos>().ok()? * MILLISECOND + fraction)
}

fn parse_written(word: &str) -> Option<(Register, Option<Version>)> {
    let (register, version) = word.strip_prefix('r')?.split_once('=')?;
    let version = if version == "?" { None } else { Some(version.parse().ok()?) };
    Some((register.parse().ok()?, version))
}

fn parse_read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Read> {
    let promise = words.next()?;
    let (level, staleness) = match promise.split_once(':') {
        Some((level, limit)) => (level, Some(parse_instant(limit)?)),
        None => (promise, None),
    };
    let promise = Promise { level: Level::named(level)?, staleness };
    let node = Node::named(words.next()?)?;
    let mut words = words.peekable();
    let snapshot = words.next_if(|word| word.starts_with('@')).map(|word| word[1..].parse()).transpose().ok()?;
    let value = |word: &str| {
        let (register, shown) = word.strip_prefix('r')?.split_once('=')?;
        let (version, write) = shown.split_once('#')?;
        Some(Value { register: register.parse().ok()?, version: version.parse().ok()?, write: write.parse().ok()? })
    };
    Some(Read { promise, node, snapshot, values: words.map(value).collect::<Option<_>>()? })
}

/// As [`History::parse`] reads it.
fn instant(at: Nanos) -> String {
    let text = format!("{}.{:06}", at / MILLISECOND, at % MILLISECOND);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("primary"),
            number => write!(f, "replica{number}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{} {}..{} ", self.session, instant(self.invoked), instant(self.returned))?;
        match &self.what {
            What::Write(write) => {
                let mark = match write.outcome {
                    Outcome::Committed => "",
                    Outcome::RolledBack => "!",
                    Outcome::Unknown => "?",
                };
                write!(f, "write{mark} #{}", write.id)?;
                write.registers.iter().try_for_each(|(register, version)| match version {
                    Some(version) => write!(f, " r{register}={version}"),
                    None => write!(f, " r{register}=?"),
                })
            }
            What::Read(read) => {
                write!(f, "read {}", read.promise.level.as_str())?;
                if let Some(staleness) = read.promise.staleness {
                    write!(f, ":{}", instant(staleness))?;
                }
                write!(f, " {}", read.node)?;
                if let Some(snapshot) = read.snapshot {
                    write!(f, " @{snapshot}")?;
                }
                // A precision says how many values.
                let mut values = read.values.iter().take(f.precision().unwrap_or(usize::MAX));
                values.try_for_each(|value| write!(f, " r{}={}#{}", value.register, value.version, value.write))
            }
            What::Give(token) => write!(f, "give t{token}"),
            What::Take(token) => write!(f, "take t{token}"),
        }
    }
}
