//! Both sides against each other, over real sockets: ours asks as a server would, ours answers as libpq would.

use std::collections::BTreeMap;
use std::sync::Arc;

use postgres_protocol::password;
use proptest::prelude::*;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::client::Authenticator;
use super::server;
use crate::config::{AuthType, Credential, User};
use crate::error::{Error, Fault, Result, Retry};
use crate::net::login::LoginIo;
use crate::net::stream::Stream;
use crate::net::testing::{Certificates, tls_pair, unix_pair};
use crate::types::{Overrides, Secret};
use crate::wire::backend::{Authentication, Severity, put_authentication, put_error};
use crate::wire::frame;

const PASSWORD: &str = "pässword, with = signs";

fn plain() -> Credential {
    Credential::Plain(Secret::new(PASSWORD))
}

fn md5(user: &str) -> Credential {
    Credential::Md5(Secret::new(password::md5(PASSWORD.as_bytes(), user)))
}

fn scram() -> Credential {
    Credential::Scram(Secret::new(password::scram_sha_256(PASSWORD.as_bytes())))
}

fn authenticator(auth_type: AuthType, credential: Credential) -> Result<Authenticator> {
    let user = User {
        credential,
        server_password: None,
        pool_mode: None,
        pool_size: None,
        replication: false,
        max_client_connections: None,
        max_connections: None,
        timeouts: Arc::default(),
        consistency: Overrides::default(),
    };
    Authenticator::new(auth_type, &BTreeMap::from([("app".to_owned(), user)]))
}

/// What both sides say of a login. Ours sends what a session would: `AuthenticationOk`, or the error.
async fn login(
    authenticator: &Authenticator,
    (ours, theirs): (Stream, Stream),
    user: &str,
    password: Option<&str>,
) -> (Result<()>, Result<()>) {
    let mut ours = LoginIo::new(ours);
    let mut theirs = LoginIo::to_node(theirs, "n1");
    let serve = async move {
        let result = authenticator.authenticate(&mut ours, user).await;
        let mut out = Vec::new();
        match &result {
            Ok(()) => put_authentication(&mut out, &Authentication::Ok),
            Err(error) => put_error(&mut out, Severity::Fatal, error),
        }
        ours.write(&out).await.unwrap();
        result
    };
    let password = password.map(Secret::new);
    let client = async move { server::authenticate(&mut theirs, user, password.as_ref()).await };
    tokio::join!(serve, client)
}

#[tokio::test]
async fn the_right_password_logs_in_and_nothing_else_does() {
    use AuthType::{Md5, Password, ScramSha256, Trust};
    let refused = "password authentication failed for user";
    for (auth_type, credential) in [
        (Password, plain()),
        (Password, md5("app")),
        (Password, scram()),
        (Md5, plain()),
        (Md5, md5("app")),
        (Md5, scram()),
        (ScramSha256, plain()),
        (ScramSha256, scram()),
    ] {
        let case = format!("{auth_type:?} {credential:?}");
        let authenticator = authenticator(auth_type, credential).unwrap();
        let (ours, theirs) = login(&authenticator, unix_pair(), "app", Some(PASSWORD)).await;
        assert!(ours.is_ok() && theirs.is_ok(), "{case}: {ours:?} {theirs:?}");
        for (user, password) in [("app", "wrong"), ("app", "PÄSSWORD, with = signs"), ("nobody", PASSWORD)] {
            let (ours, theirs) = login(&authenticator, unix_pair(), user, Some(password)).await;
            let (ours, theirs) = (ours.unwrap_err(), theirs.unwrap_err());
            assert_eq!(ours.message(), format!("{refused} \"{user}\""), "{case}");
            assert_eq!((ours.sqlstate(), ours.fault()), ("28P01", Fault::Client));
            assert_eq!(theirs.message(), format!("node \"n1\": {refused} \"{user}\""), "{case}");
            assert_eq!((theirs.sqlstate(), theirs.fault()), ("28P01", Fault::Node));
        }
    }
    let authenticator = authenticator(Trust, Credential::None).unwrap();
    let (ours, theirs) = login(&authenticator, unix_pair(), "app", None).await;
    assert!(ours.is_ok() && theirs.is_ok());
    let (ours, theirs) = login(&authenticator, unix_pair(), "nobody", None).await;
    assert_eq!(ours.unwrap_err().message(), "role \"nobody\" does not exist");
    assert_eq!(theirs.unwrap_err().sqlstate(), "28000");
}

