//! Every mistake with its message.

use super::*;

/// What is appended to `GOOD`, so that its first line is line 10, and what each of its errors contains, in order.
type Mistake<'a> = (&'a str, &'a [&'a [&'a str]]);

const MISTAKES: &[Mistake<'_>] = &[
    // Keys.
    (
        "[pool]\npol_mode = \"session\"",
        &[&["c.toml:11: pool.pol_mode: ", "did you mean \"pool_mode\"?", "default_pool_size"]],
    ),
    ("[users.bob]\npasword = \"SECRET\"", &[&["c.toml:11: users.bob.pasword: ", "did you mean \"password\"?"]]),
    ("[zzz]\nx = 1", &[&["c.toml:10: zzz: unknown setting", "Allowed: workers, auth_type"]]),
    ("[pool]\n[pool]", &[&["c.toml:11: pool: duplicate key"]]),
    ("password = \"SECRET\"", &[&["c.toml:10: password: duplicate key"]]),
    ("password SECRET", &[&["c.toml:10: ", "expected `=`"]]),
    // Units and types.
    ("[probe]\ninterval = 250", &[&["c.toml:11: probe.interval: 250 has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = \"250\"", &[&["c.toml:11: probe.interval: \"250\" has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = 0.5", &[&["c.toml:11: probe.interval: 0.5 has no unit", "\"250ms\""]]),
    ("[probe]\ninterval = \"5 min\"", &[&["c.toml:11: probe.interval: \"5 min\" is not a duration", "ms, s, m"]]),
    ("[probe]\ninterval = \"-5s\"", &[&["c.toml:11: probe.interval: \"-5s\" is not a duration"]]),
    ("[probe]\ninterval = \"99999999999999999999d\"", &[&["c.toml:11: probe.interval: ", "is not a duration"]]),
    ("[limits]\nmemo_size = 5", &[&["c.toml:11: limits.memo_size: 5 has no unit", "\"16MiB\""]]),
    ("[limits]\nmemo_size = \"5MB\"", &[&["c.toml:11: limits.memo_size: \"5MB\" is not a size", "MiB"]]),
    ("[limits]\nmemo_size = \"99999999999999999999GiB\"", &[&["c.toml:11: limits.memo_size: ", "1MiB to 64GiB"]]),
    ("[pool]\ndefault_pool_size = \"x\"", &[&["c.toml:11: pool.default_pool_size: must be a whole number"]]),
    ("[pool]\ndefault_pool_size = -3", &[&["c.toml:11: pool.default_pool_size: must be a whole number, 0 or more"]]),
    ("[pool]\ndefault_pool_size = 1e3", &[&["c.toml:11: pool.default_pool_size: must be a whole number"]]),
    ("[pool]\ndefault_pool_size = 99999999999999999999", &[&["c.toml:11: pool.default_pool_size: must be"]]),
    ("[routing]\nsplit = \"yes\"", &[&["c.toml:11: routing.split: must be true or false"]]),
    ("[routing]\nfallback = 1", &[&["c.toml:11: routing.fallback: must be a string"]]),
    ("[users.bob]\npassword = 12345", &[&["c.toml:11: users.bob.password: must be a string"]]),
    ("[users]\nbob = \"SECRET\"", &[&["c.toml:11: users.bob: must be a table"]]),
    ("[clusters.b]\ndatabases = \"x\"", &[&["c.toml:11: clusters.b.databases: must be a list"]]),
    // The console.
    (
        "[clusters.b]\ndatabases = [\"pgbouncer\"]",
        &[
            &["c.toml:10: clusters.b.nodes: there is none"],
            &["c.toml:10: clusters.b.control: is missing"],
            &["c.toml:11: clusters.b.databases[0]: \"pgbouncer\" is the admin console"],
            &["c.toml:11: clusters.b.databases[0]: ", "is served already"],
        ],
    ),
    // Words and ranges.
    ("[pool]\npool_mode = \"statement\"", &[&["c.toml:11: pool.pool_mode: ", "Allowed: transaction, session"]]),
    ("[routing]\nfallback = \"eror\"", &[&["c.toml:11: routing.fallback: ", "\"error\"?", "primary, error"]]),
    ("[log]\nformat = \"xml\"", &[&["c.toml:11: log.format: ", "Allowed: text, json"]]),
    ("[log]\nlevel = \"inof\"", &[&["c.toml:11: log.level: \"inof\"", "off, error, warn, info"]]),
    ("[log]\nlevel = \"info,a b=debug\"", &[&["c.toml:11: log.level: \"a b=debug\""]]),
    ("[probe]\ninterval = \"1ms\"", &[&["c.toml:11: probe.interval: 1ms is out of range: 10ms to 1m"]]),
    ("[limits]\nmax_message_size = \"1KiB\"", &[&["c.toml:11: limits.max_message_size: 1KiB", "64KiB to 1GiB"]]),
    ("[limits]\nmax_client_conn = 0", &[&["c.toml:11: limits.max_client_conn: 0 is out of range: 1 to 1000000"]]),
    (
        "[limits]\nmax_memory = \"16MiB\"",
        &[&["c.toml:11: limits.max_memory: max_memory, which is 16MiB, must be twice max_batch_size, which is 16MiB"]],
    ),
    ("[limits]\nmax_batch_size = \"1GiB\"", &[&["c.toml:11: limits.max_batch_size: max_memory, which is 1GiB"]]),
    ("query_timeout = \"366d\"", &[&["c.toml:10: users.app.query_timeout: 1year", "is out of range: 0s to"]]),
    ("[pool]\nmin_pool_size = 30", &[&["c.toml:11: pool.min_pool_size: 30 is more than default_pool_size", "20"]]),
    (
        "pool_size = 3\n[pool]\nmin_pool_size = 4",
        &[&["c.toml:10: users.app.pool_size: 3 is less than pool.min_pool_size", "4"]],
    ),
    // What is promised to reads.
    (
        "[routing]\nconsistency = \"stong\"",
        &[&[
            "c.toml:11: routing.consistency: ",
            "did you mean \"strong\"?",
            "eventual, bounded, session, strong, primary",
        ]],
    ),
    ("[routing]\nmax_staleness = \"0s\"", &[&["c.toml:11: routing.max_staleness: 0s is out of range: 1ms to 1day"]]),
    ("[routing]\ncausal_wait = \"2h\"", &[&["c.toml:11: routing.causal_wait: 2h is out of range: 0s to 1h"]]),
    (
        "[routing]\nmax_spilled_reads = 1000001",
        &[&["c.toml:11: routing.max_spilled_reads: 1000001 is out of range: 0 "]],
    ),
    ("[routing]\nspill_wait = \"2days\"", &[&["c.toml:11: routing.spill_wait: \"2days\" is not a duration"]]),
    (
        "[routing]\nmax_staleness = \"200ms\"",
        &[&["c.toml:11: routing.max_staleness: 200ms is less than probe.interval, which is 250ms"]],
    ),
    (
        "[probe]\ninterval = \"2s\"",
        &[&["c.toml:11: probe.interval: 2s is more than routing.max_staleness, which is 1s"]],
    ),
    (
        "consistency = \"any\"\nmax_staleness = \"1ms\"\ncausal_wait = 5",
        &[
            &["c.toml:10: users.app.consistency: unknown value \"any\""],
            &["c.toml:12: users.app.causal_wait: 5 has no unit"],
        ],
    ),
    (
        "max_staleness = \"1ms\"\n[databases.shop]\nmax_staleness = \"2ms\"\nconsistency = \"none\"\n[databases.\"\"]",
        &[
            &["c.toml:10: users.app.max_staleness: 1ms is less than probe.interval"],
            &["c.toml:12: databases.shop.max_staleness: 2ms is less than probe.interval"],
            &["c.toml:13: databases.shop.consistency: unknown value \"none\""],
            &["c.toml:14: databases.: a name must have"],
        ],
    ),
    (
        "[databases.shop]\nsplit = true",
        &[&[
            "c.toml:11: databases.shop.split: unknown setting",
            "Allowed: max_db_client_connections, max_db_connections, consistency",
        ]],
    ),
    // Users and secrets.
    ("[users.bob]", &[&["c.toml:10: users.bob.password: is missing", "\"scram-sha-256\"", "password_env", "trust"]]),
    ("password_file = \"x\"", &[&["c.toml:10: users.app.password_file: only one of password, password_file"]]),
    ("[users.bob]\npassword = \"\"", &[&["c.toml:11: users.bob.password: the secret is empty"]]),
    ("[users.bob]\npassword_file = \"no/such\"", &[&["c.toml:11: users.bob.password_file: cannot read ", "no/such"]]),
    ("[users.bob]\npassword_file = \"src/lib.rs\"", &[&["c.toml:11: users.bob.password_file: ", "line end"]]),
    (
        "[users.bob]\npassword_env = \"CAUSEWAY_NOT_SET\"",
        &[&["c.toml:11: users.bob.password_env: ", "\"CAUSEWAY_NOT_SET\" is not set"]],
    ),
    ("server_password_file = \"no/such\"", &[&["c.toml:10: users.app.server_password_file: cannot read "]]),
    // Listeners.
    ("[[listeners]]", &[&["c.toml:10: listeners[1].address: is missing", "\"127.0.0.1:6432\""]]),
    ("[[listeners]]\naddress = \"x y\"", &[&["c.toml:11: listeners[1].address: \"x y\"", "\"[::]:6432\""]]),
    (
        "[[listeners]]\naddress = \"127.0.0.1:6432\"",
        &[&["c.toml:11: listeners[1].address: 127.0.0.1:6432 is taken by listeners[0].address (line 2)"]],
    ),
    ("[[listeners]]\naddress = \"*:6432\"", &[&["c.toml:11: listeners[1].address: *:6432 is taken by "]]),
    (
        "[metrics]\naddress = \"127.0.0.1:6432\"",
        &[&["c.toml:11: metrics.address: ", "taken by listeners[0]", "line 2"]],
    ),
    ("[metrics]\naddress = \"localhost:1\"", &[&["c.toml:11: metrics.address: ", "\"127.0.0.1:9187\""]]),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"require\"",
        &[
            &["c.toml:10: listeners[1].client_tls_cert_file: is missing", "\"require\" needs"],
            &["c.toml:10: listeners[1].client_tls_key_file: is missing", "\"require\" needs"],
        ],
    ),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"prefer\"",
        &[&["c.toml:12: listeners[1].client_tls_sslmode: ", "Allowed: disable, allow, require"]],
    ),
    (
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nclient_tls_sslmode = \"allow\"\nclient_tls_cert_file = \
             \"src\"\nclient_tls_key_file = \"no/such\"",
        &[
            &["c.toml:13: listeners[1].client_tls_cert_file: ", "is not a file"],
            &["c.toml:14: listeners[1].client_tls_key_file: cannot read ", "no/such"],
        ],
    ),
    (
        "[[listeners]]\naddress = \"/run\"\nclient_tls_sslmode = \"require\"\nclient_tls_cert_file = \
             \"Cargo.toml\"\nclient_tls_key_file = \"Cargo.toml\"",
        &[&["c.toml:12: listeners[1].client_tls_sslmode: ", "Unix socket", "allowed for it: disable, allow"]],
    ),
    // Clusters and nodes.
    (
        "[[clusters.main.nodes]]\nname = \"b\"\nhost = \"10.0.0.1\"",
        &[&[
            "c.toml:12: clusters.main.nodes[1].host: 10.0.0.1:5432 is the address of clusters.main.nodes[0].host (line 7)",
        ]],
    ),
    (
        "[[clusters.main.nodes]]\nname = \"a\"\nhost = \"10.0.0.2\"",
        &[&["c.toml:11: clusters.main.nodes[1].name: \"a\" is the name of clusters.main.nodes[0].name (line 6) too"]],
    ),
    (
        "[[clusters.main.nodes]]",
        &[
            &["c.toml:10: clusters.main.nodes[1].name: is missing", "name = \"a\""],
            &["c.toml:10: clusters.main.nodes[1].host: is missing", "host = "],
        ],
    ),
    (
        "[[clusters.main.nodes]]\nname = \"b\"\nhost = \"10.0.0.2:5432\"\nport = 0",
        &[
            &["c.toml:12: clusters.main.nodes[1].host: ", "allowed are a name, an IP address"],
            &["c.toml:13: clusters.main.nodes[1].port: 0 is out of range: 1 to 65535"],
        ],
    ),
    (
        "[clusters.b]\ndatabases = [\"x\"]",
        &[
            &["c.toml:10: clusters.b.nodes: there is none", "[[clusters.b.nodes]]"],
            &["c.toml:10: clusters.b.control: is missing", "control = {"],
            &["c.toml:11: clusters.b.databases[0]: database \"x\" is served already by clusters.main", "\"*\""],
        ],
    ),
    (
        "[clusters.b]\nserver_tls_sslmode = \"verify\"\nserver_tls_ca_file = \"no/such\"\ndatabases = []\ncontrol = \
             {}\nnodes = [{ name = \"x\", host = \"h\" }]",
        &[
            &["c.toml:10: clusters.b.databases: is empty"],
            &["c.toml:11: clusters.b.server_tls_sslmode: ", "verify-ca, verify-full"],
            &["c.toml:12: clusters.b.server_tls_ca_file: cannot read "],
            &["c.toml:14: clusters.b.control.user: is missing"],
        ],
    ),
    // All of them, and nothing that only follows from another.
    (
        "[pool]\npool_mode = 1\nx = 2\n[probe]\nrise = \"3\"\n[[clusters.main.nodes]]\nhst = \"h\"",
        &[
            &["c.toml:11: pool.pool_mode: "],
            &["c.toml:12: pool.x: "],
            &["c.toml:14: probe.rise: "],
            &["c.toml:16: clusters.main.nodes[1].hst: ", "did you mean \"host\"?"],
        ],
    ),
];

#[test]
fn mistakes_are_named_with_file_line_key_and_what_is_allowed() {
    for (piece, expected) in MISTAKES {
        let Err(errors) = read(&format!("{GOOD}{piece}")) else { panic!("no error: {piece}") };
        let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), expected.len(), "{piece}\n{errors}");
        for (error, parts) in shown.iter().zip(*expected) {
            assert!(error.starts_with(parts[0]), "{error}\ndoes not start with {}", parts[0]);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}\nhas not all of {parts:?}");
        }
        for secret in ["SECRET", "12345"] {
            assert!(!errors.to_string().contains(secret) && !format!("{errors:?}").contains(secret), "{errors}");
        }
    }
}
