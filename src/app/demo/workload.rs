//! An application that knows nothing of replicas: several connections, mixed statements, both protocols.

use std::net::SocketAddr;

use futures_util::future::try_join_all;
use futures_util::{SinkExt, pin_mut};
use tokio::time::{Duration, Instant};
use tokio_postgres::{Client, Error, NoTls, Statement as Prepared};

const CONNECTIONS: usize = 6;
const ACCOUNTS: i32 = 1000;

/// Who logs in, where to.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: &'static str,
    pub password: String,
    pub database: &'static str,
}

/// Where a statement has to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Primary,
    Replicas,
}

/// One of the application's statements; its text is how the nodes' logs tell it from the others.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub label: &'static str,
    pub sql: &'static str,
    pub home: Home,
}

const fn read(label: &'static str, sql: &'static str) -> Statement {
    Statement { label, sql, home: Home::Replicas }
}

const fn write(label: &'static str, sql: &'static str) -> Statement {
    Statement { label, sql, home: Home::Primary }
}

const BY_KEY: Statement = read("SELECT by key, prepared once", "SELECT owner, balance FROM accounts WHERE id = $1");
const JOIN: Statement = read(
    "SELECT of a join",
    "SELECT a.owner, count(o.id) FROM accounts a LEFT JOIN orders o ON o.account = a.id WHERE a.id = $1 GROUP BY 1",
);
const TOTALS: Statement = read("SELECT of totals, simple protocol", "SELECT count(*), sum(amount) FROM orders");
const REPORT: Statement =
    read("SELECT in a READ ONLY transaction", "SELECT owner FROM rich_accounts ORDER BY balance DESC LIMIT 5");
const INSERT: Statement = write("INSERT", "INSERT INTO orders (account, amount) VALUES ($1, $2)");
const LOCK: Statement =
    write("SELECT … FOR UPDATE in a transaction", "SELECT balance FROM accounts WHERE id = $1 FOR UPDATE");
const CHECK: Statement = write("SELECT in that transaction", "SELECT sum(amount) FROM orders WHERE account = $1");
const UPDATE: Statement =
    write("UPDATE in that transaction", "UPDATE accounts SET balance = balance + $2 WHERE id = $1");
const SEQUENCE: Statement = write("SELECT nextval()", "SELECT nextval('invoices')");
const WRITING_CTE: Statement = write(
    "SELECT over a CTE that writes",
    "WITH paid AS (UPDATE accounts SET balance = balance - $2 WHERE id = $1 RETURNING balance) SELECT balance FROM paid",
);
const FUNCTION: Statement = write("SELECT of a function that writes", "SELECT record_visit($1)");
const COPY: Statement = write("COPY … FROM STDIN", "COPY orders (account, amount) FROM STDIN");

/// All statements of the application but BEGIN and COMMIT.
pub const STATEMENTS: [Statement; 12] =
    [BY_KEY, JOIN, TOTALS, REPORT, INSERT, LOCK, CHECK, UPDATE, SEQUENCE, WRITING_CTE, FUNCTION, COPY];

/// What the application expects to be there; runs as a superuser, makes objects of `owner`.
pub fn schema(owner: &str) -> String {
    format!(
        "SET ROLE {owner};
         CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL);
         INSERT INTO accounts SELECT n, 'owner ' || n, 1000 FROM generate_series(1, {ACCOUNTS}) n;
         CREATE TABLE orders (id bigserial PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL);
         CREATE INDEX ON orders (account);
         CREATE TABLE visits (account int NOT NULL, at timestamptz NOT NULL DEFAULT now());
         CREATE SEQUENCE invoices;
         CREATE VIEW rich_accounts AS SELECT * FROM accounts WHERE balance >= 1000;
         CREATE FUNCTION record_visit(who int) RETURNS timestamptz LANGUAGE sql
             AS 'INSERT INTO visits (account) VALUES (who) RETURNING at';"
    )
}

/// Runs the application for `duration`; gives the number of statements, without BEGIN and COMMIT.
///
/// # Errors
/// The first error that any connection saw; the application does not try again.
pub async fn run(address: SocketAddr, login: &Login, duration: Duration) -> Result<u64, Error> {
    let until = Instant::now() + duration;
    let connections = (0..CONNECTIONS).map(|_| one_connection(address, login, until));
    Ok(try_join_all(connections).await?.into_iter().sum())
}

async fn one_connection(address: SocketAddr, login: &Login, until: Instant) -> Result<u64, Error> {
    let (mut client, connection) = tokio_postgres::Config::new()
        .host(address.ip().to_string())
        .port(address.port())
        .user(login.user)
        .password(&login.password)
        .dbname(login.database)
        .application_name("shop")
        .connect(NoTls)
        .await?;
    // When it fails, so does the client's next request.
    let task = tokio::spawn(connection);
    let by_key = client.prepare(BY_KEY.sql).await?;
    let mut statements = 0;
    while Instant::now() < until {
        statements += step(&mut client, &by_key).await?;
    }
    drop(client);
    // Nothing is in flight: it only says goodbye.
    let _ = task.await;
    Ok(statements)
}

/// One request of the application, mostly a read; gives the number of its statements.
async fn step(client: &mut Client, by_key: &Prepared) -> Result<u64, Error> {
    let account = fastrand::i32(1..=ACCOUNTS);
    let amount = fastrand::i64(1..100);
    match fastrand::u8(0..20) {
        0..8 => client.query_one(by_key, &[&account]).await.map(|_| 1),
        8..11 => client.query_one(JOIN.sql, &[&account]).await.map(|_| 1),
        11 => client.simple_query(TOTALS.sql).await.map(|_| 1),
        12 => {
            let transaction = client.build_transaction().read_only(true).start().await?;
            transaction.query(REPORT.sql, &[]).await?;
            transaction.commit().await.map(|()| 1)
        }
        13 | 14 => client.execute(INSERT.sql, &[&account, &amount]).await.map(|_| 1),
        15 => {
            let transaction = client.transaction().await?;
            transaction.query_one(LOCK.sql, &[&account]).await?;
            transaction.query_one(CHECK.sql, &[&account]).await?;
            transaction.execute(UPDATE.sql, &[&account, &amount]).await?;
            transaction.commit().await.map(|()| 3)
        }
        16 => client.query_one(SEQUENCE.sql, &[]).await.map(|_| 1),
        17 => client.query_one(WRITING_CTE.sql, &[&account, &amount]).await.map(|_| 1),
        18 => client.query_one(FUNCTION.sql, &[&account]).await.map(|_| 1),
        _ => {
            let sink = client.copy_in(COPY.sql).await?;
            pin_mut!(sink);
            sink.send(bytes::Bytes::from(format!("{account}\t{amount}\n"))).await?;
            sink.finish().await.map(|_| 1)
        }
    }
}
