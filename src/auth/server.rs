//! We prove to a node who we are.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};

use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::login::{Frame, LoginIo};
use crate::types::Secret;
use crate::wire::backend::{Authentication, authentication, error_fields};
use crate::wire::frame;

/// libpq reads errors of up to 30,000 bytes at this point.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Answers what the node asks after the start-up message, up to its `AuthenticationOk`. `io` must be made with
/// [`LoginIo::to_node`]. Over TLS it binds the login to the node's certificate where the node offers that.
///
/// # Errors
/// Name the node. An error of the node's keeps its SQLSTATE and its words; another node may still take us.
pub async fn authenticate(io: &mut LoginIo, user: &str, password: Option<&Secret>) -> Result<()> {
    let request = next(io).await?;
    let needed = || password.ok_or_else(|| no_password(io, user));
    match parsed(io, &request)? {
        Authentication::Ok => return Ok(()),
        Authentication::CleartextPassword => {
            let password = needed()?;
            send_password(io, password.expose().as_bytes()).await?;
        }
        Authentication::Md5Password { salt } => {
            let hash = md5_hash(user.as_bytes(), needed()?.expose().as_bytes(), salt);
            send_password(io, hash.as_bytes()).await?;
        }
        Authentication::Sasl(mechanisms) => {
            let password = needed()?;
            scram(io, password, &mechanisms).await?;
        }
        other => return Err(unsupported(io, &other)),
    }
    let verdict = next(io).await?;
    match parsed(io, &verdict)? {
        Authentication::Ok => Ok(()),
        other => Err(io.protocol(format!("it answered a password with another request, {other:?}"))),
    }
}

/// An `ErrorResponse` of a node during login or start-up, as an error of ours that names the node; but that there is no
/// such database is no node's fault, and the client reads it in PostgreSQL's words.
pub fn refusal(node: &str, body: &[u8]) -> Error {
    let fields = error_fields(body);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if fields.sqlstate == sqlstate::INVALID_CATALOG_NAME.as_bytes() {
        return Error::new(Fault::Client, sqlstate::INVALID_CATALOG_NAME, text(fields.message));
    }
    let message = format!("node \"{node}\": {}", text(fields.message));
    let error = Error::new(Fault::Node, text(&fields.sqlstate), message).retry_elsewhere();
    match fields.hint {
        Some(hint) => error.hint(text(hint)),
        None => error,
    }
}

async fn scram(io: &mut LoginIo, password: &Secret, mechanisms: &[&str]) -> Result<()> {
    let offered = |name| mechanisms.contains(&name);
    let (mechanism, binding) = match io.stream().tls_server_end_point() {
        Some(end_point) if offered(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point))
        }
        // Tells the node that we could have, so that it notices when somebody removed its offer.
        Some(_) if offered(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if offered(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => return Err(unsupported(io, &Authentication::Sasl(mechanisms.to_vec()))),
    };
    let mut exchange = ScramSha256::new(password.expose().as_bytes(), binding);
    let mut out = Vec::new();
    frame::put(&mut out, b'p', |body| {
        let data = exchange.message();
        body.extend_from_slice(mechanism.as_bytes());
        body.push(0);
        body.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(data);
    });
    io.write(&out).await?;

    let failed = |io: &LoginIo, error: std::io::Error| io.protocol(format!("SCRAM: {error}"));
    let challenge = next(io).await?;
    let Authentication::SaslContinue(server_first) = parsed(io, &challenge)? else {
        return Err(io.protocol("it left the SCRAM exchange".to_owned()));
    };
    exchange.update(server_first).map_err(|error| failed(io, error))?;
    send(io, exchange.message()).await?;

    let outcome = next(io).await?;
    let Authentication::SaslFinal(server_final) = parsed(io, &outcome)? else {
        return Err(io.protocol("it skipped its own proof in the SCRAM exchange".to_owned()));
    };
    exchange.finish(server_final).map_err(|error| failed(io, error))
}

/// The node's next request or verdict.
async fn next(io: &mut LoginIo) -> Result<Frame> {
    loop {
        let frame = io.read_frame(MAX_MESSAGE_BYTES).await?;
        match frame.tag {
            b'R' => return Ok(frame),
            b'E' => return Err(refusal(io.node().unwrap_or_default(), &frame.body)),
            b'N' => {}
            other => {
                return Err(io.protocol(format!("message type {:?} instead of authentication", char::from(other))));
            }
        }
    }
}

fn parsed<'a>(io: &LoginIo, frame: &'a Frame) -> Result<Authentication<'a>> {
    authentication(&frame.body).ok_or_else(|| io.protocol("malformed authentication request".to_owned()))
}

async fn send_password(io: &mut LoginIo, password: &[u8]) -> Result<()> {
    send(io, &[password, b"\0"].concat()).await
}

async fn send(io: &mut LoginIo, data: &[u8]) -> Result<()> {
    let mut out = Vec::new();
    frame::put(&mut out, b'p', |body| body.extend_from_slice(data));
    io.write(&out).await
}

fn no_password(io: &LoginIo, user: &str) -> Error {
    let node = io.node().unwrap_or_default();
    let message = format!("node \"{node}\" asks for the password of user \"{user}\", and none is configured");
    Error::new(Fault::Limit, sqlstate::INVALID_AUTHORIZATION, message)
        .hint("Set server_password for the user, or let the node trust the proxy.")
}

fn unsupported(io: &LoginIo, request: &Authentication<'_>) -> Error {
    let method = match request {
        Authentication::Sasl(mechanisms) => format!("SASL with {mechanisms:?}"),
        Authentication::Other(2) => "Kerberos V5".to_owned(),
        Authentication::Other(7 | 8) => "GSSAPI".to_owned(),
        Authentication::Other(9) => "SSPI".to_owned(),
        other => format!("{other:?}"),
    };
    let node = io.node().unwrap_or_default();
    let message = format!("node \"{node}\" asks for authentication by {method}, which is not supported");
    Error::new(Fault::Node, sqlstate::FEATURE_NOT_SUPPORTED, message)
        .hint("Let pg_hba.conf of the node ask the proxy for scram-sha-256, md5, password or trust.")
}
