//! What a client answers when it is asked who it is.
//!
//! The first byte chooses how it is asked, and whether there is such a user.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::path::Path;

use causeway::auth::client::Authenticator;
use causeway::config::{AuthType, User, read};
use causeway::net::login::LoginIo;

use super::input::Input;
use super::wire::{block_on, frames, pair, written};

const PASSWORD: &str = "secret";
const KINDS: [AuthType; 4] = [AuthType::Trust, AuthType::Password, AuthType::Md5, AuthType::ScramSha256];

thread_local! {
    static AUTHENTICATORS: [Authenticator; 4] = KINDS.map(|kind| Authenticator::new(kind, &users()).unwrap());
}

fn users() -> BTreeMap<String, User> {
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:6432\"\n[clusters.main]\ncontrol = {{ user = \"causeway\" }}\n\
         [[clusters.main.nodes]]\nname = \"a\"\nhost = \"10.0.0.1\"\n[users.app]\npassword = {PASSWORD:?}\n"
    );
    read("c.toml", &text, Path::new("")).unwrap().users
}

pub fn survive(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let kind = usize::from(choice & 3);
    let user = if choice & 4 == 0 { "app" } else { "nobody" };
    let (proved, said) = AUTHENTICATORS.with(|all| answer(&all[kind], user, input.0));
    let tells_the_password = frames(input.0).next().is_some_and(|(message, frame)| {
        (message, &frame[5..]) == (b'p', [PASSWORD.as_bytes(), b"\0"].concat().as_slice())
    });
    let may_enter = match KINDS[kind] {
        AuthType::Trust => user == "app",
        AuthType::Password => user == "app" && tells_the_password,
        // Salts and nonces are not known when the answers are made up.
        AuthType::Md5 | AuthType::ScramSha256 => false,
    };
    assert_eq!(proved, may_enter);
    assert!(said.len() < 1000 && frames(&said).map(|(_, frame)| frame.len()).sum::<usize>() == said.len());
    assert!(frames(&said).all(|(message, _)| message == b'R'));
}

/// Whether the answers prove it, and what we said.
fn answer(authenticator: &Authenticator, user: &str, answers: &[u8]) -> (bool, Vec<u8>) {
    block_on(async {
        let (stream, mut theirs) = pair();
        // What does not fit into the socket is never read: a login is over long before.
        let _ = theirs.write(answers);
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut io = LoginIo::new(stream);
        let proved = authenticator.authenticate(&mut io, user).await;
        drop(io);
        (proved.is_ok(), written(theirs))
    })
}
