"""psycopg2: what it prints is the same whatever it is connected to. The environment says to what."""

import io
import threading

import psycopg2

connection = psycopg2.connect("")
connection.autocommit = True
cursor = connection.cursor()
print("tls", connection.info.ssl_in_use)

cursor.execute("SELECT %s::int + 1, %s::text, NULL::date, ARRAY[1.5, 2.5]", (41, "naïve ' \\ text"))
print("query", cursor.fetchone())

lines = "".join(f"{n}\tline {n}\n" for n in range(2000))
connection.autocommit = False
cursor.copy_expert("COPY driver_test FROM STDIN", io.StringIO(lines))
out = io.StringIO()
cursor.copy_expert("COPY (SELECT * FROM driver_test ORDER BY id) TO STDOUT", out)
connection.commit()
print("copy", cursor.rowcount, out.getvalue() == lines)

cursor.execute("INSERT INTO driver_test VALUES (-1, 'kept')")
cursor.execute("SAVEPOINT s")
try:
    cursor.execute("INSERT INTO driver_test VALUES (-1, 'twice')")
except psycopg2.Error as error:
    print("error", error.pgcode, error.diag.constraint_name)
cursor.execute("ROLLBACK TO s")
connection.commit()
cursor.execute("DELETE FROM driver_test")
connection.rollback()
connection.autocommit = True
cursor.execute("/* causeway: primary */ SELECT count(*), min(id) FROM driver_test")
print("transaction", cursor.fetchone())

cursor.execute("PREPARE by_id (int) AS SELECT line FROM driver_seed WHERE id = $1")
for number in (7, 1999):
    cursor.execute("EXECUTE by_id (%s)", (number,))
    print("prepared", cursor.fetchone())

done = threading.Event()


def cancel():
    # The first request may come before the statement.
    while not done.wait(0.3):
        connection.cancel()


canceller = threading.Thread(target=cancel)
canceller.start()
try:
    cursor.execute("SELECT pg_sleep(30)")
except psycopg2.Error as error:
    print("cancel", error.pgcode)
finally:
    done.set()
    canceller.join()
cursor.execute("SELECT count(*) FROM driver_seed")
print("after", cursor.fetchone())
