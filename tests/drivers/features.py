"""What the Python programs share. A program is a list of features; each prints what its driver saw.

The environment says what to connect to, in libpq's variables. Arguments are names of features; none means all.
"""

import asyncio
import inspect
import re
import sys
import traceback

FEATURES = []

# Numbers that no two runs share.
VOLATILE = [(re.compile(r"\bprocess \d+"), "process N"), (re.compile(r"\b(transaction|database|relation) \d+"), r"\1 N")]


def feature(function):
    FEATURES.append(function)
    return function


def say(*values):
    text = " ".join(value if isinstance(value, str) else repr(value) for value in values)
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    print(text, flush=True)


def say_error(error):
    """All that an error of psycopg 2 or 3 has from the server, with the fields that say where in the server."""
    names = (
        "severity sqlstate message_primary message_detail message_hint statement_position internal_position "
        "internal_query context schema_name table_name column_name datatype_name constraint_name "
        "source_file source_function"
    )
    fields = {name: getattr(error.diag, name) for name in names.split()}
    say(type(error).__name__, {name: value for name, value in fields.items() if value is not None})


def run(prefix=""):
    """Each feature in turn; an exception that it lets pass is its result."""
    wanted = sys.argv[1:]
    for function in FEATURES:
        name = prefix + function.__name__
        if wanted and name not in wanted:
            continue
        print("==", name, flush=True)
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), 20))
            else:
                function()
        except Exception as error:
            say("FAILED", type(error).__name__, str(error))
            if wanted:
                traceback.print_exc()
