"""Waits until a topic's first partition has N records, while a process lives: PORT TOPIC N PROCESS LOG [FROM [end]].

Fails when the process ends, or when Kafka Connect says in the process's log that it has given a task up. Prints when the first record was there and when the last (seconds since 1970), and the CPU seconds of the process
between them. The first is the one behind the FROM (default 0) that are there already; with `end` prints how many there are,
and that is all. Asks the broker on 127.0.0.1 itself (ListOffsets, version 1 of the request), so that nothing but a
socket is needed and the machine is left to what is measured.
"""

import os
import socket
import struct
import sys
import time

port, topic, wanted, process, log = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), sys.argv[4], sys.argv[5]
there = int(sys.argv[6]) if len(sys.argv) > 6 else 0
LATEST = -1
PAUSE = 0.05


def text(value):
    return struct.pack(">h", len(value)) + value


def end_offset(broker):
    """Records in the partition; 0 while the broker does not know the topic."""
    partitions = struct.pack(">iiq", 1, 0, LATEST)
    request = struct.pack(">hhi", 2, 1, 1) + text(b"bench") + struct.pack(">ii", -1, 1) + text(topic) + partitions
    broker.sendall(struct.pack(">i", len(request)) + request)
    answer = broker.recv(4, socket.MSG_WAITALL)
    answer = broker.recv(struct.unpack(">i", answer)[0], socket.MSG_WAITALL)
    error, _, offset = struct.unpack(">hqq", answer[-18:])
    return offset if error == 0 else 0


def cpu_seconds():
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    if fields[0] == "Z":
        sys.exit("the process has ended")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


with socket.create_connection(("127.0.0.1", port)) as broker:
    if sys.argv[7:] == ["end"]:
        print(end_offset(broker))
        sys.exit()
    first = None
    while True:
        records = end_offset(broker)
        moment = time.time(), cpu_seconds()
        if b"Task is being killed" in open(log, "rb").read():
            sys.exit("the task has failed")
        if records > there and first is None:
            first = moment
        if records >= wanted:
            break
        time.sleep(PAUSE)
print(f"{first[0]:.3f} {moment[0]:.3f} {moment[1] - first[1]:.2f}")
