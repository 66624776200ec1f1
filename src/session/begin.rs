//! A transaction that has only begun has done nothing yet, so it may begin anew on another server.

use super::survey::{Survey, Work};
use super::{Ended, Session};
use crate::error::Result;
use crate::types::PoolMode;
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{Bind, query, tag};

impl Session {
    /// Remembers a BEGIN for as long as nothing has followed it.
    pub(super) fn note_begin(&mut self, survey: &Survey, batch_bytes: usize) {
        if survey.begins.is_none() {
            if survey.work == Work::Run || self.begun.is_some() && self.status() != TransactionStatus::InTransaction {
                self.begun = None;
            }
            return;
        }
        let begins = self.status() == TransactionStatus::InTransaction
            && self.pins.is_empty()
            && self.mode != PoolMode::Session
            && self.held.as_ref().is_some_and(|held| !held.on_replica);
        self.begun = if begins { self.text_of(batch_bytes).map(Box::from) } else { None };
    }

    /// The text of the one statement that a batch runs, if the batch is still here.
    fn text_of(&self, batch_bytes: usize) -> Option<&[u8]> {
        let batch = self.client.input.get(..batch_bytes)?;
        let mut text = None;
        let mut rest = batch;
        while let Some(header) = header(rest).ok().flatten().filter(|header| header.frame_bytes <= rest.len()) {
            let (frame, after) = rest.split_at(header.frame_bytes);
            rest = after;
            text = match header.tag {
                tag::QUERY => query(&frame[HEADER_BYTES..]).ok(),
                tag::BIND => match Bind::read(&frame[HEADER_BYTES..]).ok()?.statement {
                    b"" => self.statements.unnamed().map(|parse| parse.text),
                    name => self.statements.get(name).map(|statement| statement.text()),
                },
                _ => text,
            };
        }
        text
    }

    /// A server of the primary is leased for a transaction that has done nothing so far.
    pub(super) async fn begin_anew(&mut self) -> Result<Result<()>, Ended> {
        let Some(text) = self.begun.clone() else { return Ok(Ok(())) };
        if let Err(error) = self.bring_up_to_date_if_idle().await? {
            return Ok(Err(error));
        }
        Ok(self.ask(&text, 1).await?.map(drop))
    }
}
