//! The clients that other tests use, against a node: what they see there is what they must see through the proxy.

use crate::harness::{Env, Test, block_on, check};
use crate::raw::{RawClient, field, tags};
use crate::target::{Target, node_of};

pub const TESTS: &[Test] = &[
    ("harness::raw_client_sees_exact_answers", raw_client_sees_exact_answers),
    ("harness::raw_client_survives_being_closed", raw_client_survives_being_closed),
    ("harness::clients_connect_over_tls", clients_connect_over_tls),
    ("harness::clients_connect_over_unix_sockets", clients_connect_over_unix_sockets),
    ("harness::psycopg_runs", psycopg_runs),
];

fn raw_client_sees_exact_answers(env: &Env) {
    let database = env.database("raw");
    let mut client = database.node(0).raw();
    check(
        &[
            ("SELECT 1", "T D C Z"),
            ("", "I Z"),
            ("SELECT 1; SELECT 2", "T D C T D C Z"),
            ("SELECT 1; SELECT 1/0; SELECT 2", "T D C E Z"),
            ("BEGIN", "C Z"),
            ("ROLLBACK", "C Z"),
        ]
        .map(|(sql, want)| (sql, want.to_owned())),
        |sql| {
            client.query(sql);
            tags(&client.read_to('Z'))
        },
    );
    client.query("SELECT 1/0");
    let answer = client.read_to('Z');
    assert_eq!(field(&answer[0].1, b'C'), "22012");
    assert_eq!(answer[1], ('Z', b"I".to_vec()));
}

fn raw_client_survives_being_closed(env: &Env) {
    let database = env.database("closed");
    let node = database.node(0);
    // A node closes without a word on a length that cannot be, and says why on a type that it does not know.
    check(&[(&[b'Q', 0, 0, 0, 3], String::new()), (b"~\0\0\0\x04", "E".to_owned())], |bytes| {
        let mut client = node.raw();
        client.send(*bytes);
        let answer = tags(&client.read_to('Z'));
        client.query("SELECT 1");
        assert_eq!(client.read(), None);
        answer
    });
    let mut stranger = RawClient::connect(&node.host, node.port);
    stranger.startup(&[("user", "nobody at all"), ("database", &node.database)]);
    let (tag, _) = stranger.read().unwrap();
    assert_eq!(tag, 'R', "PostgreSQL asks strangers for a password, too");
}

fn clients_connect_over_tls(env: &Env) {
    let database = env.database("tls");
    block_on(async {
        for host in ["127.0.0.1", "localhost"] {
            let target = Target { host: host.to_owned(), ..database.node(2) };
            let client = target.connect_tls(&env.shared().ca_pem).await;
            let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
            assert!(row.get::<_, bool>(0));
            assert_eq!(node_of(&client).await, "replica2");
        }
    });
}

fn clients_connect_over_unix_sockets(env: &Env) {
    let database = env.database("unix");
    let directory = env.shared().cluster.primary().socket_dir().to_str().unwrap();
    let target = Target { host: directory.to_owned(), ..database.node(0) };
    let question = "SELECT inet_client_addr() IS NULL";
    assert_eq!(target.psql(question), "t");
    assert_eq!(database.node(0).psql(question), "f");
    block_on(async {
        let row = target.connect().await.query_one(question, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
    });
    let mut raw = target.raw();
    raw.query(question);
    assert_eq!(tags(&raw.read_to('Z')), "T D C Z");
}

fn psycopg_runs(env: &Env) {
    let database = env.database("psycopg");
    let script = "
import psycopg2
connection = psycopg2.connect('')
cursor = connection.cursor()
cursor.execute('CREATE TABLE t (n int)')
cursor.executemany('INSERT INTO t VALUES (%s)', [(1,), (2,)])
connection.commit()
cursor.execute('SELECT sum(n) FROM t')
print(cursor.fetchone()[0])
";
    assert_eq!(database.node(0).python(script), "3");
}
