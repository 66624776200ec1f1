// node-postgres: what it sees is the same whatever it is connected to.

const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { once } = require("node:events");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const copy = require("pg-copy-streams");
const { run, say, sayError, ssl } = require("./features.js");

const SHOW = "SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem'), current_user";

// Runs `use` with a client of its own.
async function withClient(options, use) {
  const client = new Client({ ssl, ...options });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}

async function rows(client, ...query) {
  return (await client.query(...query)).rows;
}

async function refused(client, ...query) {
  try {
    say(await rows(client, ...query));
  } catch (error) {
    sayError(error);
  }
}

async function connecting() {
  const options = { application_name: "own", options: "-c search_path=pg_catalog -c work_mem=7MB", statement_timeout: 12345 };
  await withClient(options, async (client) => {
    say(client.connection.stream.encrypted);
    for (let n = 0; n < 3; n++) {
      say(await rows(client, SHOW + ", current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout"));
    }
  });
}

async function types() {
  await withClient({}, async (client) => {
    for (const binary of [false, true]) {
      const text =
        "SELECT $1::int, $2::text, $3::bytea, $4::jsonb, $5::timestamptz, $6::int[], $7::numeric, $8::bool, $9::date, $10::float8";
      const values = [
        41, "naïve ' \\ \u4e16\u{1f600}", Buffer.from([0, 255]), { a: [1, null] }, new Date(0), [1, null, 3], "123.4500", true, null, 1.5,
      ];
      say(await rows(client, { text, values, binary, rowMode: "array" }));
    }
    say(await rows(client, "SELECT '1 day'::interval, '(1,2)'::point, '{{a,b},{c,d}}'::text[], '[1,5)'::int4range, 2::int8, '{}'::json"));
  });
}

async function queries() {
  await withClient({}, async (client) => {
    await client.query("TRUNCATE driver_test");
    const results = await client.query("SELECT 1 AS one; INSERT INTO driver_test VALUES (1, 'a'), (2, 'b'); SELECT 2 AS two");
    say(results.map(({ command, rowCount, rows }) => ({ command, rowCount, rows })));
    const inserted = await client.query("INSERT INTO driver_test VALUES ($1, $2) RETURNING *", [3, "c"]);
    say(inserted.command, inserted.rowCount, inserted.rows, inserted.fields.map(({ name, dataTypeID }) => [name, dataTypeID]));
    // It queues them.
    say(await Promise.all([1, 2, 3, 4].map((id) => rows(client, "SELECT line FROM driver_test WHERE id = $1", [id]))));
    say((await client.query("")).command, (await client.query("UPDATE driver_test SET line = NULL")).rowCount);
    say(await rows(client, "WITH gone AS (DELETE FROM driver_test RETURNING id) SELECT sum(id) FROM gone"));
  });
}

async function errors() {
  await withClient({}, async (client) => {
    const notices = [];
    client.on("notice", (notice) => notices.push([notice.code, notice.message]));
    for (const query of [
      "SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1/0", "INSERT INTO driver_seed VALUES (1)", "DROP TABLE pg_class",
      "SELECT 1; SELECT 1/0", "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$",
    ]) {
      await refused(client, query);
    }
    await refused(client, "SELECT 1 / $1::int", [0]);
    await refused(client, "SELECT $1::int", ["x"]);
    await refused(client, { name: "broken", text: "SELECT nothing FROM driver_seed" });
    await refused(client, { name: "broken", text: "SELECT 1 AS fixed" });
    await client.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$");
    say(notices);
  });
}

async function prepared_statements() {
  await withClient({}, async (client) => {
    for (const id of [7, 1999, -1, 8]) {
      say(await rows(client, { name: "by-id", text: "SELECT line FROM driver_seed WHERE id = $1", values: [id] }));
    }
    await client.query("SET TimeZone = 'Asia/Tokyo'");
    say(await rows(client, { name: "by-id", text: "SELECT line FROM driver_seed WHERE id = $1", values: [9] }));
    await withClient({}, async (other) => {
      say(await rows(other, { name: "by-id", text: "SELECT id FROM driver_seed WHERE line = $1", values: ["line 3"] }));
    });
    say(await rows(client, { name: "by-id", text: "SELECT line FROM driver_seed WHERE id = $1", values: [10] }));
    await client.query("DEALLOCATE ALL");
    await refused(client, { name: "by-id", text: "SELECT line FROM driver_seed WHERE id = $1", values: [11] });
  });
}

async function cursors() {
  await withClient({}, async (client) => {
    await client.query("BEGIN");
    const cursor = client.query(new Cursor("SELECT id FROM driver_seed WHERE id < $1 ORDER BY 1", [120]));
    let sum = 0;
    for (let part = await cursor.read(50); part.length > 0; part = await cursor.read(50)) {
      sum = part.reduce((total, row) => total + row.id, sum);
    }
    say(sum);
    await cursor.close();
    await client.query("COMMIT");
    const alone = client.query(new Cursor("SELECT id FROM driver_seed ORDER BY 1"));
    say(await alone.read(3));
    await alone.close();
    say(await rows(client, "SELECT count(*) FROM driver_seed"));
  });
}

