//! The words that rules look at, found by one probe of a table built at compile time.

/// A keyword of PostgreSQL that some rule looks at; `None` is any other name.
///
/// Written as in the grammar. [`Keyword::Reserved`] stands for the reserved words that no rule names one by one,
/// [`Keyword::Phrase`] for words that are not reserved but may stand before a parenthesis without being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    None,
    Reserved,
    Phrase,
    Abort,
    All,
    Alter,
    Analyze,
    As,
    Authorization,
    Begin,
    Call,
    Close,
    Comment,
    Commit,
    Committed,
    Constraints,
    Copy,
    Create,
    Deallocate,
    Declare,
    Deferrable,
    Delete,
    Discard,
    Distinct,
    Do,
    Drop,
    Else,
    End,
    Execute,
    Explain,
    False,
    Fetch,
    Filter,
    For,
    From,
    Global,
    Grant,
    Hold,
    Import,
    In,
    Insert,
    Into,
    Isolation,
    Key,
    Level,
    Listen,
    Load,
    Local,
    Loop,
    Materialized,
    Merge,
    Move,
    No,
    Not,
    Off,
    On,
    Only,
    Ordinality,
    Over,
    Prepare,
    Prepared,
    Read,
    Reassign,
    Recursive,
    Refresh,
    Release,
    Repeatable,
    Replace,
    Reset,
    Revoke,
    Role,
    Rollback,
    Savepoint,
    Security,
    Select,
    Serializable,
    Session,
    Set,
    Share,
    Show,
    Start,
    Stdout,
    Table,
    Temp,
    Then,
    To,
    Transaction,
    True,
    Uncommitted,
    Unlisten,
    Update,
    Values,
    Verbose,
    With,
    Work,
    Write,
}

use Keyword as K;

impl Keyword {
    /// Can never be the name of a relation, a type, a column or a function unless it is quoted.
    pub(super) fn is_reserved(self) -> bool {
        matches!(
            self,
            K::Reserved
                | K::All
                | K::Analyze
                | K::As
                | K::Create
                | K::Distinct
                | K::Do
                | K::Else
                | K::End
                | K::False
                | K::Fetch
                | K::For
                | K::From
                | K::Grant
                | K::In
                | K::Into
                | K::Not
                | K::On
                | K::Only
                | K::Select
                | K::Table
                | K::Then
                | K::To
                | K::True
                | K::With
        )
    }

    /// Stands before a parenthesis without being called: `IN (`, `VALUES (`, `JOIN (`, `coalesce(`.
    pub(super) fn is_no_call(self) -> bool {
        self.is_reserved() || matches!(self, K::Phrase | K::Values | K::Over | K::Filter | K::Materialized | K::Key)
    }
}

