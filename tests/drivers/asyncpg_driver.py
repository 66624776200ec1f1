"""asyncpg: what it sees is the same whatever it is connected to."""

import asyncio
import datetime
import decimal
import io
import ipaddress
import json
import uuid

import asyncpg

from features import feature, run, say

SHOW = "SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('work_mem')"


def say_row(row):
    say(None if row is None else dict(row))


def say_pg_error(error):
    say(type(error).__name__, {name: value for name, value in error.as_dict().items() if not name.endswith("line")})


async def refused(awaitable):
    try:
        say(await awaitable)
    except asyncpg.PostgresError as error:
        say_pg_error(error)


async def connect(**options):
    return await asyncpg.connect(**options)


async def with_empty_table(**options):
    connection = await connect(**options)
    await connection.execute("TRUNCATE driver_test")
    return connection


@feature
async def connecting():
    connection = await connect(server_settings={"application_name": "own", "search_path": "pg_catalog", "timezone": "Asia/Tokyo"})
    say("tls", connection._transport.get_extra_info("ssl_object") is not None, connection.get_server_version()[0])
    for name in ("server_encoding", "client_encoding", "timezone", "datestyle", "application_name", "in_hot_standby"):
        say(name, getattr(connection.get_settings(), name, None))
    for _ in range(3):
        say_row(await connection.fetchrow(SHOW + ", current_setting('application_name')"))
    await connection.reset()
    say_row(await connection.fetchrow(SHOW + ", current_setting('application_name')"))
    await connection.close()


@feature
async def types():
    connection = await connect()
    for kind, values in {
        "bool": [True, None], "int2": [-7], "int4": [7], "int8": [2**62], "float4": [1.5], "float8": [float("-inf")],
        "numeric": [decimal.Decimal("123.4500"), decimal.Decimal("NaN")], "text": ["", "naïve ' \\ \u4e16\U0001f600"],
        "bytea": [b"\x00\xff"], "date": [datetime.date(2024, 2, 29), datetime.date.max], "time": [datetime.time(1, 2, 3)],
        "timestamp": [datetime.datetime(2024, 2, 29, 12)], "timetz": [datetime.time(1, tzinfo=datetime.timezone.utc)],
        "timestamptz": [datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)],
        "interval": [datetime.timedelta(days=3, seconds=4)], "uuid": [uuid.UUID(int=7)], "json": ['{"a": [1, null]}'],
        "jsonb": ['{"b": "ü"}'], "inet": [ipaddress.ip_address("::1")], "cidr": [ipaddress.ip_network("10.0.0.0/8")],
        "int4range": [asyncpg.Range(1, 5)], "int4[]": [[1, None, 3]], "text[]": [[["a", "b"], ["c", "d"]]], "point": [(1, 2)],
        "varbit": [asyncpg.BitString("101")], "char(3)": ["a"], "oid": [7], "name": ["n"], "int4multirange": [[asyncpg.Range(1, 2)]],
    }.items():
        for value in values:
            say(kind, await connection.fetchval(f"SELECT $1::{kind}", value))
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood[]); CREATE DOMAIN small AS int CHECK (VALUE < 10)")
    # These make it look up what the types are.
    say(await connection.fetchval("SELECT $1::mood", "happy"), await connection.fetchval("SELECT ARRAY['sad', NULL]::mood[]"))
    say(await connection.fetchval("SELECT $1::pair", (1, ["sad"])), await connection.fetchval("SELECT $1::small", 3))
    say(await connection.fetchval("SELECT ARRAY[ROW(1, '{sad}')::pair]"))
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    say(await connection.fetchval("SELECT $1::jsonb", {"a": [1]}))
    await connection.close()


@feature
async def queries():
    connection = await with_empty_table()
    say(await connection.execute("SELECT 1; UPDATE driver_test SET id = 1; SELECT 2"))
    say(await connection.execute("INSERT INTO driver_test VALUES ($1, $2), (2, NULL)", 1, "a"))
    say_row(await connection.fetchrow("UPDATE driver_test SET line = 'b' WHERE id = 2 RETURNING *"))
    say([tuple(row) for row in await connection.fetch("SELECT * FROM driver_test ORDER BY id")])
    await connection.executemany("INSERT INTO driver_test VALUES ($1, $2)", [(n, str(n)) for n in range(10, 300)])
    say(await connection.fetchval("SELECT count(*) FROM driver_test"))
    await refused(connection.executemany("INSERT INTO driver_test VALUES ($1, 'twice')", [(1000,), (10,), (1001,)]))
    say(await connection.fetchval("SELECT count(*) FROM driver_test"))
    say([tuple(row) for row in await connection.fetchmany("SELECT id + $1 FROM driver_seed WHERE id = $1", [(n,) for n in range(3)])])
    await connection.close()


