//! A server: one connection of ours to a node. Its state is what the session that leases it next must know or change.

pub mod cancel;
pub mod connect;
pub mod params;
pub mod prepared;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use self::cancel::CancelTarget;
use self::params::{Params, Reported};
use self::prepared::Prepared;
use crate::error::{Error, Fault, Result};
use crate::net::fence::Admission;
use crate::net::stream::Stream;
use crate::types::NodeId;
use crate::wire::backend::{TransactionStatus, error_fields, parameter_status, ready_status};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::{TERMINATE, put_query};

/// A logged-in connection to a node.
#[derive(Debug)]
pub struct Server {
    pub stream: Stream,
    _admission: Admission,
    /// Bytes that have come and are not consumed; empty while it is idle.
    pub input: BytesMut,
    pub node: NodeId,
    pub status: TransactionStatus,
    pub reported: Reported,
    pub prepared: Prepared,
    /// It holds state that the next client must not see: it must be cleaned before it is lent again.
    pub tainted: bool,
    /// The session for which `currval` and `lastval` answer here; 0: nobody's.
    pub sequences_of: u64,
    /// The parameters that it was brought to.
    applied: Arc<Params>,
    cancel: Arc<CancelTarget>,
    connected_at: Instant,
}

/// Longest wait for the answer to a clean-up.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    pub fn cancel_target(&self) -> &Arc<CancelTarget> {
        &self.cancel
    }

    pub fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// Writes what brings it to the session's parameters: so many Queries, whose answers the client must not see.
    pub fn put_sync(&mut self, wanted: &Arc<Params>, out: &mut Vec<u8>) -> usize {
        if Arc::ptr_eq(&self.applied, wanted) {
            return 0;
        }
        let queries = if self.applied == *wanted { 0 } else { self.applied.put_change(wanted, out) };
        self.applied = Arc::clone(wanted);
        queries
    }

    /// It has other parameters than the session wants.
    pub fn needs_sync(&self, wanted: &Arc<Params>) -> bool {
        !Arc::ptr_eq(&self.applied, wanted) && self.applied != *wanted
    }

    /// The parameters that it was brought to, or that it said it has.
    pub fn applied(&self) -> &Arc<Params> {
        &self.applied
    }

    /// The client has changed its parameters.
    pub fn has_parameters(&mut self, params: Arc<Params>) {
        self.applied = params;
    }

    /// Ends a transaction that its client has left, and discards all session state.
    ///
    /// # Errors
    /// Anything but a clean server: it must be closed.
    pub async fn clean(&mut self) -> Result<()> {
        let mut statements = Vec::new();
        let in_transaction = self.status != TransactionStatus::Idle;
        if in_transaction {
            put_query(&mut statements, b"ROLLBACK");
        }
        put_query(&mut statements, b"DISCARD ALL");
        let target = Arc::clone(&self.cancel);
        let cleaning = self.ask(&statements, 1 + usize::from(in_transaction));
        let limited = target.timers().timeout(CLEAN_TIMEOUT, cleaning);
        limited.await.map_err(|_| Error::node("a server did not answer DISCARD ALL in time"))??;
        self.prepared.clear();
        self.applied = Arc::default();
        self.tainted = false;
        self.sequences_of = 0;
        Ok(())
    }

    /// Brings it to `wanted` and waits until it is.
    ///
    /// # Errors
    /// What the server says of a value that it does not take, in its own words; the server must be closed then.
    pub async fn sync(&mut self, wanted: &Arc<Params>) -> Result<()> {
        let mut change = Vec::new();
        match self.put_sync(wanted, &mut change) {
            0 => Ok(()),
            queries => self.ask(&change, queries).await,
        }
    }

    /// Sends Queries of ours and reads up to the last answer, keeping only what it says of the server.
    async fn ask(&mut self, queries: &[u8], mut answers: usize) -> Result<()> {
        self.stream.write_all(queries).await.map_err(lost)?;
        let mut failure = None;
        while answers > 0 {
            let frame = self.read_frame().await?;
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            match frame.first() {
                Some(b'Z') => {
                    self.status = ready_status(body).ok_or_else(|| Error::node("a server sent a bad ReadyForQuery"))?;
                    answers -= 1;
                }
                Some(b'E') => {
                    let fields = error_fields(body);
                    let message = String::from_utf8_lossy(fields.message).into_owned();
                    let sqlstate = String::from_utf8_lossy(&fields.sqlstate).into_owned();
                    failure.get_or_insert(Error::new(Fault::Client, sqlstate, message));
                }
                Some(b'S') => {
                    if let Some((name, value)) = parameter_status(body) {
                        self.reported.set(name, value);
                    }
                }
                _ => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn read_frame(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(header) = header(&self.input)?.filter(|header| header.frame_bytes <= self.input.len()) {
                return Ok(self.input.split_to(header.frame_bytes));
            }
            self.input.reserve(4096);
            let Self { stream, input, .. } = self;
            match poll_fn(|cx| stream.poll_read(cx, input)).await {
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// Says good-bye, so that the node need not log a lost connection.
    pub async fn say_goodbye(&mut self) {
        let target = Arc::clone(&self.cancel);
        let farewell = async {
            let _ = self.stream.write_all(TERMINATE).await;
            self.stream.shutdown().await;
        };
        let _ = target.timers().timeout(CLEAN_TIMEOUT, farewell).await;
    }

    /// Registers its socket with the current thread's reactor.
    ///
    /// # Errors
    /// The kernel refused; the server is closed.
    pub fn rehome(self) -> io::Result<Self> {
        let stream = self.stream.detach()?.attach()?;
        Ok(Self { stream, ..self })
    }
}

fn lost(error: io::Error) -> Error {
    Error::node("a server closed the connection").source(error).retry_elsewhere()
}
