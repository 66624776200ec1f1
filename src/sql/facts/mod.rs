//! What the catalog says about names: which functions, relations, types and operators are not for a replica.
//!
//! Immutable once built. Looked up by the bytes of a name, in lower case unless it was quoted, without allocation.

mod builtins;
mod code;
mod names;
pub mod queries;

use std::collections::HashSet;

use super::change::Change;
use super::{Class, Rule};
use builtins::{Builtins, Category};
pub use code::{CatalogObject, CodeRow, UseRow};
use code::{Code, HiddenNames};
pub(super) use code::{Hidden, Reach};
use names::NameTable;

/// `pg_proc.provolatile`, worst over the overloads of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

impl Volatility {
    /// From `provolatile`: `i`, `s` or `v`. Anything else counts as volatile.
    pub fn from_catalog(letter: &str) -> Self {
        match letter {
            "i" => Self::Immutable,
            "s" => Self::Stable,
            _ => Self::Volatile,
        }
    }
}

/// A row of [`queries::FUNCTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct FunctionRow<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    pub volatility: Volatility,
    /// Callable as `relation.function`.
    pub field_style: bool,
}

/// A row of [`queries::OPERATORS`]: an operator whose function is volatile.
#[derive(Clone, Copy, Debug)]
pub struct OperatorRow<'a> {
    pub name: &'a str,
}

/// A row of [`queries::TYPES`]: a type that is read or cast to by a volatile function.
#[derive(Clone, Copy, Debug)]
pub struct TypeRow<'a> {
    pub schema: &'a str,
    pub name: &'a str,
}

/// A row of [`queries::RELATIONS`]: a relation that a replica cannot give.
#[derive(Clone, Copy, Debug)]
pub struct RelationRow<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    /// `foreign`, `sequence`, `unlogged`, `row_lock`, `volatile:f`, `nodelocal:f`, `operator:+`, several of them with `, `.
    pub why: &'a str,
}

/// What calling or mentioning a name does to a statement. The order is from harmless to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Harmless,
    /// A user's volatile function.
    Volatile,
    VolatileType,
    VolatileRelation,
    Node,
    Session,
    Writes,
    Relation,
}

impl Verdict {
    pub(super) fn class(self) -> Class {
        match self {
            Self::Harmless => Class::Read,
            Self::Volatile | Self::VolatileType | Self::VolatileRelation => Class::Unknown,
            Self::Node | Self::Session | Self::Writes | Self::Relation => Class::Write,
        }
    }

    pub(super) fn rule(self) -> Rule {
        match self {
            Self::Harmless => Rule::ReadsOnly,
            Self::Volatile => Rule::VolatileFunction,
            Self::VolatileType => Rule::Type,
            Self::VolatileRelation => Rule::VolatileRelation,
            Self::Node => Rule::NodeFunction,
            Self::Session => Rule::SessionFunction,
            Self::Writes => Rule::WritingFunction,
            Self::Relation => Rule::Relation,
        }
    }
}

/// The catalog of one database, as far as routing needs it.
#[derive(Debug)]
pub struct CatalogFacts {
    builtins: Builtins,
    loaded: bool,
    functions: NameTable,
    /// Harmful functions callable as `relation.function`, by name.
    attributes: NameTable,
    /// Harmful relations and types.
    mentions: NameTable,
    operators: HashSet<Box<[u8]>, foldhash::fast::FixedState>,
    /// A harmful relation or type has a name beyond ASCII, whose case and encoding we cannot compare.
    foreign_letters: bool,
    hidden: HiddenNames,
    at_ddl: Change,
}

impl CatalogFacts {
    /// Nothing is known but PostgreSQL's own functions and views that need care: any function that is not known to
    /// be harmless is unknown.
    pub fn unloaded() -> Self {
        let builtins = Builtins::new();
        let mut functions = NameTable::default();
        for (name, category) in builtins.exact() {
            functions.insert("pg_catalog", name, builtin_verdict(category));
        }
        Self {
            builtins,
            loaded: false,
            functions,
            attributes: NameTable::default(),
            mentions: NameTable::default(),
            operators: HashSet::default(),
            foreign_letters: false,
            hidden: HiddenNames::default(),
            at_ddl: Change::default(),
        }
    }

    /// Takes the rows of the catalog [`queries`].
    pub fn builder() -> FactsBuilder {
        FactsBuilder { facts: Self { loaded: true, ..Self::unloaded() }, code: Code::default() }
    }

