//! Clients prove who they are
//! ([authentication flow](https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP),
//! [SASL](https://www.postgresql.org/docs/current/sasl-authentication.html)).

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use pgwire::api::auth::sasl::scram::{ScramServerAuth, gen_salted_password};
use pgwire::error::PgWireError;
use postgres_protocol::authentication::sasl::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use postgres_protocol::password;
use subtle::ConstantTimeEq as _;

use super::verifier::{DEFAULT_ITERATIONS, KEY_BYTES, SALT_BYTES, Verifier};
use crate::config::{AuthType, Credential, User};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::login::LoginIo;
use crate::types::Secret;
use crate::wire::backend::{Authentication, put_authentication};
use crate::wire::frame;

/// No message of a client may be longer before we know who it is.
const MAX_MESSAGE_BYTES: usize = 10_000;

/// Knows the users, and for unknown names plays the same game to the same end.
#[derive(Debug)]
pub struct Authenticator {
    auth_type: AuthType,
    users: HashMap<String, Method>,
    stranger: Stranger,
}

/// How one user proves it.
#[derive(Debug)]
enum Method {
    Trust,
    Cleartext(Check),
    /// `md5` and 32 hexadecimal digits.
    Md5(Secret),
    Scram(Verifier),
}

/// What a password in clear text is compared with.
#[derive(Debug)]
enum Check {
    Plain(Secret),
    Md5(Secret),
    Scram(Verifier),
}

/// Makes up credentials for unknown names: always the same for a name, and never right. Where users have different
/// kinds, unknown ones look like those with a SCRAM verifier.
#[derive(Debug)]
struct Stranger {
    secret: [u8; KEY_BYTES],
    scram: bool,
    iterations: u32,
}

impl Authenticator {
    /// Derives what logins need from the users' credentials: about a millisecond for a plain password when clients
    /// use SCRAM, once here instead of at every login.
    ///
    /// # Errors
    /// Names the user whose credential can't serve this `auth_type`.
    pub fn new(auth_type: AuthType, users: &BTreeMap<String, User>) -> Result<Self> {
        let users: HashMap<_, _> = users
            .iter()
            .map(|(name, user)| Ok((name.clone(), Method::new(auth_type, name, &user.credential)?)))
            .collect::<Result<_>>()?;
        let verifier = users.values().find_map(|method| match method {
            Method::Scram(verifier) | Method::Cleartext(Check::Scram(verifier)) => Some(verifier),
            _ => None,
        });
        let stranger = Stranger {
            secret: random()?,
            scram: auth_type == AuthType::ScramSha256 || verifier.is_some(),
            iterations: verifier.map_or(DEFAULT_ITERATIONS, |verifier| verifier.iterations),
        };
        Ok(Self { auth_type, users, stranger })
    }

    /// Runs the exchange with a client that says it is `user`. On success nothing has been sent about it: the caller
    /// sends `AuthenticationOk`, best together with what follows it.
    ///
    /// # Errors
    /// 28P01 with PostgreSQL's words for a wrong password and for an unknown name, 08P01 for what is no answer. They
    /// are fatal.
    pub async fn authenticate(&self, io: &mut LoginIo, user: &str) -> Result<()> {
        // Made up for known users too, so that both take the same time.
        let stranger = self.stranger.method(self.auth_type, user);
        let proved = match self.users.get(user).unwrap_or(&stranger) {
            Method::Trust => self.users.contains_key(user),
            Method::Cleartext(check) => cleartext(io, user, check).await?,
            Method::Md5(hash) => md5(io, hash).await?,
            Method::Scram(verifier) => scram(io, verifier).await?,
        };
        if proved {
            return Ok(());
        }
        let (code, message) = match self.auth_type {
            AuthType::Trust => (sqlstate::INVALID_AUTHORIZATION, format!("role \"{user}\" does not exist")),
            _ => (sqlstate::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\"")),
        };
        Err(Error::new(Fault::Client, code, message))
    }
}

