//! What the code in a database changes in the session: its functions, and the triggers, defaults, checks, rules, views
//! and policies that call them.
//!
//! A graph: functions are read by their words ([`code_changes`]), everything else by what the catalog says it uses; what
//! is used hands on what it changes to its users, until nothing more is handed on.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use super::super::Effects;
use super::super::change::{Change, is_custom_setting};
use super::super::lexer::is_word;
use super::super::opaque::{ANYTHING, code_changes};
use super::super::query::effects_by_name;

/// A row of [`queries::CODE`](super::queries::CODE): a function of a user's, with its source.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow<'a> {
    pub oid: u32,
    pub name: &'a str,
    pub language: &'a str,
    /// `None` when it is too long to be read.
    pub source: Option<&'a str>,
}

/// A row of [`queries::USES`](super::queries::USES): running or writing to `user` runs `used`.
#[derive(Clone, Copy, Debug)]
pub struct UseRow<'a> {
    pub used: CatalogObject<'a>,
    pub user: CatalogObject<'a>,
    /// `always`, `same`, `write`, `insert` or `cascade`.
    pub how: &'a str,
}

#[derive(Clone, Copy, Debug)]
pub struct CatalogObject<'a> {
    /// `f` function, `b` function in C, `r` relation, `t` type, `o` operator, `e` all event triggers.
    pub kind: &'a str,
    pub oid: u32,
    pub name: &'a str,
}

/// How much of what a relation has to run a statement may run; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Reach {
    /// Views, policies.
    Mention,
    /// Triggers, checks, rules.
    Write,
    /// The defaults of columns.
    Insert,
}

/// What a name of the catalog changes in the session, by what is done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Hidden {
    on_mention: Change,
    on_write: Change,
    on_insert: Change,
    /// No relation, type or operator has the name: it counts only where it is called.
    pub(in super::super) only_called: bool,
}

impl Hidden {
    /// What it changes in a statement that reaches so far.
    pub(in super::super) fn within(&self, reach: Reach) -> impl Iterator<Item = &Change> {
        let parts =
            [(Reach::Mention, &self.on_mention), (Reach::Write, &self.on_write), (Reach::Insert, &self.on_insert)];
        parts
            .into_iter()
            .filter(move |(needed, change)| *needed <= reach && **change != Change::default())
            .map(|(_, c)| c)
    }

    fn part(&mut self, reach: Reach) -> &mut Change {
        match reach {
            Reach::Mention => &mut self.on_mention,
            Reach::Write => &mut self.on_write,
            Reach::Insert => &mut self.on_insert,
        }
    }

    fn is_nothing(&self) -> bool {
        self.within(Reach::Insert).next().is_none()
    }

    fn join(&mut self, other: &Self) -> bool {
        let mentioned = self.on_mention.join(&other.on_mention);
        let written = self.on_write.join(&other.on_write);
        self.on_insert.join(&other.on_insert) || mentioned || written
    }
}

/// How a user takes over what the used one changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// All of it at one point.
    To(Reach),
    /// Each part where it was: a view, a parent of partitions.
    Same,
    /// A foreign key that writes to the table that has it.
    Cascade,
    /// A function that only reads.
    Reads,
}

impl Edge {
    fn from_catalog(how: &str) -> Self {
        match how {
            "same" => Self::Same,
            "write" => Self::To(Reach::Write),
            "insert" => Self::To(Reach::Insert),
            "cascade" => Self::Cascade,
            _ => Self::To(Reach::Mention),
        }
    }

    /// Says whether that is any news to the user.
    fn hand_on(self, used: &Hidden, user: &mut Hidden) -> bool {
        match self {
            Self::To(reach) => used.within(Reach::Insert).filter(|change| user.part(reach).join(change)).count() > 0,
            Self::Same => user.join(used),
            Self::Cascade => user.on_write.join(&used.on_write),
            Self::Reads => user.on_mention.join(&used.on_mention),
        }
    }
}

/// Index into [`Code::objects`].
type Id = usize;

#[derive(Debug)]
struct Object {
    name: Box<str>,
    kind: u8,
    hidden: Hidden,
    users: Vec<(Id, Edge)>,
}

/// The words of a function's source, by their hashes.
#[derive(Debug)]
struct Words {
    function: Id,
    hashes: Vec<u64>,
    modifies: bool,
}

