//! EXPLAIN ROUTE. Before anything of its batch is sent, the text is replaced by a SELECT of what there is to say, so
//! that PostgreSQL itself answers: in every protocol and format, and in any state of a transaction.
//!
//! What a prepared EXPLAIN ROUTE says is as of its Parse. Texts that PostgreSQL gets before their batch is complete, as
//! those behind a COPY, are not looked at, and PostgreSQL refuses them.

use std::sync::Arc;
use std::time::Instant;

use super::batch::End;
use super::causality::Causality;
use super::lead::{Task, Tried};
use super::survey::{Classify as _, ExplainRoute, Survey};
use super::{Classify, Ended, Session};
use crate::backend::params::put_literal;
use crate::config::Config;
use crate::error::{Error, Fault, Result, sqlstate};
use crate::route::explain::{Circumstances, Origin, explain};
use crate::route::{NodeSet, Patience, Request, Route, Stay};
use crate::sql::{self, Classified, Property, explained, parameters};
use crate::types::{Consistency, Level, PoolMode, Position};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Parse, put_query, query, tag};

impl Session {
    /// Serves a batch in which there is an EXPLAIN ROUTE.
    pub(super) async fn serve_explained(&mut self, bytes: usize, end: End, survey: Survey) -> Result<(), Ended> {
        match self.explain_routes(bytes, end, &survey).await {
            Ok((bytes, survey)) => self.lead_or_refuse(Task::new(bytes, end, survey)).await,
            Err(error) => self.refuse(bytes, end, &error).await,
        }
    }

    /// Replaces all EXPLAIN ROUTE of a batch by what they say. Gives how long the batch is then, and what it is about.
    ///
    /// # Errors
    /// The batch would be too long; a hint of its own cannot be; the client has cancelled.
    async fn explain_routes(&mut self, bytes: usize, end: End, survey: &Survey) -> Result<(usize, Survey)> {
        self.check_wishes(survey)?;
        let batch = self.client.input[..bytes].to_vec();
        let before = self.causality;
        let rewritten = self.rewrite(&batch).await;
        // To be asked about changes nothing.
        self.causality = before;
        let rewritten = rewritten?;
        let behind = self.client.input.split_off(bytes);
        self.client.input.clear();
        self.client.input.extend_from_slice(&rewritten);
        self.client.input.extend_from_slice(&behind);
        let bytes = rewritten.len();
        let mut answered = self.survey(bytes, end)?;
        if survey.only_explains() && self.held.is_none() {
            answered.explain_route = ExplainRoute::Answered;
            // Also where it is only prepared. So there is an answer even where the statement itself would find nobody.
            answered.own.get_or_insert_default().hints.overrides.level = Some(Level::Eventual);
        }
        Ok((bytes, answered))
    }

    async fn rewrite(&mut self, batch: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(batch.len());
        let mut rest = batch;
        while let Some(header) = header(rest)?.filter(|header| header.frame_bytes <= rest.len()) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            match text(header.tag, &frame[HEADER_BYTES..]) {
                Some((parse, asked)) => {
                    let rows = self.explain_one(asked).await?;
                    put_answer(parse, asked, &rows, self.settings.speaks_utf8(), &mut out);
                    // Many in one batch must not keep other sessions waiting.
                    tokio::task::yield_now().await;
                }
                None => out.extend_from_slice(frame),
            }
            if out.len() > self.bounds.max_batch_bytes {
                let message = "the answers to EXPLAIN ROUTE are longer than limits.max_batch_size";
                return Err(Error::new(Fault::Limit, sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                    .hint("Ask about fewer statements at a time."));
            }
            rest = after;
        }
        out.extend_from_slice(rest);
        Ok(out)
    }

