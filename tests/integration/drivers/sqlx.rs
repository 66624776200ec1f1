//! sqlx over rustls, with its pool, its cache of prepared statements, and its listener.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Acquire, Connection, Error, Executor, Row};

use super::{Mode, Place, database, in_all_modes};
use crate::harness::{Env, PASSWORD, USER, block_on};

type Lines = Vec<String>;

/// Every feature gives in each mode what it gives without a proxy.
pub fn sqlx(env: &Env) {
    let [direct, session, transaction] = in_all_modes(|mode| {
        let database = database(env, &format!("sqlx_{mode:?}").to_lowercase());
        let place = Place::new(env, &database, mode);
        block_on(features(&place)).unwrap()
    });
    for (mode, through) in [(Mode::Session, session), (Mode::Transaction, transaction)] {
        for ((feature, direct), (_, through)) in direct.iter().zip(&through) {
            assert_eq!(through, direct, "sqlx {feature} {mode:?}");
        }
    }
}

async fn features(place: &Place<'_>) -> Result<Vec<(&'static str, Lines)>, Error> {
    let target = &place.target;
    let options = PgConnectOptions::new_without_pgpass()
        .host(&target.host)
        .port(target.port)
        .username(USER)
        .password(PASSWORD)
        .database(&target.database)
        .application_name("sqlx's")
        .options([("search_path", "public")])
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(place.ca().0.clone().into_bytes());
    let pool = PgPoolOptions::new().max_connections(3).connect_with(options).await?;
    let mut connection = pool.acquire().await?;
    Ok(vec![
        ("queries", queries(&mut connection).await?),
        ("errors", errors(&mut connection).await),
        ("transactions", transactions(&mut connection).await?),
        ("copy", copy(&mut connection).await?),
        ("settings", settings(&mut connection).await?),
        ("changed tables", changed_tables(&mut connection).await?),
        ("pool", in_parallel(&pool).await?),
        ("listener", listener(&pool).await?),
    ])
}

fn line(value: impl Debug) -> String {
    format!("{value:?}")
}

fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(Error::Database(error)) => line((error.code(), error.message(), error.constraint(), error.table())),
        Err(error) => line(error),
    }
}

async fn first<'c>(connection: impl Executor<'c, Database = sqlx::Postgres>, query: &str) -> Result<String, Error> {
    let row = connection.fetch_one(sqlx::query(query)).await?;
    row.try_get(0)
}

async fn queries(connection: &mut PgConnection) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let row = sqlx::query("SELECT $1::int4 + 1, $2::text, $3::bytea, $4::float8, $5::int4[], NULL::text")
        .bind(41)
        .bind("naïve ' \\ \u{4e16}")
        .bind(&b"\x00\xff"[..])
        .bind(1.5)
        .bind(vec![Some(1), None])
        .fetch_one(&mut *connection)
        .await?;
    lines.push(line((row.get::<i32, _>(0), row.get::<String, _>(1), row.get::<Vec<u8>, _>(2), row.get::<f64, _>(3))));
    lines.push(line((row.get::<Vec<Option<i32>>, _>(4), row.get::<Option<String>, _>(5))));
    for id in [7, 1999, -1] {
        let line_of = sqlx::query_scalar::<_, String>("SELECT line FROM driver_seed WHERE id = $1");
        lines.push(line(line_of.bind(id).fetch_optional(&mut *connection).await?));
    }
    let mut rows = sqlx::query("SELECT id FROM driver_seed ORDER BY id").fetch(&mut *connection);
    let mut sum = 0;
    while let Some(row) = rows.try_next().await? {
        sum += row.get::<i32, _>(0);
    }
    drop(rows);
    lines.push(line(sum));
    let inserted = sqlx::query("INSERT INTO driver_test VALUES (1, 'a'), (2, 'b')").execute(&mut *connection).await?;
    lines.push(line(inserted.rows_affected()));
    // A text without parameters goes as a simple Query.
    let raw = (&mut *connection).execute("SELECT 1; DELETE FROM driver_test; SELECT 2").await?;
    lines.push(line(raw.rows_affected()));
    Ok(lines)
}

async fn errors(connection: &mut PgConnection) -> Lines {
    let mut lines = Lines::new();
    for query in ["SELEKT 1", "SELECT nothing FROM driver_seed", "INSERT INTO driver_seed VALUES (1)", "SELECT 1/0"] {
        lines.push(refusal(sqlx::query(query).execute(&mut *connection).await));
        lines.push(refusal((&mut *connection).execute(query).await));
    }
    lines
}

