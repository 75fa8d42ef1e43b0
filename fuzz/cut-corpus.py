"""Cuts a binlog and the SQL that made it into the corpora of the fuzz targets: cut-corpus.py BINLOG SQL FOLDER"""
import hashlib, os, shutil, struct, sys

binlog, sql, folder = sys.argv[1:]
data = open(binlog, "rb").read()
ROWS = (23, 24, 25, 30, 31, 32, 39)


def keep(target, content):
    """One file per input, named by its content."""
    os.makedirs(f"{folder}/{target}", exist_ok=True)
    with open(f"{folder}/{target}/{hashlib.sha1(content).hexdigest()[:16]}", "wb") as file:
        file.write(content)


def framed(events):
    return b"".join(struct.pack("<I", len(event)) + event for event in events)


def length_encoded(data, at):
    first = data[at]
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    return (int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size) if size else (first, at + 1)


shutil.rmtree(folder, ignore_errors=True)
at, file_name = 4, os.path.basename(binlog).encode()
# What the server sends first: the name of the file.
rotate = struct.pack("<IBIIIH", 0, 4, 1, 19 + 8 + len(file_name), 0, 0x20) + struct.pack("<Q", 4) + file_name
maps, transaction, kinds = {}, [rotate], set()
while at < len(data):
    kind, size = data[at + 4], int.from_bytes(data[at + 9 : at + 13], "little")
    event = data[at : at + size - 4]
    body = event[19:]
    at += size
    if kind in (33, 34, 42):  # a transaction begins
        if len(transaction) > 1 and len(framed(transaction)) < 6000:
            keep("event_stream", framed(transaction))
        transaction = [rotate]
    transaction.append(event)
    if kind == 19:
        maps[body[:6]] = body
        keep("table_map", body)
    elif kind in ROWS:
        table = maps[body[:6]]
        keep("rows_event", struct.pack("<H", len(table)) + table + bytes([kind]) + body)
        # A table named `json` has one JSON column and one row per event: after the event's header of 8 bytes, its
        # extra data, one column, one bitmap of present columns and one of NULLs comes the length in four bytes.
        if table[8:].find(b"\x04json\x00") > 0 and kind == 30:
            start = 8 + int.from_bytes(body[8:10], "little") + 1 + 1 + 1
            length = int.from_bytes(body[start : start + 4], "little")
            assert start + 4 + length == len(body), "not the table that was expected"
            keep("json_binary", body[start + 4 :])
keep("event_stream", framed(transaction))

for statement in open(sql, encoding="utf-8").read().split(";\n"):
    statement = "\n".join(line for line in statement.split("\n") if not line.startswith("-- "))
    if statement.strip() and len(statement) < 1500:
        keep("ddl", statement.strip().encode())

uuid, other = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "24da167-0c0c-11e8-8442-00059a3c7b00".rjust(36, "7")
for text in (
    f"{uuid}:1-5",
    f"{uuid}:1-3:11:47-49\n{uuid}:2-12",
    f"{uuid}:1-3:tag:4-5:another_tag:7\n{uuid}:tag:1-9",
    f"{uuid}:1-19,\n{other}:1-77,{uuid}:5".replace(",\n", ", "),
    f"{uuid.upper()}:1:3:5:7-9\n{other}:18446744073709551614\n{uuid}:1-9223372036854775807",
    "",
):
    keep("gtid_set", text.encode())
for record in (
    b"\x00\x00\x00\x00\x07\x02\x06abc\x00",
    b"\xc3\x01" + bytes(range(8)) + b"\x0cmarket\x02\x80\x80\x80\x80\x10",
    b"\xff" * 9 + b"\x01",
    b"\x05__op_\x01\x00\x00\x00c\x03abc\x00\x00\x00\x00",
    b"",
):
    keep("wire_framing", record)
