// postgres.js: what it sees is the same whatever it is connected to.

const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const postgres = require("postgres");
const { run, say, sayError, ssl } = require("./features.js");

// Runs `use` with connections of its own.
async function withSql(options, use) {
  const notices = [];
  const sql = postgres({ ssl, max: 1, onnotice: ({ code, message }) => notices.push([code, message]), ...options });
  try {
    await use(sql, notices);
  } finally {
    await sql.end();
  }
}

const show = (sql) => sql`SELECT current_setting('TimeZone') AS zone, current_setting('search_path') AS path, current_setting('work_mem') AS mem`;

async function connecting() {
  const connection = { application_name: "own", search_path: "pg_catalog", TimeZone: "Asia/Tokyo", statement_timeout: 12345 };
  await withSql({ connection }, async (sql) => {
    // It looks up the array types when it connects.
    for (let n = 0; n < 3; n++) say(await show(sql), await sql`SHOW application_name`, await sql`SHOW statement_timeout`);
    say(sql.parameters.TimeZone, sql.parameters.server_encoding, sql.parameters.application_name);
  });
}

async function types() {
  for (const prepare of [true, false]) {
    await withSql({ prepare }, async (sql) => {
      say(await sql`SELECT ${41}::int AS a, ${"naïve ' \\ \u4e16\u{1f600}"}::text AS b, ${Buffer.from([0, 255])}::bytea AS c,
        ${sql.json({ a: [1, null] })} AS d, ${new Date(0)}::timestamptz AS e, ${[1, 2]}::int[] AS f, ${"123.4500"}::numeric AS g,
        ${true}::bool AS h, ${null}::date AS i, ${1.5}::float8 AS j, ${10n}::int8 AS k`);
      say(await sql`SELECT '1 day'::interval AS a, '{{a,b},{c,d}}'::text[] AS b, '[1,5)'::int4range AS c, '{}'::json AS d`);
      say(await sql`SELECT id, line FROM driver_seed WHERE id IN ${sql([1, 2, 3])} ORDER BY id`.values());
    });
  }
}

async function queries() {
  await withSql({ max: 2 }, async (sql, notices) => {
    await sql`TRUNCATE driver_test`;
    const added = await sql`INSERT INTO driver_test ${sql([{ id: 1, line: "a" }, { id: 2, line: "b" }])} RETURNING *`;
    say(added.command, added.count, [...added], added.columns.map(({ name, type }) => [name, type]));
    // It pipelines them.
    say((await Promise.all(Array.from({ length: 50 }, (_, n) => sql`SELECT line FROM driver_seed WHERE id = ${n}`))).map((rows) => rows[0].line));
    say(await sql.unsafe("SELECT 1 AS one; UPDATE driver_test SET line = 'c'; SELECT 2 AS two").simple());
    say(await sql`SELECT * FROM driver_test ORDER BY id`, await sql`SELECT ${1}::int AS a`.describe().then(({ types }) => types));
    say(await sql`SELECT id FROM driver_test WHERE line = ${"c"} ORDER BY 1`.raw());
    await sql`DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$`.simple();
    say(notices);
  });
}

async function errors() {
  await withSql({}, async (sql) => {
    for (const query of [
      "SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1/0", "INSERT INTO driver_seed VALUES (1)", "DROP TABLE pg_class",
      "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$",
    ]) {
      await sql.unsafe(query).catch(sayError);
      await sql.unsafe(query, [], { prepare: true }).catch(sayError);
    }
    const all = await Promise.allSettled([sql`SELECT 1 AS a`, sql`SELECT 1 / ${0}::int`, sql`SELECT 2 AS b`]);
    say(all.map(({ value, reason }) => reason?.code ?? value));
  });
}