@feature
async def errors():
    connection = await connect()
    for query in (
        "SELEKT 1", "SELECT nothing FROM driver_seed", "SELECT 1 FROM nowhere", "SELECT 1/0", "SELECT 'x'::int", "DROP TABLE pg_class",
        "INSERT INTO driver_seed VALUES (1)", "SET TimeZone = 'Nowhere'", "SELECT lower(1, 2)", "SELECT 'ü', nothing",
        "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'AB123', HINT = 'a hint', DETAIL = 'a detail'; END $$",
    ):
        await refused(connection.execute(query))
        await refused(connection.fetch(query))
    await refused(connection.fetch("SELECT 1 / $1::int", 0))
    await connection.close()


@feature
async def notices():
    connection = await connect()
    seen = []
    connection.add_log_listener(lambda _, message: seen.append((message.sqlstate, message.message)))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    await connection.execute("DROP TABLE IF EXISTS nowhere")
    await connection.execute("COMMIT")
    await asyncio.sleep(0)
    say(seen)
    await connection.close()


@feature
async def settings():
    connection = await connect()
    await connection.execute("SET TimeZone = 'Europe/Rome'")
    say_row(await connection.fetchrow(SHOW))
    say(connection.get_settings().TimeZone)
    async with connection.transaction():
        await connection.execute("SET LOCAL work_mem = '7MB'; SET search_path = pg_catalog, public")
        say_row(await connection.fetchrow(SHOW))
    say_row(await connection.fetchrow(SHOW))
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval("SELECT set_config('TimeZone', $1, false)", "Asia/Tokyo")
    say(connection.get_settings().TimeZone)
    await transaction.rollback()
    say_row(await connection.fetchrow(SHOW))
    say(connection.get_settings().TimeZone, await connection.fetchval("SHOW TimeZone"))
    await connection.execute("SET ROLE other")
    say(await connection.fetchval("SELECT current_user"))
    await refused(connection.fetch("SELECT * FROM driver_seed"))
    # RESET ALL, UNLISTEN *, CLOSE ALL, pg_advisory_unlock_all(); the role stays.
    await connection.reset()
    say_row(await connection.fetchrow(SHOW + ", current_user"))
    await connection.execute("RESET ROLE")
    say(await connection.fetchval("SELECT current_user"))
    await connection.close()


@feature
async def prepared_statements():
    connection = await connect(statement_cache_size=3, max_cached_statement_lifetime=0)
    statement = await connection.prepare("SELECT line FROM driver_seed WHERE id = $1")
    for number in (7, 1999, -1):
        say(await statement.fetchval(number))
    say(statement.get_parameters(), statement.get_attributes(), statement.get_query(), statement.get_statusmsg())
    for _ in range(3):
        for number in range(6):
            say(await connection.fetchval(f"SELECT id + {number} FROM driver_seed WHERE id = $1", number))
    await connection.execute("DEALLOCATE ALL")
    await refused(connection.fetchval("SELECT id + 5 FROM driver_seed WHERE id = $1", 1))
    await connection.reload_schema_state()
    say(await connection.fetchval("SELECT id + 5 FROM driver_seed WHERE id = $1", 1))
    await connection.close()
    uncached = await connect(statement_cache_size=0)
    for number in range(3):
        say(await uncached.fetchval("SELECT id + $1 FROM driver_seed WHERE id = $1", number))
    await uncached.close()


async def change_result_type(connection, query, name):
    """Another connection adds a column between two executions, after which asyncpg prepares again by itself."""
    other = await connect()
    await other.execute(f"CREATE TABLE {name} (a int); INSERT INTO {name} VALUES (1)")
    async with connection.transaction():
        say([tuple(row) for row in await connection.fetch(query)])
    await other.execute(f"ALTER TABLE {name} ADD b text DEFAULT 'new'")
    say([tuple(row) for row in await connection.fetch(query)])
    say([tuple(row) for row in await connection.fetch(query)])
    await other.close()
    await connection.close()


@feature
async def changed_result_type():
    await change_result_type(await connect(), "/* causeway: primary */ SELECT * FROM changes", "changes")


@feature
async def changed_result_type_elsewhere():
    await change_result_type(await connect(), "SELECT * FROM changes_elsewhere", "changes_elsewhere")


@feature
async def cursors():
    connection = await connect()
    async with connection.transaction():
        rows = connection.cursor("SELECT id FROM driver_seed WHERE id < 120 ORDER BY 1", prefetch=50)
        say(sum([row["id"] async for row in rows]))
        cursor = await connection.cursor("SELECT id FROM driver_seed ORDER BY 1")
        other = await connection.cursor("SELECT -id FROM driver_seed ORDER BY 1 DESC")
        say(await cursor.fetch(3), await other.fetch(2), await cursor.forward(10), await cursor.fetchrow(), await other.fetchrow())
    async with connection.transaction(readonly=True):
        say(sum([row["id"] async for row in connection.cursor("SELECT id FROM driver_seed", prefetch=100)]))
    await connection.close()


