//! The admin console: what operators see in the database `causeway`, and say there.
//!
//! It speaks the simple Query protocol only, as PgBouncer's does, with the names of PgBouncer's commands and columns.

mod command;
mod pause;
mod show;
mod switchover;
mod table;

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::login::{Frame, LoginIo};
use crate::session::cancel::Registration;
use crate::session::worker::Shared;
use crate::session::{Rights, Visitor};
use crate::wire::backend::{Severity, TransactionStatus, put_command_complete, put_error, put_notice, put_ready};
use crate::wire::frame::put;
use crate::wire::frontend::{query, tag};
use table::Table;

/// No command needs more.
const MAX_MESSAGE_BYTES: usize = 10_000;

/// What a command says while it runs. Nobody may be listening any more.
type Notices = UnboundedSender<String>;

/// What a command has done.
#[derive(Debug)]
struct Answer {
    rows: Option<Table>,
    tag: &'static str,
}

/// The client is gone.
struct Gone;

struct Console {
    shared: Arc<Shared>,
    io: LoginIo,
    rights: Rights,
    registration: Registration,
    /// It came while a command ran.
    next: Option<Frame>,
    /// After an error, the extended protocol goes on at a Sync.
    skips_to_sync: bool,
}

/// Serves one client until it leaves. A command that it leaves behind ends there, and undoes what it has not completed.
pub async fn serve(visitor: Visitor) {
    let Visitor { shared, io, rights, registration, counted } = visitor;
    let mut console = Console { shared, io, rights, registration, next: None, skips_to_sync: false };
    while let Ok(()) = console.step().await {}
    let (mut stream, _) = console.io.into_parts();
    stream.shutdown().await;
    drop(counted);
}

impl Console {
    async fn step(&mut self) -> Result<(), Gone> {
        let frame = match self.next.take() {
            Some(frame) => frame,
            None => self.io.read_frame(MAX_MESSAGE_BYTES).await.map_err(|_| Gone)?,
        };
        let mut out = Vec::new();
        match frame.tag {
            tag::QUERY => {
                self.skips_to_sync = false;
                match query(&frame.body).map(String::from_utf8_lossy) {
                    Ok(text) => self.answer(&text, &mut out).await?,
                    Err(error) => put_error(&mut out, Severity::Error, &error),
                }
                put_ready(&mut out, TransactionStatus::Idle);
            }
            tag::SYNC => {
                self.skips_to_sync = false;
                put_ready(&mut out, TransactionStatus::Idle);
            }
            tag::FLUSH => {}
            tag::TERMINATE => return Err(Gone),
            _ if self.skips_to_sync => {}
            _ => {
                self.skips_to_sync = true;
                let message = "the admin console takes simple queries only, no prepared statements";
                let error = Error::new(Fault::Client, sqlstate::FEATURE_NOT_SUPPORTED, message)
                    .hint("psql does; some drivers have a mode for it (preferQueryMode=simple, simple_query()).");
                put_error(&mut out, Severity::Error, &error);
            }
        }
        self.tell(&out).await
    }

    async fn tell(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.io.write(bytes).await.map_err(|_| Gone)
    }

    /// Runs one command. What it says on the way is sent at once, its answer goes to `out`.
    async fn answer(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Gone> {
        let words = match command::words(text) {
            Ok(words) if words.is_empty() => {
                put(out, b'I', |_| {});
                return Ok(());
            }
            words => words,
        };
        let (notices, mut said) = unbounded_channel();
        let slot = Arc::clone(&self.registration.slot);
        let who = slot.who.user.clone();
        let mut work = pin!(async { command::run(&self.shared, self.rights, &who, &words?, &notices).await });
        slot.waits();
        let outcome = loop {
            tokio::select! {
                biased;
                Some(text) = said.recv() => {
                    let mut notice = Vec::new();
                    put_notice(&mut notice, &text);
                    self.io.write(&notice).await.map_err(|_| Gone)?;
                }
                outcome = &mut work => break outcome,
                error = slot.cancelled_while_waiting() => break Err(error),
                frame = self.io.read_frame(MAX_MESSAGE_BYTES), if self.next.is_none() => {
                    let frame = frame.map_err(|_| Gone)?;
                    if frame.tag == tag::TERMINATE {
                        return Err(Gone);
                    }
                    self.next = Some(frame);
                }
            }
        };
        slot.is_done();
        while let Ok(text) = said.try_recv() {
            put_notice(out, &text);
        }
        match outcome {
            Ok(answer) => answer.put(out),
            Err(error) => {
                tracing::info!(user = who, command = text, %error, "a command of the admin console failed");
                put_error(out, Severity::Error, &error);
            }
        }
        Ok(())
    }
}

impl Answer {
    fn done(tag: &'static str) -> Self {
        Self { rows: None, tag }
    }

    fn put(&self, out: &mut Vec<u8>) {
        if let Some(rows) = &self.rows {
            rows.put(out);
        }
        put_command_complete(out, self.tag);
    }
}
