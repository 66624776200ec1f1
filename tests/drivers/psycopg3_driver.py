"""psycopg 3: what it prints is the same whatever it is connected to. The environment says to what."""

import threading

import psycopg

connection = psycopg.connect("", autocommit=True)
print("tls", connection.pgconn.ssl_in_use)

row = connection.execute("SELECT %s::int + 1, %s::text, NULL::date, ARRAY[1.5, 2.5]", (41, "naïve ' \\ text")).fetchone()
print("query", row)
binary = connection.cursor(binary=True)
print("binary", binary.execute("SELECT %b::int8, now() > '2000-01-01'", (2**40,)).fetchone())

with connection.transaction(), connection.cursor() as cursor:
    with cursor.copy("COPY driver_test FROM STDIN") as copy:
        for number in range(2000):
            copy.write_row((number, f"line {number}"))
    with cursor.copy("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT") as copy:
        data = b"".join(bytes(part) for part in copy)
print("copy", len(data), data == b"".join(b"%d\tline %d\n" % (n, n) for n in range(2000)))

with connection.transaction():
    connection.execute("INSERT INTO driver_test VALUES (-1, 'kept')")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO driver_test VALUES (-1, 'twice')")
    except psycopg.Error as error:
        print("error", error.sqlstate, error.diag.constraint_name)
with connection.transaction(force_rollback=True):
    connection.execute("DELETE FROM driver_test")
print("transaction", connection.execute("/* causeway: primary */ SELECT count(*), min(id) FROM driver_test").fetchone())

for number in (7, 1999, -1):
    row = connection.execute("SELECT line FROM driver_seed WHERE id = %s", (number,), prepare=True).fetchone()
    print("prepared", row)

with connection.pipeline():
    cursors = [connection.execute("SELECT line FROM driver_seed WHERE id = %s", (number,)) for number in (1, 2, 3)]
print("pipeline", [cursor.fetchone() for cursor in cursors])

done = threading.Event()


def cancel():
    # The first request may come before the statement.
    while not done.wait(0.3):
        connection.cancel_safe()


canceller = threading.Thread(target=cancel)
canceller.start()
try:
    connection.execute("SELECT pg_sleep(30)")
except psycopg.Error as error:
    print("cancel", error.sqlstate)
finally:
    done.set()
    canceller.join()
print("after", connection.execute("SELECT count(*) FROM driver_seed").fetchone())
