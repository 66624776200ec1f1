//! Who gets in, how, and what those who do not are told.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use causeway::app::demo::cluster::free_port;
use postgres_protocol::password;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::harness::{Env, PASSWORD, Shared, Test, USER, block_on, identity, wait_for};
use crate::proxy::{Process, Proxy};
use crate::raw::{Message, RawClient, field, tags};
use crate::target::Target;

pub const TESTS: &[Test] = &[
    ("login::every_way_in", every_way_in),
    ("login::who_stays_outside", who_stays_outside),
    ("login::start_up_messages", start_up_messages),
    ("login::limits", limits),
    ("login::tls_to_the_nodes", tls_to_the_nodes),
];

/// Users whose passwords the proxy knows in three ways; the nodes know them all.
const USERS: [&str; 3] = ["in_plain", "as_md5", "as_scram"];

/// A proxy with doors of every kind in front of the shared cluster.
struct Doors {
    proxy: Proxy,
    /// Host, port and the sslmodes that lead in there.
    open: Vec<(String, u16, Vec<&'static str>)>,
    ca_pem: String,
    files: TempDir,
}

fn doors(env: &Env, auth_type: &str, users: &str) -> Doors {
    let files = tempfile::tempdir().unwrap();
    let (ca_pem, identity) = identity();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("crt"), &identity.cert_pem).unwrap();
    fs::write(path("key"), &identity.key_pem).unwrap();
    fs::write(path("ca"), &ca_pem).unwrap();
    let mut listeners = Vec::new();
    let mut doors = Vec::new();
    let mut open = |host: &str, address: &str, tls: &str, modes: &[&'static str]| {
        let port = free_port().unwrap();
        listeners
            .push(format!("[[listeners]]\naddress = \"{address}\"\nport = {port}\nclient_tls_sslmode = \"{tls}\"\n"));
        if tls != "disable" {
            listeners.push(format!(
                "client_tls_cert_file = \"{}\"\nclient_tls_key_file = \"{}\"\n",
                path("crt"),
                path("key")
            ));
        }
        doors.push((host.to_owned(), port, modes.to_vec()));
    };
    open("127.0.0.1", "127.0.0.1", "disable", &["disable", "prefer"]);
    open("127.0.0.1", "127.0.0.1", "allow", &["disable", "require", "verify-full"]);
    open("127.0.0.1", "127.0.0.1", "require", &["require", "prefer"]);
    open("::1", "[::1]", "disable", &["disable"]);
    let directory = files.path().to_str().unwrap();
    open(directory, directory, "disable", &["disable"]);
    let proxy = Proxy::start_as(&env.shared().cluster, |text| {
        format!("auth_type = \"{auth_type}\"\n{text}\n{users}\n{}", listeners.concat())
    });
    Doors { proxy, open: doors, ca_pem, files }
}

fn users(auth_type: &str) -> String {
    let mut text = Vec::new();
    for user in USERS {
        let stored = match user {
            "as_md5" if auth_type == "scram-sha-256" => continue,
            "as_md5" => password::md5(PASSWORD.as_bytes(), user),
            "as_scram" => password::scram_sha_256(PASSWORD.as_bytes()),
            _ => PASSWORD.to_owned(),
        };
        text.push(format!("[users.{user}]\npassword = \"{stored}\"\nserver_password = \"{PASSWORD}\"\n"));
    }
    text.concat()
}

struct Login<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    password: &'a str,
    database: &'a str,
    sslmode: &'a str,
    ca_file: &'a str,
}

