"""psycopg 3: transactions and what belongs to a session."""

import os
import threading

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from features import feature, say, say_error
from psycopg3_common import connect, empty_table, one

PGDATABASE = os.environ["PGDATABASE"]


@feature
def notifications():
    with connect() as listener, connect() as other:
        listener.execute("LISTEN letters")
        listener.execute('LISTEN "Other Letters"')
        other.execute("NOTIFY letters, 'it''s'")
        other.execute("SELECT pg_notify('Other Letters', %s)", ("ü" * 100,))
        other.execute("NOTIFY elsewhere")
        say([(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=2)])
        say(listener.execute("SELECT pg_listening_channels()").fetchall())
        listener.execute("UNLISTEN letters")
        other.execute("NOTIFY letters, 'not heard'")
        with listener.transaction():
            listener.execute('NOTIFY "Other Letters", \'own\'')
        say([(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=1)])
        listener.execute("UNLISTEN *")
        say(listener.execute("SELECT pg_listening_channels()").fetchall())


@feature
def large_objects():
    with connect() as connection, connection.transaction():
        oid = one(connection, "SELECT lo_create(0)")[0]
        descriptor = one(connection, "SELECT lo_open(%s, 393216)", oid)[0]
        say(one(connection, "SELECT lowrite(%s, %s)", descriptor, b"large\x00object"))
        say(one(connection, "SELECT lo_lseek(%s, 5, 0), lo_tell(%s)", descriptor, descriptor))
        say(one(connection, "SELECT loread(%s, 100)", descriptor, binary=True), one(connection, "SELECT lo_close(%s)", descriptor))
    with connect() as connection:
        say(one(connection, "SELECT lo_get(%s)", oid), one(connection, "SELECT lo_unlink(%s)", oid))


@feature
def transactions():
    empty_table()
    with connect(autocommit=False) as connection:
        say(connection.info.transaction_status)
        connection.execute("INSERT INTO driver_test VALUES (1, 'kept')")
        say(connection.info.transaction_status)
        try:
            with connection.transaction():
                connection.execute("INSERT INTO driver_test VALUES (1, 'twice')")
        except psycopg.Error as error:
            say_error(error)
        say(connection.info.transaction_status)
        connection.commit()
        try:
            connection.execute("SELECT 1/0")
        except psycopg.Error as error:
            say(error.sqlstate, connection.info.transaction_status)
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            say_error(error)
        connection.rollback()
        for level in psycopg.IsolationLevel:
            for read_only in (False, True):
                for deferrable in (False, True):
                    connection.isolation_level, connection.read_only, connection.deferrable = level, read_only, deferrable
                    say(one(connection, "SELECT current_setting('transaction_isolation'), "
                            "current_setting('transaction_read_only'), current_setting('transaction_deferrable')"))
                    say(one(connection, "SELECT count(*) FROM driver_test"))
                    if read_only:
                        try:
                            connection.execute("INSERT INTO driver_test VALUES (9, 'refused')")
                        except psycopg.Error as error:
                            say_error(error)
                    connection.rollback()
    with connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        with connection.transaction():
            with connection.transaction(savepoint_name="s"):
                say(cursor.execute("SELECT * FROM driver_test FOR UPDATE").fetchall())
            say(cursor.execute("DELETE FROM driver_test RETURNING *").fetchall())
        cursor.execute("BEGIN READ ONLY")
        say(cursor.execute("SHOW transaction_read_only").fetchone(), cursor.execute("COMMIT AND CHAIN").statusmessage)
        say(cursor.execute("SHOW transaction_read_only").fetchone(), cursor.execute("END").statusmessage)


@feature
def serializable():
    empty_table()
    with connect() as connection, connect() as other:
        connection.execute("INSERT INTO driver_test VALUES (1, 'a'), (2, 'b')")
        for each in (connection, other):
            each.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            say(one(each, "SELECT sum(id) FROM driver_test"))
        connection.execute("UPDATE driver_test SET line = 'c' WHERE id = 1")
        other.execute("UPDATE driver_test SET line = 'd' WHERE id = 2")
        connection.execute("COMMIT")
        try:
            other.execute("COMMIT")
        except psycopg.Error as error:
            say_error(error)
        other.execute("ROLLBACK")


@feature
def two_phase_commit():
    empty_table()
    connection = connect(autocommit=False)
    connection.tpc_begin(connection.xid(1, f"first {PGDATABASE}", "branch"))
    connection.execute("INSERT INTO driver_test VALUES (1, 'two phases')")
    connection.tpc_prepare()
    connection.tpc_commit()
    connection.tpc_begin(connection.xid(1, f"second {PGDATABASE}", "branch"))
    connection.execute("INSERT INTO driver_test VALUES (2, 'undone')")
    connection.tpc_prepare()
    connection.close()
    with connect(autocommit=False) as connection:
        recovered = [xid for xid in connection.tpc_recover() if xid.database == connection.info.dbname]
        say([(xid.gtrid, xid.bqual) for xid in recovered])
        connection.rollback()
        for xid in recovered:
            connection.tpc_rollback(xid)
        say(connection.execute("SELECT * FROM driver_test").fetchall())
        connection.commit()