/// The graph, as it is collected.
#[derive(Debug, Default)]
pub(super) struct Code {
    objects: Vec<Object>,
    ids: HashMap<(u8, u32), Id, foldhash::fast::FixedState>,
    words: Vec<Words>,
    hasher: foldhash::fast::FixedState,
}

/// A catalog of a hundred thousand objects takes fewer.
const MAX_STEPS: usize = 1 << 19;

const EVENT_TRIGGERS: u8 = b'e';
const FUNCTION: u8 = b'f';
/// Known by their names where they are called; in the graph for what uses them elsewhere.
const IN_C: u8 = b'b';

impl Code {
    fn object(&mut self, object: CatalogObject<'_>) -> Id {
        let kind = object.kind.bytes().next().unwrap_or_default();
        *self.ids.entry((kind, object.oid)).or_insert_with(|| {
            let mut hidden = Hidden { only_called: kind == FUNCTION, ..Hidden::default() };
            if kind == IN_C {
                hidden.on_mention.add(hidden_by_name(object.name.as_bytes()));
            }
            self.objects.push(Object { name: object.name.into(), kind, hidden, users: Vec::new() });
            self.objects.len() - 1
        })
    }

    pub(super) fn function(&mut self, row: CodeRow<'_>) {
        let function = self.object(CatalogObject { kind: "f", oid: row.oid, name: row.name });
        let change = source_changes(row);
        if let Some(object) = self.objects.get_mut(function) {
            object.hidden.on_mention.join(&change);
        }
        let source = row.source.unwrap_or_default().to_ascii_lowercase();
        let mut hashes: Vec<u64> = words(source.as_bytes()).map(|word| self.hasher.hash_one(word)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.shrink_to_fit();
        let modifies = words(source.as_bytes()).any(|word| MODIFYING.contains(&word));
        self.words.push(Words { function, hashes, modifies });
    }

    pub(super) fn uses(&mut self, row: UseRow<'_>) {
        let used = self.object(row.used);
        let user = self.object(row.user);
        self.hand(used, user, Edge::from_catalog(row.how));
    }

    fn hand(&mut self, used: Id, user: Id, edge: Edge) {
        if used != user
            && let Some(object) = self.objects.get_mut(used)
        {
            object.users.push((user, edge));
        }
    }

    /// A function uses whatever bears a name that is a word in its source.
    fn join_words(&mut self) {
        let mut named: HashMap<u64, Vec<Id>, foldhash::fast::FixedState> = HashMap::default();
        for (id, object) in self.objects.iter().enumerate().filter(|(_, object)| object.kind != IN_C) {
            let is_ddl = object.kind == EVENT_TRIGGERS;
            let lower = object.name.to_ascii_lowercase();
            for name in words(lower.as_bytes()).filter(|_| !is_ddl).chain(DDL_VERBS.iter().copied().filter(|_| is_ddl))
            {
                named.entry(self.hasher.hash_one(name)).or_default().push(id);
            }
        }
        for Words { function, hashes, modifies } in std::mem::take(&mut self.words) {
            let edge = if modifies { Edge::To(Reach::Mention) } else { Edge::Reads };
            for used in hashes.iter().filter_map(|hash| named.get(hash)).flatten() {
                self.hand(*used, function, edge);
            }
        }
    }

    /// Hands on until there is no news. A graph in which that has no end in sight has all names suspect.
    fn hand_on(&mut self) {
        let mut steps = 0;
        let mut pending: VecDeque<Id> = (0..self.objects.len()).collect();
        while let Some(used) = pending.pop_front() {
            let Some(object) = self.objects.get_mut(used).filter(|object| !object.hidden.is_nothing()) else {
                continue;
            };
            let users = std::mem::take(&mut object.users);
            let hidden = object.hidden.clone();
            for (user, edge) in &users {
                let Some(object) = self.objects.get_mut(*user) else { continue };
                if edge.hand_on(&hidden, &mut object.hidden) {
                    pending.push_back(*user);
                }
            }
            steps += users.len();
            if let Some(object) = self.objects.get_mut(used) {
                object.users = users;
            }
            if steps > MAX_STEPS {
                return self.objects.iter_mut().for_each(|object| object.hidden.on_mention.add(ANYTHING));
            }
        }
    }

    /// What each name changes, and what every DDL statement does.
    pub(super) fn finish(mut self) -> (HiddenNames, Change) {
        self.join_words();
        self.hand_on();
        let mut names = HiddenNames::default();
        let mut at_ddl = Change::default();
        for object in self.objects.into_iter().filter(|object| object.kind != IN_C && !object.hidden.is_nothing()) {
            if object.kind == EVENT_TRIGGERS {
                object.hidden.within(Reach::Insert).for_each(|change| _ = at_ddl.join(change));
            } else {
                names.insert(object.name.as_bytes(), object.hidden);
            }
        }
        (names, at_ddl)
    }
}

/// What stands in a source when it may write to a relation.
const MODIFYING: &[&[u8]] = &[b"insert", b"update", b"delete", b"merge", b"copy", b"truncate", b"execute"];
/// What stands in a source when it may fire event triggers.
const DDL_VERBS: &[&[u8]] = &[b"create", b"alter", b"drop", b"grant", b"revoke", b"comment", b"refresh", b"into"];

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| !is_word(b)).filter(|word| !word.is_empty())
}

