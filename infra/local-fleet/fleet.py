"""The fleet as a whole: what is started in which order, and stopped in the other."""
import os
import subprocess
import urllib.error
import urllib.request

import parts
from parts import ROOT
from process import Failure, Process

SITE = "local"
# A broker on a busy machine takes a minute.
READY_S = 120
# A worker ends its image first, the broker writes down what it has.
STOP_S = 60


def status_of(url):
    """The HTTP status, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Fleet:
    """A fleet in a folder."""

    def __init__(self, folder, binaries, api_port, workers, device, trainers=0):
        self.folder, self.binaries, self.api_port, self.device = folder, binaries, api_port, device
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self.trainers = [f"trainer-{number}" for number in range(1, trainers + 1)]

    def process(self, name):
        return Process(self.folder, name)

    def known(self):
        """Every process of which there is a file, those that need others first."""
        order = ["blackbox", "prometheus", "worker", "trainer", "coordinator", "seaweed", "redis", "rabbitmq", "epmd"]
        try:
            names = [file.name for file in (self.folder / "pids").iterdir()]
        except FileNotFoundError:
            return []
        place = {name: order.index(name.split("-")[0]) for name in names if name.split("-")[0] in order}
        return [self.process(name) for name in sorted(place, key=lambda name: (place[name], name))]

    def up(self):
        built = {"hiresmed-coordinator": "make fleet", "hiresmed-worker": "make fleet"}
        if self.trainers:
            built["hiresmed-trainer"] = "make trainer"
        for name, target in built.items():
            if not (self.binaries / name).is_file():
                raise Failure(f"{self.binaries / name} is not built: run `{target}`, or name another folder by --binaries")
        settled = parts.Settled(self.folder, self.api_port)
        self.start_services(settled)
        self.furnish(settled)
        address = f"http://127.0.0.1:{settled.port('api')}"
        made = self.start_coordinator(settled, address)
        self.start_workers(settled)
        watched = self.start_prometheus(settled)
        print(f"API          {address}")
        print(f"API key      {made or 'made before'}; kept in {self.folder / 'api-key'} (site {SITE}: submit, read, operate)")
        print(f"Prometheus   {watched}")
        print(f"logs         {self.folder / 'logs'}")
        print(f'try          curl -H "Authorization: Bearer $(cat {self.folder / "api-key"})" {address}/v1/models')
        return 0

    def start_services(self, settled):
        kinds = {"rabbitmq": parts.rabbitmq, "redis": parts.redis, "seaweed": parts.seaweed}
        # Made before anything starts: a program that is not installed shows here.
        commands = {name: part(self.folder / name, settled) for name, part in kinds.items()}
        print("starting RabbitMQ, Redis and SeaweedFS", flush=True)
        mapper = self.process("epmd")
        mapper.start(*parts.epmd(settled))
        mapper.wait_until(lambda: not parts.is_free(settled.port("epmd")), READY_S)
        for name, (command, environment) in commands.items():
            self.process(name).start(command, environment, self.folder / name)
        # RabbitMQ opens AMQP's port last: with it, all plug-ins run.
        self.process("rabbitmq").wait_until(lambda: not parts.is_free(settled.port("amqp")), READY_S)
        self.process("redis").wait_until(lambda: not parts.is_free(settled.port("redis")), READY_S)
        # 403: it knows nobody without a key.
        store = f"http://127.0.0.1:{settled.port('s3.port')}/"
        self.process("seaweed").wait_until(lambda: status_of(store) == 403, READY_S)

    def furnish(self, settled):
        """What comes with the project, in the store."""
        # Any worker's settings will do: all name the same store.
        config = parts.worker(self.folder, settled, self.workers[0], 1, self.device)
        done = subprocess.run([self.binaries / "hiresmed-worker", "--config", config, "furnish", SITE], check=False,
                              capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise Failure(f"the shipped models could not be put into the store: {done.stderr.strip()}")

    def start_coordinator(self, settled, address):
        """The first API key, where it was made now."""
        print("starting the coordinator", flush=True)
        config = parts.coordinator(self.folder, settled)
        program = self.binaries / "hiresmed-coordinator"
        process = self.process("coordinator")
        process.start([program, "--config", config, "serve"], folder=self.folder)
        process.wait_until(lambda: status_of(f"{address}/readyz") == 200, READY_S)
        key = self.folder / "api-key"
        if key.exists():
            return None
        self.administer(program, config, "create", SITE)
        made = self.administer(program, config, "create-key", SITE, "--role", "submit", "--role", "read", "--role", "operate")
        parts.write(key, made)
        return made.strip()

    def administer(self, program, config, *command):
        done = subprocess.run([program, "--config", config, "site", *command], check=False, capture_output=True, text=True,
                              cwd=self.folder)
        if done.returncode != 0:
            raise Failure(f"`hiresmed-coordinator site {command[0]}` failed: {done.stderr.strip()}")
        return done.stdout

    def start_workers(self, settled):
        trainers = f" and {len(self.trainers)} trainers" if self.trainers else ""
        print(f"starting {len(self.workers)} workers{trainers}", flush=True)
        threads = max((os.cpu_count() or 1) // len(self.workers), 1)
        runtimes = os.environ.get("HIRESMED_RUNTIMES", str(ROOT / ".runtimes"))
        environment = {"HIRESMED_RUNTIMES": runtimes}
        for name in self.workers:
            config = parts.worker(self.folder, settled, name, threads, self.device)
            self.process(name).start([self.binaries / "hiresmed-worker", "--config", config], environment, self.folder)
        # Idle OpenMP threads that spin take the cores from everything else; memory that a step gives back is kept for the next one.
        environment |= {"LD_LIBRARY_PATH": f"{runtimes}/libtorch/lib", "GOMP_SPINCOUNT": "0",
                        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"}
        for name in self.trainers:
            config = parts.worker(self.folder, settled, name, max(os.cpu_count() or 1, 1), "cpu")
            self.process(name).start([self.binaries / "hiresmed-trainer", "work", "--config", config], environment, self.folder)
        for name in self.workers + self.trainers:
            url = f"http://127.0.0.1:{settled.port(name)}/readyz"
            self.process(name).wait_until(lambda: status_of(url) == 200, READY_S)  # noqa: B023 (used before the next turn)

    def start_prometheus(self, settled):
        """Prometheus' address, or why there is none."""
        if parts.optional("prometheus") is None:
            return "not installed (Debian: apt-get install prometheus prometheus-blackbox-exporter)"
        blackbox = parts.optional("prometheus-blackbox-exporter")
        if blackbox:
            config = ROOT / "infra" / "prometheus" / "blackbox.yml"
            listen = f"--web.listen-address=127.0.0.1:{settled.port('blackbox')}"
            self.process("blackbox").start([blackbox, f"--config.file={config}", listen])
        self.process("prometheus").start(parts.prometheus(self.folder, settled, self.workers, self.trainers, blackbox))
        address = f"http://127.0.0.1:{settled.port('prometheus')}"
        self.process("prometheus").wait_until(lambda: status_of(f"{address}/-/ready") == 200, READY_S)
        return address

    def down(self):
        processes = self.known()
        if not processes:
            print(f"nothing of {self.folder} runs")
        # Workers drain at the same time: all are asked before any is waited for.
        asked = {process.name for process in processes if process.name.startswith(("worker-", "trainer-")) and process.ask()}
        for process in processes:
            stopped = process.stop(STOP_S) or process.name in asked
            print(f"{process.name:<12} {'stopped' if stopped else 'had ended'}", flush=True)
        return 0

    def status(self):
        processes = self.known()
        if not processes:
            print(f"nothing of {self.folder} runs; `local-fleet up` starts it")
            return 1
        for process in processes:
            pid = process.pid()
            print(f"{process.name:<12} {f'runs, process {pid}' if pid else f'ended; its log is {process.log}'}")
        address = f"http://127.0.0.1:{parts.Settled(self.folder, self.api_port).port('api')}"
        ready = status_of(f"{address}/readyz") == 200
        print(f"{'API':<12} {address} {'ready' if ready else 'not ready'}")
        return 0 if ready and all(process.pid() for process in processes) else 1