@feature
def temporary_tables():
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE mine (id int)")
        connection.execute("INSERT INTO mine VALUES (1), (2)")
        say(one(connection, "SELECT sum(id) FROM mine"))
        connection.execute("CREATE TEMP TABLE driver_seed AS SELECT 'shadow' AS line")
        say(connection.execute("SELECT * FROM driver_seed").fetchall())
        connection.execute("DROP TABLE pg_temp.driver_seed")
        say(one(connection, "SELECT count(*) FROM driver_seed"))
        with connection.transaction():
            connection.execute("CREATE TEMP TABLE short (id int) ON COMMIT DROP")
            connection.execute("INSERT INTO short SELECT generate_series(1, 5)")
            say(one(connection, "SELECT count(*) FROM short"))
        try:
            connection.execute("SELECT * FROM short")
        except psycopg.Error as error:
            say_error(error)
        connection.execute("DROP TABLE mine")
        say(one(connection, "SELECT to_regclass('mine'), count(*) FROM driver_seed"))
        connection.execute("SELECT 3 AS id INTO TEMP third")
        say(one(connection, "SELECT * FROM third"))
        connection.execute("DISCARD TEMP")
        say(one(connection, "SELECT to_regclass('third')"))


@feature
def sequences():
    with connect() as connection:
        connection.execute("CREATE TABLE counted (id serial PRIMARY KEY, other int GENERATED ALWAYS AS IDENTITY (START 50))")
        try:
            connection.execute("SELECT currval('counted_id_seq')")
        except psycopg.Error as error:
            say_error(error)
        for _ in range(3):
            connection.execute("INSERT INTO counted DEFAULT VALUES")
            say(one(connection, "SELECT currval('counted_id_seq'), lastval(), currval(pg_get_serial_sequence('counted', 'other'))"))
        say(one(connection, "SELECT setval('counted_id_seq', 100)"), one(connection, "SELECT nextval('counted_id_seq')"))
        say(one(connection, "SELECT lastval()"))


@feature
def sequence_relations():
    with connect() as connection:
        connection.execute("SELECT nextval('driver_sequence')")
        say(one(connection, "SELECT last_value, is_called FROM driver_sequence"))


@feature
def read_only_setting():
    with connect() as connection:
        say(one(connection, "SELECT current_setting('transaction_read_only')"), one(connection, "SHOW transaction_read_only"))
        say(one(connection, "SELECT pg_is_in_recovery()"), one(connection, "SHOW in_hot_standby"))
        say(connection.execute("SELECT name, setting FROM pg_settings WHERE name IN ('transaction_read_only', 'in_hot_standby')").fetchall())


@feature
def advisory_locks():
    with connect() as connection, connect() as other:
        say(one(connection, "SELECT pg_advisory_lock(7)"), one(other, "SELECT pg_try_advisory_lock(7)"))
        say(one(connection, "SELECT pg_advisory_unlock(7)"), one(other, "SELECT pg_try_advisory_lock(7)"))
        say(one(other, "SELECT pg_advisory_unlock(7), pg_advisory_unlock(7)"))
        with connection.transaction():
            say(one(connection, "SELECT pg_try_advisory_xact_lock(8)"), one(other, "SELECT pg_try_advisory_lock(8)"))
        say(one(other, "SELECT pg_try_advisory_lock(8)"), one(other, "SELECT pg_advisory_unlock_all()"))


@feature
def cancelling():
    with connect() as connection:
        for cancel in (connection.cancel, connection.cancel_safe):
            done = threading.Event()

            def repeat():
                # The first request may come before the statement.
                while not done.wait(0.2):
                    cancel()

            thread = threading.Thread(target=repeat)
            thread.start()
            try:
                connection.execute("SELECT pg_sleep(15)")
            except psycopg.Error as error:
                say_error(error)
            finally:
                done.set()
                thread.join()
            say(one(connection, "SELECT count(*) FROM driver_seed"))


@feature
def timeouts():
    empty_table()
    with connect() as connection:
        connection.execute("SET statement_timeout = '50ms'")
        try:
            connection.execute("SELECT pg_sleep(10)")
        except psycopg.Error as error:
            say_error(error)
        connection.execute("RESET statement_timeout")
        say(one(connection, "SHOW statement_timeout"))
        with connect() as other, other.transaction():
            other.execute("LOCK TABLE driver_test")
            connection.execute("SET lock_timeout = '50ms'")
            try:
                connection.execute("INSERT INTO driver_test VALUES (1)")
            except psycopg.Error as error:
                say_error(error)
    connection = connect()
    connection.execute("SET idle_in_transaction_session_timeout = '50ms'")
    connection.execute("BEGIN")
    connection.execute("SELECT 1")
    threading.Event().wait(0.3)
    try:
        connection.execute("SELECT 1")
    except psycopg.Error as error:
        say(type(error).__name__, error.sqlstate, connection.closed, connection.broken)


