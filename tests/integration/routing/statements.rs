//! The tables. With `~` in front, a statement's answer is not the same twice.

/// What the statements use. The names of tables and functions say what is wrong with them.
pub fn setup(user: &str, password: &str, port: u16, database: &str) -> String {
    let password = password.replace('\'', "''");
    format!(
        "CREATE EXTENSION postgres_fdw; CREATE EXTENSION pgcrypto;
         CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw
           OPTIONS (host '127.0.0.1', port '{port}', dbname '{database}');
         CREATE USER MAPPING FOR {user} SERVER loop OPTIONS (user '{user}', password '{password}');
         GRANT USAGE ON FOREIGN SERVER loop TO {user};
         SET ROLE {user};
         {SETUP}"
    )
}

const SETUP: &str = "
CREATE TABLE t (id int PRIMARY KEY, a text);
INSERT INTO t VALUES (1, 'x'), (2, 'y');
CREATE TABLE w (n int);
CREATE SEQUENCE s;
CREATE UNLOGGED TABLE unlogged (n int);
CREATE TABLE part (n int) PARTITION BY RANGE (n);
CREATE UNLOGGED TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (10) TO (20);
CREATE FOREIGN TABLE ft (id int, a text) SERVER loop OPTIONS (table_name 't');
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t;
CREATE TABLE brin (n int); CREATE INDEX brin_n ON brin USING brin (n);
CREATE FUNCTION f_volatile() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION f_stable() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM t';
CREATE FUNCTION f_immutable(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE FUNCTION f_writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO w VALUES (1); RETURN 1; END';
CREATE FUNCTION f_writes(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO w VALUES ($1); RETURN $1; END';
CREATE FUNCTION f_liar() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_notify('x', ''); RETURN 1; END$$;
CREATE FUNCTION f_default(n bigint DEFAULT nextval('s')) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION touched(t) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('s')$$;
CREATE FUNCTION f_sum(bigint, int) RETURNS bigint LANGUAGE sql AS $$SELECT $1 + nextval('s')$$;
CREATE AGGREGATE agg_writes(int) (SFUNC = f_sum, STYPE = bigint, INITCOND = '0');
CREATE FUNCTION f_plus(int, int) RETURNS bigint LANGUAGE sql AS $$SELECT $1 + $2 + nextval('s')$$;
CREATE OPERATOR +!+ (LEFTARG = int, RIGHTARG = int, FUNCTION = f_plus);
CREATE FUNCTION f_same(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE OPERATOR ==! (LEFTARG = int, RIGHTARG = int, FUNCTION = f_same);
CREATE TYPE ticket AS (n bigint);
CREATE TYPE slip AS (n bigint);
CREATE FUNCTION to_ticket(slip) RETURNS ticket LANGUAGE sql AS $$SELECT row(nextval('s'))::ticket$$;
CREATE CAST (slip AS ticket) WITH FUNCTION to_ticket(slip);
CREATE DOMAIN checked AS int CHECK (f_writes(VALUE) = VALUE);
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE VIEW v_plain AS SELECT * FROM t;
CREATE VIEW v_next AS SELECT nextval('s');
CREATE VIEW v_of_v_next AS SELECT * FROM v_next;
CREATE VIEW v_unlogged AS SELECT * FROM unlogged;
CREATE VIEW v_foreign AS SELECT * FROM ft;
CREATE VIEW v_node AS SELECT count(*) > 0 AS any FROM pg_stat_activity;
CREATE VIEW v_liar AS SELECT f_liar();
CREATE TABLE secured (n int);
INSERT INTO secured VALUES (1);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE secured FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON secured USING (f_writes() = 1);
CREATE TABLE audited (n int);
INSERT INTO audited VALUES (1);
ALTER TABLE audited ENABLE ROW LEVEL SECURITY;
ALTER TABLE audited FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON audited USING (n < 10);
CREATE PROCEDURE add_one() LANGUAGE sql AS 'INSERT INTO w VALUES (1)';
CREATE SCHEMA other;
CREATE TABLE other.t (id int, b int);
";

pub const READS: &[&str] = &[
    "SELECT 1",
    "SELECT * FROM t ORDER BY id",
    "TABLE t",
    "VALUES (1, 'a'), (2, 'b')",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "WITH x(a) AS (SELECT id FROM t) SELECT sum(a) FROM x",
    "WITH RECURSIVE x(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT sum(n) FROM x",
    "SELECT a, count(*), max(id) FROM t GROUP BY a HAVING count(*) > 0 ORDER BY a",
    "SELECT ';', 'INSERT INTO t', $$nextval('s')$$, E'it\\'s', U&'\\0041'",
    "SELECT id AS nextval, a AS \"insert\" FROM t ORDER BY 1",
    "-- first\n/* second /* nested */ */ SELECT 1",
    "SELECT * FROM t WHERE id IN (SELECT id FROM t) AND EXISTS (SELECT FROM t) ORDER BY id",
    "SELECT row_number() OVER (ORDER BY id) FROM t",
    "SELECT * FROM generate_series(1, 3) AS g(n), LATERAL (SELECT g.n * 2) AS x(m)",
    // Its errors are the statement's own.
    "SELECT 1/0",
    "SELECT id FROM t WHERE",
    "SELECT 'x'::int",
    "DECLARE c CURSOR FOR SELECT 1",
    // PostgreSQL's volatile functions that do no harm.
    "~SELECT random(), clock_timestamp(), timeofday(), gen_random_uuid()",
    "SELECT pg_sleep(0), pg_sleep_for('0'), pg_sleep_until(now())",
    "SELECT pg_relation_size('t'), pg_table_size('t') > 0, pg_indexes_size('t'), pg_total_relation_size('t') > 0",
    "SELECT pg_database_size(current_database()) > 0, pg_tablespace_size('pg_default') > 0",
    "SELECT relid, level FROM pg_partition_tree('part')",
    "SELECT pg_partition_ancestors('part1')",
    "SELECT pg_collation_actual_version(oid) FROM pg_collation WHERE collname = 'C'",
    "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = 'template1'",
    "SELECT amvalidate(oid) FROM pg_opclass ORDER BY oid LIMIT 1",
    "SELECT pg_xact_status('3'::xid8), txid_status(3)",
    "~SELECT pg_xact_commit_timestamp('3'::xid)",
    "~SELECT pg_xact_commit_timestamp_origin('3'::xid)",
    "~SELECT count(*) FROM t TABLESAMPLE bernoulli (50)",
    "~SELECT count(*) FROM t TABLESAMPLE system (50)",
    "SELECT pg_get_multixact_members('1')",
    "SELECT pg_jit_available() IS NULL, pg_stat_have_stats('database', 0, 0)",
    "~SELECT gen_random_bytes(4), gen_salt('md5'), pgp_sym_encrypt('a', 'b')",
    // A user's.
    "SELECT f_stable(), f_immutable(1)",
    "SELECT * FROM v_plain ORDER BY id",
    "SELECT * FROM mv",
    "SELECT * FROM part2",
    "SELECT * FROM audited",
    "SELECT 1 ==! 1, 5::small, '2'::public.small",
    "/* causeway: replica */ SELECT f_volatile()",
    "/* causeway: replica */ SELECT 1",
    // EXPLAIN and COPY.
    "EXPLAIN (COSTS OFF) SELECT * FROM t",
    "EXPLAIN (COSTS OFF) INSERT INTO w VALUES (1)",
    "~EXPLAIN ANALYZE SELECT * FROM t",
    "~EXPLAIN (ANALYZE, COSTS OFF, FORMAT JSON) SELECT count(*) FROM t",
    "EXPLAIN (ANALYZE off, COSTS OFF) DELETE FROM w",
    "COPY t TO STDOUT",
    "COPY t (a) TO STDOUT (FORMAT csv, HEADER)",
    "COPY (SELECT id FROM t ORDER BY id) TO STDOUT",
    // Catalogs, and what is the same on every node.
    "SELECT relname FROM pg_class WHERE relname IN ('t', 'w') ORDER BY 1",
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
    "SELECT pg_get_viewdef('v_plain'), obj_description('t'::regclass), format_type(23, NULL)",
    "SELECT current_user, session_user, current_schema, version(), has_table_privilege('t', 'SELECT')",
    "SELECT to_regclass('nope'), to_regtype('int')",
    "~SELECT now(), current_timestamp, current_date",
    "SHOW TimeZone",
    "SHOW search_path",
    "SHOW server_version",
    "SHOW TRANSACTION ISOLATION LEVEL",
    // Several in one text; the extended protocol refuses them.
    "SELECT 1; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 2",
    "BEGIN READ ONLY; SELECT count(*) FROM t; COMMIT",
];

pub const FOR_THE_PRIMARY: &[(&str, &[&str])] = &[
    ("writes", WRITES),
    ("functions", FUNCTIONS),
    ("relations", RELATIONS),
    ("meaning", ANOTHER_MEANING),
    ("state", SESSION_STATE),
    ("texts", TEXTS),
];

const WRITES: &[&str] = &[
    "INSERT INTO w VALUES (1)",
    "INSERT INTO w SELECT id FROM t RETURNING n",
    "UPDATE w SET n = n + 1 WHERE n = 1",
    "DELETE FROM w WHERE n = 2",
    "MERGE INTO w USING t ON w.n = t.id WHEN NOT MATCHED THEN INSERT VALUES (t.id)",
    "MERGE INTO w USING t ON w.n = t.id WHEN MATCHED THEN DO NOTHING",
    "WITH x AS (INSERT INTO w VALUES (3) RETURNING n) SELECT * FROM x",
    "WITH x AS (SELECT 1) DELETE FROM w WHERE n = 77",
    "WITH x AS MATERIALIZED (UPDATE w SET n = 4 WHERE n = 3 RETURNING n) SELECT count(*) FROM x",
    "TRUNCATE w",
    "CREATE TABLE made (n int)",
    "CREATE TABLE copied AS SELECT * FROM t",
    "SELECT * INTO into1 FROM t",
    "SELECT ALL id INTO into2 FROM t",
    "CREATE INDEX ON t (a)",
    "ALTER TABLE made ADD COLUMN m int",
    "COMMENT ON TABLE t IS 'c'",
    "GRANT SELECT ON t TO PUBLIC",
    "REVOKE SELECT ON t FROM PUBLIC",
    "DROP TABLE made",
    "REFRESH MATERIALIZED VIEW mv",
    "VACUUM w",
    "ANALYZE w",
    "CLUSTER t USING t_pkey",
    "REINDEX TABLE w",
    "DO $$BEGIN INSERT INTO w VALUES (5); END$$",
    "DO $$BEGIN PERFORM 1; END$$",
    "CALL add_one()",
    "COPY w FROM STDIN",
    "COPY (INSERT INTO w VALUES (6) RETURNING n) TO STDOUT",
    "COPY (SELECT nextval('s')) TO STDOUT",
    "~EXPLAIN ANALYZE INSERT INTO w VALUES (8)",
    "~EXPLAIN (ANALYSE, COSTS OFF) DELETE FROM w WHERE n = 8",
    "~EXPLAIN ANALYZE SELECT nextval('s')",
    "~EXPLAIN ANALYZE SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t WHERE id = 1 FOR UPDATE",
    "SELECT * FROM t WHERE id = 1 FOR NO KEY UPDATE",
    "SELECT * FROM t WHERE id = 1 FOR SHARE",
    "SELECT * FROM t WHERE id = 1 FOR KEY SHARE",
    "SELECT * FROM (SELECT * FROM t WHERE id = 1 FOR SHARE) x",
    "NOTIFY channel",
    "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
    "NONSENSE",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
    "BEGIN READ WRITE",
];

const FUNCTIONS: &[&str] = &[
    "SELECT nextval('s')",
    "SELECT \"nextval\"('s'), pg_catalog . nextval ('s')",
    "SELECT setval('s', 10)",
    "SELECT pg_notify('channel', 'x')",
    "~SELECT txid_current(), pg_current_xact_id()",
    "~SELECT pg_current_wal_lsn(), pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()",
    "~SELECT pg_switch_wal()",
    "~SELECT lo_create(0)",
    "SELECT lo_unlink(1)",
    "~SELECT lo_from_bytea(0, 'x')",
    "SELECT brin_summarize_new_values('brin_n')",
    "SELECT gin_clean_pending_list('brin_n')",
    "~SELECT pg_logical_emit_message(true, 'a', 'b')",
    "SELECT f_volatile()",
    "SELECT f_writes()",
    "SELECT public.f_writes(3) FROM t",
    "SELECT f_default()",
    "SELECT touched(t) FROM t",
    "SELECT t.touched FROM t",
    "SELECT agg_writes(id) FROM t",
    "SELECT 1 +!+ 1",
    "~SELECT row(1)::slip::ticket",
    "~SELECT CAST(row(1)::slip AS ticket)",
    "SELECT 3::checked",
    "SELECT no_such_function()",
    "SELECT currval('s')",
    "SELECT lastval()",
    "SELECT query_to_xml('INSERT INTO w VALUES (9) RETURNING n', true, false, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(a) FROM t')",
];

const RELATIONS: &[&str] = &[
    "SELECT * FROM unlogged",
    "SELECT * FROM part",
    "SELECT * FROM part1",
    "SELECT * FROM v_unlogged",
    "SELECT * FROM v_next",
    "SELECT * FROM v_of_v_next",
    "SELECT last_value FROM s",
    "SELECT * FROM ft ORDER BY id",
    "SELECT * FROM v_foreign ORDER BY id",
    "SELECT * FROM v_node",
    "SELECT * FROM secured",
    "COPY unlogged TO STDOUT",
    "EXPLAIN (COSTS OFF) SELECT * FROM unlogged",
    "/* causeway: primary */ SELECT * FROM t ORDER BY id",
];

const ANOTHER_MEANING: &[&str] = &[
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT set_config('my.x', '1', false)",
    "SELECT setseed(0.5)",
    "LOCK TABLE t IN ACCESS SHARE MODE",
    "UNLISTEN channel",
    "CHECKPOINT",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "LOAD 'nope'",
    "COPY t TO PROGRAM 'cat'",
    "SELECT pg_reload_conf()",
    "SELECT pg_stat_reset()",
    "SELECT pg_create_physical_replication_slot('nope')",
    "~SELECT pg_export_snapshot()",
    "~SELECT pg_current_snapshot(), txid_current_snapshot()",
    "SELECT pg_listening_channels()",
    "SELECT inet_server_port(), inet_server_addr()",
    "SELECT current_setting('in_hot_standby'), current_setting('transaction_read_only')",
    "SHOW in_hot_standby",
    "SHOW transaction_read_only",
    "SHOW cluster_name",
    "SELECT setting FROM pg_settings WHERE name = 'in_hot_standby'",
    "SELECT count(*) > 0 FROM pg_stat_activity",
    "~SELECT count(*) FROM pg_stat_user_tables",
    "~SELECT numbackends FROM pg_stat_database WHERE datname = 'postgres'",
    "SELECT pg_is_in_recovery()",
    "SELECT pg_last_wal_replay_lsn()",
    "SELECT pg_sequence_last_value('s')",
    "SELECT last_value FROM pg_sequences WHERE sequencename = 's'",
    "~SELECT pg_backend_pid(), pg_postmaster_start_time(), pg_conf_load_time()",
    "~SELECT count(*) FROM pg_locks",
    "~SELECT current_query()",
    "~SELECT pg_control_checkpoint()",
];

const SESSION_STATE: &[&str] = &[
    "SET search_path = other",
    "SET TIME ZONE 'Europe/Rome'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET ROLE NONE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET search_path",
    "RESET ALL",
    "CREATE TEMP TABLE tmp (n int)",
    "CREATE LOCAL TEMPORARY TABLE tmp AS SELECT 1",
    "CREATE TABLE pg_temp.tmp (n int)",
    "SELECT 1 AS n INTO TEMP tmp",
    "CREATE TEMP VIEW tmp AS SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "FETCH ALL FROM c",
    "MOVE 1 IN c",
    "CLOSE c",
    "CLOSE ALL",
    "LISTEN channel",
    "UNLISTEN *",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DISCARD ALL",
];

/// The extended protocol refuses those of several statements; they go where they would have to run.
const TEXTS: &[&str] = &[
    "SELECT 1; INSERT INTO w VALUES (1)",
    "INSERT INTO w VALUES (2); SELECT count(*) FROM w",
    "SELECT 1; SELECT nextval('s'); SELECT 2",
    "BEGIN; SELECT 1; COMMIT",
    "BEGIN; INSERT INTO w VALUES (3); ROLLBACK",
    "/* causeway: replica */ INSERT INTO w VALUES (3)",
    "/* causeway: replica */ SELECT nextval('s')",
    "/* causeway: primary */ SELECT 1; SELECT 2",
    "~SELECT 'open",
    "~SELECT 1 /* open",
];

/// DDL, and a use that needs the primary; `#` is the protocol, `@` an operator of its own.
pub const NEW: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION new_f_#() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO w VALUES (1); RETURN 1; END'",
        "SELECT new_f_#()",
    ),
    ("CREATE VIEW new_v_# AS SELECT nextval('s')", "SELECT * FROM new_v_#"),
    ("CREATE UNLOGGED TABLE new_u_# (n int)", "SELECT * FROM new_u_#"),
    ("CREATE SEQUENCE new_s_#", "SELECT nextval('new_s_#')"),
    (
        "CREATE OR REPLACE FUNCTION f_immutable(int) RETURNS int LANGUAGE plpgsql VOLATILE
         AS 'BEGIN INSERT INTO w VALUES (1); RETURN $1; END'",
        "SELECT f_immutable(7) AS #",
    ),
    (
        "CREATE TABLE new_t_# (n int); INSERT INTO new_t_# VALUES (1); ALTER TABLE new_t_# ENABLE ROW LEVEL SECURITY;
         ALTER TABLE new_t_# FORCE ROW LEVEL SECURITY; CREATE POLICY p ON new_t_# USING (f_writes() = 1)",
        "SELECT * FROM new_t_#",
    ),
    ("CREATE DOMAIN new_d_# AS int CHECK (f_writes(VALUE) = VALUE)", "SELECT 1::new_d_#"),
    ("CREATE OPERATOR @ (LEFTARG = int, RIGHTARG = int, FUNCTION = f_plus)", "SELECT 1 @ 1"),
];

/// Where a transaction runs, from its first text to its last.
pub const TRANSACTIONS: &[(&str, &[&str])] = &[
    ("primary", &["BEGIN", "SELECT count(*) FROM t", "COMMIT"]),
    ("primary", &["BEGIN", "INSERT INTO w VALUES (1)", "SELECT count(*) FROM w", "ROLLBACK"]),
    ("primary", &["START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1", "END"]),
    ("primary", &["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SELECT count(*) FROM t", "COMMIT"]),
    ("primary", &["BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT"]),
    ("primary", &["BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a", "SELECT 1", "COMMIT"]),
    ("primary", &["BEGIN", "DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id", "FETCH 1 FROM c", "CLOSE c", "COMMIT"]),
    ("primary", &["BEGIN", "SET LOCAL search_path = other", "TABLE t", "COMMIT"]),
    ("primary", &["BEGIN", "COMMIT AND CHAIN", "SELECT 1", "ROLLBACK"]),
    ("primary", &["/* causeway: primary */ BEGIN READ ONLY", "SELECT count(*) FROM t", "COMMIT"]),
    ("replica", &["BEGIN READ ONLY", "SELECT count(*) FROM t", "COMMIT"]),
    ("replica", &["START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ", "SELECT 1", "SELECT 2", "COMMIT"]),
    ("replica", &["BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "TABLE t", "ROLLBACK"]),
    ("replica", &["BEGIN READ ONLY", "SELECT 1/0", "SELECT 1", "COMMIT"]),
    ("replica", &["BEGIN READ ONLY", "SAVEPOINT a", "SELECT nope", "ROLLBACK TO a", "SELECT 1", "COMMIT"]),
    ("replica", &["BEGIN READ ONLY", "INSERT INTO w VALUES (1)", "ROLLBACK"]),
    ("replica", &["BEGIN READ ONLY", "SELECT nextval('s')", "SELECT 1", "ROLLBACK"]),
    ("replica", &["BEGIN READ ONLY", "DECLARE c CURSOR FOR TABLE t", "FETCH 1 FROM c", "MOVE 1 IN c", "COMMIT"]),
    ("replica", &["BEGIN READ ONLY", "SET LOCAL search_path = other", "TABLE t", "COMMIT"]),
    ("replica", &["BEGIN READ ONLY", "COMMIT AND CHAIN", "SELECT 1", "ROLLBACK"]),
];

/// What a replica does not know, the primary may.
pub const MISSING: &[&str] =
    &["SELECT * FROM nope", "SELECT nope FROM t", "SELECT * FROM nope.t", "SELECT id + 'x'::nope FROM t"];
/// Code of all kinds that changes the session out of the client's sight; in a database of its own.
pub const HIDDEN_SETUP: &str = "
CREATE TABLE plain (n int);
CREATE FUNCTION f_plain() RETURNS int LANGUAGE plpgsql AS $$BEGIN UPDATE plain SET n = 1; RETURN 1; END$$;
CREATE FUNCTION f_set() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN SET my.x = '1'; PERFORM set_config('my.y', 'z', false); RETURN 1; END$$;
CREATE FUNCTION f_local() RETURNS text LANGUAGE sql AS $$SELECT set_config('my.l', 'z', true)$$;
CREATE FUNCTION f_config() RETURNS int LANGUAGE sql SET search_path = pg_catalog AS 'SELECT 1';
CREATE FUNCTION f_outer() RETURNS int LANGUAGE sql AS 'SELECT f_set()';
CREATE FUNCTION f_atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT f_outer(); END;
CREATE FUNCTION f_lock(int, int) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN PERFORM pg_advisory_lock($1); RETURN 1; END$$;
CREATE FUNCTION f_dynamic(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END';
CREATE AGGREGATE agg_lock(int) (SFUNC = f_lock, STYPE = int, INITCOND = '0');
CREATE OPERATOR +! (LEFTARG = int, RIGHTARG = int, FUNCTION = f_lock);
CREATE FUNCTION f_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM f_outer(); RETURN NEW; END';
CREATE TABLE with_trigger (n int);
CREATE TRIGGER t BEFORE INSERT ON with_trigger FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE TABLE with_default (a int DEFAULT f_lock(1, 1), b int);
CREATE TABLE with_check (n int CHECK (f_lock(n, n) > 0));
CREATE TABLE with_rule (n int);
CREATE RULE r AS ON INSERT TO with_rule DO ALSO SELECT f_lock(1, 1);
CREATE TABLE with_policy (n int);
ALTER TABLE with_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON with_policy USING (f_lock(1, 1) > 0);
CREATE DOMAIN d_lock AS int CHECK (f_lock(VALUE, 1) > 0);
CREATE TABLE with_domain (n d_lock);
CREATE TABLE parent (n int) PARTITION BY LIST (n);
CREATE TABLE child PARTITION OF parent FOR VALUES IN (1);
CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE TABLE target (n int PRIMARY KEY);
CREATE TABLE cascaded (n int REFERENCES target ON DELETE CASCADE);
CREATE TRIGGER t BEFORE DELETE ON cascaded FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE VIEW v_outer AS SELECT f_outer();
CREATE VIEW v_of_v_outer AS SELECT * FROM v_outer;
CREATE VIEW v_config AS SELECT set_config('my.v', '1', false);
CREATE TABLE with_serial (id serial, n int);
CREATE TABLE with_identity (id int GENERATED ALWAYS AS IDENTITY, n int);
CREATE VIEW v_serial AS SELECT * FROM with_serial;
CREATE FUNCTION f_inserts() RETURNS void LANGUAGE sql AS 'INSERT INTO with_serial (n) VALUES (1)';
CREATE FUNCTION f_reads() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM with_serial'";

/// Statements and their effects.
pub const HIDDEN: &[(&str, &str)] = &[
    ("SELECT f_plain()", "none"),
    ("SELECT f_set()", "set, hidden"),
    ("SELECT f_local()", "local"),
    ("SELECT f_config()", "none"),
    ("SELECT f_outer()", "set, hidden"),
    ("SELECT f_atomic()", "set, hidden"),
    ("SELECT f_dynamic('x')", "hidden"),
    ("SELECT agg_lock(n) FROM plain", "advisory_lock, hidden"),
    ("SELECT 1 +! 2", "advisory_lock, hidden"),
    ("SELECT n FROM with_trigger", "none"),
    ("INSERT INTO with_trigger VALUES (1)", "set, hidden"),
    ("INSERT INTO with_default (b) VALUES (1)", "advisory_lock, hidden"),
    ("INSERT INTO with_check VALUES (1)", "advisory_lock, hidden"),
    ("INSERT INTO with_rule VALUES (1)", "advisory_lock, hidden"),
    ("SELECT n FROM with_policy", "advisory_lock, hidden"),
    ("SELECT 1::d_lock", "advisory_lock, hidden"),
    ("INSERT INTO with_domain VALUES (1)", "advisory_lock, hidden"),
    ("INSERT INTO parent VALUES (1)", "set, hidden"),
    ("DELETE FROM target", "set, hidden"),
    ("SELECT * FROM v_of_v_outer", "set, hidden"),
    ("SELECT * FROM v_config", "set, hidden, set_unnamed"),
    ("INSERT INTO with_serial (n) VALUES (1)", "sequence"),
    ("INSERT INTO with_identity (n) VALUES (1)", "sequence"),
    ("INSERT INTO v_serial (n) VALUES (1)", "sequence"),
    ("SELECT f_inserts()", "sequence"),
    ("SELECT f_reads()", "none"),
];
