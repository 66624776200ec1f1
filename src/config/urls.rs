//! A configuration without a file: the nodes as connection URLs
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>).

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::path::Path;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::Host;
use toml::Spanned;

use super::document::{Document, option_span, unknown};
use super::error::{ConfigError, ConfigErrors};
use super::validate::validate;
use super::{Address, Config, SslMode, raw};
use crate::types::Secret;

const EXAMPLE: &str = "postgres://user:password@host:5432/database";
/// The one cluster's name.
const CLUSTER: &str = "main";
const DEFAULT_LISTEN: &str = "127.0.0.1:6432";

/// Makes the configuration of `causeway run --primary URL --replica URL…`.
///
/// One user, who is also the control login: that of the primary's URL, with its password or the one in `PGPASSWORD`.
/// Without a password clients are trusted, which is allowed only where nobody from outside can connect.
/// `listen` is as in `listeners.address`, `metrics` as in `metrics.address`.
///
/// # Errors
/// Everything that is wrong, each with the option and what is allowed.
pub fn from_urls(
    primary: &str,
    replicas: &[String],
    listen: Option<&str>,
    metrics: Option<&str>,
) -> Result<Config, ConfigErrors> {
    let password = env::var("PGPASSWORD").ok().filter(|password| !password.is_empty());
    from_urls_and_password(primary, replicas, listen, metrics, password)
}

/// `password` is for a primary's URL that has none.
pub(super) fn from_urls_and_password(
    primary: &str,
    replicas: &[String],
    listen: Option<&str>,
    metrics: Option<&str>,
    password: Option<String>,
) -> Result<Config, ConfigErrors> {
    let options = Options::new(replicas.len());
    let urls = std::iter::once(primary).chain(replicas.iter().map(String::as_str));
    let (mut parsed, mut errors) = (Vec::new(), Vec::new());
    for (index, url) in urls.enumerate() {
        match Url::parse(url) {
            Ok(url) => parsed.push(url),
            Err(problem) => errors.push(options.error(index, problem)),
        }
    }
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let file = options.file(parsed, password, listen, metrics).map_err(ConfigErrors)?;
    validate(&file, &Document::command_line(options.names), Path::new(""), Vec::new())
}

/// What we use of a URL.
struct Url {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Url {
    fn parse(url: &str) -> Result<Self, String> {
        let not_a_url = || format!("is no URL such as {EXAMPLE} (with % codes for special characters)");
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(not_a_url());
        }
        let (url, sslmode, sslrootcert) = without_tls_parameters(url)?;
        // Its error may quote what it did not expect, and that may be part of a password.
        let config: tokio_postgres::Config = url.parse().map_err(|_| not_a_url())?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] if host.contains('@') => return Err("has an @ in its password; write %40".to_owned()),
            [Host::Tcp(host)] => host.clone(),
            [Host::Unix(directory)] => directory.display().to_string(),
            [] => return Err(format!("has no host; write it as in {EXAMPLE}")),
            _ => return Err("has more than one host; give each node its own --replica".to_owned()),
        };
        let password = config.get_password().map(|bytes| String::from_utf8(bytes.to_vec()));
        Ok(Self {
            host,
            // A port among the parameters comes behind that of the host.
            port: config.get_ports().last().copied().unwrap_or(5432),
            user: config.get_user().map(str::to_owned),
            password: password.transpose().map_err(|_| "has a password that is not UTF-8".to_owned())?,
            database: config.get_dbname().map(str::to_owned),
            sslmode,
            sslrootcert,
        })
    }

    /// Says what a replica's URL has that differs from the primary's.
    fn differs_from(&self, primary: &Self) -> Option<&'static str> {
        let differs = |own: &Option<String>, other: &Option<String>| own.is_some() && own != other;
        [
            ("user", differs(&self.user, &primary.user)),
            ("password", differs(&self.password, &primary.password)),
            ("database", differs(&self.database, &primary.database)),
            ("sslmode", differs(&self.sslmode, &primary.sslmode)),
            ("sslrootcert", differs(&self.sslrootcert, &primary.sslrootcert)),
        ]
        .into_iter()
        .find_map(|(name, differs)| differs.then_some(name))
    }
}

/// Takes out what tokio-postgres knows less of than libpq, and refuses what would be passed over.
fn without_tls_parameters(url: &str) -> Result<(String, Option<String>, Option<String>), String> {
    const USED: [&str; 7] = ["host", "port", "user", "password", "dbname", "sslmode", "sslrootcert"];
    let after_login = url.find('@').unwrap_or(0);
    let Some(query) = url[after_login..].find('?').map(|at| after_login + at) else {
        return Ok((url.to_owned(), None, None));
    };
    let (mut sslmode, mut sslrootcert, mut rest) = (None, None, Vec::new());
    for parameter in url[query + 1..].split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decoded = || percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => sslmode = Some(decoded()),
            "sslrootcert" => sslrootcert = Some(decoded()),
            _ if USED.contains(&name) => rest.push(parameter),
            _ => return Err(unknown("parameter", name, &USED)),
        }
    }
    if let Some(mode) = sslmode.as_deref().filter(|mode| SslMode::NAMES.iter().all(|(word, _)| word != mode)) {
        let allowed = SslMode::NAMES.map(|(word, _)| word);
        return Err(unknown("sslmode", mode, &allowed));
    }
    Ok((format!("{}?{}", &url[..query], rest.join("&")), sslmode, sslrootcert))
}

