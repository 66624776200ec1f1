"""asyncpg: what it prints is the same whatever it is connected to. The environment says to what."""

import asyncio
import io

import asyncpg


async def main():
    connection = await asyncpg.connect()
    print("tls", connection._transport.get_extra_info("ssl_object") is not None)

    row = await connection.fetchrow(
        "SELECT $1::int + 1, $2::text, NULL::date, ARRAY[1.5, 2.5]", 41, "naïve ' \\ text"
    )
    print("query", tuple(row))

    records = [(number, f"line {number}") for number in range(2000)]
    out = io.BytesIO()
    async with connection.transaction():
        print("copy in", await connection.copy_records_to_table("driver_test", records=records))
        print("copy out", await connection.copy_from_query("SELECT * FROM driver_test ORDER BY id", output=out))
    print("copy", out.getvalue() == b"".join(b"%d\tline %d\n" % (n, n) for n in range(2000)))

    async with connection.transaction():
        await connection.execute("INSERT INTO driver_test VALUES (-1, 'kept')")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO driver_test VALUES (-1, 'twice')")
        except asyncpg.PostgresError as error:
            print("error", error.sqlstate, error.constraint_name)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("DELETE FROM driver_test")
    await transaction.rollback()
    print("transaction", tuple(await connection.fetchrow("/* causeway: primary */ SELECT count(*), min(id) FROM driver_test")))

    statement = await connection.prepare("SELECT line FROM driver_seed WHERE id = $1")
    for number in (7, 1999, -1):
        print("prepared", await statement.fetchval(number))
    async with connection.transaction():
        rows = connection.cursor("SELECT id FROM driver_seed WHERE id < 120 ORDER BY 1", prefetch=50)
        print("cursor", sum([row["id"] async for row in rows]))

    try:
        # It cancels when its time is over.
        await connection.execute("SELECT pg_sleep(30)", timeout=0.5)
    except asyncio.TimeoutError:
        print("cancel", "timed out")
    print("after", await connection.fetchval("SELECT count(*) FROM driver_seed"))
    await connection.close()


asyncio.run(main())
