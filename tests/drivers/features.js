// What the Node programs share. A program is a list of features; each prints what its driver saw.
// The environment says what to connect to. Arguments are names of features; none means all.

const fs = require("node:fs");
const { inspect } = require("node:util");

function say(...values) {
  const text = values.map((value) =>
    typeof value === "string" ? value : inspect(value, { depth: 9, breakLength: Infinity, maxArrayLength: 20 }),
  );
  console.log(text.join(" ").replace(/process \d+/g, "process N"));
}

function sayError(error) {
  const names =
    "severity code message detail hint position internalPosition where schema table column dataType constraint " +
    "schema_name table_name column_name type_name constraint_name routine";
  const fields = names.split(" ").map((name) => [name, error[name]]);
  say(Object.fromEntries(fields.filter(([, value]) => value !== undefined)));
}

async function run(features) {
  const wanted = process.argv.slice(2);
  for (const [name, feature] of Object.entries(features)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    console.log("== " + name);
    try {
      await feature();
    } catch (error) {
      say("FAILED", String(error));
      if (wanted.length > 0) console.log(error);
    }
  }
  process.exit(0);
}

const ssl = process.env.PGSSLMODE === "disable" ? false : { ca: fs.readFileSync(process.env.PGSSLROOTCERT) };

module.exports = { run, say, sayError, ssl };
