//! Session parameters that follow the client from server to server.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::frontend::put_query;

/// Parameters that differ from a server's own, by lower-case name; values in no particular encoding. A server's own
/// defaults are the empty set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params(BTreeMap<Box<str>, Box<[u8]>>);

pub const ROLE: &str = "role";
pub const SESSION_AUTHORIZATION: &str = "session_authorization";
const CLIENT_ENCODING: &str = "client_encoding";

/// What PostgreSQL reads while it analyses a statement's text: under other values the same text may be another statement.
const GIVE_MEANING: [&str; 16] = [
    "array_nulls",
    "backslash_quote",
    CLIENT_ENCODING,
    "datestyle",
    "default_text_search_config",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    ROLE,
    "search_path",
    SESSION_AUTHORIZATION,
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// A statement's meaning may depend on it.
pub fn gives_meaning(name: &str) -> bool {
    GIVE_MEANING.binary_search(&name).is_ok()
}

impl Params {
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|value| &**value)
    }

    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.0.insert(name.to_ascii_lowercase().into(), value.into());
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Those that a statement's meaning may depend on.
    pub fn for_meaning(self: &Arc<Self>) -> Arc<Self> {
        if self.0.keys().all(|name| gives_meaning(name)) {
            return Arc::clone(self);
        }
        let meaning = self.0.iter().filter(|(name, _)| gives_meaning(name));
        Arc::new(Self(meaning.map(|(name, value)| (name.clone(), value.clone())).collect()))
    }

    /// These with other parameters that give meaning.
    #[must_use]
    pub fn with_meaning(&self, meaning: &Self) -> Self {
        let rest = self.0.iter().filter(|(name, _)| !gives_meaning(name));
        Self(rest.chain(&meaning.0).map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Queries that turn a server with `self` into one with `wanted`, and how many they are. What is in another
    /// encoding must come after the Query that says so.
    pub fn put_change(&self, wanted: &Self, out: &mut Vec<u8>) -> usize {
        let encoding = wanted.get(CLIENT_ENCODING);
        if encoding == self.get(CLIENT_ENCODING) || wanted.0.values().all(|value| value.is_ascii()) {
            put_query(out, &self.change_sql(wanted));
            return 1;
        }
        let mut first = self.clone();
        match encoding {
            Some(encoding) => first.set(CLIENT_ENCODING, encoding),
            None => first.remove(CLIENT_ENCODING),
        }
        put_query(out, &self.change_sql(&first));
        put_query(out, &first.change_sql(wanted));
        2
    }

    /// The role comes last and goes first: what a session may set is decided by the role that it has then.
    fn change_sql(&self, wanted: &Self) -> Vec<u8> {
        let mut sql = Vec::new();
        let mut has = self.clone();
        for (name, reset) in [(SESSION_AUTHORIZATION, "RESET SESSION AUTHORIZATION;"), (ROLE, "RESET ROLE;")] {
            if has.0.remove(name).is_some() {
                sql.extend_from_slice(reset.as_bytes());
            }
        }
        for name in has.0.keys().filter(|name| !wanted.0.contains_key(*name)) {
            sql.extend_from_slice(format!("RESET \"{}\";", name.replace('"', "\"\"")).as_bytes());
        }
        let is_identity = |name: &str| matches!(name, ROLE | SESSION_AUTHORIZATION);
        for (name, value) in
            wanted.0.iter().filter(|(name, value)| !is_identity(name) && has.0.get(*name) != Some(value))
        {
            put_set(&mut sql, name, value);
        }
        for name in [SESSION_AUTHORIZATION, ROLE] {
            if let Some(value) = wanted.get(name) {
                put_set(&mut sql, name, value);
            }
        }
        sql
    }

    /// `SET` or `SET LOCAL`, which take no snapshot, of all for which `needed` holds.
    pub fn utility_sql(&self, set: &str, needed: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut sql = Vec::new();
        for (name, value) in self.iter().filter(|(name, _)| needed(name)) {
            sql.extend_from_slice(format!("{set} {name} TO ").as_bytes());
            put_literal(&mut sql, value);
            sql.push(b';');
        }
        sql
    }

    /// One Query that sets all of `self` for which `needed` holds.
    pub fn set_sql(&self, needed: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut sql = Vec::new();
        for (name, value) in self.iter().filter(|(name, _)| needed(name)) {
            put_set(&mut sql, name, value);
        }
        sql
    }
}

fn put_set(sql: &mut Vec<u8>, name: &str, value: &[u8]) {
    sql.extend_from_slice(b"SELECT pg_catalog.set_config(");
    put_literal(sql, name.as_bytes());
    sql.push(b',');
    put_literal(sql, value);
    sql.extend_from_slice(b",false);");
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
pub fn put_literal(sql: &mut Vec<u8>, text: &[u8]) {
    sql.extend_from_slice(b"E'");
    for &byte in text {
        if matches!(byte, b'\\' | b'\'') {
            sql.push(byte);
        }
        sql.push(byte);
    }
    sql.push(b'\'');
}

/// What a server reported with ParameterStatus, in the order in which it did; values in no particular encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported(Vec<Parameter>);

/// Name and value.
type Parameter = (Arc<[u8]>, Arc<[u8]>);

impl Reported {
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) if **known == *value => {}
            Some((_, known)) => *known = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_bytes(name.as_bytes())
    }

    pub fn get_bytes(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        for (name, value) in pairs {
            params.set(name, value.as_bytes());
        }
        params
    }

    #[test]
    fn what_gives_meaning_is_found_by_name() {
        assert!(GIVE_MEANING.is_sorted());
        let all = Arc::new(params(&[("application_name", "x"), ("search_path", "a"), ("my.x", "1")]));
        assert_eq!(*all.for_meaning(), params(&[("search_path", "a")]));
        let meaning = all.for_meaning();
        assert!(Arc::ptr_eq(&meaning, &meaning.for_meaning()));
    }

    #[test]
    fn another_encoding_comes_before_what_is_in_it() {
        let wanted = params(&[("client_encoding", "LATIN1"), ("my.x", "\u{e9}")]);
        let mut out = Vec::new();
        assert_eq!(Params::default().put_change(&wanted, &mut out), 2);
        let at = |text: &str| out.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        assert!(at("LATIN1") < at("my.x"));
    }

    #[test]
    fn a_change_resets_what_is_not_wanted_and_sets_what_differs() {
        let cases = [
            (params(&[]), params(&[("TimeZone", "UTC")]), "SELECT pg_catalog.set_config(E'timezone',E'UTC',false);"),
            (params(&[("a", "1"), ("b", "2")]), params(&[("b", "2")]), "RESET \"a\";"),
            (params(&[("my.x", "1")]), params(&[]), "RESET \"my.x\";"),
            (
                params(&[("a", "1")]),
                params(&[("a", r"it's \")]),
                r"SELECT pg_catalog.set_config(E'a',E'it''s \\',false);",
            ),
            (
                params(&[("role", "r"), ("a", "1")]),
                params(&[("role", "r"), ("a", "2")]),
                "RESET ROLE;SELECT pg_catalog.set_config(E'a',E'2',false);SELECT pg_catalog.set_config(E'role',E'r',false);",
            ),
        ];
        for (from, to, sql) in cases {
            assert_eq!(String::from_utf8(from.change_sql(&to)).unwrap(), sql);
        }
    }
}
