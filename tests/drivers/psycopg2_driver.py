"""psycopg2: what it sees is the same whatever it is connected to."""

import datetime
import decimal
import io
import os
import select
import threading

import psycopg2
import psycopg2.extras
import psycopg2.pool
from psycopg2 import extensions

from features import feature, run, say, say_error

SHOW = "SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem'), current_user"


def connect(autocommit=True, **options):
    connection = psycopg2.connect("", **options)
    connection.autocommit = autocommit
    return connection


def with_empty_table(**options):
    connection = connect(**options)
    run_in(connection, "TRUNCATE driver_test")
    return connection


def run_in(connection, query, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall() if cursor.description else cursor.statusmessage


def refused(connection, query, parameters=None):
    try:
        say(run_in(connection, query, parameters))
    except psycopg2.Error as error:
        say_error(SQLState(error))


class SQLState:
    """psycopg2 has no fields for where in the server an error was found."""

    def __init__(self, error):
        self.error = error
        self.diag = self

    def __getattr__(self, name):
        return getattr(self.error.diag, name, None)


@feature
def connecting():
    connection = connect(application_name="own", options="-c statement_timeout=12345 -c search_path=pg_catalog")
    info = connection.info
    say(connection.encoding, info.server_version // 10000, info.ssl_in_use, info.status, info.protocol_version)
    for name in ("server_encoding", "DateStyle", "TimeZone", "is_superuser", "application_name", "session_authorization"):
        say(name, info.parameter_status(name))
    for _ in range(3):
        say(run_in(connection, SHOW + ", current_setting('statement_timeout'), current_setting('application_name')"))
    connection.reset()
    say(run_in(connection, SHOW + ", current_setting('statement_timeout')"))
    connection.close()


@feature
def types():
    connection = connect()
    values = (
        None, True, 7, 2**62, 2**80, 1.5, float("nan"), decimal.Decimal("123.4500"), "naïve ' \\ \u4e16\U0001f600",
        psycopg2.Binary(b"\x00\xff'"), datetime.date(2024, 2, 29), datetime.time(1, 2), datetime.timedelta(days=-3, seconds=4),
        datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), [1, 2, None], ["a", "b,\"c"], psycopg2.extras.Json({"a": [1]}),
    )
    for value in values:
        result = run_in(connection, "SELECT %s", (value,))[0][0]
        say(bytes(result) if isinstance(result, memoryview) else result)
    run_in(connection, "CREATE TYPE pair AS (a int, b text)")
    # It looks up what the type is.
    psycopg2.extras.register_composite("pair", connection)
    psycopg2.extras.register_uuid(conn_or_curs=connection)
    say(run_in(connection, "SELECT (1, 'x')::pair, '{1.5,NULL}'::numeric[], '{\"a\": 1}'::jsonb, '[1,5)'::int4range, '1.2.3.4'::inet"))
    connection.close()


@feature
def queries():
    connection = with_empty_table()
    say(run_in(connection, "SELECT 1; UPDATE driver_test SET id = 1; SELECT 2"))
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO driver_test VALUES (%s, %s)", [(n, str(n)) for n in range(5)])
    psycopg2.extras.execute_values(cursor, "INSERT INTO driver_test VALUES %s", [(n, "many") for n in range(10, 400)])
    psycopg2.extras.execute_batch(cursor, "UPDATE driver_test SET line = %s WHERE id = %s", [("changed", n) for n in range(250)])
    cursor.execute("SELECT line, count(*) FROM driver_test GROUP BY 1 ORDER BY 1")
    say(cursor.fetchall(), cursor.rowcount, cursor.description[1].name)
    cursor.execute("DELETE FROM driver_test WHERE id = 7 RETURNING id")
    say(cursor.statusmessage, cursor.fetchall())
    cursor.callproc("lower", ["ABC"])
    say(cursor.fetchone())
    try:
        cursor.execute("")
    except psycopg2.Error as error:
        say(str(error))
    connection.close()


@feature
def errors():
    connection = connect()
    for query in (
        "SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1/0", "INSERT INTO driver_seed VALUES (1)", "DROP TABLE pg_class",
        "SELECT 1; SELECT 1/0; SELECT 2", "SET TimeZone = 'Nowhere'", "COPY driver_seed TO '/nowhere'",
        "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$",
    ):
        refused(connection, query)
    connection.notices.clear()
    run_in(connection, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    say(connection.notices)
    connection.close()


@feature
def settings():
    connection = connect()
    run_in(connection, "SET TimeZone = 'Europe/Rome'")
    say(run_in(connection, SHOW), connection.info.parameter_status("TimeZone"))
    connection.autocommit = False
    run_in(connection, "SET LOCAL work_mem = '7MB'; SET search_path = pg_catalog")
    say(run_in(connection, SHOW))
    connection.commit()
    say(run_in(connection, SHOW))
    run_in(connection, "SET TimeZone = 'Asia/Tokyo'; SET ROLE other")
    say(run_in(connection, SHOW))
    connection.rollback()
    say(run_in(connection, SHOW))
    connection.rollback()
    connection.reset()
    connection.autocommit = True
    say(run_in(connection, SHOW))
    connection.set_client_encoding("LATIN1")
    say(connection.encoding, run_in(connection, "SELECT 'né', %s", ("ü",)))
    refused(connection, "SELECT U&'\\4e16'")
    connection.set_client_encoding("UTF8")
    say(connection.encoding, run_in(connection, "SELECT U&'\\4e16'"))
    connection.close()


@feature
def isolation_levels():
    connection = connect(autocommit=False)
    for level in (None, "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        for readonly in (None, True, False):
            for autocommit in (False, True):
                connection.set_session(isolation_level=level or "DEFAULT", readonly=readonly, autocommit=autocommit)
                say(level, readonly, autocommit, run_in(connection, "SHOW transaction_isolation"),
                    run_in(connection, "SHOW transaction_read_only"), run_in(connection, "SELECT count(*) FROM driver_seed"))
                if readonly:
                    refused(connection, "INSERT INTO driver_seed VALUES (-1)")
                connection.rollback()
    connection.close()


@feature
def transactions():
    connection = with_empty_table(autocommit=False)
    connection.commit()
    with connection:
        run_in(connection, "INSERT INTO driver_test VALUES (1, 'kept')")
        run_in(connection, "SAVEPOINT s")
        refused(connection, "INSERT INTO driver_test VALUES (1, 'twice')")
        refused(connection, "SELECT 1")
        run_in(connection, "ROLLBACK TO s")
    say(connection.info.transaction_status)
    try:
        with connection:
            run_in(connection, "DELETE FROM driver_test")
            raise ValueError("undo")
    except ValueError as error:
        say(error, run_in(connection, "SELECT count(*) FROM driver_test"))
    connection.close()


@feature
def named_cursors():
    connection = connect(autocommit=False)
    with connection.cursor("named", cursor_factory=psycopg2.extras.DictCursor) as cursor:
        cursor.itersize = 50
        cursor.execute("SELECT id FROM driver_seed WHERE id < %s ORDER BY 1", (120,))
        say(sum(row["id"] for row in cursor))
    scrolls = connection.cursor("scrolls", scrollable=True)
    scrolls.execute("SELECT id FROM driver_seed ORDER BY 1")
    scrolls.scroll(100)
    say(scrolls.fetchone(), scrolls.scroll(-50), scrolls.fetchmany(2))
    held = connection.cursor("held", withhold=True)
    held.execute("SELECT id FROM driver_seed ORDER BY 1")
    connection.commit()
    say(held.fetchmany(3), run_in(connection, "SELECT count(*) FROM driver_seed"), held.fetchone())
    connection.commit()
    held.close()
    connection.close()


@feature
def copy():
    connection = with_empty_table(autocommit=False)
    cursor = connection.cursor()
    lines = "".join(f"{n}\tline {n}\n" for n in range(2000))
    cursor.copy_expert("COPY driver_test FROM STDIN", io.StringIO(lines))
    out = io.StringIO()
    cursor.copy_expert("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT", out)
    connection.commit()
    say(cursor.rowcount, out.getvalue() == lines)
    connection.autocommit = True
    out = io.BytesIO()
    cursor.copy_expert("COPY (SELECT * FROM driver_seed WHERE id < 2 ORDER BY id) TO STDOUT (FORMAT binary)", out)
    say(out.getvalue())
    for text in ("nonsense\n", "1\ttwice\n"):
        try:
            cursor.copy_from(io.StringIO(text), "driver_test")
        except psycopg2.Error as error:
            say_error(SQLState(error))
    say(run_in(connection, "SELECT count(*) FROM driver_test"))
    connection.close()


@feature
def notifications():
    connection, other = connect(), connect()
    run_in(connection, "LISTEN letters")
    run_in(other, "NOTIFY letters, 'it''s'")
    run_in(other, "SELECT pg_notify('letters', 'ü')")
    while len(connection.notifies) < 2 and select.select([connection], [], [], 10)[0]:
        connection.poll()
    say([(note.channel, note.payload) for note in connection.notifies])
    run_in(connection, "UNLISTEN *")
    connection.close()
    other.close()


@feature
def large_objects():
    connection = connect(autocommit=False)
    # It uses the protocol's function calls.
    large = connection.lobject(0, "wb")
    large.write(b"large\x00object" * 5000)
    connection.commit()
    large = connection.lobject(large.oid, "rb")
    say(len(large.read()), large.seek(5), large.read(7), large.tell())
    large.close()
    connection.commit()
    connection.lobject(large.oid, "n").unlink()
    connection.commit()
    connection.close()


@feature
def two_phase_commit():
    connection = with_empty_table(autocommit=False)
    connection.commit()
    name = os.environ["PGDATABASE"]
    for number, end in enumerate((connection.tpc_commit, connection.tpc_rollback)):
        connection.tpc_begin(connection.xid(7, f"{name} {number}", "branch"))
        run_in(connection, "INSERT INTO driver_test VALUES (%s)", (number,))
        connection.tpc_prepare()
        end()
    connection.tpc_begin(connection.xid(7, f"{name} left", "branch"))
    run_in(connection, "INSERT INTO driver_test VALUES (7)")
    connection.tpc_prepare()
    connection.close()
    connection = connect(autocommit=False)
    left = [xid for xid in connection.tpc_recover() if xid.database == name]
    connection.rollback()
    for xid in left:
        connection.tpc_commit(xid)
    say([xid.gtrid for xid in left], run_in(connection, "SELECT * FROM driver_test ORDER BY 1"))
    connection.close()


@feature
def session_objects():
    connection, other = connect(), connect()
    run_in(connection, "CREATE TEMP TABLE mine (id serial)")
    run_in(connection, "INSERT INTO mine DEFAULT VALUES")
    say(run_in(connection, "SELECT count(*) FROM mine"), run_in(connection, "SELECT lastval()"))
    run_in(connection, "DROP TABLE mine")
    run_in(connection, "PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1")
    say(run_in(connection, "EXECUTE by_id (5)"), run_in(connection, "SELECT 1"), run_in(connection, "EXECUTE by_id (6)"))
    run_in(connection, "DEALLOCATE by_id")
    say(run_in(connection, "SELECT pg_advisory_lock(7)"), run_in(other, "SELECT pg_try_advisory_lock(7)"))
    # ABORT, RESET ALL, SET SESSION AUTHORIZATION DEFAULT: the lock stays.
    connection.reset()
    say(run_in(other, "SELECT pg_try_advisory_lock(7)"), run_in(connection, "SELECT pg_advisory_unlock(7)"))
    connection.close()
    other.close()


@feature
def cancelling():
    connection = connect()
    for _ in range(2):
        done = threading.Event()

        def repeat():
            # The first request may come before the statement.
            while not done.wait(0.2):
                connection.cancel()

        thread = threading.Thread(target=repeat)
        thread.start()
        refused(connection, "SELECT pg_sleep(15)")
        done.set()
        thread.join()
        say(run_in(connection, "SELECT count(*) FROM driver_seed"))
    connection.close()


@feature
def asynchronous():
    connection = psycopg2.connect("", async_=1)

    def wait():
        while (state := connection.poll()) != extensions.POLL_OK:
            ready = ([connection], [], []) if state == extensions.POLL_READ else ([], [connection], [])
            select.select(*ready, 10)

    wait()
    cursor = connection.cursor()
    for query in ("SELECT line FROM driver_seed WHERE id = 7", "SET TimeZone = 'Asia/Tokyo'; SHOW TimeZone", "SHOW TimeZone"):
        cursor.execute(query)
        wait()
        say(cursor.fetchall())
    connection.close()


@feature
def pooling():
    pool = psycopg2.pool.ThreadedConnectionPool(1, 3, "")
    for number in range(5):
        connection = pool.getconn()
        run_in(connection, "SET TimeZone = 'Asia/Tokyo'")
        # It rolls back what was left open.
        pool.putconn(connection)
        connection = pool.getconn()
        say(run_in(connection, SHOW))
        connection.commit()
        pool.putconn(connection)
    pool.closeall()


if __name__ == "__main__":
    run()
