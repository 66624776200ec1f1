"""How the features of psycopg 3 connect."""

import logging

import psycopg

# It warns of what is a matter of timing.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def connect(**options):
    return psycopg.connect("", autocommit=options.pop("autocommit", True), **options)


def one(connection, query, *parameters, **options):
    return connection.execute(query, parameters or None, **options).fetchone()


def empty_table():
    with connect() as connection:
        connection.execute("TRUNCATE driver_test")
