//! A node: it listens on a Unix socket, and answers by the rules of the protocol, however its bytes come and go.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use fastrand::Rng;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;

use super::control::Control;
use super::server::Server;
use super::wire::{Broken, Wire};
use crate::wire::backend::{
    Authentication, TransactionStatus, put_authentication, put_backend_key, put_parameter_status, put_ready,
};
use crate::wire::frame::{HEADER_BYTES, header};
use crate::wire::frontend::tag;
use crate::wire::startup::{First, parse};

/// The connections of sessions that a node has.
#[derive(Debug, Default)]
pub(super) struct Connections(Cell<usize>);

impl Connections {
    pub(super) fn open(&self) -> usize {
        self.0.get()
    }
}

/// What becomes of the connections of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// One in so many breaks; 0: none.
    pub(super) breaks_one_in: u8,
}

/// Listens as PostgreSQL would in this directory.
pub(super) fn start(directory: &Path, is_replica: bool, fate: Fate, mut random: Rng) -> Rc<Connections> {
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    let connections = Rc::new(Connections::default());
    let known = Rc::clone(&connections);
    spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let random = random.fork();
            let known = Rc::clone(&known);
            // Whoever is at the other end notices when it breaks.
            spawn_local(async move { drop(serve(socket, is_replica, fate, random, &known).await) });
        }
    });
    connections
}

async fn serve(
    mut socket: UnixStream,
    is_replica: bool,
    fate: Fate,
    mut random: Rng,
    known: &Connections,
) -> Result<(), Broken> {
    let startup = read_startup(&mut socket).await?;
    if let Ok(First::Cancel(_)) = parse(&startup) {
        return Ok(());
    }
    let is_control = startup.windows(8).any(|window| window == b"control\0");
    let breaks = !is_control && fate.breaks_one_in > 0 && random.u8(..fate.breaks_one_in) == 0;
    let cut_after = breaks.then(|| 1 << random.u32(..16)).map(|most: usize| random.usize(..=most));
    let mut wire = Wire::new(socket, random.fork(), cut_after);
    let mut input = Vec::new();
    wire.write(&greeting(is_replica), &mut input).await?;
    if is_control {
        let mut control = Control::new(is_replica);
        return converse(&mut wire, input, |message, body, out| control.answer(message, body, out)).await;
    }
    let mut server = Server::new(is_replica);
    known.0.set(known.0.get() + 1);
    let ended = converse(&mut wire, input, |message, body, out| server.answer(message, body, out)).await;
    known.0.set(known.0.get() - 1);
    ended
}

async fn read_startup(socket: &mut UnixStream) -> Result<Bytes, Broken> {
    use tokio::io::AsyncReadExt as _;
    let length = socket.read_u32().await.map_err(|_| Broken)?;
    let mut packet = vec![0; (length as usize).saturating_sub(4)];
    socket.read_exact(&mut packet).await.map_err(|_| Broken)?;
    Ok(packet.into())
}

fn greeting(is_replica: bool) -> Vec<u8> {
    let mut out = Vec::new();
    put_authentication(&mut out, &Authentication::Ok);
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("server_version", "15.0"),
        ("in_hot_standby", if is_replica { "on" } else { "off" }),
    ] {
        put_parameter_status(&mut out, name.as_bytes(), value.as_bytes());
    }
    put_backend_key(&mut out, 1, &[0; 4]);
    put_ready(&mut out, TransactionStatus::Idle);
    out
}

/// Answers message after message.
async fn converse(
    wire: &mut Wire,
    mut input: Vec<u8>,
    mut answer: impl FnMut(u8, &[u8], &mut Vec<u8>),
) -> Result<(), Broken> {
    let mut out = Vec::new();
    loop {
        while let Some(header) = header(&input).unwrap().filter(|header| header.frame_bytes <= input.len()) {
            let frame: Vec<u8> = input.drain(..header.frame_bytes).collect();
            if header.tag == tag::TERMINATE {
                return Ok(());
            }
            answer(header.tag, &frame[HEADER_BYTES..], &mut out);
        }
        if out.is_empty() {
            wire.read(&mut input).await?;
        } else {
            wire.write(&std::mem::take(&mut out), &mut input).await?;
        }
    }
}
