//! tokio-postgres over rustls, which pipelines whatever is asked at the same time.

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, IsolationLevel, SimpleQueryMessage};

use super::{Mode, Place, database, in_all_modes};
use crate::harness::{Env, block_on};
use crate::target::tls;

type Lines = Vec<String>;

/// Every feature gives in each mode what it gives without a proxy.
pub fn tokio_postgres(env: &Env) {
    let [direct, session, transaction] = in_all_modes(|mode| {
        let database = database(env, &format!("rust_{mode:?}").to_lowercase());
        let place = Place::new(env, &database, mode);
        block_on(features(&place))
    });
    for (mode, through) in [(Mode::Session, session), (Mode::Transaction, transaction)] {
        for ((feature, direct), (_, through)) in direct.iter().zip(&through) {
            assert_eq!(through, direct, "tokio-postgres {feature} {mode:?}");
        }
    }
}

async fn features(place: &Place<'_>) -> Vec<(&'static str, Lines)> {
    let mut client = place.target.connect_tls(&place.ca().0).await;
    vec![
        ("queries", queries(&client).await.unwrap()),
        ("pipelines", pipelines(&client).await.unwrap()),
        ("errors", errors(&client).await),
        ("transactions", transactions(&mut client).await.unwrap()),
        ("portals", portals(&mut client).await.unwrap()),
        ("copy", copy(&client).await.unwrap()),
        ("settings", settings(&mut client).await.unwrap()),
        ("cancelling", cancelling(place, &client).await),
    ]
}

fn line(value: impl Debug) -> String {
    format!("{value:?}")
}

/// All that the server says of an error.
fn refusal<T>(result: Result<T, Error>) -> String {
    result.err().map_or_else(|| "no error".to_owned(), |error| line(error.as_db_error()))
}

async fn first(client: &Client, query: &str) -> Result<String, Error> {
    let rows = client.simple_query(query).await?;
    let row =
        rows.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None });
    Ok(row.unwrap_or_default().to_owned())
}

async fn queries(client: &Client) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let sql = "SELECT $1::int4 + 1, $2::text, $3::bytea, $4::float8, $5::bool, $6::int4[], NULL::text";
    let text = "naïve ' \\ \u{4e16}";
    let row = client.query_one(sql, &[&41, &text, &&b"\x00\xff"[..], &1.5, &true, &vec![Some(1), None]]).await?;
    lines.push(line((row.get::<_, i32>(0), row.get::<_, &str>(1), row.get::<_, &[u8]>(2), row.get::<_, f64>(3))));
    lines.push(line((row.get::<_, bool>(4), row.get::<_, Vec<Option<i32>>>(5), row.get::<_, Option<&str>>(6))));
    // It asks the catalog what the types are.
    client.batch_execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood[])").await?;
    let statement = client.prepare("SELECT $1::mood, ROW(1, '{sad}')::pair WHERE $1::mood > 'sad'").await?;
    lines.push(line(statement.params().iter().map(Type::kind).collect::<Vec<_>>().len()));
    lines.push(line(
        statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect::<Vec<_>>(),
    ));
    let statement = client.prepare_typed("SELECT line FROM driver_seed WHERE id = $1", &[Type::INT4]).await?;
    for id in [7, 1999, -1] {
        lines.push(line(client.query_opt(&statement, &[&id]).await?.map(|row| row.get::<_, String>(0))));
    }
    lines.push(line(client.execute("INSERT INTO driver_test VALUES ($1, 'a'), ($2, 'b')", &[&1, &2]).await?));
    lines.push(line(client.query("DELETE FROM driver_test RETURNING id", &[]).await?.len()));
    let messages = client.simple_query("SELECT 1; UPDATE driver_test SET id = 1; SELECT 'x' AS two").await?;
    lines.push(line(messages.len()));
    Ok(lines)
}

async fn pipelines(client: &Client) -> Result<Lines, Error> {
    let statement = client.prepare("SELECT id FROM driver_seed WHERE id = $1").await?;
    let ids: Vec<i32> = (0..100).collect();
    let rows = join_all(ids.iter().map(async |id| client.query_one(&statement, &[id]).await)).await;
    let sum: i32 = rows.into_iter().collect::<Result<Vec<_>, _>>()?.iter().map(|row| row.get::<_, i32>(0)).sum();
    let mixed = [
        "SELECT 1",
        "INSERT INTO driver_test VALUES (1)",
        "SELECT 1/0",
        "SELECT count(*) FROM driver_test",
        "TRUNCATE driver_test",
    ];
    let answers = join_all(mixed.map(async |query| match client.query(query, &[]).await {
        Ok(rows) => line(rows.iter().map(tokio_postgres::Row::len).collect::<Vec<_>>()),
        Err(error) => line(error.code()),
    }));
    let mut lines = answers.await;
    lines.push(line(sum));
    Ok(lines)
}

