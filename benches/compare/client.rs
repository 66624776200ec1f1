//! A client that costs little itself: it derives the keys of a password once, and counts rows without reading them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use causeway::app::demo::Login;
use causeway::wire::frame;
use hmac::{Hmac, KeyInit, Mac};
use postgres_protocol::message::frontend;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Rows and COPY data are read in pieces of this size.
const READ_BYTES: usize = 64 * 1024;

/// What a password becomes by PBKDF2, by salt and iterations ([RFC 5802](https://www.rfc-editor.org/rfc/rfc5802)).
#[derive(Debug, Default)]
pub struct Keys(RefCell<HashMap<(String, u32), [u8; 32]>>);

impl Keys {
    fn salted(&self, password: &str, salt: &str, iterations: u32) -> Result<[u8; 32]> {
        let key = (salt.to_owned(), iterations);
        if let Some(salted) = self.0.borrow().get(&key) {
            return Ok(*salted);
        }
        let mut block = STANDARD.decode(salt)?;
        block.extend([0, 0, 0, 1]);
        let mut turn = mac(password.as_bytes(), &block)?;
        let mut salted = turn;
        for _ in 1..iterations {
            turn = mac(password.as_bytes(), &turn)?;
            salted = xor(salted, turn);
        }
        self.0.borrow_mut().insert(key, salted);
        Ok(salted)
    }

    /// `client-final-message` for what the server has sent first; `bare` is what we had sent.
    fn answer(&self, password: &str, bare: &str, server_first: &str) -> Result<String> {
        let attribute = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (attribute("r="), attribute("s="), attribute("i=")) else {
            return Err("no SCRAM challenge".into());
        };
        let client_key = mac(&self.salted(password, salt, iterations.parse()?)?, b"Client Key")?;
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{bare},{server_first},{without_proof}");
        let proof = xor(client_key, mac(&Sha256::digest(client_key), signed.as_bytes())?);
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }
}

fn mac(key: &[u8], text: &[u8]) -> Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
    mac.update(text);
    Ok(mac.finalize().into_bytes().into())
}

fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// What an answer was made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    pub rows: u64,
    /// Of COPY, without the frames' headers.
    pub copied_bytes: usize,
}

#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    inbox: BytesMut,
}

impl Client {
    /// Logs in to 127.0.0.1, with SCRAM where it is asked for.
    pub async fn login(port: u16, login: &Login, keys: &Keys) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, inbox: BytesMut::new() };
        let mut out = BytesMut::new();
        frontend::startup_message([("user", login.user), ("database", login.database)], &mut out)?;
        client.send(&out).await?;
        let nonce: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        let bare = format!("n=,r={nonce}");
        loop {
            let (tag, mut body) = client.message().await?;
            if tag == b'Z' {
                return Ok(client);
            }
            if tag != b'R' {
                continue;
            }
            let mut out = BytesMut::new();
            match body.try_get_u32()? {
                0 | 12 => continue,
                10 => frontend::sasl_initial_response("SCRAM-SHA-256", format!("n,,{bare}").as_bytes(), &mut out)?,
                11 => {
                    let answer = keys.answer(&login.password, &bare, str::from_utf8(&body)?)?;
                    frontend::sasl_response(answer.as_bytes(), &mut out)?;
                }
                other => return Err(format!("asks for authentication {other}, not SCRAM").into()),
            }
            client.send(&out).await?;
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Runs simple statements to their end.
    pub async fn query(&mut self, sql: &str) -> Result<Answer> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.send(&out).await?;
        self.ready().await
    }

    /// Reads up to `ReadyForQuery`.
    pub async fn ready(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'D' => answer.rows += 1,
                b'd' => answer.copied_bytes += body.len(),
                b'Z' => return Ok(answer),
                _ => {}
            }
        }
    }

    /// Sends `data` in frames of `chunk` bytes, as the answer to a COPY FROM STDIN.
    pub async fn copy_in(&mut self, sql: &str, data: &[u8], chunk: usize) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.send(&out).await?;
        while self.message().await?.0 != b'G' {}
        for frames in data.chunks(chunk * 8) {
            out.clear();
            for part in frames.chunks(chunk) {
                frontend::CopyData::new(part)?.write(&mut out);
            }
            self.send(&out).await?;
        }
        out.clear();
        frontend::copy_done(&mut out);
        self.send(&out).await?;
        self.ready().await.map(drop)
    }

    /// Says goodbye.
    pub async fn close(mut self) -> io::Result<()> {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        self.send(&out).await
    }

    /// The next message; an error message is an error.
    async fn message(&mut self) -> Result<(u8, BytesMut)> {
        loop {
            if let Some(header) = frame::header(&self.inbox)? {
                let length = header.frame_bytes;
                if self.inbox.len() >= length {
                    let mut message = self.inbox.split_to(length);
                    message.advance(frame::HEADER_BYTES);
                    if header.tag == b'E' {
                        return Err(String::from_utf8_lossy(&message).replace('\0', " ").into());
                    }
                    return Ok((header.tag, message));
                }
            }
            self.inbox.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err("closed by the other side".into());
            }
        }
    }
}
