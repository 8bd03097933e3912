"""A job that does nothing, for whichever queue: how it says that it ran, and how it is published."""
import os
import struct
import sys
import time

# Sent and ran, in nanoseconds of the machine's monotonic clock, which all processes share. So short a write to a pipe is atomic.
RECORD = struct.Struct("=qq")
PIPE = os.environ.get("NOOP_PIPE")
QUEUE = os.environ.get("NOOP_QUEUE", "noop")
URL = os.environ.get("NOOP_URL", "")
# With the time of sending as large as the messages of the program's own benchmark.
PADDING = "x" * 230
pipe = None


def ran(sent):
    """The task's body: tells the benchmark."""
    global pipe
    now = time.monotonic_ns()
    if pipe is None:
        pipe = os.open(PIPE, os.O_WRONLY)
    os.write(pipe, RECORD.pack(sent, now))


def publish(send):
    """Publishes as the arguments say: COUNT [RATE]. `send` takes the time of sending, and returns when the broker has confirmed.

    Says `ready` when it could begin, and begins at a line of standard input.
    """
    count, rate = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None
    # Connects, and tells the broker's declarations.
    send(0)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic_ns()
    for number in range(count):
        if rate is not None:
            # At fixed times, however long a call takes.
            wait = started + number * 1e9 / rate - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
        send(time.monotonic_ns())
