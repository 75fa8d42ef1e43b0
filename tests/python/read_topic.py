"""Reads a topic as another service would: BOOTSTRAP REGISTRY TOPIC COUNT.

By Confluent's own client: committed records only, keys and values by the registry's schemas. Prints a JSON line for each
of COUNT records: its key, operation and row.
"""

import json
import sys

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

bootstrap, registry, topic, count = sys.argv[1:5]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": "read-topic",
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
seen = 0
while seen < int(count):
    message = consumer.poll(30)
    if message is None:
        sys.exit(f"only {seen} of {count} records came")
    if message.error():
        sys.exit(str(message.error()))
    if message.value() is None:
        continue
    key = deserialize(message.key(), SerializationContext(topic, MessageField.KEY))
    value = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    print(json.dumps({"key": key, "op": value["op"], "row": value["after"]}, default=str))
    seen += 1
consumer.close()