#[tokio::test]
async fn over_tls_the_login_is_bound_to_the_certificate() {
    let authenticator = authenticator(AuthType::ScramSha256, scram()).unwrap();
    for (algorithm, offer) in [
        (&PKCS_ECDSA_P256_SHA256, &b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..]),
        (&PKCS_ECDSA_P384_SHA384, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        (&PKCS_ED25519, b"SCRAM-SHA-256\0\0"),
    ] {
        let certificates = Certificates::new(algorithm);
        for (password, succeeds) in [(PASSWORD, true), ("wrong", false)] {
            let (ours, theirs) = login(&authenticator, tls_pair(&certificates).await, "app", Some(password)).await;
            assert_eq!((ours.is_ok(), theirs.is_ok()), (succeeds, succeeds), "{algorithm:?} {ours:?} {theirs:?}");
        }
        let (ours, theirs) = tls_pair(&certificates).await;
        let (mut ours, mut theirs) = (LoginIo::new(ours), LoginIo::new(theirs));
        let ((), request) = tokio::join!(
            async {
                let _ = authenticator.authenticate(&mut ours, "app").await;
            },
            async {
                let request = theirs.read_frame(1000).await.unwrap();
                drop(theirs);
                request
            }
        );
        assert_eq!(request.body[4..], *offer, "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_login_that_is_bound_to_another_certificate_fails() {
    // A man in the middle with a certificate of his own passes everything on between two TLS connections.
    let certificates = [Certificates::new(&PKCS_ECDSA_P256_SHA256), Certificates::new(&PKCS_ECDSA_P256_SHA256)];
    let authenticator = authenticator(AuthType::ScramSha256, scram()).unwrap();
    let (to_client, client) = tls_pair(&certificates[0]).await;
    let (ours, to_us) = tls_pair(&certificates[1]).await;
    let (mut ours, mut client) = (LoginIo::new(ours), LoginIo::to_node(client, "n1"));
    let mut middle = [LoginIo::new(to_us), LoginIo::new(to_client)];
    let relay = async {
        for turn in 0.. {
            let [from, to] = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            let Ok(passed) = middle[from].read_frame(10_000).await else { return };
            let mut out = Vec::new();
            frame::put(&mut out, passed.tag, |body| body.extend_from_slice(&passed.body));
            let _ = middle[to].write(&out).await;
        }
    };
    let password = Secret::new(PASSWORD);
    let verdict = tokio::select! {
        verdict = authenticator.authenticate(&mut ours, "app") => verdict,
        result = async {
            let (result, ()) = tokio::join!(server::authenticate(&mut client, "app", Some(&password)), relay);
            result
        } => panic!("the client was not told: {result:?}"),
    };
    assert_eq!(verdict.unwrap_err().message(), "malformed SCRAM message");
}

#[test]
fn credentials_that_cannot_serve_are_refused_at_once() {
    let secret = |text: &str| Secret::new(text);
    for (auth_type, credential) in [
        (AuthType::Password, Credential::None),
        (AuthType::ScramSha256, Credential::None),
        (AuthType::ScramSha256, md5("app")),
        (AuthType::Md5, Credential::Md5(secret("md5"))),
        (AuthType::Md5, Credential::Md5(secret("md5D41D8CD98F00B204E9800998ECF8427E"))),
        (AuthType::Md5, Credential::Scram(secret("SCRAM-SHA-256$4096:AA=="))),
        (AuthType::Password, Credential::Scram(secret("hunter2"))),
    ] {
        let error = authenticator(auth_type, credential).unwrap_err();
        assert!(error.message().starts_with("the password of user \"app\" "), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

/// The shape of what we say to `user`: tags and bodies, with random parts blanked.
async fn first_questions(authenticator: &Authenticator, user: &str) -> Vec<String> {
    let (ours, theirs) = unix_pair();
    let (mut ours, mut theirs) = (LoginIo::new(ours), LoginIo::new(theirs));
    let talk = async {
        let mut heard = Vec::new();
        let question = theirs.read_frame(1000).await.unwrap();
        heard.push(format!("{:?}", &question.body[..4]));
        let first = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
        let mut out = Vec::new();
        frame::put(&mut out, b'p', |body| body.extend_from_slice(first));
        theirs.write(&out).await.unwrap();
        if let Ok(challenge) = theirs.read_frame(1000).await {
            let text = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
            let fields: Vec<_> = text.split(',').map(str::to_owned).collect();
            heard.push(format!("{} {}", fields[0].len(), fields[1..].join(",")));
        }
        drop(theirs);
        heard
    };
    let ask = async {
        let _ = authenticator.authenticate(&mut ours, user).await;
        drop(ours);
    };
    tokio::join!(ask, talk).1
}

#[tokio::test]
async fn unknown_names_look_like_known_ones() {
    let few =
        Credential::Scram(Secret::new(password::scram_sha_256(PASSWORD.as_bytes()).replacen("$4096:", "$5000:", 1)));
    for (auth_type, credential) in [
        (AuthType::Md5, plain()),
        (AuthType::Md5, scram()),
        (AuthType::Password, plain()),
        (AuthType::ScramSha256, plain()),
        (AuthType::ScramSha256, few),
    ] {
        let authenticator = authenticator(auth_type, credential).unwrap();
        let known = first_questions(&authenticator, "app").await;
        let unknown = first_questions(&authenticator, "nobody").await;
        assert_eq!(unknown, first_questions(&authenticator, "nobody").await, "the same every time");
        if let [_, challenge] = &unknown[..] {
            assert_ne!(challenge, &first_questions(&authenticator, "somebody").await[1], "a salt of its own");
        }
        let without_salt = |questions: &[String]| -> Vec<_> {
            questions.iter().map(|text| (text.len(), text.rsplit(',').next().map(str::to_owned))).collect()
        };
        assert_eq!(without_salt(&known), without_salt(&unknown), "{auth_type:?}");
    }
}

/// What a client that answers so gets to hear.
async fn answered(auth_type: AuthType, answer: &[u8]) -> Error {
    let authenticator = authenticator(auth_type, plain()).unwrap();
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(answer).await.unwrap();
    theirs.shutdown().await;
    authenticator.authenticate(&mut LoginIo::new(ours), "app").await.unwrap_err()
}

#[tokio::test]
async fn hostile_answers_of_clients_are_refused() {
    use AuthType::{Md5, Password, ScramSha256};
    let invalid = "client selected an invalid SASL authentication mechanism";
    let closed = "the client closed the connection during login";
    let size = "invalid password packet size";
    let scram = "malformed SCRAM message";
    let p = |body: &[u8]| {
        let mut out = Vec::new();
        frame::put(&mut out, b'p', |frame| frame.extend_from_slice(body));
        out
    };
    let first = p(b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc");
    for (auth_type, answer, message) in [
        (Password, Vec::new(), closed),
        (Password, b"p\0\0\0\x20half a message".to_vec(), closed),
        (Password, b"p\0\0\0\x03".to_vec(), "message 'p' has the impossible length 3"),
        (Password, b"p\x40\0\0\0".to_vec(), "message 'p' of 1073741825 bytes is too long here: at most 10000"),
        (Password, b"Q\0\0\0\x06;\0".to_vec(), "expected password response, got message type 'Q'"),
        (Password, p(b""), size),
        (Password, p(b"x"), size),
        (Password, p(b"x\0y"), size),
        (Password, p(b"x\0\0"), size),
        (Password, p(b"\0"), "empty password returned by client"),
        (Password, p(b"\xff\xfe\0"), "password authentication failed for user \"app\""),
        (Md5, p(b"\0"), "empty password returned by client"),
        (Md5, p(b"md5\0"), "password authentication failed for user \"app\""),
        (ScramSha256, p(b""), scram),
        (ScramSha256, p(b"\0"), scram),
        (ScramSha256, p(b"\0\0\0"), scram),
        (ScramSha256, p(b"\0\0\0\0\0"), invalid),
        (ScramSha256, p(b"X\0\0\0\0\0"), invalid),
        (ScramSha256, p(b"SCRAM-SHA-256-PLUS\0\0\0\0\0"), invalid),
        (ScramSha256, p(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), scram),
        (ScramSha256, p(b"SCRAM-SHA-256\0\0\0\0\0"), scram),
        (ScramSha256, p(b"SCRAM-SHA-256\0\0\0\0\x01n"), scram),
        (ScramSha256, p(b"SCRAM-SHA-256\0\0\0\0\x20p=tls-server-end-point,,n=,r=abc"), scram),
        (ScramSha256, first.clone(), closed),
        (ScramSha256, [first.clone(), p(b"")].concat(), scram),
        (ScramSha256, [first.clone(), p(b"c=biws,r=abc,p=AAAA")].concat(), scram),
        (ScramSha256, [first, p(b"\xff\xff")].concat(), scram),
        (ScramSha256, b"S\0\0\0\x04".to_vec(), "expected SASL response, got message type 'S'"),
    ] {
        let error = answered(auth_type, &answer).await;
        assert_eq!(error.message(), message, "{auth_type:?} {:?}", String::from_utf8_lossy(&answer));
        assert_eq!(error.fault(), Fault::Client);
    }
}

/// What we say of a node that says this after the start-up message.
async fn asked(said: Vec<Vec<u8>>) -> Result<()> {
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(&said.concat()).await.unwrap();
    theirs.shutdown().await;
    let mut io = LoginIo::to_node(ours, "n1");
    server::authenticate(&mut io, "app", Some(&Secret::new("secret"))).await
}

fn request(message: &Authentication<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_authentication(&mut out, message);
    out
}

#[tokio::test]
async fn what_nodes_say_ends_in_a_login_or_an_error_that_names_them() {
    use Authentication::{CleartextPassword, Md5Password, Ok, Other, Sasl, SaslContinue, SaslFinal};
    let ok = || request(&Ok);
    let scram = || request(&Sasl(vec!["SCRAM-SHA-256"]));
    let mut notice = Vec::new();
    frame::put(&mut notice, b'N', |body| body.extend_from_slice(b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"));
    let broke = "node \"n1\" broke the protocol: ";
    for (said, message) in [
        (vec![ok()], None),
        (vec![notice, ok()], None),
        (vec![request(&CleartextPassword), ok()], None),
        (vec![request(&Md5Password { salt: [0; 4] }), ok()], None),
        (vec![], Some("node \"n1\" closed the connection during login".to_owned())),
        (vec![request(&CleartextPassword)], Some("node \"n1\" closed the connection during login".to_owned())),
        (
            vec![request(&CleartextPassword), request(&CleartextPassword)],
            Some(format!("{broke}it answered a password with another request, CleartextPassword")),
        ),
        (
            vec![request(&Other(7))],
            Some("node \"n1\" asks for authentication by GSSAPI, which is not supported".to_owned()),
        ),
        (
            vec![request(&Sasl(vec!["OAUTHBEARER"]))],
            Some(
                r#"node "n1" asks for authentication by SASL with ["OAUTHBEARER"], which is not supported"#.to_owned(),
            ),
        ),
        (vec![scram(), ok()], Some(format!("{broke}it left the SCRAM exchange"))),
        (vec![scram(), request(&SaslFinal(b"v="))], Some(format!("{broke}it left the SCRAM exchange"))),
        (vec![scram(), request(&SaslContinue(b"r=x,s=AA==,i=1"))], Some(format!("{broke}SCRAM: invalid nonce"))),
        (vec![b"R\0\0\0\x04".to_vec()], Some(format!("{broke}malformed authentication request"))),
        (vec![b"Z\0\0\0\x05I".to_vec()], Some(format!("{broke}message type 'Z' instead of authentication"))),
        (vec![b"R\0\0\0\x02".to_vec()], Some(format!("{broke}message 'R' has the impossible length 2"))),
        (
            vec![b"E\x7f\xff\xff\xff".to_vec()],
            Some(format!("{broke}message 'E' of 2147483648 bytes is too long here: at most 65536")),
        ),
    ] {
        let result = asked(said).await;
        assert_eq!(result.as_ref().err().map(Error::message), message.as_deref());
        assert!(result.is_ok() || result.unwrap_err().fault() == Fault::Node);
    }
}

#[tokio::test]
async fn a_node_must_prove_that_it_knows_the_password_too() {
    let authenticator = authenticator(AuthType::ScramSha256, scram()).unwrap();
    for (forged, message) in [
        (None, "it skipped its own proof in the SCRAM exchange"),
        (Some(&b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="[..]), "SCRAM: SCRAM verification error"),
    ] {
        let (ours, to_us) = unix_pair();
        let (to_client, client) = unix_pair();
        let (mut ours, mut client) = (LoginIo::new(ours), LoginIo::to_node(client, "n1"));
        let [mut to_us, mut to_client] = [to_us, to_client].map(LoginIo::new);
        // Borrows the real questions, and then gives another end than the real one.
        let forge = async {
            for _ in 0..2 {
                let question = to_us.read_frame(1000).await.unwrap();
                let mut out = Vec::new();
                frame::put(&mut out, question.tag, |body| body.extend_from_slice(&question.body));
                to_client.write(&out).await.unwrap();
                let answer = to_client.read_frame(1000).await.unwrap();
                let mut out = Vec::new();
                frame::put(&mut out, answer.tag, |body| body.extend_from_slice(&answer.body));
                to_us.write(&out).await.unwrap();
            }
            let end = forged.map_or(Authentication::Ok, Authentication::SaslFinal);
            to_client.write(&request(&end)).await.unwrap();
        };
        let password = Secret::new(PASSWORD);
        let (real, fooled, ()) = tokio::join!(
            authenticator.authenticate(&mut ours, "app"),
            server::authenticate(&mut client, "app", Some(&password)),
            forge
        );
        real.unwrap();
        assert_eq!(fooled.unwrap_err().message(), format!("node \"n1\" broke the protocol: {message}"));
    }
}

#[test]
fn refusals_keep_the_nodes_words() {
    let missing = server::refusal("n1", b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"d\" does not exist\0\0");
    assert_eq!((missing.fault(), missing.message()), (Fault::Client, "database \"d\" does not exist"));
    let error = server::refusal("n1", b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0Hwait\0\0");
    assert_eq!(error.message(), "node \"n1\": sorry, too many clients already");
    assert_eq!((error.sqlstate(), error.hint_text()), ("53300", Some("wait")));
    assert_eq!((error.fault(), error.retry()), (Fault::Node, Retry::Elsewhere));
}

#[tokio::test]
async fn a_missing_password_names_the_setting() {
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(&request(&Authentication::CleartextPassword)).await.unwrap();
    let error = server::authenticate(&mut LoginIo::to_node(ours, "n1"), "app", None).await.unwrap_err();
    assert_eq!(error.message(), "node \"n1\" asks for the password of user \"app\", and none is configured");
    assert!(error.hint_text().unwrap().contains("server_password"));
}

/// Messages that look a little like an exchange, in any order.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "SCRAM-SHA-256\0\0\0\0[ -~]{0,40}".prop_map(String::into_bytes),
        "(n|y|p=tls-server-end-point),,n=,r=[a-z]{0,4}(,p=[A-Za-z=]{0,44})?".prop_map(String::into_bytes),
        "\0\0\0[\x03\x05\x0a\x0b\x0c](SCRAM-SHA-256\0\0|r=x,s=AA==,i=[0-9]{1,12}|v=)?".prop_map(String::into_bytes),
    ];
    let one = (prop::sample::select(b"pRENQ\0".as_slice()), body).prop_map(|(tag, body)| {
        let mut out = Vec::new();
        frame::put(&mut out, tag, |frame| frame.extend_from_slice(&body));
        out
    });
    prop::collection::vec(one, 0..4).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn noise_ends_every_login_without_panic(noise in noise(), cut in 0..400usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let noise = &noise[..noise.len().saturating_sub(cut / 20)];
        let stored = || Credential::Scram(Secret::new("SCRAM-SHA-256$1:AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        runtime.block_on(async {
            for auth_type in [AuthType::Password, AuthType::ScramSha256] {
                let authenticator = authenticator(auth_type, stored()).unwrap();
                let (ours, mut theirs) = unix_pair();
                theirs.write_all(noise).await.unwrap();
                theirs.shutdown().await;
                prop_assert!(authenticator.authenticate(&mut LoginIo::new(ours), "app").await.is_err());
            }
            let (ours, mut theirs) = unix_pair();
            theirs.write_all(noise).await.unwrap();
            theirs.shutdown().await;
            // A node may let us in without asking.
            let _ = server::authenticate(&mut LoginIo::to_node(ours, "n1"), "app", Some(&Secret::new("x"))).await;
            Ok(())
        })?;
    }
}