async function prepared_statements() {
  await withSql({}, async (sql) => {
    for (const id of [7, 1999, -1, 8]) say(await sql`SELECT line FROM driver_seed WHERE id = ${id}`);
    await sql`CREATE TABLE changes (a int)`;
    say(await sql`/* causeway: primary */ SELECT * FROM changes`);
    await sql`ALTER TABLE changes ADD b text`;
    // It prepares again by itself, when it is told that the plan has changed.
    say((await sql`/* causeway: primary */ SELECT * FROM changes`).columns.map(({ name }) => name));
    await sql`DEALLOCATE ALL`;
    await sql`SELECT line FROM driver_seed WHERE id = ${7}`.then(say, sayError);
    say(await sql`SELECT line FROM driver_seed WHERE id = ${7}`);
  });
}

async function cursors() {
  await withSql({}, async (sql) => {
    let sum = 0;
    for await (const rows of sql`SELECT id FROM driver_seed WHERE id < ${120} ORDER BY 1`.cursor(50)) {
      sum = rows.reduce((total, { id }) => total + id, sum);
    }
    say(sum);
    await sql`SELECT id FROM driver_seed ORDER BY 1`.cursor(10, (rows) => {
      say(rows.at(-1));
      return rows.at(-1).id > 15 ? sql.CLOSE : undefined;
    });
    let count = 0;
    await sql`SELECT id FROM driver_seed`.forEach(() => count++);
    say(count);
  });
}

async function copying() {
  await withSql({}, async (sql) => {
    await sql`TRUNCATE driver_test`;
    const lines = Array.from({ length: 2000 }, (_, n) => `${n}\tline ${n}\n`);
    await pipeline(Readable.from(lines), await sql`COPY driver_test FROM STDIN`.writable());
    let data = "";
    for await (const part of await sql`COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT`.readable()) data += part;
    say(data === lines.join(""), await sql`SELECT count(*) FROM driver_test`);
  });
}

async function transactions() {
  await withSql({ max: 2 }, async (sql) => {
    await sql`TRUNCATE driver_test`;
    say(await sql.begin(async (sql) => {
      await sql`INSERT INTO driver_test VALUES (1, 'kept')`;
      await sql.savepoint((sql) => sql`INSERT INTO driver_test VALUES (1, 'twice')`).catch(sayError);
      await sql`SET LOCAL TimeZone = 'Asia/Tokyo'`;
      return show(sql);
    }));
    await sql.begin((sql) => sql`DELETE FROM driver_test`.then(() => Promise.reject(new Error("undo")))).catch((error) => say(error.message));
    for (const options of ["read only", "isolation level serializable", "isolation level repeatable read read only"]) {
      say(await sql.begin(options, async (sql) => [
        await sql`SHOW transaction_isolation`, await sql`SHOW transaction_read_only`, await sql`SELECT count(*) FROM driver_test`,
      ]));
    }
    say(await show(sql));
    // Queued all at once, as one pipeline.
    say(await sql.begin((sql) => [sql`SELECT 1 AS a`, sql`INSERT INTO driver_test VALUES (5)`, sql`SELECT count(*) FROM driver_test`]));
    const own = await sql.reserve();
    await own`SET TimeZone = 'Europe/Rome'`;
    say(await show(own));
    own.release();
  });
}

async function notifications() {
  await withSql({}, async (sql) => {
    const heard = [];
    let wake;
    const { unlisten } = await sql.listen("letters", (payload) => {
      heard.push(payload);
      if (heard.length === 2) wake();
    });
    const both = new Promise((resolve) => (wake = resolve));
    await sql.notify("letters", "it's");
    await sql`SELECT pg_notify('letters', ${"ü"})`;
    await both;
    say(heard);
    await unlisten();
  });
}

async function cancelling() {
  await withSql({}, async (sql) => {
    const query = sql`SELECT pg_sleep(15)`;
    setTimeout(() => query.cancel(), 400);
    await query.then(say, sayError);
    say(await sql`SELECT count(*) FROM driver_seed`);
  });
}

run({
  connecting, types, queries, errors, prepared_statements, cursors, copying, transactions, notifications, cancelling,
});
