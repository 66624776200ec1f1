//! `pg_dump` and `pg_restore` through the proxy: the same dump, byte for byte, and the same database.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Mode, Place, database, in_all_modes};
use crate::harness::Env;

/// Of everything something, with quotes where they hurt, and some 20 MB of rows.
const CONTENTS: &str = r#"
    CREATE SCHEMA "odd ""schema";
    CREATE TYPE mood AS ENUM ('sad', 'it''s');
    CREATE DOMAIN small AS int CONSTRAINT is_small CHECK (VALUE < 1000000);
    CREATE SEQUENCE "odd ""schema".counter START 7 CYCLE MAXVALUE 100;
    CREATE TABLE "odd ""schema"."Töchter" (id serial PRIMARY KEY, "wei rd" small DEFAULT 5, mood mood DEFAULT 'sad',
        made int GENERATED ALWAYS AS (id * 2) STORED, at timestamptz DEFAULT '2024-02-29', tags text[], data jsonb, raw bytea);
    CREATE TABLE parts (id int, day date) PARTITION BY RANGE (day);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE UNLOGGED TABLE fleeting (id int);
    CREATE FUNCTION "odd ""schema".stamp() RETURNS trigger LANGUAGE plpgsql AS $_$ BEGIN NEW.at := '$$'; RETURN NEW; EXCEPTION
        WHEN OTHERS THEN RETURN NEW; END $_$;
    CREATE PROCEDURE nothing(INOUT a int) LANGUAGE sql AS 'SELECT $1';
    CREATE VIEW seen AS SELECT id, tags FROM "odd ""schema"."Töchter" WHERE mood = 'it''s';
    CREATE RULE no_more AS ON DELETE TO seen DO INSTEAD NOTHING;
    COMMENT ON VIEW seen IS E'two\nlines';
    CREATE TABLE bulk AS SELECT n AS id, md5(n::text) || repeat('x', n % 50) AS line, n * 1.5 AS price FROM generate_series(1, 250000) n;
    ALTER TABLE bulk ADD PRIMARY KEY (id);
    CREATE INDEX ON bulk (lower(line)) WHERE id % 2 = 0;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM bulk;
    INSERT INTO "odd ""schema"."Töchter" (mood, tags, data, raw)
        SELECT 'it''s', ARRAY['a', NULL, E't\tb\\'], jsonb_build_object('n', n), decode(md5(n::text), 'hex') FROM generate_series(1, 1000) n;
    CREATE TRIGGER stamps BEFORE UPDATE ON "odd ""schema"."Töchter" FOR EACH ROW EXECUTE FUNCTION "odd ""schema".stamp();
    INSERT INTO parts SELECT n, '2024-01-01'::date + n FROM generate_series(0, 300) n;
    SELECT nextval('"odd ""schema".counter');
    SELECT lo_from_bytea(0, decode(repeat(md5(n::text), 100), 'hex')) FROM generate_series(1, 20) n;
    ALTER TABLE bulk ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON bulk FOR SELECT USING (id > 0);
    GRANT SELECT ON seen TO other
"#;

/// A dump through the proxy is the direct one; what is restored through the proxy, in any format, has that dump again.
pub fn pg_dump_and_pg_restore(env: &Env) {
    let dumped = database(env, "dump");
    let source = Place::new(env, &dumped, Mode::Direct);
    source.run(&["psql", "-Xqo", "/dev/null", "-v", "ON_ERROR_STOP=1", "-c", CONTENTS]);
    let files = tempfile::tempdir().unwrap();
    let direct = dump(&source, &files, "direct");
    assert!(direct.len() > 15_000_000, "only {} bytes", direct.len());
    in_all_modes(|mode| {
        let through = Place::new(env, &dumped, mode);
        let label = format!("{mode:?}");
        check_same(&direct, &dump(&through, &files, &label), &format!("the dump, {mode:?}"));
        let restored = database(env, "restore");
        let restored = Place::new(env, &restored, mode);
        restored.run(&["psql", "-Xqc", "DROP TABLE driver_seed, driver_test; DROP SEQUENCE driver_sequence"]);
        let [plain, custom, directory] = ["sql", "custom", "directory"].map(|end| path(&files, &label, end));
        match mode {
            Mode::Direct => restored.run(&["psql", "-Xqo", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", &plain]),
            Mode::Session => {
                through.run(&["pg_dump", "-Fc", "-f", &custom]);
                restored.run(&["pg_restore", "--single-transaction", "-d", &restored.database.name, &custom])
            }
            Mode::Transaction => {
                through.run(&["pg_dump", "-Fd", "-j", "2", "-f", &directory]);
                restored.run(&["pg_restore", "-j", "2", "-d", &restored.database.name, &directory])
            }
        };
        let again = dump(&restored, &files, &format!("restored_{label}"));
        // COPY may put short rows into the gaps of earlier pages.
        check_same(&sorted(&direct), &sorted(&again), &format!("what was restored, {mode:?}"));
    });
}

/// Byte for byte; says where it is not.
fn check_same(direct: &[u8], through: &[u8], what: &str) {
    if direct != through {
        let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
        let (direct, through) = (lines(direct), lines(through));
        let same = direct.iter().zip(&through).take_while(|(left, right)| left == right).count();
        panic!("{what}, line {same}: {:?} became {:?}", direct.get(same), through.get(same));
    }
}

fn sorted(dump: &[u8]) -> Vec<u8> {
    let mut lines: Vec<_> = dump.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines.concat()
}

fn path(files: &TempDir, label: &str, end: &str) -> String {
    files.path().join(format!("{label}.{end}")).to_str().unwrap().to_owned()
}

/// A plain dump, without the lines that name what made it.
fn dump(place: &Place<'_>, files: &TempDir, label: &str) -> Vec<u8> {
    let file = path(files, label, "sql");
    // The token that keeps psql from reading rows as commands is another each time, where pg_dump knows it.
    place.run(&["pg_dump", "-f", &file]);
    without_tokens(Path::new(&file))
}

fn without_tokens(file: &Path) -> Vec<u8> {
    let text = fs::read(file).unwrap();
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict "))
        .flatten()
        .copied()
        .collect()
}