async function copying() {
  await withClient({}, async (client) => {
    await client.query("TRUNCATE driver_test");
    const lines = Array.from({ length: 2000 }, (_, n) => `${n}\tline ${n}\n`);
    const into = client.query(copy.from("COPY driver_test FROM STDIN"));
    await pipeline(Readable.from(lines), into);
    let data = "";
    const out = client.query(copy.to("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT"));
    for await (const part of out) data += part;
    say(into.rowCount, data === lines.join(""));
    await pipeline(Readable.from(["nonsense\n"]), client.query(copy.from("COPY driver_test FROM STDIN"))).catch(sayError);
    say(await rows(client, "SELECT count(*) FROM driver_test"));
  });
}

async function settings() {
  await withClient({}, async (client) => {
    await client.query("SET TimeZone = 'Europe/Rome'");
    say(await rows(client, SHOW));
    await client.query("BEGIN");
    await client.query("SET search_path = pg_catalog; SET LOCAL work_mem = '7MB'; SET ROLE other");
    say(await rows(client, SHOW));
    await client.query("ROLLBACK");
    say(await rows(client, SHOW));
    say(await rows(client, "SELECT set_config('work_mem', $1, false)", ["9MB"]), await rows(client, SHOW));
    await client.query("SET ROLE other");
    await refused(client, "SELECT * FROM driver_seed");
    await client.query("DISCARD ALL");
    say(await rows(client, SHOW), await rows(client, "SELECT count(*) FROM driver_seed"));
  });
}

async function transactions() {
  await withClient({}, async (client) => {
    await client.query("TRUNCATE driver_test");
    await client.query("BEGIN");
    await client.query("INSERT INTO driver_test VALUES (1, 'kept')");
    await client.query("SAVEPOINT s");
    await refused(client, "INSERT INTO driver_test VALUES (1, 'twice')");
    await refused(client, "SELECT 1");
    await client.query("ROLLBACK TO s");
    await client.query("COMMIT");
    await client.query("BEGIN; DELETE FROM driver_test; ROLLBACK");
    say(await rows(client, "SELECT count(*), min(id) FROM driver_test"));
    for (const level of ["READ COMMITTED", "REPEATABLE READ READ ONLY", "SERIALIZABLE"]) {
      await client.query("BEGIN ISOLATION LEVEL " + level);
      say(await rows(client, "SHOW transaction_isolation"), await rows(client, "SELECT count(*) FROM driver_test"));
      await client.query("COMMIT");
    }
  });
}

async function notifications() {
  await withClient({}, async (client) => {
    await client.query("LISTEN letters");
    await withClient({}, async (other) => {
      for (const text of ["it''s", "ü"]) {
        const heard = once(client, "notification");
        await other.query(`NOTIFY letters, '${text}'`);
        say((await heard).map(({ channel, payload }) => [channel, payload]));
      }
    });
    await client.query("UNLISTEN *");
    say(await rows(client, "SELECT pg_listening_channels()"));
  });
}

async function session_objects() {
  await withClient({}, async (client) => {
    await client.query("CREATE TEMP TABLE mine (id serial)");
    await client.query("INSERT INTO mine DEFAULT VALUES");
    say(await rows(client, "SELECT count(*) FROM mine"), await rows(client, "SELECT lastval()"));
    await client.query("DROP TABLE mine");
    await withClient({}, async (other) => {
      const try_lock = "SELECT pg_try_advisory_lock(7)";
      say(await rows(client, try_lock), await rows(other, try_lock), await rows(client, "SELECT pg_advisory_unlock(7)"), await rows(other, try_lock));
    });
    await client.query("PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1");
    say(await rows(client, "EXECUTE by_id (5)"), await rows(client, "SELECT 1"), await rows(client, "EXECUTE by_id (6)"));
    await client.query("DEALLOCATE by_id");
  });
}

async function cancelling() {
  await withClient({}, async (client) => {
    const { processID, secretKey } = client;
    // The first request may come before the statement.
    const timer = setInterval(() => {
      const { connection } = new Client();
      connection.on("error", () => {});
      connection.once("connect", () => connection.cancel(processID, secretKey));
      connection.connect(Number(process.env.PGPORT), process.env.PGHOST);
    }, 200);
    await refused(client, "SELECT pg_sleep(15)");
    clearInterval(timer);
  });
  await withClient({ statement_timeout: 50 }, async (client) => {
    await refused(client, "SELECT pg_sleep(15)");
    say(await rows(client, "SELECT count(*) FROM driver_seed"));
  });
}

async function pooling() {
  const pool = new Pool({ ssl, max: 3 });
  await pool.query("TRUNCATE driver_test");
  await Promise.all(Array.from({ length: 30 }, async (_, n) => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("SELECT set_config('work_mem', $1, true)", [n + 1 + "MB"]);
    await client.query("INSERT INTO driver_test VALUES ($1, current_setting('work_mem'))", [n]);
    await client.query("COMMIT");
    client.release();
  }));
  say((await pool.query("SELECT count(*) FROM driver_test WHERE line = id + 1 || 'MB'")).rows, (await pool.query(SHOW)).rows);
  await pool.end();
}

run({
  connecting, types, queries, errors, prepared_statements, cursors, copying, settings, transactions, notifications,
  session_objects, cancelling, pooling,
});