fn source_changes(row: CodeRow<'_>) -> Change {
    let mut change = Change::default();
    let Some(source) = row.source else {
        change.add(ANYTHING);
        return change;
    };
    if matches!(row.language, "sql" | "plpgsql") {
        code_changes(source.as_bytes(), &mut change);
    } else {
        foreign_changes(source.as_bytes(), &mut change);
    }
    change.add(out_of_sight(change.effects));
    change
}

/// In other languages SQL is in strings, by rules that we do not know.
fn foreign_changes(source: &[u8], change: &mut Change) {
    if !words(source).any(|word| RUNNING.iter().any(|running| word.eq_ignore_ascii_case(running))) {
        return;
    }
    change.add(Effects::HIDDEN);
    // A name in quotes, for `set_config`, or behind SET.
    let mut before: &[u8] = b"";
    for name in source.split_inclusive(|&b| !is_word(b) && b != b'.') {
        let (name, end) = name.split_at(name.len().saturating_sub(1));
        let is_set = [b"set".as_slice(), b"session", b"'", b"\""].iter().any(|set| before.eq_ignore_ascii_case(set));
        if is_set && is_custom_setting(name) {
            change.name_setting(name);
        }
        before = match end {
            b"'" | b"\"" => end,
            b" " | b"\n" | b"\t" if name.is_empty() => before,
            _ => name,
        };
    }
}

/// How languages run SQL: Python, Perl, Tcl, JavaScript and the like.
const RUNNING: &[&[u8]] =
    &[b"plpy", b"execute", b"prepare", b"spi_exec", b"spi_exec_query", b"spi_query", b"spi_execp", b"spi_prepare"];

/// One of PostgreSQL's own functions in a tree of the catalog: its arguments are not known.
fn hidden_by_name(name: &[u8]) -> Effects {
    let effects = effects_by_name(name);
    let unnamed = if effects.contains(Effects::SET) { Effects::SET_UNNAMED } else { Effects::NONE };
    effects | unnamed | out_of_sight(effects)
}

/// Whatever lasts beyond the transaction is asked for when code does it; sequences cannot be.
fn out_of_sight(effects: Effects) -> Effects {
    let told = Effects::LOCAL | Effects::SEQUENCE | Effects::CURRVAL | Effects::CLEAR_TEMP;
    if effects.without(told).is_empty() { Effects::NONE } else { Effects::HIDDEN }
}

/// What names change, whatever their schemas.
#[derive(Debug, Default)]
pub(super) struct HiddenNames {
    names: hashbrown::HashMap<Box<[u8]>, Hidden, foldhash::fast::FixedState>,
    /// What the names beyond ASCII change, whose case and encoding we cannot compare.
    foreign: Hidden,
}

impl HiddenNames {
    fn insert(&mut self, name: &[u8], hidden: Hidden) {
        if !name.is_ascii() {
            self.foreign.join(&hidden);
        }
        match self.names.entry(name.into()) {
            hashbrown::hash_map::Entry::Occupied(mut known) => {
                known.get_mut().only_called &= hidden.only_called;
                known.get_mut().join(&hidden);
            }
            hashbrown::hash_map::Entry::Vacant(free) => _ = free.insert(hidden),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Hidden> {
        if name.is_ascii() { self.names.get(name) } else { Some(&self.foreign).filter(|hidden| !hidden.is_nothing()) }
    }
}
