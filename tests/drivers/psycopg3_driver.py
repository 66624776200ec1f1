"""psycopg 3: what it sees is the same whatever it is connected to."""

import psycopg3_queries  # noqa: F401
import psycopg3_sessions  # noqa: F401

from features import run

if __name__ == "__main__":
    run()