    async fn explain_one(&mut self, asked: &[u8]) -> Result<Vec<Property>> {
        let (classified, survey, mut rows) = self.say_what_it_is(asked)?;
        if classified.refusal().is_some() {
            return Ok(rows);
        }
        let mut quest = self.quest(&survey)?;
        let route = self.route(&survey, Tried::default(), &quest);
        let asks = route == Route::Ask;
        if asks {
            Box::pin(self.pursue(route, &mut quest)).await?;
        }
        let (request, now) = self.request(&survey, Tried::default(), &quest);
        if request.class != classified.class {
            rows.push(Property::new("counts as", format!("{}: {}", request.class.as_str(), self.why_else())));
        }
        if request.stay == Some(Stay::Pinned) {
            let pins: Vec<_> = self.pins.iter().map(super::Pin::as_str).collect();
            rows.push(Property::new("pins", pins.join(", ")));
        }
        let circumstances = Circumstances {
            consistency: quest.consistency,
            origin: self.origin(&classified),
            asked: asks,
            held: self.held.as_ref().map(|held| held.node),
        };
        rows.extend(explain(&request, &circumstances, &self.view(), now));
        Ok(rows)
    }

    /// Without a look at the nodes.
    fn say_what_it_is(&self, asked: &[u8]) -> Result<(Arc<Classified>, Survey, Vec<Property>)> {
        let mut classify = Classify { worker: &self.worker, facts: &self.facts, lexis: self.settings.lexis() };
        let mut alone = Vec::new();
        put_query(&mut alone, asked);
        let survey = Survey::of(&alone, End::Query, &self.statements, &mut classify)?;
        let classified = classify.classify(asked);
        let loaded = self.facts.load();
        let mut rows = sql::explain(asked, &classified, &loaded.facts);
        if loaded.version == 0 {
            rows.push(Property::new("catalog", "not read yet: only what is built in is known"));
        }
        Ok((classified, survey, rows))
    }

    /// Why a statement counts as something else than its text says.
    fn why_else(&self) -> &'static str {
        if self.settings.is_serializable() {
            "all transactions of the session are serializable"
        } else if self.catalog_is_unsure() {
            "the catalog is still to be read after the session's own DDL"
        } else {
            "it is what it executes"
        }
    }

    fn origin(&self, classified: &Classified) -> Origin {
        if classified.hints().overrides.level.is_some() {
            Origin::Hint
        } else if self.settings.own.level_is_set() {
            Origin::Set
        } else {
            Origin::Configured
        }
    }
}

/// What the first statement of a user's new session is routed by. `asked`: what a strong read has asked for.
pub fn first_request(
    classified: &Classified,
    config: &Config,
    user: &str,
    consistency: Consistency,
    asked: Option<Position>,
) -> Request {
    let Consistency { level, max_staleness, causal_wait } = consistency;
    let mode = config.users.get(user).and_then(|user| user.pool_mode).unwrap_or(config.pool.mode);
    let seen = Causality::new(classified.hints().after);
    Request {
        class: classified.class,
        hint: classified.hint,
        begins_read_only: classified.begins.is_some_and(|begin| begin.read_only),
        stay: None,
        split: config.routing.split && mode == PoolMode::Transaction,
        rescued: false,
        fallback: config.routing.fallback,
        last_replica: None,
        avoid: NodeSet::default(),
        level,
        needs: seen.needs(level, max_staleness, Instant::now(), asked),
        patience: Patience { guard: true, wait: causal_wait },
    }
}

/// Of a message whose text is one EXPLAIN ROUTE: the Parse, if it is one, and what is asked about.
fn text(message: u8, body: &[u8]) -> Option<(Option<Parse<'_>>, &[u8])> {
    match message {
        tag::QUERY => Some((None, explained(query(body).ok()?)?)),
        tag::PARSE => {
            let parse = Parse::read(body).ok()?;
            Some((Some(parse), explained(parse.text)?))
        }
        _ => None,
    }
}

/// The message that takes the place of one that asked.
fn put_answer(parse: Option<Parse<'_>>, asked: &[u8], rows: &[Property], utf8: bool, out: &mut Vec<u8>) {
    // Who binds it later will not be asked what it was.
    let mut sql = b"/* causeway: consistency=eventual */ SELECT * FROM (VALUES ".to_vec();
    for (n, row) in rows.iter().enumerate() {
        sql.extend_from_slice(if n == 0 { b"(" } else { b",(" });
        put_text(&mut sql, &row.name, utf8);
        sql.push(b',');
        put_text(&mut sql, &row.value, utf8);
        sql.push(b')');
    }
    sql.extend_from_slice(b") AS route(property, value)");
    let Some(parse) = parse else { return put_query(out, &sql) };
    put_parameters(&mut sql, asked);
    Parse { text: &sql, ..parse }.write(out);
}