@feature
def encodings():
    with connect(client_encoding="LATIN1") as connection:
        say(connection.info.encoding, one(connection, "SELECT 'né', %s, octet_length(%s)", "ü", "ü"))
        try:
            connection.execute("SELECT U&'\\4e16'")
        except psycopg.Error as error:
            say_error(error)
        connection.execute("SET client_encoding = 'utf8'")
        say(connection.info.encoding, one(connection, "SELECT '\u4e16', %s", "\u4e16"))
        connection.execute("SET NAMES 'SJIS'")
        say(connection.info.encoding, one(connection, "SELECT '\u4e16', %s", "\u4e16"))
        connection.execute("RESET client_encoding")
        say(connection.info.encoding, one(connection, "SELECT 'né'"))


@feature
def definitions():
    empty_table()
    with connect() as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
        connection.execute("CREATE TABLE people (name text, mood mood, age int)")
        connection.execute("INSERT INTO people VALUES ('a', 'sad', 1)")
        say(one(connection, "SELECT mood, mood > 'sad' FROM people"))
        connection.execute("CREATE VIEW happy AS SELECT * FROM people WHERE mood = 'happy'")
        say(connection.execute("SELECT * FROM happy").fetchall())
        connection.execute("ALTER TABLE people ADD size int DEFAULT 7")
        say(connection.execute("SELECT * FROM people").fetchall())
        info = psycopg.types.enum.EnumInfo.fetch(connection, "mood")
        psycopg.types.enum.register_enum(info, connection)
        say(one(connection, "SELECT 'happy'::mood"), info.labels)
        info = psycopg.types.composite.CompositeInfo.fetch(connection, "people")
        psycopg.types.composite.register_composite(info, connection)
        say(one(connection, "SELECT people FROM people"))
        connection.execute("CREATE FUNCTION adds() RETURNS int LANGUAGE sql AS $$ INSERT INTO driver_test VALUES (1) RETURNING id $$")
        say(one(connection, "SELECT adds()"), one(connection, "SELECT count(*) FROM driver_test"))
        connection.execute("CREATE PROCEDURE steps(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := a + 1; COMMIT; END $$")
        say(one(connection, "CALL steps(1)"))
        connection.execute("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.driver_seed AS SELECT 'elsewhere' AS line")
        connection.execute("SET search_path = elsewhere, public")
        say(one(connection, "SELECT line FROM driver_seed LIMIT 1"))
        say(one(connection, "EXPLAIN (COSTS off) SELECT * FROM driver_seed"), one(connection, "SELECT current_schema, current_schemas(false)"))


@feature
def pooling():
    empty_table()
    with ConnectionPool("", min_size=2, max_size=3, kwargs={"autocommit": False}, check=ConnectionPool.check_connection,
                        reset=lambda connection: connection.execute("DISCARD ALL") if connection.autocommit else None) as pool:
        for number in range(6):
            with pool.connection() as connection:
                connection.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
                connection.execute("INSERT INTO driver_test VALUES (%s, %s)", (number, "pooled"))
        with pool.connection() as connection:
            say(one(connection, "SELECT count(*) FROM driver_test"), one(connection, "SHOW TimeZone"))
        try:
            with pool.connection() as connection:
                connection.execute("SELECT 1/0")
        except psycopg.Error as error:
            say(error.sqlstate)
        with pool.connection() as connection:
            say(one(connection, "SELECT 1"))


@feature
async def asynchronous():
    connection = await psycopg.AsyncConnection.connect("", autocommit=True)
    async with connection, connection.cursor(binary=True) as cursor:
        for number in (7, 1999, -1):
            await cursor.execute("SELECT line FROM driver_seed WHERE id = %s", (number,), prepare=True)
            say(await cursor.fetchone())
        async with connection.transaction(), connection.cursor("named") as named:
            await named.execute("SELECT id FROM driver_seed WHERE id < 50")
            say(sum([row[0] async for row in named]))
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (n,)) for n in range(5)]
        say([(await each.fetchone())[0] for each in cursors])
        async with cursor.copy("COPY (SELECT * FROM driver_seed WHERE id < 3 ORDER BY 1) TO STDOUT") as copy:
            say([row async for row in copy.rows()])
        await connection.execute("LISTEN letters")
        await connection.execute("NOTIFY letters, 'to myself'")
        async for note in connection.notifies(timeout=10, stop_after=1):
            say(note.channel, note.payload)
