"""Judges what a source wrote to Kafka, by Confluent's client and fastavro alone: BOOTSTRAP SOURCE DATABASE EXPECTED.

EXPECTED is a JSON file: {"first_rows": number, "writers": {writer: transactions}, "accounts": {id: version}}, what MySQL holds. Read are the
committed records of three tables (tests/writers/mod.rs writes them):

  accounts  each change of a key starts from the row that the change before it left, and the last one leaves what MySQL
            holds; every transaction has as many changes as it says it made
  events    each transaction of each writer inserted one row: all are there, once
  keyless   the same, in a table without a key

Prints a sentence for each violation and ends with 1 when there is one.
"""

import collections
import io
import json
import struct
import sys

import fastavro
from confluent_kafka import Consumer, TopicPartition

bootstrap, source, database, expected_file = sys.argv[1:5]
with open(expected_file) as file:
    expected = json.load(file)

SHOWN_MAX = 40
violations = 0


def violation(text):
    global violations
    violations += 1
    if violations <= SHOWN_MAX:
        print(text)


def records(topic):
    """All committed records of a topic in the order of their partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "check-log",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    found = consumer.list_topics(topic, timeout=60).topics[topic]
    if found.error is not None or not found.partitions:
        consumer.close()
        return
    for partition in sorted(found.partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=60)
        consumer.assign([TopicPartition(topic, partition, low)])
        silent = 0
        position = low
        while position < high:
            messages = consumer.consume(5000, timeout=1)
            silent = 0 if messages else silent + 1
            if silent > 60:
                sys.exit(f"{topic}[{partition}] gives nothing from {position} on, and ends at {high}")
            for message in messages:
                if message.error() is None:
                    yield message
            # Control records move the position and are no messages.
            now = consumer.position([TopicPartition(topic, partition)])[0].offset
            position = max(position, now)
    consumer.close()


schemas = {}
for message in records(f"{source}.__schemas"):
    schemas[message.key()] = fastavro.parse_schema(json.loads(message.value()))


def decode(framed):
    if framed[:2] == b"\xc3\x01":
        name, datum = framed[2:10], framed[10:]
    else:
        name, datum = framed[:5], framed[5:]
    if name not in schemas:
        sys.exit(f"no schema {name.hex()} in {source}.__schemas")
    return fastavro.schemaless_reader(io.BytesIO(datum), schemas[name])


def place(message, value):
    block = value["source"]
    at = f"{block['file']}:{block['pos']} row {block['row']} {block['gtid']}"
    return f"{message.topic()}[{message.partition()}]@{message.offset()} ({value['op']}, {at})"


# --- keyed rows --------------------------------------------------------------------------------------------------------

rows = {}
met = set()
tombstone_due = {}
changes = collections.Counter()
seen = set()
counted = collections.Counter()
for message in records(f"{source}.{database}.accounts"):
    key = decode(message.key())["id"]
    if message.value() is None:
        if not tombstone_due.pop(key, False):
            violation(f"a tombstone without a delete before it: key {key}, offset {message.offset()}")
        continue
    value = decode(message.value())
    op, before, after = value["op"], value["before"], value["after"]
    counted[op] += 1
    # A row that was there before is read by the snapshot, unless it was changed before that came to it.
    known = rows.get(key) if key in met or key >= expected["first_rows"] else {"version": 0}
    version = known and known["version"]
    if op == "r":
        # The first snapshot reads a row once; one that was asked for finds what the changes left.
        if value["source"]["snapshot"] == "incremental":
            if known is None or after["version"] != version:
                violation(f"key {key} is read with version {after['version']}, not {version}: {place(message, value)}")
        elif key in met or known is None:
            violation(f"key {key} is read, and was known: {place(message, value)}")
    else:
        block = value["source"]
        one = (block["gtid"], block["file"], block["pos"], block["row"], key, op)
        if one in seen:
            violation(f"twice: {place(message, value)}, key {key}")
        seen.add(one)
        changes[block["gtid"]] += 1
        if op == "c" and known is not None:
            violation(f"key {key} is inserted, and was there with version {version}: {place(message, value)}")
        if op in "ud" and (known is None or before["version"] != version):
            violation(
                f"key {key} changes from version {before['version']}, and the one before left {version}: "
                f"{place(message, value)}"
            )
    met.add(key)
    if op == "d":
        rows.pop(key, None)
        tombstone_due[key] = True
    else:
        rows[key] = after
held = {int(key): version for key, version in expected["accounts"].items()}
for key in sorted(held.keys() | rows.keys()):
    version = rows[key]["version"] if key in rows else None
    if held.get(key) != version:
        violation(f"key {key} has version {held.get(key)} in MySQL and {version} by the log")

# --- rows that are only added --------------------------------------------------------------------------------------------

for table in ["events", "keyless"]:
    numbers = collections.defaultdict(collections.Counter)
    for message in records(f"{source}.{database}.{table}"):
        if message.value() is None:
            continue
        value = decode(message.value())
        counted[value["op"]] += 1
        # Purges are deletes.
        if value["op"] not in "rc":
            continue
        row = value["after"]
        numbers[row["writer"]][row["seq"]] += 1
        gtid = value["source"]["gtid"]
        if table == "events" and gtid:
            if changes.get(gtid, 0) != row["touched"]:
                violation(
                    f"transaction {gtid} changed {row['touched']} accounts, and the log has {changes.get(gtid, 0)}"
                )
            changes.pop(gtid, None)
    for writer, transactions in expected["writers"].items():
        there = numbers.pop(int(writer), collections.Counter())
        for seq in range(1, transactions + 1):
            count = there.pop(seq, 0)
            if count != 1:
                violation(f"{table}: transaction {seq} of writer {writer} is there {count} times")
        for seq in there:
            violation(f"{table}: transaction {seq} of writer {writer} is there, and was never committed")
    for writer in numbers:
        violation(f"{table}: writer {writer} is unknown")
for gtid, count in changes.items():
    violation(f"transaction {gtid} is there in part: {count} accounts and no event")

print(f"{sum(counted.values())} records ({dict(counted)}), {len(rows)} keys, {violations} violations")
sys.exit(1 if violations else 0)