impl Method {
    fn new(auth_type: AuthType, name: &str, credential: &Credential) -> Result<Self> {
        let hash = |secret: &Secret| {
            Some(secret.clone())
                .filter(|secret| well_formed_md5(secret.expose()))
                .ok_or_else(|| unusable(name, "is no md5 hash: \"md5\" and 32 hexadecimal digits"))
        };
        let verifier = |secret: &Secret| {
            Verifier::parse(secret.expose())
                .ok_or_else(|| unusable(name, "is no SCRAM verifier as in pg_authid.rolpassword"))
        };
        Ok(match (auth_type, credential) {
            (AuthType::Trust, _) => Self::Trust,
            (_, Credential::None) => return Err(unusable(name, "is missing, and auth_type is not \"trust\"")),
            (AuthType::Password, Credential::Plain(secret)) => Self::Cleartext(Check::Plain(secret.clone())),
            (AuthType::Password, Credential::Md5(secret)) => Self::Cleartext(Check::Md5(hash(secret)?)),
            (AuthType::Password, Credential::Scram(secret)) => Self::Cleartext(Check::Scram(verifier(secret)?)),
            (AuthType::Md5, Credential::Plain(secret)) => {
                Self::Md5(Secret::new(password::md5(secret.expose().as_bytes(), name)))
            }
            (AuthType::Md5, Credential::Md5(secret)) => Self::Md5(hash(secret)?),
            (AuthType::ScramSha256, Credential::Plain(secret)) => {
                let salt = random::<SALT_BYTES>()?.to_vec();
                Self::Scram(Verifier::derive(secret.expose(), salt, DEFAULT_ITERATIONS))
            }
            (AuthType::ScramSha256, Credential::Md5(_)) => {
                return Err(unusable(name, "is an md5 hash, which can't serve auth_type \"scram-sha-256\""));
            }
            (AuthType::Md5 | AuthType::ScramSha256, Credential::Scram(secret)) => Self::Scram(verifier(secret)?),
        })
    }
}

impl Stranger {
    fn method(&self, auth_type: AuthType, name: &str) -> Method {
        let nothing = || Secret::new(BASE64.encode(self.secret));
        match auth_type {
            AuthType::Trust => Method::Trust,
            AuthType::Password if self.scram => Method::Cleartext(Check::Scram(self.verifier(name))),
            AuthType::Password => Method::Cleartext(Check::Plain(nothing())),
            AuthType::Md5 if !self.scram => Method::Md5(nothing()),
            AuthType::Md5 | AuthType::ScramSha256 => Method::Scram(self.verifier(name)),
        }
    }

    /// Its salt is a keyed hash of the name; its keys fit no password.
    fn verifier(&self, name: &str) -> Verifier {
        let mut salt = gen_salted_password(name, &self.secret, 1);
        salt.truncate(SALT_BYTES);
        Verifier {
            salt,
            iterations: self.iterations,
            stored_key: self.secret.to_vec(),
            server_key: self.secret.to_vec(),
        }
    }
}

async fn cleartext(io: &mut LoginIo, user: &str, check: &Check) -> Result<bool> {
    ask(io, &Authentication::CleartextPassword).await?;
    let answer = password_answer(io).await?;
    Ok(match check {
        Check::Plain(secret) => answer.ct_eq(secret.expose().as_bytes()).into(),
        Check::Md5(hash) => password::md5(&answer, user).as_bytes().ct_eq(hash.expose().as_bytes()).into(),
        Check::Scram(verifier) => std::str::from_utf8(&answer).is_ok_and(|answer| verifier.matches(answer)),
    })
}

async fn md5(io: &mut LoginIo, hash: &Secret) -> Result<bool> {
    let salt = random::<4>()?;
    ask(io, &Authentication::Md5Password { salt }).await?;
    let answer = password_answer(io).await?;
    // md5(password, user) hashes one behind the other; here that is the stored hash and the salt.
    let stored = hash.expose().trim_start_matches("md5");
    let expected = password::md5(&[stored.as_bytes(), &salt].concat(), "");
    Ok(answer.ct_eq(expected.as_bytes()).into())
}