/// The options by their place: the primary, the replicas, then `--listen` and `--metrics`.
struct Options {
    names: Vec<String>,
    listen: usize,
    metrics: usize,
}

impl Options {
    fn new(replicas: usize) -> Self {
        let mut names = vec!["--primary".to_owned()];
        names.extend((1..=replicas).map(|number| format!("--replica (number {number})")));
        let listen = names.len();
        names.extend(["--listen".to_owned(), "--metrics".to_owned()]);
        Self { names, listen, metrics: listen + 1 }
    }

    fn error(&self, index: usize, problem: impl Into<String>) -> ConfigError {
        let key = self.names.get(index).cloned().unwrap_or_default();
        ConfigError { file: String::new(), line: None, key, problem: problem.into() }
    }

    fn file(
        &self,
        mut urls: Vec<Url>,
        password: Option<String>,
        listen: Option<&str>,
        metrics: Option<&str>,
    ) -> Result<raw::File, Vec<ConfigError>> {
        let nodes = urls.iter().enumerate().map(|(index, url)| node(index, url)).collect();
        let replicas = urls.split_off(1);
        let primary = urls.remove(0);
        let mut errors: Vec<_> = (1..)
            .zip(&replicas)
            .filter_map(|(index, url)| Some(self.error(index, differs(url.differs_from(&primary)?))))
            .collect();
        if primary.user.is_none() {
            errors.push(self.error(0, format!("has no user; write it as in {EXAMPLE}")));
        }
        let listen = listen.unwrap_or(DEFAULT_LISTEN);
        let password = primary.password.or(password);
        if password.is_none() && !is_private(listen) {
            let problem = "everyone who can reach this address would be let in: write a password into --primary or \
                           set PGPASSWORD, or listen on 127.0.0.1, [::1] or a Unix socket";
            errors.push(self.error(self.listen, problem));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let at = |index| move |text: String| Spanned::new(option_span(index), text);
        let password = || password.clone().map(|text| at(0)(text)).map(secret);
        let control = raw::Control {
            user: primary.user.clone().map(at(0)),
            password: password(),
            database: primary.database.map_or_else(|| raw::Control::default().database, at(0)),
            ..raw::Control::default()
        };
        let defaults = raw::Cluster::default();
        let cluster = raw::Cluster {
            server_tls_sslmode: primary.sslmode.map_or(defaults.server_tls_sslmode, at(0)),
            server_tls_ca_file: primary.sslrootcert.map(at(0)),
            control: Some(Spanned::new(option_span(0), control)),
            nodes,
            ..defaults
        };
        let mut file = raw::File {
            listeners: vec![raw::unset(raw::Listener {
                address: Some(at(self.listen)(listen.to_owned())),
                ..raw::Listener::default()
            })],
            clusters: BTreeMap::from([(at(0)(CLUSTER.to_owned()), Spanned::new(option_span(0), cluster))]),
            metrics: raw::Metrics { address: metrics.map(|text| at(self.metrics)(text.to_owned())) },
            ..raw::File::default()
        };
        if password().is_none() {
            file.auth_type = raw::unset("trust".to_owned());
        }
        let user = raw::User { password: password(), ..raw::User::default() };
        file.users.extend(primary.user.map(|name| (at(0)(name), Spanned::new(option_span(0), user))));
        Ok(file)
    }
}

fn differs(name: &str) -> String {
    format!("has another {name} than --primary; leave it out, or write a file for --config")
}

fn secret(text: Spanned<String>) -> Spanned<raw::Password> {
    Spanned::new(text.span(), raw::Password(Secret::new(text.into_inner())))
}

/// A node is called as its address is written.
fn node(index: usize, url: &Url) -> Spanned<raw::Node> {
    let span = option_span(index);
    let name = match Address::of_host(&url.host, url.port) {
        Some(address) => address.to_string(),
        None => url.host.clone(),
    };
    let node = raw::Node {
        name: Some(Spanned::new(span.clone(), name)),
        host: Some(Spanned::new(span.clone(), url.host.clone())),
        port: Spanned::new(span.clone(), u64::from(url.port)),
    };
    Spanned::new(span, node)
}

/// Only those who are on this machine can connect. (What is no address has an error of its own.)
fn is_private(listen: &str) -> bool {
    match Address::of_listener(listen, 0) {
        Some(Address::Tcp { host, .. }) => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Some(Address::Unix { .. }) | None => true,
    }
}