async fn transactions(connection: &mut PgConnection) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let insert = "INSERT INTO driver_test VALUES (1, 'kept')";
    let mut transaction = Connection::begin(&mut *connection).await?;
    sqlx::query(insert).execute(&mut *transaction).await?;
    let mut savepoint = transaction.begin().await?;
    lines.push(refusal(sqlx::query(insert).execute(&mut *savepoint).await));
    savepoint.rollback().await?;
    transaction.commit().await?;
    let mut transaction = Connection::begin(&mut *connection).await?;
    sqlx::query("DELETE FROM driver_test").execute(&mut *transaction).await?;
    // It is rolled back by whoever uses the connection next.
    drop(transaction);
    lines.push(first(&mut *connection, "SELECT count(*)::text FROM driver_test").await?);
    sqlx::query("TRUNCATE driver_test").execute(&mut *connection).await?;
    Ok(lines)
}

async fn copy(connection: &mut PgConnection) -> Result<Lines, Error> {
    let mut into = connection.copy_in_raw("COPY driver_test FROM STDIN").await?;
    for id in 0..2000 {
        into.send(format!("{id}\tline {id}\n").into_bytes()).await?;
    }
    let mut lines = vec![line(into.finish().await?)];
    let mut aborted = connection.copy_in_raw("COPY driver_test FROM STDIN").await?;
    aborted.send(&b"3000\tx\n"[..]).await?;
    aborted.abort("no more").await?;
    let bytes = connection.copy_out_raw("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT").await?;
    let data: Vec<_> = bytes.try_collect().await?;
    lines.push(line(data.iter().map(bytes::Bytes::len).sum::<usize>()));
    sqlx::query("TRUNCATE driver_test").execute(&mut *connection).await?;
    Ok(lines)
}

async fn settings(connection: &mut PgConnection) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let show = "SELECT concat_ws(' ', current_setting('TimeZone'), current_setting('search_path'), \
                current_setting('application_name'), current_setting('my.x', true))";
    let steps = [
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT set_config('my.x', 'sqlx', false)",
        "BEGIN; SET LOCAL search_path = pg_catalog; ROLLBACK",
        "RESET TimeZone",
    ];
    for step in steps {
        (&mut *connection).execute(step).await?;
        lines.push(first(&mut *connection, show).await?);
    }
    sqlx::query("SELECT set_config($1, $2, false)").bind("my.x").bind("bound").execute(&mut *connection).await?;
    lines.push(first(&mut *connection, show).await?);
    Ok(lines)
}

/// sqlx remembers the columns of what it has prepared.
async fn changed_tables(connection: &mut PgConnection) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    (&mut *connection).execute("CREATE TABLE changed (a int); INSERT INTO changed VALUES (1)").await?;
    let all = "SELECT * FROM changed";
    lines.push(line(sqlx::query(all).fetch_one(&mut *connection).await?.len()));
    (&mut *connection).execute("ALTER TABLE changed ADD COLUMN b int").await?;
    lines.push(refusal(sqlx::query(all).fetch_one(&mut *connection).await));
    connection.clear_cached_statements().await?;
    lines.push(line(sqlx::query(all).fetch_one(&mut *connection).await?.len()));
    Ok(lines)
}

async fn in_parallel(pool: &PgPool) -> Result<Lines, Error> {
    let ids: Vec<i32> = (0..50).collect();
    let line_of = "SELECT line FROM driver_seed WHERE id = $1";
    let lines = ids.iter().map(async |id| sqlx::query_scalar::<_, String>(line_of).bind(id).fetch_one(pool).await);
    futures_util::future::try_join_all(lines).await
}

async fn listener(pool: &PgPool) -> Result<Lines, Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(["one", "two"]).await?;
    for (channel, payload) in [("one", "it's"), ("two", ""), ("one", "ü")] {
        sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(pool).await?;
    }
    let mut lines = Lines::new();
    for _ in 0..3 {
        let heard = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await;
        let heard = heard.map_err(|_| Error::PoolTimedOut)??;
        lines.push(line((heard.channel(), heard.payload())));
    }
    listener.unlisten_all().await?;
    Ok(lines)
}