/// Lower case. A word that is missing here is an ordinary name: at worst a read is taken for a write.
const WORDS: &[(&str, Keyword)] = &[
    ("abort", K::Abort),
    ("all", K::All),
    ("alter", K::Alter),
    ("analyse", K::Analyze),
    ("analyze", K::Analyze),
    ("and", K::Reserved),
    ("any", K::Reserved),
    ("array", K::Reserved),
    ("as", K::As),
    ("asc", K::Reserved),
    ("asymmetric", K::Reserved),
    ("authorization", K::Authorization),
    ("begin", K::Begin),
    ("between", K::Phrase),
    ("bigint", K::Phrase),
    ("bit", K::Phrase),
    ("both", K::Reserved),
    ("by", K::Phrase),
    ("call", K::Call),
    ("case", K::Reserved),
    ("cast", K::Reserved),
    ("char", K::Phrase),
    ("character", K::Phrase),
    ("check", K::Reserved),
    ("close", K::Close),
    ("coalesce", K::Phrase),
    ("collate", K::Reserved),
    ("column", K::Reserved),
    ("columns", K::Phrase),
    ("comment", K::Comment),
    ("commit", K::Commit),
    ("committed", K::Committed),
    ("constraint", K::Reserved),
    ("constraints", K::Constraints),
    ("copy", K::Copy),
    ("create", K::Create),
    ("cross", K::Phrase),
    ("cube", K::Phrase),
    ("current_catalog", K::Reserved),
    ("current_date", K::Reserved),
    ("current_role", K::Reserved),
    ("current_time", K::Reserved),
    ("current_timestamp", K::Reserved),
    ("current_user", K::Reserved),
    ("deallocate", K::Deallocate),
    ("dec", K::Phrase),
    ("decimal", K::Phrase),
    ("declare", K::Declare),
    ("default", K::Reserved),
    ("deferrable", K::Deferrable),
    ("delete", K::Delete),
    ("desc", K::Reserved),
    ("discard", K::Discard),
    ("distinct", K::Distinct),
    ("do", K::Do),
    ("document", K::Phrase),
    ("drop", K::Drop),
    ("else", K::Else),
    ("end", K::End),
    ("escape", K::Phrase),
    ("except", K::Reserved),
    ("execute", K::Execute),
    ("exists", K::Phrase),
    ("explain", K::Explain),
    ("extract", K::Phrase),
    ("false", K::False),
    ("fetch", K::Fetch),
    ("filter", K::Filter),
    ("first", K::Phrase),
    ("float", K::Phrase),
    ("for", K::For),
    ("foreign", K::Reserved),
    ("from", K::From),
    ("full", K::Phrase),
    ("global", K::Global),
    ("grant", K::Grant),
    ("greatest", K::Phrase),
    ("group", K::Reserved),
    ("grouping", K::Phrase),
    ("groups", K::Phrase),
    ("having", K::Reserved),
    ("hold", K::Hold),
    ("ilike", K::Phrase),
    ("import", K::Import),
    ("in", K::In),
    ("inner", K::Phrase),
    ("insert", K::Insert),
    ("int", K::Phrase),
    ("integer", K::Phrase),
    ("intersect", K::Reserved),
    ("interval", K::Phrase),
    ("into", K::Into),
    ("is", K::Phrase),
    ("isnull", K::Phrase),
    ("isolation", K::Isolation),
    ("join", K::Phrase),
    ("json_array", K::Phrase),
    ("json_arrayagg", K::Phrase),
    ("json_exists", K::Phrase),
    ("json_object", K::Phrase),
    ("json_objectagg", K::Phrase),
    ("json_query", K::Phrase),
    ("json_scalar", K::Phrase),
    ("json_serialize", K::Phrase),
    ("json_table", K::Phrase),
    ("json_value", K::Phrase),
    ("key", K::Key),
    ("lateral", K::Reserved),
    ("leading", K::Reserved),
    ("least", K::Phrase),
    ("left", K::Phrase),
    ("level", K::Level),
    ("like", K::Phrase),
    ("limit", K::Reserved),
    ("listen", K::Listen),
    ("load", K::Load),
    ("local", K::Local),
    ("localtime", K::Reserved),
    ("localtimestamp", K::Reserved),
    ("loop", K::Loop),
    ("materialized", K::Materialized),
    ("merge", K::Merge),
    ("move", K::Move),
    ("national", K::Phrase),
    ("natural", K::Phrase),
    ("nchar", K::Phrase),
    ("nested", K::Phrase),
    ("next", K::Phrase),
    ("no", K::No),
    ("normalize", K::Phrase),
    ("not", K::Not),
    ("notnull", K::Phrase),
    ("null", K::Reserved),
    ("nullif", K::Phrase),
    ("numeric", K::Phrase),
    ("of", K::Phrase),
    ("off", K::Off),
    ("offset", K::Reserved),
    ("on", K::On),
    ("only", K::Only),
    ("operator", K::Phrase),
    ("or", K::Reserved),
    ("order", K::Reserved),
    ("ordinality", K::Ordinality),
    ("outer", K::Phrase),
    ("over", K::Over),
    ("overlay", K::Phrase),
    ("partition", K::Phrase),
    ("passing", K::Phrase),
    ("placing", K::Reserved),
    ("position", K::Phrase),
    ("precision", K::Phrase),
    ("prepare", K::Prepare),
    ("prepared", K::Prepared),
    ("primary", K::Reserved),
    ("range", K::Phrase),
    ("read", K::Read),
    ("real", K::Phrase),
    ("reassign", K::Reassign),
    ("recursive", K::Recursive),
    ("references", K::Reserved),
    ("refresh", K::Refresh),
    ("release", K::Release),
    ("repeatable", K::Repeatable),
    ("replace", K::Replace),
    ("reset", K::Reset),
    ("returning", K::Reserved),
    ("revoke", K::Revoke),
    ("right", K::Phrase),
    ("role", K::Role),
    ("rollback", K::Rollback),
    ("rollup", K::Phrase),
    ("row", K::Phrase),
    ("rows", K::Phrase),
    ("savepoint", K::Savepoint),
    ("security", K::Security),
    ("select", K::Select),
    ("serializable", K::Serializable),
    ("session", K::Session),
    ("session_user", K::Reserved),
    ("set", K::Set),
    ("sets", K::Phrase),
    ("share", K::Share),
    ("show", K::Show),
    ("similar", K::Phrase),
    ("smallint", K::Phrase),
    ("some", K::Reserved),
    ("start", K::Start),
    ("stdout", K::Stdout),
    ("substring", K::Phrase),
    ("symmetric", K::Reserved),
    ("table", K::Table),
    ("tablesample", K::Phrase),
    ("temp", K::Temp),
    ("temporary", K::Temp),
    ("then", K::Then),
    ("time", K::Phrase),
    ("timestamp", K::Phrase),
    ("to", K::To),
    ("trailing", K::Reserved),
    ("transaction", K::Transaction),
    ("treat", K::Phrase),
    ("trim", K::Phrase),
    ("true", K::True),
    ("uncommitted", K::Uncommitted),
    ("union", K::Reserved),
    ("unique", K::Reserved),
    ("unlisten", K::Unlisten),
    ("update", K::Update),
    ("user", K::Reserved),
    ("using", K::Reserved),
    ("values", K::Values),
    ("varchar", K::Phrase),
    ("variadic", K::Reserved),
    ("varying", K::Phrase),
    ("verbose", K::Verbose),
    ("when", K::Reserved),
    ("where", K::Reserved),
    ("window", K::Reserved),
    ("with", K::With),
    ("within", K::Phrase),
    ("work", K::Work),
    ("write", K::Write),
    ("xmlattributes", K::Phrase),
    ("xmlconcat", K::Phrase),
    ("xmlelement", K::Phrase),
    ("xmlexists", K::Phrase),
    ("xmlforest", K::Phrase),
    ("xmlnamespaces", K::Phrase),
    ("xmlparse", K::Phrase),
    ("xmlpi", K::Phrase),
    ("xmlroot", K::Phrase),
    ("xmlserialize", K::Phrase),
    ("xmltable", K::Phrase),
    ("zone", K::Phrase),
];

