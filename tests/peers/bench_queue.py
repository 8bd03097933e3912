"""Celery and Dramatiq for `make bench-queue`: no-op jobs on a RabbitMQ that is given.

usage: bench_queue.py --amqp URL [--jobs N] [--rate N] [--seconds S]

Messages are durable, their publication is confirmed by the broker, and they are acknowledged when the job is done, in every setting.
Throughput: jobs a second from the first publication to the last job's body, publishers and workers at work at the same time.
Latency: from the call that publishes to the start of the job's body, at a fixed rate, in milliseconds. A sweep tries one kind of
setting after another (pool and concurrency, publishers, prefetch, queue type), each with the best of those before; latency is
measured for every pool. One line of JSON for each setting, and a last one with the best of each peer:
{"celery": {"jobs_per_s", "p50_ms", "p99_ms", ...}, "dramatiq": {...}}.

Not called `queue.py`: programs in this folder would import it instead of Python's own module.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time

import pika

import noop

HERE = pathlib.Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))
WARM_UP = 200
STALL_S = 60


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a peer is run. `workers` are separate worker commands, `concurrency` what one of them does at a time."""

    peer: str
    pool: str
    workers: int
    concurrency: int
    prefetch: int
    queue_type: str = "classic"
    publishers: int = 2 * CORES

    def commands(self):
        """The commands of the workers."""
        python = sys.executable
        if self.peer == "dramatiq":
            # Its own master starts the processes.
            return [[python, "-m", "dramatiq", "noop_dramatiq", "--path", str(HERE), "--processes", str(self.workers),
                     "--threads", str(self.concurrency)]]
        return [[python, "-m", "celery", "-A", "noop_celery", "worker", "--pool", self.pool, "--concurrency", str(self.concurrency),
                 "--prefetch-multiplier", str(self.prefetch), "--without-gossip", "--without-mingle", "--without-heartbeat",
                 "-O", "fair", "--loglevel", "ERROR", "--hostname", f"noop-{number}@%h"] for number in range(self.workers)]


