// node-postgres: what it prints is the same whatever it is connected to. The environment says to what.

const fs = require("node:fs");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client } = require("pg");
const copy = require("pg-copy-streams");

async function main() {
  const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT) };
  const client = new Client({ ssl });
  await client.connect();
  console.log("tls", client.connection.stream.encrypted);

  const query = "SELECT $1::int + 1 AS sum, $2::text AS text, NULL::date AS date, ARRAY[1.5, 2.5] AS list";
  console.log("query", (await client.query(query, [41, "naïve ' \\ text"])).rows);

  const lines = Array.from({ length: 2000 }, (_, n) => `${n}\tline ${n}\n`);
  await client.query("BEGIN");
  await pipeline(Readable.from(lines), client.query(copy.from("COPY driver_test FROM STDIN")));
  let data = "";
  const out = client.query(copy.to("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT"));
  for await (const part of out) data += part;
  await client.query("COMMIT");
  console.log("copy", data.length, data === lines.join(""));

  await client.query("BEGIN");
  await client.query("INSERT INTO driver_test VALUES (-1, 'kept')");
  await client.query("SAVEPOINT s");
  await client
    .query("INSERT INTO driver_test VALUES (-1, 'twice')")
    .catch((error) => console.log("error", error.code, error.constraint));
  await client.query("ROLLBACK TO s");
  await client.query("COMMIT");
  await client.query("BEGIN; DELETE FROM driver_test; ROLLBACK");
  console.log("transaction", (await client.query("/* causeway: primary */ SELECT count(*), min(id) FROM driver_test")).rows);

  for (const id of [7, 1999, -1]) {
    const by_id = { name: "by-id", text: "SELECT line FROM driver_seed WHERE id = $1", values: [id] };
    console.log("prepared", (await client.query(by_id)).rows);
  }

  const { processID, secretKey } = client;
  // The first request may come before the statement.
  const timer = setInterval(() => cancel(processID, secretKey), 300);
  await client.query("SELECT pg_sleep(30)").catch((error) => console.log("cancel", error.code));
  clearInterval(timer);
  console.log("after", (await client.query("SELECT count(*) FROM driver_seed")).rows);
  await client.end();
}

function cancel(processID, secretKey) {
  const { connection } = new Client();
  connection.on("error", () => {});
  connection.once("connect", () => connection.cancel(processID, secretKey));
  connection.connect(Number(process.env.PGPORT), process.env.PGHOST);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