const SLOTS: usize = 1024;
const EMPTY: u8 = u8::MAX;
const LONGEST: usize = 17;

/// Open addressing over [`WORDS`]; a slot holds an index.
const TABLE: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut word = 0;
    while word < WORDS.len() {
        let mut slot = slot_of(WORDS[word].0.as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        assert!(word < EMPTY as usize && WORDS[word].0.len() <= LONGEST);
        #[expect(clippy::cast_possible_truncation, reason = "asserted in the line above, at compile time")]
        {
            table[slot] = word as u8;
        }
        word += 1;
    }
    table
};

/// `word` has at least one byte.
const fn slot_of(word: &[u8]) -> usize {
    let last = word.len() - 1;
    let mix = word[0] as usize * 31 + word[last] as usize * 7 + word[last / 2] as usize * 131 + word.len() * 67;
    mix % SLOTS
}

/// What an unquoted name in lower case is.
pub(super) fn keyword(lower: &[u8]) -> Keyword {
    if lower.is_empty() || lower.len() > LONGEST {
        return Keyword::None;
    }
    let mut slot = slot_of(lower);
    loop {
        match WORDS.get(usize::from(TABLE[slot])) {
            None => return Keyword::None,
            Some((word, found)) if word.as_bytes() == lower => return *found,
            Some(_) => slot = (slot + 1) % SLOTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_and_nothing_else() {
        for (word, kind) in WORDS {
            assert_eq!(keyword(word.as_bytes()), *kind, "{word}");
            assert_eq!(keyword(format!("{word}x").as_bytes()), Keyword::None);
        }
        for other in ["", "t", "users", "SELECT", "a_very_long_name_that_is_no_keyword"] {
            assert_eq!(keyword(other.as_bytes()), Keyword::None, "{other}");
        }
        assert!(WORDS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
