//! A table of verdicts by schema and name.

use hashbrown::HashMap;

use super::Verdict;

/// Answers for a bare name with the worst over all schemas.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    schemas: Vec<Box<[u8]>>,
    names: HashMap<Box<[u8]>, Named, foldhash::fast::FixedState>,
}

#[derive(Debug)]
struct Named {
    worst: Verdict,
    /// By index into `schemas`.
    by_schema: Vec<(u32, Verdict)>,
}

impl NameTable {
    pub(super) fn insert(&mut self, schema: &str, name: &str, verdict: Verdict) {
        let schema = self.schema_index(schema.as_bytes());
        let named = self
            .names
            .entry(name.as_bytes().into())
            .or_insert_with(|| Named { worst: verdict, by_schema: Vec::with_capacity(1) });
        named.worst = named.worst.max(verdict);
        match named.by_schema.iter_mut().find(|(s, _)| *s == schema) {
            Some((_, known)) => *known = (*known).max(verdict),
            None => named.by_schema.push((schema, verdict)),
        }
    }

    pub(super) fn get(&self, schema: Option<&[u8]>, name: &[u8]) -> Option<Verdict> {
        let named = self.names.get(name)?;
        let Some(schema) = schema else {
            return Some(named.worst);
        };
        let of_schema = |s: u32| self.schemas.get(s as usize).is_some_and(|known| **known == *schema);
        named.by_schema.iter().find(|(s, _)| of_schema(*s)).map(|(_, verdict)| *verdict)
    }

    fn schema_index(&mut self, schema: &[u8]) -> u32 {
        let index = self.schemas.iter().position(|s| **s == *schema).unwrap_or_else(|| {
            self.schemas.push(schema.into());
            self.schemas.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}