/// What psql prints, or how it fails.
fn psql(login: &Login<'_>) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-XAtq", "-w", "-c", "SELECT current_user"])
        .env("PGHOST", login.host)
        .env("PGPORT", login.port.to_string())
        .env("PGUSER", login.user)
        .env("PGPASSWORD", login.password)
        .env("PGDATABASE", login.database)
        .env("PGSSLMODE", login.sslmode)
        .env("PGSSLROOTCERT", login.ca_file)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn every_way_in(env: &Env) {
    let database = env.database("ways");
    for user in USERS {
        env.shared().cluster.create_role(user, PASSWORD, "").unwrap();
    }
    env.shared().cluster.catch_up().unwrap();
    let mut wrong = Vec::new();
    for auth_type in ["trust", "password", "md5", "scram-sha-256"] {
        let Doors { proxy, open: doors, ca_pem, files } = doors(env, auth_type, &users(auth_type));
        let ca_file = files.path().join("ca");
        for user in USERS.into_iter().filter(|user| (auth_type, *user) != ("scram-sha-256", "as_md5")) {
            for (host, port, modes) in &doors {
                for sslmode in modes {
                    let login = Login {
                        host,
                        port: *port,
                        user,
                        password: PASSWORD,
                        database: &database.name,
                        sslmode,
                        ca_file: ca_file.to_str().unwrap(),
                    };
                    let got = psql(&login);
                    if got.as_deref() != Ok(user) {
                        wrong.push(format!("psql, {auth_type}, {user}, {host}, {sslmode}: {got:?}"));
                    }
                }
            }
            let target = Target::new(&doors[0].0, doors[0].1, &database.name);
            let tls = Target::new(&doors[2].0, doors[2].1, &database.name);
            block_on(async {
                for client in [target.connect_as(user).await, tls.connect_tls_as(&ca_pem, user).await] {
                    let row = client.query_one("SELECT current_user::text", &[]).await.unwrap();
                    assert_eq!(row.get::<_, String>(0), user, "tokio-postgres, {auth_type}");
                }
            });
        }
        let log = proxy.log();
        for secret in [PASSWORD, "SCRAM-SHA-256$", &password::md5(PASSWORD.as_bytes(), "as_md5")] {
            assert!(!log.contains(secret), "{auth_type}: {secret} is in the log");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn who_stays_outside(env: &Env) {
    let database = env.database("outside");
    let mut wrong = Vec::new();
    for (auth_type, known) in [("trust", false), ("password", true), ("md5", true), ("scram-sha-256", true)] {
        let Doors { proxy: _proxy, open: doors, .. } = doors(env, auth_type, "");
        let (host, port, _) = &doors[1];
        let good = Login {
            host,
            port: *port,
            user: USER,
            password: PASSWORD,
            database: &database.name,
            sslmode: "disable",
            ca_file: "",
        };
        let refused = |user: &str| {
            if known {
                format!("password authentication failed for user \"{user}\"")
            } else {
                format!("role \"{user}\" does not exist")
            }
        };
        let cases = [
            (Login { password: "wrong", ..good }, known.then(|| refused(USER))),
            (Login { password: "", ..good }, known.then(|| "password".to_owned())),
            (Login { user: "nobody", ..good }, Some(refused("nobody"))),
            (Login { database: "no_such_db", ..good }, Some("database \"no_such_db\" does not exist".to_owned())),
            (Login { port: doors[0].1, sslmode: "require", ..good }, Some("server does not support SSL".to_owned())),
            (Login { port: doors[2].1, ..good }, Some("TLS only".to_owned())),
        ];
        for (login, want) in cases {
            let got = psql(&login);
            let as_wanted = match (&got, &want) {
                (Err(got), Some(want)) => got.contains(want.as_str()),
                (Ok(_), None) => true,
                _ => false,
            };
            if !as_wanted {
                wrong.push(format!("{auth_type}, {}, {}: want {want:?}, got {got:?}", login.user, login.database));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // In every field as the node itself says it.
    let proxy = Proxy::start(&env.shared().cluster, "");
    let [want, got] =
        [Target::new("127.0.0.1", database.node(0).port, "no_such_db"), proxy.target("no_such_db")].map(|target| {
            let mut client = RawClient::connect(&target.host, target.port);
            client.startup(&[("user", USER), ("database", &target.database)]);
            let refusal = client.prove_or_refusal(PASSWORD);
            (field(&refusal, b'S'), field(&refusal, b'C'), field(&refusal, b'M'))
        });
    assert_eq!(want, got);
}

const V3_0: [u8; 4] = [0, 3, 0, 0];
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

fn start_up_messages(env: &Env) {
    let database = env.database("startup");
    let proxy = Proxy::start(&env.shared().cluster, "");
    let (target, node) = (proxy.target(&database.name), database.node(0));
    let greeting = |target: &Target, version: [u8; 4], extra: &[(&str, &str)]| -> Vec<Message> {
        let mut client = RawClient::connect(&target.host, target.port);
        client.startup_of(version, &[&[("user", USER), ("database", &*target.database)], extra].concat());
        let negotiation = client.negotiation();
        negotiation.into_iter().chain(client.prove(PASSWORD)).collect()
    };
    // What a node says at login, but for the key and for what only one of several nodes can say.
    let said = |target: &Target, extra: &[(&str, &str)]| {
        let mut said = greeting(target, V3_0, extra);
        said.iter_mut().filter(|(tag, _)| *tag == 'K').for_each(|(_, key)| key.fill(0));
        said.sort();
        said
    };
    for extra in [
        &[][..],
        &[("application_name", "a"), ("TimeZone", "Asia/Tokyo"), ("client_encoding", "LATIN1")],
        &[("options", "-c DateStyle=German -c IntervalStyle=iso_8601")],
        &[("extra_float_digits", "3"), ("standard_conforming_strings", "off")],
    ] {
        assert_eq!(said(&node, extra), said(&target, extra), "{extra:?}");
    }
    // Negotiated minor version, options that are not known; the length of the secret.
    for (version, extra, negotiated, secret) in [
        (V3_0, &[][..], None, 4),
        ([0, 3, 0, 2], &[], None, 32),
        ([0, 3, 0, 9], &[], Some((2, "")), 32),
        (V3_0, &[("_pq_.new", "1")], Some((0, "_pq_.new")), 4),
        ([0, 3, 39, 15], &[("_pq_.a", "1"), ("_pq_.b", "")], Some((2, "_pq_.a,_pq_.b")), 32),
    ] {
        let said = greeting(&target, version, extra);
        let got = said.iter().find(|(tag, _)| *tag == 'v').map(|(_, body)| {
            let names: Vec<_> = body[8..].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
            (body[3], String::from_utf8(names.join(&b',')).unwrap())
        });
        assert_eq!(got, negotiated.map(|(minor, names)| (minor, names.to_owned())), "{version:?}");
        let key = said.iter().find(|(tag, _)| *tag == 'K').unwrap();
        assert_eq!(key.1.len(), 4 + secret, "{version:?}");
    }
    // Requests for encryption that are refused, and plain text behind them.
    let mut client = RawClient::connect(&target.host, target.port);
    for request in [SSL_REQUEST, GSS_REQUEST] {
        client.send(request);
        assert_eq!(client.read_byte(), b'N');
    }
    client.login(USER, PASSWORD, &database.name);
    client.query("SELECT 1");
    assert_eq!(tags(&client.read_to('Z')), "T D C Z");
    let mut eager = RawClient::connect(&target.host, target.port);
    eager.send(SSL_REQUEST);
    eager.startup(&[("user", USER), ("database", &database.name)]);
    assert_eq!(eager.read_byte(), b'N');
    eager.prove(PASSWORD);
    // Where TLS is agreed to, plain text behind the request could be somebody else's.
    let doors = doors(env, "scram-sha-256", "");
    let mut injected = RawClient::connect(&doors.open[1].0, doors.open[1].1);
    injected.send(SSL_REQUEST);
    injected.startup(&[("user", USER), ("database", &database.name)]);
    assert_eq!(injected.read(), None);
}

fn limits(env: &Env) {
    let database = env.database("limits");
    let settings = "[limits]\nmax_client_conn = 3\nclient_login_timeout = \"1s\"\n";
    let proxy = Proxy::start(&env.shared().cluster, settings);
    let target = proxy.target(&database.name);
    let full: Vec<RawClient> = (0..3).map(|_| target.raw()).collect();
    let mut fourth = RawClient::connect(&target.host, target.port);
    fourth.startup(&[("user", USER), ("database", &database.name)]);
    let (tag, body) = fourth.read().unwrap();
    assert_eq!((tag, field(&body, b'C')), ('E', "53300".to_owned()));
    assert!(field(&body, b'M').contains("max_client_conn"), "{}", field(&body, b'M'));
    assert_eq!(fourth.read(), None);
    drop(full);
    wait_for(Duration::from_secs(5), "there is room again", || {
        let mut client = RawClient::connect(&target.host, target.port);
        client.startup(&[("user", USER), ("database", &database.name)]);
        client.read().is_some_and(|(tag, _)| tag == 'R')
    });
    wait_for(Duration::from_secs(5), "nobody is left", || {
        proxy.http("/metrics").lines().any(|line| line.starts_with("causeway_clients") && line.ends_with(" 0"))
    });
    let started = Instant::now();
    let mut silent = RawClient::connect(&target.host, target.port);
    silent.startup(&[("user", USER), ("database", &database.name)]);
    while silent.read().is_some() {}
    assert!(started.elapsed() >= Duration::from_millis(900) && started.elapsed() < Duration::from_secs(3));
}

/// `sslmode` towards the nodes, and whether sessions get a server with it; the nodes' certificate names 127.0.0.1.
fn tls_to_the_nodes(env: &Env) {
    let database = env.database("node_tls");
    let Shared { cluster, ca_pem } = env.shared();
    let files = tempfile::tempdir().unwrap();
    let (good, other) = (files.path().join("ca"), files.path().join("other"));
    fs::write(&good, ca_pem).unwrap();
    fs::write(&other, identity().0).unwrap();
    CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
    for (mode, ca_file, encrypted) in [
        ("disable", None, "f"),
        ("allow", None, "f"),
        ("prefer", None, "t"),
        ("require", None, "t"),
        ("verify-ca", Some(&good), "t"),
        ("verify-full", Some(&good), "t"),
    ] {
        let proxy =
            Proxy::start_as(cluster, |text| with_node_tls(&text, mode, ca_file.map(|path| path.to_str().unwrap())));
        let question = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let target = proxy.target(&database.name);
        assert_eq!(target.psql(question), encrypted, "{mode}");
        assert_eq!(target.psql(&format!("/* causeway: primary */ {question}")), encrypted, "{mode}");
    }
    // With somebody else's authority no node is trusted, so that nobody is served.
    let port = free_port().unwrap();
    let text = with_node_tls(
        &format!(
            "[[listeners]]\naddress = \"127.0.0.1:{port}\"\n[clusters.demo]\ncontrol = {{ user = \"causeway\", password = \
             \"{PASSWORD}\" }}\n[[clusters.demo.nodes]]\nname = \"n\"\nhost = \"127.0.0.1\"\nport = {}\n[users.{USER}]\npassword \
             = \"{PASSWORD}\"\n",
            database.node(0).port
        ),
        "verify-full",
        other.to_str(),
    );
    let file = files.path().join("causeway.toml");
    fs::write(&file, text).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_causeway"));
    let _process = Process(run.arg("run").arg("--config").arg(file).stderr(Stdio::null()).spawn().unwrap());
    wait_for(Duration::from_secs(10), "it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut client = RawClient::connect("127.0.0.1", port);
    client.startup(&[("user", USER), ("database", &database.name)]);
    let refusal = client.prove_or_refusal(PASSWORD);
    assert_eq!(field(&refusal, b'C'), "57P03", "{}", String::from_utf8_lossy(&refusal));
}

fn with_node_tls(text: &str, mode: &str, ca_file: Option<&str>) -> String {
    let ca_file = ca_file.map_or(String::new(), |path| format!("server_tls_ca_file = \"{path}\"\n"));
    text.replace("[clusters.demo]\n", &format!("[clusters.demo]\nserver_tls_sslmode = \"{mode}\"\n{ca_file}"))
}
