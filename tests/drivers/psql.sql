-- What psql prints is the same whatever it is connected to.
SELECT 41 + 1, 'naïve '' \ text', NULL::date, ARRAY[1.5, 2.5];
BEGIN;
\copy driver_test FROM PROGRAM 'seq 0 1999 | sed "s/.*/&\tline &/"'
\copy (SELECT * FROM driver_test ORDER BY id LIMIT 3) TO STDOUT
COMMIT;
BEGIN;
INSERT INTO driver_test VALUES (-1, 'kept');
SAVEPOINT s;
INSERT INTO driver_test VALUES (-1, 'twice');
ROLLBACK TO s;
COMMIT;
BEGIN;
DELETE FROM driver_test;
ROLLBACK;
/* causeway: primary */ SELECT count(*), min(id) FROM driver_test;
PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1;
EXECUTE by_id (7);
EXECUTE by_id (1999);
DEALLOCATE by_id;
\set FETCH_COUNT 50
SELECT id FROM driver_seed WHERE id < 120 ORDER BY 1;
\unset FETCH_COUNT
SELECT 1 AS one \gset
SELECT :one + count(*) FROM driver_seed;
\d driver_seed