@feature
async def copy():
    connection = await with_empty_table()
    records = [(number, None if number % 7 == 0 else f"line {number}") for number in range(2000)]
    say(await connection.copy_records_to_table("driver_test", records=records))
    out = io.BytesIO()
    say(await connection.copy_from_query("SELECT * FROM driver_test WHERE id < $1 ORDER BY id", 5, output=out), out.getvalue())
    out = io.BytesIO()
    say(await connection.copy_from_table("driver_test", output=out, format="binary"), len(out.getvalue()))
    await connection.execute("TRUNCATE driver_test")
    out.seek(0)
    say(await connection.copy_to_table("driver_test", source=out, format="binary"))
    await refused(connection.copy_to_table("driver_test", source=io.BytesIO(b"1\tonce more\n")))
    await refused(connection.copy_from_query("SELECT 1/0", output=io.BytesIO()))
    say(await connection.fetchval("SELECT count(*) FROM driver_test"))
    await connection.close()


@feature
async def transactions():
    connection = await with_empty_table()
    async with connection.transaction():
        await connection.execute("INSERT INTO driver_test VALUES (1, 'kept')")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO driver_test VALUES (1, 'twice')")
        except asyncpg.PostgresError as error:
            say_pg_error(error)
    for isolation in ("read_uncommitted", "read_committed", "repeatable_read", "serializable"):
        for readonly in (False, True):
            async with connection.transaction(isolation=isolation, readonly=readonly, deferrable=readonly):
                say_row(await connection.fetchrow(
                    "SELECT current_setting('transaction_isolation') AS level, current_setting('transaction_read_only') AS ro, "
                    "current_setting('transaction_deferrable') AS deferrable, count(*) FROM driver_test"))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("DELETE FROM driver_test")
    await transaction.rollback()
    say(await connection.fetchval("SELECT count(*) FROM driver_test"), connection.is_in_transaction())
    await connection.close()


@feature
async def notifications():
    connection, other = await connect(), await connect()
    heard = asyncio.Queue()
    listen = lambda _connection, _pid, channel, payload: heard.put_nowait((channel, payload))
    await connection.add_listener("letters", listen)
    await connection.add_listener("Other Letters", listen)
    await other.execute("NOTIFY letters, 'it''s'")
    await other.fetchval("SELECT pg_notify('Other Letters', $1)", "ü")
    say(await heard.get(), await heard.get())
    await connection.remove_listener("letters", listen)
    await other.execute("NOTIFY letters, 'not heard'")
    await connection.execute("NOTIFY \"Other Letters\", 'own'")
    say(await heard.get(), heard.empty())
    await connection.remove_listener("Other Letters", listen)
    await connection.close()
    await other.close()


@feature
async def cancelling():
    connection = await connect()
    for _ in range(2):
        try:
            # It cancels when its time is over.
            await connection.execute("SELECT pg_sleep(15)", timeout=0.3)
        except asyncio.TimeoutError:
            say("timed out")
        say(await connection.fetchval("SELECT count(*) FROM driver_seed"))
    task = asyncio.ensure_future(connection.fetch("SELECT pg_sleep(15)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancelled")
    say(await connection.fetchval("SELECT count(*) FROM driver_seed"))
    await connection.execute("SET statement_timeout = 50")
    await refused(connection.fetch("SELECT pg_sleep(15)"))
    await connection.close()


@feature
async def session_objects():
    connection = await with_empty_table()
    await connection.execute("CREATE TEMP TABLE mine (id serial); INSERT INTO mine DEFAULT VALUES")
    say(await connection.fetchval("SELECT count(*) FROM mine"), await connection.fetchval("SELECT lastval()"))
    await connection.execute("DROP TABLE mine")
    say(await connection.fetchval("SELECT to_regclass('mine')"))
    other = await connect()
    say(await connection.fetchval("SELECT pg_try_advisory_lock(7)"), await other.fetchval("SELECT pg_try_advisory_lock(7)"))
    await connection.reset()
    say(await other.fetchval("SELECT pg_try_advisory_lock(7)"), await other.fetchval("SELECT pg_advisory_unlock(7)"))
    oid = await connection.fetchval("SELECT lo_from_bytea(0, $1)", b"large")
    say(await other.fetchval("SELECT lo_get($1)", oid), await other.fetchval("SELECT lo_unlink($1)", oid))
    await other.close()
    await connection.close()


@feature
async def pooling():
    async def set_up(connection):
        await connection.execute("SET TimeZone = 'Asia/Tokyo'")

    async with asyncpg.create_pool(min_size=2, max_size=3, setup=set_up) as pool:
        await pool.execute("TRUNCATE driver_test")

        async def work(number):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SET work_mem = '7MB'")
                await connection.execute("INSERT INTO driver_test VALUES ($1, current_setting('work_mem'))", number)

        await asyncio.gather(*(work(number) for number in range(20)))
        for _ in range(4):
            say_row(await pool.fetchrow(SHOW))
        say(await pool.fetchval("SELECT count(*) FROM driver_test"), await pool.fetchval("SELECT min(line) FROM driver_test"))
        await pool.expire_connections()
        say(await pool.fetchval("SELECT 1"))


if __name__ == "__main__":
    run()
