//! Session parameters that follow the client from server to server.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::frontend::put_query;

/// The parameters that a client asked for at login (`options` and names of its start-up message), by lower-case name;
/// values in no particular encoding. A server's own defaults are the empty set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params(BTreeMap<Box<str>, Box<[u8]>>);

impl Params {
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.0.insert(name.to_ascii_lowercase().into(), value.into());
    }

    /// Those that a statement's meaning may depend on: all but the application's name.
    pub fn for_meaning(self: &Arc<Self>) -> Arc<Self> {
        const LABEL: &str = "application_name";
        if !self.0.contains_key(LABEL) {
            return Arc::clone(self);
        }
        let mut rest = Self::clone(self);
        rest.0.remove(LABEL);
        Arc::new(rest)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// One Query that turns a server with `self` into one with `wanted`.
    pub fn put_change(&self, wanted: &Self, out: &mut Vec<u8>) {
        put_query(out, &self.change_sql(wanted));
    }

    fn change_sql(&self, wanted: &Self) -> Vec<u8> {
        let mut sql = Vec::new();
        for name in self.0.keys().filter(|name| !wanted.0.contains_key(*name)) {
            sql.extend_from_slice(format!("RESET \"{}\";", name.replace('"', "\"\"")).as_bytes());
        }
        for (name, value) in wanted.0.iter().filter(|(name, value)| self.0.get(*name) != Some(value)) {
            sql.extend_from_slice(b"SELECT pg_catalog.set_config(");
            put_literal(&mut sql, name.as_bytes());
            sql.push(b',');
            put_literal(&mut sql, value);
            sql.extend_from_slice(b",false);");
        }
        sql
    }
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
fn put_literal(sql: &mut Vec<u8>, text: &[u8]) {
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
        self.0.iter().find(|(known, _)| **known == *name.as_bytes()).map(|(_, value)| &**value)
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
        ];
        for (from, to, sql) in cases {
            assert_eq!(String::from_utf8(from.change_sql(&to)).unwrap(), sql);
        }
    }
}