    /// The names that [`queries::RELATIONS`] takes as its parameter: PostgreSQL's volatile functions that do no harm
    /// on a replica.
    pub fn harmless_functions() -> Vec<&'static str> {
        Builtins::new().exact().filter(|(_, category)| *category == Category::Harmless).map(|(name, _)| name).collect()
    }

    /// The catalog was read; a function that is not here does not exist.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The worst of the functions that a call may mean; `None` when no such function is known.
    pub(super) fn function(&self, schema: Option<&[u8]>, name: &[u8]) -> Option<Verdict> {
        let name = as_stored(name);
        self.functions.get(schema, name).or_else(|| {
            let builtin = schema.is_none_or(|s| s == b"pg_catalog") && !self.loaded;
            let category = builtin.then(|| self.builtins.category(name))??;
            Some(builtin_verdict(category))
        })
    }

    /// A harmful function that `relation.name` may call.
    pub(super) fn attribute(&self, name: &[u8]) -> Option<Verdict> {
        self.attributes.get(None, as_stored(name))
    }

    /// A harmful relation or type that the name may mean.
    pub(super) fn mention(&self, schema: Option<&[u8]>, name: &[u8]) -> Option<Verdict> {
        let name = as_stored(name);
        if self.foreign_letters && !name.is_ascii() {
            return Some(Verdict::Relation);
        }
        self.mentions.get(schema, name).or_else(|| {
            let builtin = !self.loaded && name.starts_with(b"pg_") && schema.is_none_or(|s| s == b"pg_catalog");
            (builtin && Builtins::is_node_relation(name)).then_some(Verdict::Relation)
        })
    }

    /// Some name changes the session out of the text's sight.
    pub(super) fn hides(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// What a function, relation, type or operator of the name changes in the session by the code that it runs.
    pub(super) fn hidden(&self, name: &[u8]) -> Option<&Hidden> {
        if self.hides() { self.hidden.get(as_stored(name)) } else { None }
    }

    /// What event triggers change with every DDL statement.
    pub(super) fn at_ddl(&self) -> &Change {
        &self.at_ddl
    }

    /// An operator of this name has a volatile function.
    pub(super) fn is_volatile_operator(&self, name: &[u8]) -> bool {
        !self.operators.is_empty() && self.operators.contains(name)
    }
}

/// PostgreSQL keeps 63 bytes of a name, cut at a character.
pub(super) fn as_stored(name: &[u8]) -> &[u8] {
    const NAME_BYTES: usize = 63;
    if name.len() <= NAME_BYTES {
        return name;
    }
    let continues = |at: usize| name.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let mut end = NAME_BYTES;
    while end > 0 && continues(end) {
        end -= 1;
    }
    &name[..end]
}

fn builtin_verdict(category: Category) -> Verdict {
    match category {
        Category::Harmless => Verdict::Harmless,
        Category::Writes => Verdict::Writes,
        Category::Session => Verdict::Session,
        Category::Node => Verdict::Node,
    }
}

/// Collects rows; nothing is looked up before [`FactsBuilder::build`].
#[derive(Debug)]
pub struct FactsBuilder {
    facts: CatalogFacts,
    code: Code,
}

impl FactsBuilder {
    pub fn function(&mut self, row: FunctionRow<'_>) {
        let facts = &mut self.facts;
        let known = match facts.builtins.category(row.name.as_bytes()) {
            // A user's function may bear the name of one of PostgreSQL's.
            Some(category) if row.schema == "pg_catalog" || Builtins::is_contrib(row.name) => Some(category),
            _ => None,
        };
        let verdict = match (known, row.volatility) {
            (Some(category), _) => builtin_verdict(category),
            (None, Volatility::Volatile) => Verdict::Volatile,
            (None, Volatility::Stable | Volatility::Immutable) => Verdict::Harmless,
        };
        facts.functions.insert(row.schema, row.name, verdict);
        if row.field_style && verdict != Verdict::Harmless {
            facts.attributes.insert(row.schema, row.name, verdict);
        }
    }

    pub fn operator(&mut self, row: OperatorRow<'_>) {
        self.facts.operators.insert(row.name.as_bytes().into());
    }

    pub fn type_(&mut self, row: TypeRow<'_>) {
        self.mention(row.schema, row.name, Verdict::VolatileType);
        for alias in builtins::type_aliases(row.schema, row.name) {
            self.mention(row.schema, alias, Verdict::VolatileType);
        }
    }

    pub fn relation(&mut self, row: RelationRow<'_>) {
        let users_function = |why: &str| match why.split_once(':') {
            Some(("volatile", function)) => self.facts.builtins.category(function.as_bytes()).is_none(),
            Some(("operator", _)) => true,
            _ => false,
        };
        let unknown = row.why.split(", ").all(users_function);
        let verdict = if unknown { Verdict::VolatileRelation } else { Verdict::Relation };
        self.mention(row.schema, row.name, verdict);
    }

    fn mention(&mut self, schema: &str, name: &str, verdict: Verdict) {
        self.facts.foreign_letters |= !name.is_ascii();
        self.facts.mentions.insert(schema, name, verdict);
    }

    pub fn code(&mut self, row: CodeRow<'_>) {
        self.code.function(row);
    }

    pub fn uses(&mut self, row: UseRow<'_>) {
        self.code.uses(row);
    }

    pub fn build(self) -> CatalogFacts {
        let (hidden, at_ddl) = self.code.finish();
        CatalogFacts { hidden, at_ddl, ..self.facts }
    }
}
