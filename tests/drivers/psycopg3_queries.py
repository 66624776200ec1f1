"""psycopg 3: types, settings, statements, cursors, COPY, pipelines."""

import datetime
import decimal
import uuid

import psycopg
from psycopg import sql
from psycopg.types.json import Json, Jsonb

from features import feature, say, say_error
from psycopg3_common import connect, empty_table, one


@feature
def connecting():
    with connect(application_name="psycopg's own") as connection:
        info = connection.info
        say(info.encoding, info.server_version // 10000, connection.pgconn.ssl_in_use, info.transaction_status)
        for name in ("server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "is_superuser",
                     "integer_datetimes", "standard_conforming_strings", "application_name", "session_authorization"):
            say(name, info.parameter_status(name))
        say(one(connection, "SELECT current_setting('application_name'), current_user, session_user"))
    with connect(options="-c search_path=pg_catalog -c statement_timeout=12345 -c TimeZone=Asia/Tokyo") as connection:
        for _ in range(3):
            say(one(connection, "SELECT current_setting('search_path'), current_setting('statement_timeout'), "
                    "'2024-01-01 00:00+00'::timestamptz::text"))
        connection.execute("RESET TimeZone")
        say(one(connection, "SHOW TimeZone"), connection.info.parameter_status("TimeZone"))


VALUES = [
    None, True, 7, 2**31, -(2**62), 2**80, 1.5, float("inf"), decimal.Decimal("123.4500"), decimal.Decimal("NaN"),
    "", "naïve ' \\ text \u4e16\U0001f600", b"\x00\xff\\'", datetime.date(2024, 2, 29), datetime.time(1, 2, 3, 400),
    datetime.datetime(2024, 2, 29, 12, 0, 0, 5), datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
    datetime.timedelta(days=-3, seconds=4), uuid.UUID(int=7), [1, None, 3], [["a", "b"], ["c", "d,\"e"]],
    [decimal.Decimal("1.5")], Json({"a": [1, None, "ü"]}), Jsonb({"b": {}}),
]


@feature
def types():
    with connect() as connection:
        for value in VALUES:
            for way in ("%s", "%b", "%t"):
                for binary in (False, True):
                    try:
                        cursor = connection.execute(f"SELECT {way}", (value,), binary=binary)
                        say(way, binary, cursor.fetchone(), cursor.description[0].type_code)
                    except psycopg.Error as error:
                        say(way, binary, type(error).__name__, str(error))
                        if not isinstance(error, psycopg.DatabaseError):
                            break
        for binary in (False, True):
            row = connection.execute(
                "SELECT NULL::int, '{1,NULL}'::int[], '(1,a)'::record::text, int4range(1, 5), '1.2.3.4/24'::inet, "
                "'{\"a\": 1}'::jsonb, '1 day 2 hours'::interval, numrange(NULL, 2.5), '12:00+02'::timetz, 'x'::\"char\", "
                "'a'::char(3), 1::smallint, 2::oid, '101'::bit(3), '{[1,3),[5,7)}'::int4multirange"
                .replace("'(1,a)'::record::text", "ROW(1, 'a')::text"), binary=binary).fetchone()
            say(row)


@feature
def simple_queries():
    empty_table()
    with connect() as connection:
        cursor = connection.execute("SELECT 1; SELECT 2 AS two; UPDATE driver_test SET id = 1; SHOW DateStyle; ")
        while True:
            say(cursor.statusmessage, cursor.rowcount, cursor.fetchall() if cursor.description else None)
            if not cursor.nextset():
                break
        say(connection.execute("").statusmessage, connection.execute(" -- nothing").statusmessage)
        client = psycopg.ClientCursor(connection)
        say(client.execute("SELECT %s, %s", ("o'clock", [1, 2])).fetchone())
        client.execute("INSERT INTO driver_test VALUES (1, 'a'), (2, 'b') RETURNING id, line")
        say(client.rowcount, client.fetchall())
        connection.execute("BEGIN; DELETE FROM driver_test; ROLLBACK")
        say(one(connection, "SELECT count(*) FROM driver_test"))
        try:
            connection.execute("INSERT INTO driver_test VALUES (3, 'c'); SELECT 1/0")
        except psycopg.Error as error:
            say_error(error)
        say(one(connection, "SELECT count(*) FROM driver_test"))


@feature
def errors():
    with connect() as connection:
        connection.execute("CREATE DOMAIN small AS int CONSTRAINT is_small CHECK (VALUE < 10)")
        connection.execute("CREATE TABLE parent (id int PRIMARY KEY, c small NOT NULL)")
        connection.execute("CREATE TABLE child (id int CONSTRAINT to_parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        connection.execute("CREATE FUNCTION raises() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'own: %', 7 "
                           "USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail', COLUMN = 'c', TABLE = 't'; END $$")
        for query in (
            "SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1 FROM nowhere", "SELECT 1/0", "SELECT 'x'::int",
            "INSERT INTO parent VALUES (1, 11)", "INSERT INTO parent VALUES (1, NULL)", "INSERT INTO child VALUES (5)",
            "SELECT raises()", "SELECT lower(1, 2)", "SET nothing.at = 1; SET TimeZone = 'Nowhere'", "DROP TABLE parent",
            "SELECT 'ü', nothing", "CREATE TABLE parent ()", "ROLLBACK TO SAVEPOINT s", "SAVEPOINT s",
            "SELECT pg_read_file('/etc/passwd')", "DROP TABLE pg_class",
        ):
            for prepare in (None, True):
                try:
                    if prepare and ";" in query:
                        continue
                    say(query, connection.execute(query, prepare=prepare).statusmessage)
                except psycopg.Error as error:
                    say_error(error)
        try:
            connection.execute("SELECT %s::int, %s", ("x", 1))
        except psycopg.Error as error:
            say_error(error)


@feature
def notices():
    with connect() as connection:
        seen = []
        connection.add_notice_handler(lambda diag: seen.append((diag.severity, diag.sqlstate, diag.message_primary)))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
        connection.execute("DROP TABLE IF EXISTS nowhere")
        connection.execute("COMMIT")
        connection.execute("SET client_min_messages = error")
        connection.execute("DROP TABLE IF EXISTS nowhere")
        connection.execute("RESET client_min_messages")
        connection.execute("DROP TABLE IF EXISTS nowhere")
        connection.execute("SET LOCAL work_mem = '1MB'")
        say(seen)


@feature
def settings():
    with connect() as connection:
        show = sql.SQL("SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem')")
        connection.execute("SET TimeZone = 'Europe/Rome'")
        say(one(connection, show), connection.info.timezone)
        with connection.transaction():
            connection.execute("SET search_path = pg_catalog, public")
            connection.execute("SET LOCAL work_mem = '7MB'")
            say(one(connection, show))
        say(one(connection, show))
        with connection.transaction(force_rollback=True):
            connection.execute("SET TimeZone = 'Asia/Tokyo'")
            connection.execute("SELECT set_config('search_path', 'nowhere', false)")
            say(one(connection, show), connection.info.timezone)
        say(one(connection, show), connection.info.timezone)
        with connection.transaction():
            connection.execute("SET TimeZone = 'Asia/Tokyo'")
            try:
                with connection.transaction():
                    connection.execute("SET TimeZone = 'America/Lima'")
                    connection.execute("SELECT 1/0")
            except psycopg.Error as error:
                say(error.sqlstate, one(connection, show))
        say(one(connection, show))
        say(one(connection, "SELECT set_config('work_mem', %s, false)", "9MB"), one(connection, show))
        say(one(connection, "SELECT set_config('work_mem', %s, true)", "11MB"), one(connection, show))
        connection.execute("SET my.variable = 'it''s'")
        say(one(connection, "SELECT current_setting('my.variable')"), one(connection, "SHOW my.variable"))
        connection.execute("RESET work_mem")
        say(one(connection, show))
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        say(one(connection, "SHOW default_transaction_read_only"), one(connection, "SHOW transaction_read_only"))
        connection.execute("RESET ALL")
        say(one(connection, show), one(connection, "SELECT current_setting('my.variable', true)"))
        connection.execute("SET TIME ZONE INTERVAL '+03:30' HOUR TO MINUTE")
        say(one(connection, "SELECT '2024-01-01 00:00+00'::timestamptz::text, now() IS NOT NULL"))
    with connect(prepare_threshold=None) as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute("DISCARD ALL")
        say(one(connection, show))


@feature
def roles():
    with connect() as connection:
        who = "SELECT current_user, session_user, current_setting('role'), current_setting('is_superuser')"
        say(one(connection, who))
        connection.execute("SET ROLE other")
        say(one(connection, who), one(connection, "SELECT has_table_privilege('driver_seed', 'select')"))
        try:
            connection.execute("SELECT * FROM driver_seed")
        except psycopg.Error as error:
            say_error(error)
        with connection.transaction(force_rollback=True):
            connection.execute("RESET ROLE")
            say(one(connection, who))
        say(one(connection, who))
        connection.execute("SET ROLE NONE")
        say(one(connection, who))
        connection.execute("SET SESSION AUTHORIZATION app")
        say(one(connection, who))
        with connection.transaction():
            connection.execute("SET LOCAL ROLE other")
            say(one(connection, who))
        say(one(connection, who))


@feature
def prepared_statements():
    with connect(prepare_threshold=0) as connection:
        connection.prepared_max = 2
        for _ in range(2):
            for number in (7, 1999, -1):
                say(one(connection, "SELECT line FROM driver_seed WHERE id = %s", number))
                say(one(connection, "SELECT id + %s FROM driver_seed WHERE id = 3", number))
                say(one(connection, "SELECT %s::text", str(number)))
        connection.execute("DISCARD ALL")
        for number in (7, 8):
            try:
                say(one(connection, "SELECT line FROM driver_seed WHERE id = %s", number))
            except psycopg.Error as error:
                say_error(error)
    with connect() as connection:
        for number in range(8):
            say(one(connection, "SELECT id FROM driver_seed WHERE id = %s", number))
        connection.execute("PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1")
        say(one(connection, "EXECUTE by_id (5)"))
        connection.execute("DEALLOCATE by_id")
        try:
            connection.execute("EXECUTE by_id (5)")
        except psycopg.Error as error:
            say_error(error)
        connection.execute("DEALLOCATE ALL")
        connection.execute("SELECT id FROM driver_seed WHERE id = 1", prepare=True)
        say(one(connection, "SELECT id FROM driver_seed WHERE id = 1"))


@feature
def changed_result_type():
    with connect(prepare_threshold=0) as connection, connect() as other:
        connection.execute("CREATE TABLE changes (a int)")
        connection.execute("INSERT INTO changes VALUES (1)")
        query = "/* causeway: primary */ SELECT * FROM changes"
        say(connection.execute(query).fetchall())
        other.execute("ALTER TABLE changes ADD b text DEFAULT 'new'")
        for _ in range(2):
            try:
                say(connection.execute(query).fetchall())
            except psycopg.Error as error:
                say_error(error)


@feature
def prepared_statements_view():
    with connect() as connection:
        connection.execute("PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1")
        connection.execute("SELECT id FROM driver_seed WHERE id = 1", prepare=True)
        say(connection.execute("SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements").fetchall())


@feature
def server_cursors():
    with connect(autocommit=False) as connection:
        with connection.cursor("named") as cursor:
            cursor.itersize = 50
            cursor.execute("SELECT id FROM driver_seed WHERE id < %s ORDER BY 1", (120,))
            say(sum(row[0] for row in cursor), cursor.description[0].name)
        with connection.cursor("scrolls", scrollable=True) as cursor:
            cursor.execute("SELECT id FROM driver_seed ORDER BY 1", binary=True)
            say(cursor.fetchmany(3))
            cursor.scroll(100)
            say(cursor.fetchone())
            cursor.scroll(1999, mode="absolute")
            say(cursor.fetchall())
        connection.rollback()
        held = connection.cursor("held", withhold=True)
        held.execute("SELECT id FROM driver_seed ORDER BY 1")
        connection.commit()
        say(held.fetchmany(2))
        connection.commit()
        say(one(connection, "SELECT count(*) FROM driver_seed"), held.fetchone())
        connection.commit()
        held.close()
        connection.commit()
        say(one(connection, "SELECT count(*) FROM pg_cursors"))
    with connect() as connection:
        for fetched in connection.cursor().stream("SELECT id FROM driver_seed WHERE id < 5 ORDER BY 1"):
            say(fetched)
        say(one(connection, "SELECT 'after the stream'"))
        try:
            connection.execute("DECLARE c CURSOR FOR SELECT 1")
        except psycopg.Error as error:
            say_error(error)


@feature
def copy():
    empty_table()
    with connect() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY driver_test FROM STDIN") as copy:
            for number in range(2000):
                copy.write_row((number, None if number % 7 == 0 else f"line\t{number}\\"))
        say(cursor.rowcount, cursor.statusmessage)
        with cursor.copy("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT") as copy:
            say(sum(len(part) for part in copy))
        with cursor.copy("COPY (SELECT * FROM driver_test WHERE id < 20 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            say(list(copy.rows()))
        with cursor.copy("COPY driver_test (id, line) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((5000, "binary"))
        say(one(connection, "SELECT * FROM driver_test WHERE id = 5000"))
        with cursor.copy("COPY (SELECT id FROM driver_test WHERE id < 3 ORDER BY 1) TO STDOUT (FORMAT csv, HEADER)") as copy:
            say([bytes(part) for part in copy])
        try:
            with cursor.copy("COPY driver_test FROM STDIN") as copy:
                copy.write(b"nonsense\n")
        except psycopg.Error as error:
            say_error(error)
        try:
            with cursor.copy("COPY driver_test FROM STDIN") as copy:
                copy.write_row((6000, "never"))
                raise ValueError("the application's")
        except ValueError as error:
            say(error)
        with cursor.copy("COPY driver_test FROM STDIN"):
            pass
        say(one(connection, "SELECT count(*) FROM driver_test"))
        with connection.transaction(force_rollback=True):
            with cursor.copy("COPY driver_test FROM STDIN") as copy:
                copy.write_row((7000, "rolled back"))
        say(one(connection, "SELECT count(*) FROM driver_test"))


@feature
def pipelines():
    empty_table()
    with connect() as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT line FROM driver_seed WHERE id = %s", (n,)) for n in range(20)]
            connection.execute("INSERT INTO driver_test VALUES (1, 'piped')")
            pipeline.sync()
            say(one(connection, "SELECT * FROM driver_test"))
        say([cursor.fetchone()[0] for cursor in cursors])
        try:
            with connection.pipeline() as pipeline:
                connection.execute("INSERT INTO driver_test VALUES (2, 'undone with the error')")
                connection.execute("SELECT 1/0")
                connection.execute("SELECT 2")
        except psycopg.Error as error:
            say_error(error)
        say(one(connection, "SELECT count(*) FROM driver_test"))
        with connection.pipeline() as pipeline:
            connection.execute("INSERT INTO driver_test VALUES (3, 'kept')")
            pipeline.sync()
            try:
                connection.execute("SELECT nothing")
                pipeline.sync()
            except psycopg.Error as error:
                say(error.sqlstate)
            say(one(connection, "SELECT count(*) FROM driver_test"))
        with connection.pipeline(), connection.transaction():
            connection.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
            cursor = connection.execute("SHOW TimeZone")
        say(cursor.fetchone(), one(connection, "SHOW TimeZone"))
        with connection.pipeline():
            connection.cursor().executemany("INSERT INTO driver_test VALUES (%s, %s)", [(n, str(n)) for n in range(10, 60)])
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO driver_test VALUES (%s, %s) RETURNING id",
                           [(n, str(n)) for n in range(60, 63)], returning=True)
        rows = [cursor.fetchone()]
        while cursor.nextset():
            rows.append(cursor.fetchone())
        say(rows, one(connection, "SELECT count(*) FROM driver_test"))
