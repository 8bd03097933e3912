"""`make bench-worker`: a real worker's cold start and its memory over many jobs, in a fleet on this machine; the last line is JSON.

The fleet is infra/local-fleet with two workers. Cold start: both workers are stopped, a request for one 512 x 512 image is queued, one
worker is started on the disk that it had before; the clock runs from the start of the process until the image is in the store,
its models opened and the job delivered, run and recorded in between. Memory: JOBS jobs of one 256 x 256 image each, with the largest
resident set of the workers after every tenth of them.
"""
import json
import pathlib
import statistics
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "infra" / "local-fleet"))
import parts  # noqa: E402 (found by the line before)
from fleet import Fleet  # noqa: E402
from parts import Settled  # noqa: E402

JOBS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
STARTS = 5


class Api:
    def __init__(self, fleet):
        self.address = f"http://127.0.0.1:{fleet.api_port}"
        self.key = (fleet.folder / "api-key").read_text().strip()

    def call(self, path, document=None):
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.key}"},
                                         data=None if document is None else json.dumps(document).encode())
        if document is not None:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def submit(self, count, side, seed, chunk):
        document = {"version": 1, "kind": "synthesise", "count": count, "seed": seed, "size": {"width": side, "height": side},
                    "background": {"draws": 1}, "chunk": chunk, "lesions": {"count": {"min": 1, "max": 1}, "diameter_mm": {"min": 6.0, "max": 12.0}},
                    "output": {"evidence": False, "backgrounds": False}}
        return self.call("/v1/requests", document)["id"]

    def status(self, request):
        return self.call(f"/v1/requests/{request}")["status"]


def resident_mb(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} says no {field}")


def cold_starts(fleet, api):
    """Seconds from a worker's start to its first image."""
    settled, seconds = Settled(fleet.folder, fleet.api_port), []
    for number in range(STARTS):
        for name in fleet.workers:
            fleet.process(name).stop(60)
        request = api.submit(1, 512, 1000 + number, 1)
        # The coordinator has published it before there is anybody to take it.
        time.sleep(3)
        started = time.perf_counter()
        start_worker(fleet, settled, fleet.workers[0])
        while api.status(request)["done"] == 0:
            if time.perf_counter() - started > 60:
                raise SystemExit("no image after a minute; see the workers' logs")
            time.sleep(0.02)
        seconds.append(time.perf_counter() - started)
        print(f"  {seconds[-1]:.2f} s", flush=True)
    return seconds


def start_worker(fleet, settled, name):
    """Starts one, and does not wait until it is ready."""
    config = parts.worker(fleet.folder, settled, name, 2, fleet.device)
    environment = {"HIRESMED_RUNTIMES": str(ROOT / ".runtimes")}
    fleet.process(name).start([fleet.binaries / "hiresmed-worker", "--config", config], environment, fleet.folder)


def memory(fleet, api):
    """The largest resident set of the workers in MB, after each tenth of the jobs."""
    request, sizes = api.submit(JOBS, 256, 5, 1), []
    while True:
        status = api.status(request)
        if status["failed"]:
            raise SystemExit(f"an image failed: {status}")
        if status["done"] >= (len(sizes) + 1) * JOBS // 10:
            pids = [fleet.process(name).pid() for name in fleet.workers]
            sizes.append(max(resident_mb(pid, "VmRSS") for pid in pids))
            print(f"  {status['done']} jobs: {sizes[-1]:.0f} MB", flush=True)
        if status["state"] != "open":
            return sizes
        time.sleep(1)


def main():
    port = next(port for port in range(18_420, 18_520) if parts.is_free(port))
    with tempfile.TemporaryDirectory(prefix="hiresmed-bench-worker-") as folder:
        fleet = Fleet(pathlib.Path(folder), ROOT / "target" / "release", port, 2, "cpu")
        try:
            fleet.up()
            api = Api(fleet)
            # Both disks get their packages.
            warm = api.submit(8, 512, 1, 1)
            while api.status(warm)["state"] == "open":
                time.sleep(0.2)
            print("cold start to the first image, warm disk:")
            seconds = cold_starts(fleet, api)
            fleet.start_workers(Settled(fleet.folder, port))
            print(f"memory over {JOBS} jobs:")
            sizes = memory(fleet, api)
        finally:
            fleet.down()
    print(json.dumps({"cold_start_s": round(statistics.median(seconds), 3), "cold_start_worst_s": round(max(seconds), 3),
                      "jobs": JOBS, "rss_mb_after_tenth": round(sizes[0], 1), "rss_mb_at_end": round(sizes[-1], 1)}))


if __name__ == "__main__":
    main()
