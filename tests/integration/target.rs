//! Something to connect to, a node or a proxy, and the clients to do it with.

use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::harness::{PASSWORD, USER};
use crate::raw::{Message, RawClient};

/// Debian's own, which has the distribution's psycopg2.
const PYTHON: &str = "/usr/bin/python3";

#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub database: String,
}

impl Target {
    /// `host` is a name, an address or a socket directory.
    pub fn new(host: &str, port: u16, database: &str) -> Self {
        Self { host: host.to_owned(), port, database: database.to_owned() }
    }

    fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host(&self.host).port(self.port).user(USER).password(PASSWORD).dbname(&self.database);
        config
    }

    pub async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    pub async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.log_in(USER).await
    }

    /// With `options` as in libpq: `-c name=value`.
    pub async fn try_connect_with(&self, options: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().options(options).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// As another user with the same password.
    pub async fn connect_as(&self, user: &str) -> Client {
        self.log_in(user).await.unwrap()
    }

    async fn log_in(&self, user: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().user(user).connect(NoTls).await?;
        // Its error is also the client's, where the test sees it.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Over TLS, and only if the certificate is `ca_pem`'s and names the host.
    pub async fn connect_tls(&self, ca_pem: &str) -> Client {
        self.connect_tls_as(ca_pem, USER).await
    }

    /// As another user with the same password.
    pub async fn connect_tls_as(&self, ca_pem: &str, user: &str) -> Client {
        let mut config = self.config();
        config.user(user).ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(tls(ca_pem)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Logged in, and nothing read after the first ReadyForQuery.
    pub fn raw(&self) -> RawClient {
        let mut client = RawClient::connect(&self.host, self.port);
        client.login(USER, PASSWORD, &self.database);
        client
    }

    /// The same with further start-up parameters; also gives what follows the login.
    pub fn raw_with(&self, parameters: &[(&str, &str)]) -> (RawClient, Vec<Message>) {
        let mut client = RawClient::connect(&self.host, self.port);
        let login = [("user", USER), ("database", self.database.as_str())];
        client.startup(&[&login[..], parameters].concat());
        let greeting = client.try_prove(PASSWORD);
        (client, greeting)
    }

    /// What psql prints for `input`, one statement or command a line; it must succeed.
    pub fn psql(&self, input: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", input]);
        self.run(command)
    }

    /// What a Python script prints; libpq's environment leads it here.
    pub fn python(&self, script: &str) -> String {
        let mut command = Command::new(PYTHON);
        command.args(["-c", script]);
        self.run(command)
    }

    /// Leads a program that knows libpq's environment here.
    pub fn lead(&self, command: &mut Command) {
        command.env("PGHOST", &self.host).env("PGPORT", self.port.to_string());
        command.env("PGUSER", USER).env("PGPASSWORD", PASSWORD).env("PGDATABASE", &self.database);
    }

    /// What a libpq program prints; it must succeed.
    pub fn run(&self, mut command: Command) -> String {
        self.lead(&mut command);
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run `make install-deps`"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

/// TLS with servers whose certificate is `ca_pem`'s.
pub fn tls(ca_pem: &str) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    MakeRustlsConnect::new(tls.with_root_certificates(roots).with_no_client_auth())
}

/// The node that serves this connection now.
pub async fn node_of(client: &Client) -> String {
    client.query_one("SELECT current_setting('cluster_name')", &[]).await.unwrap().get(0)
}