async fn scram(io: &mut LoginIo, verifier: &Verifier) -> Result<bool> {
    let mut exchange = ScramServerAuth::new();
    // Fails for certificates that have no channel binding, such as Ed25519.
    let binding = io.stream().certificate_pem().is_some_and(|pem| exchange.configure_certificate(pem).is_ok());
    let mechanisms = if binding { vec![SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { vec![SCRAM_SHA_256] };
    ask(io, &Authentication::Sasl(mechanisms.clone())).await?;

    let answer = sasl_answer(io).await?;
    let (mechanism, client_first) = initial_response(&answer).ok_or_else(malformed)?;
    if !mechanisms.iter().any(|name| name.as_bytes() == mechanism) {
        return Err(Error::protocol("client selected an invalid SASL authentication mechanism"));
    }
    if client_first.starts_with(b"p=") != (mechanism == SCRAM_SHA_256_PLUS.as_bytes()) {
        return Err(malformed());
    }
    let (server_first, exchange) = exchange
        .on_client_first_message_with_secret(client_first, verifier.secret())
        .map_err(|error| malformed().source(error))?;
    ask(io, &Authentication::SaslContinue(server_first.as_bytes())).await?;

    let client_final = sasl_answer(io).await?;
    match exchange.on_client_final_message(&client_final) {
        Ok(server_final) => {
            ask(io, &Authentication::SaslFinal(server_final.as_bytes())).await?;
            Ok(true)
        }
        Err(PgWireError::InvalidPassword(_)) => Ok(false),
        Err(error) => Err(malformed().source(error)),
    }
}

async fn ask(io: &mut LoginIo, message: &Authentication<'_>) -> Result<()> {
    let mut out = Vec::new();
    put_authentication(&mut out, message);
    io.write(&out).await
}

/// A [PasswordMessage](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PASSWORDMESSAGE).
async fn password_answer(io: &mut LoginIo) -> Result<Bytes> {
    let body = answer(io, "password").await?;
    let mut rest: &[u8] = &body;
    match frame::take_cstr(&mut rest) {
        Some(b"") if rest.is_empty() => {
            Err(Error::new(Fault::Client, sqlstate::INVALID_PASSWORD, "empty password returned by client"))
        }
        Some(password) if rest.is_empty() => Ok(body.slice_ref(password)),
        _ => Err(Error::protocol("invalid password packet size")),
    }
}

async fn sasl_answer(io: &mut LoginIo) -> Result<Bytes> {
    answer(io, "SASL").await
}

async fn answer(io: &mut LoginIo, what: &str) -> Result<Bytes> {
    let frame = io.read_frame(MAX_MESSAGE_BYTES).await?;
    if frame.tag == b'p' {
        return Ok(frame.body);
    }
    Err(Error::protocol(format!("expected {what} response, got message type {:?}", char::from(frame.tag))))
}

/// Mechanism and data of a [SASLInitialResponse](https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SASLINITIALRESPONSE).
fn initial_response(mut body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mechanism = frame::take_cstr(&mut body)?;
    let (length, data) = body.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((mechanism, data))
}

fn malformed() -> Error {
    Error::protocol("malformed SCRAM message")
}

fn unusable(user: &str, what: &str) -> Error {
    Error::new(Fault::Limit, sqlstate::INVALID_AUTHORIZATION, format!("the password of user \"{user}\" {what}"))
        .hint("Give the user a password that serves the auth_type, or change the auth_type.")
}

fn well_formed_md5(text: &str) -> bool {
    let digits = text.strip_prefix("md5").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Fault::Proxy, sqlstate::INTERNAL_ERROR, "the system gives no random numbers").source(error)
    })?;
    Ok(bytes)
}