/// Clients that bind parameters to what they ask about can do so.
fn put_parameters(sql: &mut Vec<u8>, asked: &[u8]) {
    let all: Vec<_> = parameters(asked).map(|number| format!("${number}::pg_catalog.text")).collect();
    if !all.is_empty() {
        sql.extend_from_slice(format!(" WHERE ARRAY[{}] IS NOT NULL", all.join(",")).as_bytes());
    }
}

fn put_text(sql: &mut Vec<u8>, text: &str, utf8: bool) {
    if utf8 || text.is_ascii() {
        put_literal(sql, text.as_bytes());
    } else {
        let ascii: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        put_literal(sql, ascii.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Class;

    fn answer(message: u8, body: &[u8], rows: &[Property], utf8: bool) -> Vec<u8> {
        let (parse, asked) = text(message, body).unwrap();
        let mut out = Vec::new();
        put_answer(parse, asked, rows, utf8, &mut out);
        assert_eq!(header(&out).unwrap().unwrap().frame_bytes, out.len());
        out[HEADER_BYTES..].to_vec()
    }

    #[test]
    fn only_what_asks_is_replaced() {
        for (message, body) in [
            (tag::QUERY, &b"SELECT 1\0"[..]),
            (tag::QUERY, b"EXPLAIN ROUTE SELECT 1; SELECT 2\0"),
            (tag::QUERY, b"EXPLAIN ROUTE SELECT 1"),
            (tag::PARSE, b"s\0SELECT 1\0\0\0"),
            (tag::PARSE, b"s\0EXPLAIN ROUTE SELECT 1\0\0\x01"),
            (tag::COPY_DATA, b"EXPLAIN ROUTE SELECT 1\0"),
        ] {
            assert_eq!(text(message, body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_rows_stand_in_the_place_of_the_question() {
        let rows = [Property::new("a", "it's \\"), Property::new("b", "\u{e9}")];
        let expected = "/* causeway: consistency=eventual */ SELECT * FROM (VALUES (E'a',E'it''s \\\\'),(E'b',E'\u{e9}')) \
                        AS route(property, value)";
        let query_body = answer(tag::QUERY, b"EXPLAIN ROUTE SELECT $1\0", &rows, true);
        assert_eq!(query(&query_body).unwrap(), expected.as_bytes());
        let body = answer(tag::PARSE, b"s\0EXPLAIN ROUTE SELECT $2, $1, $2\0\0\x01\0\0\0\x17", &rows, false);
        let parse = Parse::read(&body).unwrap();
        assert_eq!((parse.name, parse.types), (&b"s"[..], &b"\0\x01\0\0\0\x17"[..]));
        let expected =
            expected.replace('\u{e9}', "?") + " WHERE ARRAY[$1::pg_catalog.text,$2::pg_catalog.text] IS NOT NULL";
        assert_eq!(parse.text, expected.as_bytes());
    }

    /// What goes to the server is itself routed, as a read that any replica can answer.
    #[test]
    fn the_answer_is_a_read() {
        let facts = sql::CatalogFacts::unloaded();
        let context = sql::Context {
            facts: &facts,
            facts_version: 0,
            standard_conforming_strings: true,
            safe_encoding: true,
            now: Instant::now(),
        };
        let body =
            answer(tag::PARSE, b"\0EXPLAIN ROUTE DELETE FROM t WHERE a = $1\0\0\0", &[Property::new("a", "b")], true);
        let classified = sql::Classifier::new(0).classify(Parse::read(&body).unwrap().text, &context);
        assert_eq!((classified.class, classified.effects), (Class::Read, sql::Effects::NONE), "{}", classified.why);
    }
}
