"""Prints the rows of a lake table as another program reads them, in one form that a test can compare.

    read_tables.py --engine deltalake|duckdb --table FOLDER --columns 'a,b' | '*' [--key 'a'] [--header]

One JSON array of strings and nulls a line, sorted by the key's values (by the whole line without --key). So that a
line equals what a MySQL client gets for the same row:
  decimals     all their digits, never an exponent        booleans   1 and 0
  floats       the shortest digits, 1 and not 1.0         binary     hex digits, as MySQL's hex()
  timestamps   UTC, always six digits: select cast(c as datetime(6)) on MySQL's side
"""

import argparse
import datetime
import decimal
import json
import os
import signal
import sys

import pyarrow

# The engines run native code that a Python handler could not interrupt; the default action of SIGALRM can.
TIME_LIMIT_SECONDS = 300


def text(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=text, ensure_ascii=False, sort_keys=True)
    return str(value)


def quoted(columns):
    if columns == "*":
        return "*"
    return ", ".join('"' + name.replace('"', '""') + '"' for name in columns.split(","))


def read_with_deltalake(folder, columns):
    from deltalake import DeltaTable, QueryBuilder

    # SQL and not to_pyarrow_table(), which refuses tables with deletion vectors.
    query = QueryBuilder().register("lake", DeltaTable(folder))
    return pyarrow.table(query.execute(f"select {quoted(columns)} from lake"))


def read_with_duckdb(folder, columns):
    import duckdb
    import duckdb_extension_delta

    # DuckDB's own INSTALL downloads; the package carries the same signed file.
    package = os.path.dirname(duckdb_extension_delta.__file__)
    extension = os.path.join(package, "extensions", "v" + duckdb.__version__, "delta.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"install '{extension}'")
    connection.execute("load delta")
    connection.execute("set timezone = 'UTC'")
    path = folder.replace("'", "''")
    return connection.execute(f"select {quoted(columns)} from delta_scan('{path}')").to_arrow_table()


ENGINES = {"deltalake": read_with_deltalake, "duckdb": read_with_duckdb}


def main():
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TIME_LIMIT_SECONDS)
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--engine", choices=sorted(ENGINES), required=True)
    arguments.add_argument("--table", required=True)
    arguments.add_argument("--columns", default="*")
    arguments.add_argument("--key", default="")
    arguments.add_argument("--header", action="store_true", help="print the columns' names first")
    arguments = arguments.parse_args()

    table = ENGINES[arguments.engine](arguments.table, arguments.columns)
    names = table.column_names
    rows = list(zip(*(column.to_pylist() for column in table.columns)))
    if arguments.key:
        key = [names.index(name) for name in arguments.key.split(",")]
        # NULL sorts first, as in MySQL; Python does not compare None with anything.
        rows.sort(key=lambda row: [(row[i] is not None, row[i]) for i in key])
    lines = [json.dumps([text(value) for value in row], ensure_ascii=False) for row in rows]
    if not arguments.key:
        lines.sort()
    if arguments.header:
        lines.insert(0, json.dumps(names, ensure_ascii=False))
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


try:
    main()
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)
# deltalake's runtime threads now and then abort the interpreter while it exits, after all work was done.
os._exit(0)