class Run:
    """Workers of one setting, on a queue of their own."""

    next = 0

    def __init__(self, setting, url, folder):
        Run.next += 1
        self.setting, self.url = setting, url
        self.queue = f"noop-{os.getpid()}-{Run.next}"
        self.pipe = folder / f"{self.queue}.pipe"
        self.log = open(folder / f"{self.queue}.log", "w+b")
        os.mkfifo(self.pipe)
        # For reading and writing, so that no end of it is seen while there are no workers.
        self.reading = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.reading, selectors.EVENT_READ)
        self.rest = b""
        self.environment = {**os.environ, "NOOP_PIPE": str(self.pipe), "NOOP_QUEUE": self.queue, "NOOP_URL": url,
                            "NOOP_QUEUE_TYPE": setting.queue_type, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1",
                            "dramatiq_queue_prefetch": str(setting.prefetch)}
        self.workers = []

    def __enter__(self):
        try:
            for command in self.setting.commands():
                self.workers.append(subprocess.Popen(command, env=self.environment, cwd=self.pipe.parent, stdin=subprocess.DEVNULL,
                                                     stdout=self.log, stderr=self.log, start_new_session=True))
            self.publish([WARM_UP], None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        os.close(self.reading)
        self.log.close()
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        channel = connection.channel()
        for ending in ["", ".DQ", ".XQ"]:
            channel.queue_delete(self.queue + ending)
        connection.close()

    def records(self, count, patience):
        """So many (sent, ran) of jobs as they come; the first message of each publisher, sent at 0, is left out."""
        found = []
        while len(found) < count:
            if not self.selector.select(patience):
                self.log.seek(0)
                raise SystemExit(f"{self.setting}: {len(found)} of {count} jobs ran, then none for {patience} s; the workers said:\n"
                                 + self.log.read().decode(errors="replace")[-3000:])
            data = self.rest + os.read(self.reading, 1 << 16)
            whole = len(data) - len(data) % noop.RECORD.size
            self.rest = data[whole:]
            found += [record for record in noop.RECORD.iter_unpack(data[:whole]) if record[0]]
        return found

    def publish(self, counts, rate):
        """Publishes by as many processes as there are counts; when it began, and the records of all jobs."""
        program = [sys.executable, str(HERE / f"noop_{self.setting.peer}.py")]
        more = [] if rate is None else [str(rate)]
        publishers = [subprocess.Popen([*program, str(count), *more], env=self.environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=self.log) for count in counts]
        try:
            for publisher in publishers:
                if publisher.stdout.readline() != b"ready\n":
                    self.log.seek(0)
                    raise SystemExit(f"{self.setting}: a publisher failed:\n" + self.log.read().decode(errors="replace")[-3000:])
            started = time.monotonic_ns()
            for publisher in publishers:
                publisher.stdin.write(b"\n")
                publisher.stdin.flush()
            records = self.records(sum(counts), STALL_S)
            for publisher in publishers:
                publisher.wait(STALL_S)
        finally:
            for publisher in publishers:
                publisher.kill()
                publisher.wait()
                publisher.stdin.close()
                publisher.stdout.close()
        return started, records

    def throughput(self, jobs):
        """Jobs a second."""
        counts = [jobs // self.setting.publishers] * self.setting.publishers
        started, records = self.publish(counts, None)
        return sum(counts) / ((max(ran for _, ran in records) - started) / 1e9)

    def latency(self, rate, seconds):
        """Median and 99th percentile, in milliseconds."""
        _, records = self.publish([int(rate * seconds)], rate)
        times = sorted((ran - sent) / 1e6 for sent, ran in records)
        return tuple(times[round((len(times) - 1) * share)] for share in (0.5, 0.99))


# Kinds of settings in the order in which they are tried: each a list of changes to the best so far.
SWEEPS = {
    "celery": [
        [{"pool": pool, "workers": workers, "concurrency": concurrency} for pool, workers, concurrency in [
            ("prefork", 1, CORES), ("prefork", 1, 2 * CORES), ("threads", 1, 2), ("threads", 1, 8), ("threads", CORES, 4), ("solo", 1, 1),
            ("solo", CORES, 1)]],
        [{"publishers": publishers} for publishers in (CORES, 4 * CORES, 8 * CORES)],
        [{"prefetch": prefetch} for prefetch in (1, 4, 64, 256)],
        [{"queue_type": "quorum"}],
    ],
    "dramatiq": [
        [{"workers": workers, "concurrency": concurrency} for workers, concurrency in [
            (1, 1), (1, 2), (1, 8), (CORES, 1), (CORES, 4), (CORES, 8), (2 * CORES, 2)]],
        [{"publishers": publishers} for publishers in (CORES, 4 * CORES, 8 * CORES)],
        [{"prefetch": prefetch} for prefetch in (2, 64, 256)],
    ],
}
FIRST = {
    "celery": Setting("celery", "prefork", 1, CORES, 16),
    "dramatiq": Setting("dramatiq", "threads", CORES, 4, 16),
}


def sweep(peer, arguments, folder):
    """The best throughput and the best latency of a peer, which may be of different settings."""
    best, pools = (0.0, FIRST[peer]), []
    for number, changes in enumerate(SWEEPS[peer]):
        start = best[1]
        for change in changes:
            setting = dataclasses.replace(start, **change)
            with Run(setting, arguments.amqp, folder) as run:
                rate = run.throughput(arguments.jobs)
            print(json.dumps({**dataclasses.asdict(setting), "jobs_per_s": round(rate, 1)}), flush=True)
            best = max(best, (rate, setting), key=lambda entry: entry[0])
            if number == 0:
                pools.append(change)
    # The best once more: a lucky run is no setting's merit.
    with Run(best[1], arguments.amqp, folder) as run:
        again = run.throughput(2 * arguments.jobs)
    fastest = None
    # Also on a queue that is on the disk before a job is delivered, as ours is, where a peer has that by a setting.
    flushed = [{"queue_type": "quorum"}] if peer == "celery" else []
    for change in [{}, *pools, *flushed]:
        setting = dataclasses.replace(best[1], **change)
        if change and setting == best[1]:
            continue
        with Run(setting, arguments.amqp, folder) as run:
            p50, p99 = run.latency(arguments.rate, arguments.seconds)
        print(json.dumps({**dataclasses.asdict(setting), "rate": arguments.rate, "p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}), flush=True)
        if fastest is None or p99 < fastest[1]:
            fastest = (p50, p99, setting)
    return {
        "jobs_per_s": round(max(best[0], again), 1),
        "jobs_per_s_again": round(again, 1),
        "p50_ms": round(fastest[0], 3),
        "p99_ms": round(fastest[1], 3),
        "setting": dataclasses.asdict(best[1]),
        "setting_latency": dataclasses.asdict(fastest[2]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--amqp", required=True, metavar="URL", help="amqp://USER:PASSWORD@HOST:PORT/VHOST")
    parser.add_argument("--jobs", type=int, default=4000, metavar="N", help="jobs of a throughput run")
    parser.add_argument("--rate", type=float, default=200, metavar="N", help="jobs a second of a latency run")
    parser.add_argument("--seconds", type=float, default=10, help="how long a latency run publishes")
    parser.add_argument("--peers", nargs="+", choices=sorted(SWEEPS), default=sorted(SWEEPS))
    arguments = parser.parse_args()
    # Ends like by Ctrl-C, with its workers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench_queue.py: asked to stop"))
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        result = {peer: sweep(peer, arguments, pathlib.Path(folder)) for peer in arguments.peers}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
