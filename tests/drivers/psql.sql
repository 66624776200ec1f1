-- What psql prints, with all that an error says, is the same whatever it is connected to.
\echo == connecting
\pset null (null)
SELECT current_user, session_user, current_setting('server_version_num')::int / 10000, current_setting('application_name');
\encoding
\! psql -XAtc "SELECT current_setting('application_name'), current_setting('TimeZone')" "application_name=own options='-c TimeZone=Asia/Tokyo'"
\! psql -XAtq -c "SET work_mem = '7MB'" -c "BEGIN" -c "SHOW work_mem" -c "ROLLBACK" -c "SELECT 1; SELECT 2"
\! psql -XAtq -1 -c "INSERT INTO driver_test VALUES (-7, 'one transaction')" -c "DELETE FROM driver_test RETURNING id"

\echo == queries
SELECT 41 + 1, 'naïve '' \ text', NULL::date, ARRAY[1.5, 2.5], '2024-02-29 12:00+00'::timestamptz, '\x00ff'::bytea, '{"a": [1]}'::jsonb;
SELECT 1 \; SELECT 2 \; SELECT 3;
SELECT 1 AS one, 'x' AS two \gdesc
SELECT line FROM driver_seed WHERE id < 3 ORDER BY id \g (format=csv)
SELECT 1 AS one \gset
SELECT :one + count(*) FROM driver_seed;
SELECT format('SELECT %s AS made', n) FROM generate_series(1, 3) n \gexec
SELECT id % 2 AS a, id % 3 AS b, count(*) FROM driver_seed GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
SELECT id, line FROM driver_seed WHERE id = 3 \gx
SELECT current_setting('server_version_num')::int >= 160000 AS has_bind \gset
\if :has_bind
    SELECT $1::int + 1, $2::text \bind 41 text \g
\endif
\echo == errors
SELEKT 1;
SELECT 'ü', nothing FROM driver_seed;
SELECT 1/0;
INSERT INTO driver_seed VALUES (1);
DO $$ BEGIN RAISE NOTICE 'one'; RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$;
DROP TABLE IF EXISTS nowhere;
\errverbose
SELECT 1 \; SELECT 1/0 \; SELECT 2;
\echo :ERROR :SQLSTATE :ROW_COUNT :LAST_ERROR_SQLSTATE
\echo == copy
BEGIN;
\copy driver_test FROM PROGRAM 'seq 0 1999 | sed "s/.*/&\tline &/"'
\copy (SELECT * FROM driver_test ORDER BY id LIMIT 3) TO STDOUT
COMMIT;
COPY driver_test FROM STDIN;
5000	in line
\.
COPY driver_test FROM STDIN;
nonsense
\.
COPY (SELECT count(*) FROM driver_test) TO STDOUT;
\copy driver_seed TO PROGRAM 'md5sum' (FORMAT binary)
COPY driver_seed TO '/nowhere';
\echo == transactions
BEGIN;
INSERT INTO driver_test VALUES (-1, 'kept');
SAVEPOINT s;
INSERT INTO driver_test VALUES (-1, 'twice');
SELECT 1;
ROLLBACK TO s;
COMMIT;
BEGIN;
DELETE FROM driver_test;
ROLLBACK;
SELECT count(*), min(id) FROM driver_test;
\set AUTOCOMMIT off
TRUNCATE driver_test;
ROLLBACK;
SELECT count(*) FROM driver_test;
COMMIT;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1/0;
SELECT 'still here';
COMMIT AND CHAIN;
SHOW transaction_isolation;
END;
\unset ON_ERROR_ROLLBACK
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT count(*) FROM driver_test;
DELETE FROM driver_test;
COMMIT;
COMMIT;
\echo == settings
SET TimeZone = 'Europe/Rome';
SHOW TimeZone;
SELECT '2024-01-01 00:00+00'::timestamptz;
BEGIN;
SET LOCAL search_path = pg_catalog;
SET TimeZone = 'Asia/Tokyo';
SHOW search_path;
ROLLBACK;
SHOW search_path;
SHOW TimeZone;
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SHOW transaction_isolation;
RESET ALL;
SHOW TimeZone;
SET ROLE other;
SELECT current_user;
SELECT count(*) FROM driver_seed;
RESET ROLE;
\encoding LATIN1
SELECT octet_length('ü'), U&'\4e16';
\encoding UTF8
SET client_encoding = 'LATIN1';
\encoding
RESET client_encoding;
\encoding
DISCARD ALL;
\echo == prepared_statements
PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1;
EXECUTE by_id (7);
EXECUTE by_id (1999);
DEALLOCATE by_id;
EXECUTE by_id (7);
\echo == statements_with_execute
PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1;
EXPLAIN (COSTS off) EXECUTE by_id (5);
CREATE TEMP TABLE made AS EXECUTE by_id (8);
SELECT * FROM made;
DROP TABLE made;
DEALLOCATE by_id;
\echo == cursors
\set FETCH_COUNT 50
SELECT sum(id) OVER () FROM driver_seed WHERE id < 120 LIMIT 3;
SELECT id FROM driver_seed WHERE id < 120 ORDER BY 1 \g | md5sum
\unset FETCH_COUNT
BEGIN;
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT id FROM driver_seed ORDER BY 1;
FETCH 2 FROM c;
COMMIT;
SELECT 1;
FETCH LAST FROM c;
MOVE BACKWARD 10 FROM c;
FETCH c;
CLOSE c;
FETCH c;
\echo == session_objects
CREATE TEMP TABLE driver_seed AS SELECT 'shadow' AS line;
SELECT * FROM driver_seed;
DROP TABLE driver_seed;
SELECT count(*) FROM driver_seed;
SELECT currval('driver_sequence');
SELECT nextval('driver_sequence');
SELECT currval('driver_sequence'), lastval();
SELECT pg_try_advisory_lock(7);
\! psql -XAtc "SELECT pg_try_advisory_lock(7)"
SELECT pg_advisory_unlock(7);
\! psql -XAtc "SELECT pg_try_advisory_lock(7)"
\! psql -Xq -c "LISTEN letters" -c "NOTIFY letters, 'it''s'" -c "UNLISTEN letters" | sed 's/PID [0-9]*/PID/'
\echo == large_objects
\! printf 'large\000object' > "$SCRATCH/large"; psql -Xqc "\lo_import '$SCRATCH/large' 'a comment'" | sed 's/[0-9]*$//'
SELECT max(oid) AS oid FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = 'app') \gset
SELECT lo_get(:oid);
\lo_unlink :oid
\echo == describing
\d driver_seed
\dt
\dn
\df pg_advisory_lock
\dp driver_seed
CREATE VIEW seen AS SELECT * FROM driver_seed WHERE id < 3;
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * a';
\d+ seen
\sv seen
\sf twice
SELECT twice(21), count(*) FROM seen;
ALTER TABLE driver_test ADD other text DEFAULT 'new';
SELECT * FROM driver_test ORDER BY id LIMIT 1;
ANALYZE driver_test;
VACUUM driver_test;
CREATE INDEX CONCURRENTLY ON driver_test (line);
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT count(*) FROM driver_seed;
