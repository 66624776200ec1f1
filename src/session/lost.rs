//! A transaction that is gone with its server, while the client still believes to be in it: answered as PostgreSQL
//! answers in a transaction that has failed, until the client ends it. Never is it continued as something else.

use super::batch::End;
use super::survey::Classify as _;
use super::{Classify, Ended, Session, overflow_refused};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::metrics::Origin;
use crate::pool::Close;
use crate::sql::Sole;
use crate::wire::backend::{
    BIND_COMPLETE, CLOSE_COMPLETE, NO_DATA, NO_PARAMETERS, PARSE_COMPLETE, Severity, put_command_complete, put_error,
    put_ready,
};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Bind, Parse, Target, query, tag};

/// The transaction that the client believes to be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its server has it, or there is none.
    #[default]
    Nothing,
    /// It is lost, and the client has not heard of it.
    Untold,
    Told,
}

/// What answers a message.
enum Answer {
    Nothing,
    Success(&'static [&'static [u8]]),
    /// The transaction ends, as the client asked.
    End,
    Error(Error),
}

pub(super) fn transaction_lost(why: &str) -> Error {
    let message = "the transaction was lost with its server";
    Error::new(Fault::Node, sqlstate::SERIALIZATION_FAILURE, message)
        .detail(why.to_owned())
        .hint("Nothing of it was committed: run it again.")
}

impl Session {
    /// The server that ran the session's transaction is gone, and nobody waits for an answer.
    pub(super) fn lose_transaction(&mut self) {
        self.lost = Lost::Untold;
        self.forget_transaction();
    }

    /// The session's transaction is lost. With it goes one on a node in whose place another one is the primary now.
    ///
    /// # Errors
    /// The session had more than a transaction there.
    pub(super) fn has_lost_its_primary(&mut self) -> Result<bool> {
        let Some(node) = self.held.as_ref().filter(|held| !held.on_replica).map(|held| held.node) else {
            return Ok(self.lost != Lost::Nothing);
        };
        if self.view().primary.is_none_or(|primary| primary == node) {
            return Ok(false);
        }
        if let Some(held) = self.held.take() {
            held.lease.close(Close::Lost);
        }
        let keeps_more = self.has_more_than_a_transaction();
        let outcome = if keeps_more { "session_ended" } else { "transaction_lost" };
        self.worker.shared.metrics.lost_server(&self.cluster.config.name, outcome);
        if keeps_more {
            let message = "terminating connection: another node has become the primary";
            return Err(Error::new(Fault::Node, sqlstate::ADMIN_SHUTDOWN, message)
                .detail("The session had more on the former primary than a transaction."));
        }
        self.lose_transaction();
        Ok(true)
    }

    /// What the session knew of its transaction is as if it had never begun.
    pub(super) fn forget_transaction(&mut self) {
        self.unaudited.clear();
        self.in_transaction = None;
        self.begun = None;
        self.pipeline_open = false;
    }

