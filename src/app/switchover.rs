//! `causeway switchover`: asks the console of a running proxy for a planned switchover, and says what it says.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::poll_fn;
use postgres_protocol::escape::escape_identifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error as PgError, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::internal;
use crate::config::{CONSOLE_DATABASES, ServerTls, SslMode};
use crate::error::{Error, Fault, Result, sqlstate};
use crate::net::tls::client_config;
use crate::types::show_duration;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Order {
    pub cluster: String,
    pub node: String,
    /// The operator promotes the node.
    pub waits: bool,
    pub limit: Duration,
}

/// Where the console is; what is not said here is in libpq's environment variables, or has Causeway's own default.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
}

/// `say` gets what the console tells on the way.
///
/// # Errors
/// The console cannot be reached, or what it answers.
pub async fn switch_over(order: &Order, place: &Place, mut say: impl FnMut(&str)) -> Result<()> {
    let (notices, mut told) = unbounded_channel();
    let client = connect(place, notices).await?;
    let command = format!(
        "SWITCHOVER {} TO {}{} TIMEOUT '{}'",
        escape_identifier(&order.cluster),
        escape_identifier(&order.node),
        if order.waits { " WAIT" } else { "" },
        show_duration(order.limit)
    );
    let work = client.simple_query(&command);
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            biased;
            Some(text) = told.recv() => say(&text),
            outcome = &mut work => break outcome,
        }
    };
    while let Ok(text) = told.try_recv() {
        say(&text);
    }
    outcome.map(drop).map_err(failed)
}

async fn connect(place: &Place, notices: UnboundedSender<String>) -> Result<Client> {
    let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = place.user.clone().or_else(|| said("PGUSER")).ok_or_else(|| {
        wrong("nobody says as which user".to_owned()).hint("Say --user, or set PGUSER; it must be in admin_users.")
    })?;
    let port = place.port.map_or_else(|| said("PGPORT").map_or(Ok(6432), |port| port.parse()), Ok);
    let port = port.map_err(|_| wrong("PGPORT is no port number".to_owned()))?;
    let host = place.host.clone().or_else(|| said("PGHOST")).unwrap_or_else(|| "127.0.0.1".to_owned());
    let mode = said("PGSSLMODE").map_or(Ok(SslMode::Prefer), |mode| {
        SslMode::from_name(&mode).ok_or_else(|| wrong(format!("PGSSLMODE is {mode:?}, which is none of libpq's modes")))
    })?;
    let mut config = Config::new();
    config.host(host).port(port).user(user).dbname(CONSOLE_DATABASES[0]).application_name("causeway switchover");
    if let Some(password) = said("PGPASSWORD") {
        config.password(password);
    }
    config.ssl_mode(match mode {
        SslMode::Disable | SslMode::Allow => Negotiation::Disable,
        SslMode::Prefer => Negotiation::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
    });
    let tls = client_config(&ServerTls { mode, root_cert_file: said("PGSSLROOTCERT").map(PathBuf::from) })?;
    match tls {
        Some(tls) => connect_with(&config, MakeRustlsConnect::new(tls), notices).await,
        None => connect_with(&config, NoTls, notices).await,
    }
}

async fn connect_with<T>(config: &Config, tls: T, notices: UnboundedSender<String>) -> Result<Client>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await.map_err(failed)?;
    tokio::spawn(pass_on(connection, notices));
    Ok(client)
}

/// Moves the connection's bytes, and its notices to who listens.
async fn pass_on<S, T>(mut connection: Connection<S, T>, notices: UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Its error is the client's too.
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message {
            let _ = notices.send(notice.message().to_owned());
        }
    }
}

fn wrong(message: String) -> Error {
    Error::new(Fault::Client, sqlstate::INVALID_PARAMETER_VALUE, message)
}

/// In the console's words, where it has answered.
fn failed(error: PgError) -> Error {
    let Some(said) = error.as_db_error() else {
        return internal("the console of Causeway cannot be used").source(error);
    };
    let failure = Error::new(Fault::Node, said.code().code().to_owned(), said.message());
    let failure = said.detail().into_iter().fold(failure, Error::detail);
    said.hint().into_iter().fold(failure, Error::hint)
}
