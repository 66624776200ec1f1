//! The framed connection of start-up and login, where every message is small and speed does not matter.

use std::future::poll_fn;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};

use super::stream::Stream;
use super::tls::{Acceptor, Opening};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::startup::MAX_PACKET_BYTES;

const READ_BYTES: usize = 4096;

/// One message of a peer, tagged and whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Bytes,
}

/// A stream with a small buffer in front. Its errors blame the client, or the node that it is named after.
#[derive(Debug)]
pub struct LoginIo {
    stream: Stream,
    inbound: BytesMut,
    node: Option<String>,
}

impl LoginIo {
    /// For a client.
    pub fn new(stream: Stream) -> Self {
        Self { stream, inbound: BytesMut::new(), node: None }
    }

    /// For a node; errors name it.
    pub fn to_node(stream: Stream, node: impl Into<String>) -> Self {
        Self { stream, inbound: BytesMut::new(), node: Some(node.into()) }
    }

    /// The node at the other end, if it is one.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads one message of at most `max_bytes` with its header. Cancel safe.
    ///
    /// # Errors
    /// When the peer closes or breaks the protocol, or the message is longer; at most that much is ever held.
    pub async fn read_frame(&mut self, max_bytes: usize) -> Result<Frame> {
        loop {
            if let Some(header) = frame::header(&self.inbound).map_err(|error| self.blame(error))? {
                if header.frame_bytes > max_bytes {
                    return Err(self.protocol(format!(
                        "message {:?} of {} bytes is too long here: at most {max_bytes}",
                        char::from(header.tag),
                        header.frame_bytes
                    )));
                }
                if self.inbound.len() >= header.frame_bytes {
                    let mut body = self.inbound.split_to(header.frame_bytes).freeze();
                    body.advance(HEADER_BYTES);
                    return Ok(Frame { tag: header.tag, body });
                }
            }
            if self.read_more().await? == 0 {
                return Err(self.closed());
            }
        }
    }

    /// Reads the packet that opens a connection, without its length field; `None` when the client closes before it
    /// says anything, as port scanners and health checks do. Cancel safe.
    ///
    /// # Errors
    /// As PostgreSQL: for a length under 8 or over 10,000 bytes, and for an incomplete packet.
    pub async fn read_startup(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(length) = self.inbound.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if !(8..=MAX_PACKET_BYTES).contains(&length) {
                    return Err(self.protocol("invalid length of startup packet".to_owned()));
                }
                if self.inbound.len() >= length {
                    let mut packet = self.inbound.split_to(length).freeze();
                    packet.advance(4);
                    return Ok(Some(packet));
                }
            }
            if self.read_more().await? == 0 {
                let nothing = self.inbound.is_empty();
                return if nothing { Ok(None) } else { Err(self.protocol("incomplete startup packet".to_owned())) };
            }
        }
    }

    /// Writes whole messages and flushes them.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.map_err(|error| self.broken(error))
    }

    /// True when the client opens with a TLS handshake instead of asking for one (PostgreSQL 17's
    /// `sslnegotiation=direct`). Waits for its first byte; call it before anything is read.
    pub async fn opens_with_tls(&self) -> Result<bool> {
        self.stream.opens_with_tls().await.map_err(|error| self.broken(error))
    }

    /// Agrees to TLS (`S`, unless the client began without asking) and shakes hands.
    ///
    /// # Errors
    /// When the handshake fails, and when plain bytes came behind the request: they could be somebody else's
    /// (CVE-2021-23214).
    pub async fn accept_tls(mut self, acceptor: &Acceptor, opening: Opening) -> Result<Self> {
        if !self.inbound.is_empty() {
            return Err(Error::protocol("received unencrypted data after SSL request").hint(
                "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
            ));
        }
        if opening == Opening::Request {
            self.write(b"S").await?;
        }
        Ok(Self::new(acceptor.accept(self.stream, opening).await?))
    }

    /// Reads until the peer closes, and throws it away.
    pub async fn read_to_end(&mut self) {
        while matches!(self.read_more().await, Ok(bytes) if bytes > 0) {
            self.inbound.clear();
        }
    }

    /// Gives the stream back, with what has been read of it and not been used.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.inbound)
    }

    async fn read_more(&mut self) -> Result<usize> {
        self.inbound.reserve(READ_BYTES);
        let read = poll_fn(|cx| self.stream.poll_read(cx, &mut self.inbound)).await;
        read.map_err(|error| self.broken(error))
    }

    /// The peer broke the protocol.
    pub fn protocol(&self, message: String) -> Error {
        match &self.node {
            Some(node) => Error::node(format!("node {node:?} broke the protocol: {message}")),
            None => Error::protocol(message),
        }
    }

    fn blame(&self, error: Error) -> Error {
        if self.node.is_some() { self.protocol(error.message().to_owned()) } else { error }
    }

    fn closed(&self) -> Error {
        match &self.node {
            Some(node) => Error::node(format!("node {node:?} closed the connection during login")),
            None => {
                Error::new(Fault::Client, sqlstate::CONNECTION_FAILURE, "the client closed the connection during login")
            }
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        let message = match &self.node {
            Some(node) => {
                return Error::node(format!("lost the connection to node {node:?} during login")).source(error);
            }
            None => "lost the connection to the client during login",
        };
        Error::new(Fault::Client, sqlstate::CONNECTION_FAILURE, message).source(error)
    }
}