    /// Answers a batch in a transaction that is lost.
    pub(super) async fn answer_in_lost(&mut self, bytes: usize, end: End) -> Result<(), Ended> {
        if end == End::Overflow {
            return Err(Ended::Farewell(overflow_refused(&self.error_in_lost())));
        }
        let batch = self.client.input.split_to(bytes);
        let mut answers = Vec::new();
        let (mut failed, mut bound) = (false, None);
        let mut rest = &batch[..];
        while let Some(header) = header(rest).ok().flatten().filter(|header| header.frame_bytes <= rest.len()) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            rest = after;
            if failed && header.tag != tag::SYNC {
                continue;
            }
            match self.answer_to(header.tag, &frame[HEADER_BYTES..], &mut bound).map_err(Ended::Farewell)? {
                Answer::Nothing => {}
                Answer::Success(parts) => parts.iter().for_each(|part| answers.extend_from_slice(part)),
                Answer::End => put_command_complete(&mut answers, "ROLLBACK"),
                Answer::Error(error) => {
                    failed = true;
                    self.worker.shared.metrics.error(Origin::Causeway, error.sqlstate());
                    put_error(&mut answers, Severity::Error, &error);
                }
            }
            if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL | tag::SYNC) {
                failed = false;
                put_ready(&mut answers, self.status());
            }
        }
        self.skip_to_sync = failed;
        self.tell(&answers).await
    }

    /// The client hears of the loss once.
    fn error_in_lost(&mut self) -> Error {
        if std::mem::replace(&mut self.lost, Lost::Told) == Lost::Untold {
            return transaction_lost("The server was lost while it waited for the client.");
        }
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        Error::new(Fault::Node, sqlstate::IN_FAILED_TRANSACTION, message)
    }

    /// # Errors
    /// The message is malformed.
    fn answer_to(&mut self, message: u8, body: &[u8], bound: &mut Option<Sole>) -> Result<Answer> {
        Ok(match message {
            tag::QUERY => {
                let end = self.end_in(query(body)?);
                self.end_lost(end)
            }
            tag::PARSE => {
                let parse = Parse::read(body)?;
                if self.end_in(parse.text).is_none() {
                    return Ok(Answer::Error(self.error_in_lost()));
                }
                self.define_in_lost(&parse, body)?;
                Answer::Success(&[PARSE_COMPLETE])
            }
            tag::BIND => {
                *bound = self.end_by(Bind::read(body)?.statement);
                if bound.is_some() { Answer::Success(&[BIND_COMPLETE]) } else { Answer::Error(self.error_in_lost()) }
            }
            tag::DESCRIBE => match Target::read(body)? {
                Target::Statement(name) if self.end_by(name).is_some() => Answer::Success(&[NO_PARAMETERS, NO_DATA]),
                Target::Portal(_) if bound.is_some() => Answer::Success(&[NO_DATA]),
                Target::Statement(_) | Target::Portal(_) => Answer::Error(self.error_in_lost()),
            },
            tag::CLOSE => {
                if let Target::Statement(name) = Target::read(body)? {
                    self.statements.close(name);
                }
                Answer::Success(&[CLOSE_COMPLETE])
            }
            tag::EXECUTE => self.end_lost(bound.take()),
            tag::FUNCTION_CALL => Answer::Error(self.error_in_lost()),
            _ => Answer::Nothing,
        })
    }

    /// The client ends the transaction, or goes on in it. A COMMIT of what it has not been told to be lost is an error.
    fn end_lost(&mut self, end: Option<Sole>) -> Answer {
        match (self.lost, end) {
            (Lost::Nothing, _) | (_, None) => Answer::Error(self.error_in_lost()),
            (Lost::Untold, Some(Sole::Commit)) => {
                let error = self.error_in_lost();
                self.lost = Lost::Nothing;
                Answer::Error(error)
            }
            (Lost::Untold | Lost::Told, Some(_)) => {
                self.lost = Lost::Nothing;
                Answer::End
            }
        }
    }

    /// How a text ends its transaction, if it does nothing else.
    fn end_in(&mut self, text: &[u8]) -> Option<Sole> {
        let mut classify = Classify { worker: &self.worker, facts: &self.facts, lexis: self.settings.lexis() };
        let sole = classify.classify(text).sole;
        sole.filter(|sole| matches!(sole, Sole::Commit | Sole::Rollback))
    }

    /// The same of a prepared statement.
    fn end_by(&mut self, name: &[u8]) -> Option<Sole> {
        let text = if name.is_empty() {
            self.statements.unnamed()?.text.to_vec()
        } else {
            self.statements.get(name)?.text().to_vec()
        };
        self.end_in(&text)
    }

    fn define_in_lost(&mut self, parse: &Parse<'_>, body: &[u8]) -> Result<()> {
        if parse.name.is_empty() {
            self.statements.set_unnamed(body);
            return Ok(());
        }
        let version = self.facts.load().version;
        let statement = self.worker.shared.statements.intern(parse, self.settings.meaning(), version);
        self.statements.define(parse.name, statement).map(drop)
    }
}