async fn errors(client: &Client) -> Lines {
    let mut lines = Lines::new();
    let raise =
        "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$";
    for query in
        ["SELEKT 1", "SELECT 'ü', nothing FROM driver_seed", "INSERT INTO driver_seed VALUES (1)", "SELECT 1/0", raise]
    {
        lines.push(refusal(client.query(query, &[]).await));
        lines.push(refusal(client.batch_execute(query).await));
    }
    lines
}

async fn transactions(client: &mut Client) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let mut transaction = client.transaction().await?;
    transaction.execute("INSERT INTO driver_test VALUES (1, 'kept')", &[]).await?;
    let savepoint = transaction.savepoint("s").await?;
    lines.push(refusal(savepoint.execute("INSERT INTO driver_test VALUES (1, 'twice')", &[]).await));
    savepoint.rollback().await?;
    transaction.commit().await?;
    let transaction = client.transaction().await?;
    transaction.execute("DELETE FROM driver_test", &[]).await?;
    // A transaction that is dropped is rolled back, by the next who comes.
    drop(transaction);
    lines.push(first(client, "SELECT count(*) FROM driver_test").await?);
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let transaction = client.build_transaction().isolation_level(level).read_only(true).start().await?;
        let row = transaction
            .query_one("SELECT current_setting('transaction_isolation'), count(*) FROM driver_test", &[])
            .await?;
        lines.push(line((row.get::<_, String>(0), row.get::<_, i64>(1))));
        transaction.commit().await?;
    }
    Ok(lines)
}

async fn portals(client: &mut Client) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    for read_only in [false, true] {
        let transaction = client.build_transaction().read_only(read_only).start().await?;
        let portal = transaction.bind("SELECT id FROM driver_seed WHERE id < $1 ORDER BY 1", &[&120]).await?;
        let other = transaction.bind("SELECT -id FROM driver_seed ORDER BY id", &[]).await?;
        for rows in [50, 50, 0] {
            lines.push(line(transaction.query_portal(&portal, rows).await?.len()));
            lines.push(line(transaction.query_portal(&other, 3).await?.last().map(|row| row.get::<_, i32>(0))));
        }
        transaction.rollback().await?;
    }
    Ok(lines)
}

async fn copy(client: &Client) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    client.batch_execute("TRUNCATE driver_test").await?;
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY driver_test FROM STDIN").await?);
    for number in 0..2000 {
        sink.feed(Bytes::from(format!("{number}\tline {number}\n"))).await?;
    }
    lines.push(line(sink.as_mut().finish().await?));
    let sink = client.copy_in("COPY driver_test FROM STDIN (FORMAT binary)").await?;
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    writer.as_mut().write(&[&5000, &"binary"]).await?;
    lines.push(line(writer.as_mut().finish().await?));
    let stream = client.copy_out("COPY driver_test TO STDOUT (FORMAT binary)").await?;
    lines.push(line(BinaryCopyOutStream::new(stream, &[Type::INT4, Type::TEXT]).try_collect::<Vec<_>>().await?.len()));
    // A sink that is dropped fails the COPY.
    drop(client.copy_in::<_, Bytes>("COPY driver_test FROM STDIN").await?);
    lines.push(first(client, "SELECT count(*) FROM driver_test").await?);
    Ok(lines)
}

async fn settings(client: &mut Client) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    let show = "SELECT current_setting('TimeZone') || current_setting('search_path')";
    client.batch_execute("SET TimeZone = 'Europe/Rome'").await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET search_path = pg_catalog; SET LOCAL TimeZone = 'Asia/Tokyo'").await?;
    lines.push(line(transaction.query_one(show, &[]).await?.get::<_, String>(0)));
    transaction.rollback().await?;
    for _ in 0..3 {
        lines.push(first(client, show).await?);
    }
    client.batch_execute("CREATE TEMP TABLE mine (id int); INSERT INTO mine VALUES (7)").await?;
    lines.push(first(client, "SELECT id FROM mine").await?);
    client.batch_execute("DISCARD ALL").await?;
    lines.push(first(client, show).await?);
    Ok(lines)
}

async fn cancelling(place: &Place<'_>, client: &Client) -> Lines {
    let sleep = client.query_one("SELECT pg_sleep(15)", &[]);
    // Whoever asks to cancel does not say that he wants TLS, as libpq before 17; the first may come before the statement.
    let cancel = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            client.cancel_token().cancel_query(tls(&place.ca().0)).await.unwrap();
        }
    };
    let cancelled = tokio::select! {
        result = sleep => refusal(result),
        () = cancel => String::new(),
    };
    vec![cancelled, first(client, "SELECT count(*) FROM driver_seed").await.unwrap()]
}
