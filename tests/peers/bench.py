"""`make bench`: the program beside a PyTorch pipeline on the same networks; the last line is one JSON object.

Both sides make N labelled images from the sample series. Start-up is left out on both: the program is timed at two counts and
the difference taken (queue, store and delivery included), the peer after a warm-up. The peer's settings are swept first; then
both sides alternate, and medians are compared. Shares of time are from the program's own manifest.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import networks

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAM = ROOT / "target" / "release" / "hiresmed"
TRAINING = ROOT / "target" / "release" / "examples" / "steps"
PYTHON = sys.executable
CORES = len(os.sched_getaffinity(0))
ROUNDS = 3
# Images: of the program's shorter and longer run, and of the peer's.
# The shipped autoencoder that the default one is held against.
WIDE = "lung-ct-512-wide"
COUNTS = {512: (3, 23, 16), 1024: (2, 10, 6)}


def environment(threads=CORES):
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def children_peak(command, **options):
    """Wall seconds and peak resident memory in MB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, **options)
    # wait4 gives this child's own peak, which rusage of all children would mix with others'.
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def ours_once(size, count, scratch, draws=1):
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    request = folder / "request.toml"
    request.write_text(f"""version = 1
kind = "synthesise"
count = {count}
seed = 1
size = {{ width = {size}, height = {size} }}
background = {{ draws = {draws} }}
lesions = {{ count = {{ min = 1, max = 3 }}, diameter_mm = {{ min = 4.0, max = 12.0 }} }}
output = {{ masks = true, coco = true, yolo = false, backgrounds = false, evidence = false }}
""")
    command = [PROGRAM, "submit", request, "--wait", "--out", folder / "out", "--state", folder / "state",
               "--inputs", ROOT / "infra" / "pack" / "sample" / "series"]
    seconds, rss = children_peak(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    if len(manifest["images"]) != count:
        raise SystemExit(f"{len(manifest['images'])} of {count} images were made")
    shutil.rmtree(folder)
    return seconds, rss, manifest["stages"]


def ours(size, scratch, draws=1):
    """Every image has a background of its own, or `draws` in a row share one."""
    few, many = [draws * count for count in COUNTS[size][:2]]
    short, _, _ = ours_once(size, few, scratch, draws)
    long, rss, stages = ours_once(size, many, scratch, draws)
    total = sum(stage["duration_ms"] for stage in stages)
    share = sum(stage["runtime_ms"] for stage in stages) / total
    return {"images_per_s": (many - few) / (long - short), "rss_mb": rss, "runtime_share": share, "stages": stages,
            "images": many}


def peer(size, setting, scratch, vqgan=None):
    """One run of the peer: `processes` of them together, from a common start to the last one's end."""
    mode, batch, processes = setting
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    start, images = folder / "start", COUNTS[size][2]
    threads, running = max(1, CORES // processes), []
    for number in range(processes):
        command = [PYTHON, HERE / "pipeline.py", "--size", size, "--mode", mode, "--batch", batch, "--threads", threads,
                   "--images", images // processes, "--out", folder / str(number), "--start", start]
        command += ["--vqgan", vqgan] if vqgan else []
        running.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environment(threads)))
    while not all((folder / str(number) / "ready").exists() for number in range(processes)):
        if any(process.poll() for process in running):
            break
        time.sleep(0.02)
    start.touch()
    results = []
    for process in running:
        out, error = process.communicate()
        if process.returncode != 0:
            print(f"  {name(setting)}: does not run here: {error.strip().splitlines()[-1][:160] if error.strip() else '?'}")
            return None
        results.append(last_json(out))
    shutil.rmtree(folder)
    slowest = min(result["images_per_s"] for result in results)
    return {"images_per_s": slowest * processes, "rss_mb": sum(result["rss_mb"] for result in results)}


def name(setting):
    mode, batch, processes = setting
    return f"{mode}, batch {batch}, " + (f"one process, {CORES} threads" if processes == 1 else f"{processes} processes, 1 thread each")


def sweep(size, settings, scratch):
    """The peer's settings by images/s, fastest first; the first three are run twice, since other load may disturb a run."""
    best = {}

    def run(setting):
        result = peer(size, setting, scratch)
        if result:
            print(f"  {name(setting)}: {result['images_per_s']:.3f} images/s, {result['rss_mb']:.0f} MB", flush=True)
            best[setting] = max(best.get(setting, 0), result["images_per_s"])

    for setting in settings:
        run(setting)
    for setting in sorted(best, key=best.get, reverse=True)[:3]:
        run(setting)
    if not best:
        raise SystemExit("the peer runs in none of its settings; see above")
    return sorted(best, key=best.get, reverse=True)


def alternate(size, setting, scratch):
    """Both sides in turn; medians."""
    rounds = [(ours(size, scratch), peer(size, setting, scratch)) for _ in range(ROUNDS)]
    median = lambda side, key: statistics.median(pair[side][key] for pair in rounds)
    ratios = sorted(mine["images_per_s"] / theirs["images_per_s"] for mine, theirs in rounds)
    return {
        "images_per_s": median(0, "images_per_s"), "peer_images_per_s": median(1, "images_per_s"),
        "ratio": statistics.median(ratios), "ratios": ratios, "runtime_share": median(0, "runtime_share"),
        "rss_mb": median(0, "rss_mb"), "peer_rss_mb": median(1, "rss_mb"), "stages": rounds[-1][0]["stages"],
        "images": rounds[-1][0]["images"],
    }


def own_network(setting, scratch):
    """Our network and settings against the peer with the wide network, of the same fidelity on the same held-out slices."""
    wide = {"peer": [], "own": [], "shared": []}
    for _ in range(ROUNDS):
        wide["own"].append(ours(512, scratch)["images_per_s"])
        wide["peer"].append(peer(512, setting, scratch, WIDE)["images_per_s"])
        wide["shared"].append(ours(512, scratch, draws=4)["images_per_s"])
    return wide


def training():
    """Seconds a step on both sides, in turn."""
    table = {}
    for model, kind, preset, steps in (("hdfb", "vqgan", "ct512-light", 6), ("singan", "singan", "paper", 12)):
        rounds = []
        for _ in range(ROUNDS):
            mine, theirs = (
                last_json(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True,
                                         env=environment()).stdout)
                for command in ([TRAINING, kind, preset, steps, "--threads", CORES], [PYTHON, HERE / "training.py", model, steps, CORES]))
            rounds.append((mine, theirs))
        middle = lambda side, key: statistics.median(pair[side][key] for pair in rounds)
        table[model] = {"ratio": statistics.median(mine["seconds"] / theirs["seconds"] for mine, theirs in rounds),
                        "seconds": middle(0, "seconds"), "peer_seconds": middle(1, "seconds"),
                        "peak_mb": middle(0, "peak_mb"), "peer_peak_mb": middle(1, "peak_mb")}
    return table


def main():
    started = time.perf_counter()
    subprocess.run([PYTHON, HERE / "check.py"], check=True)
    every = [(mode, batch, 1) for mode in ("eager", "channels-last", "compiled") for batch in (1, 4)]
    every += [(mode, 1, CORES) for mode in ("eager", "channels-last") if CORES > 1]
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        print("the peer's settings at 512 x 512:", flush=True)
        order = sweep(512, every, scratch)
        results[512] = (alternate(512, order[0], scratch), order[0])
        own = own_network(order[0], scratch)
        print("the peer's fastest three at 1024 x 1024:", flush=True)
        order = sweep(1024, order[:3], scratch)
        results[1024] = (alternate(1024, order[0], scratch), order[0])
    steps = training()
    for size, (result, setting) in results.items():
        print(f"\n{size} x {size}, against {name(setting)}; {ROUNDS} rounds, medians")
        print(f"  images/s      {result['images_per_s']:.3f}  peer {result['peer_images_per_s']:.3f}  ratio {result['ratio']:.3f} "
              f"(rounds {', '.join(f'{ratio:.3f}' for ratio in result['ratios'])})")
        print(f"  peak memory   {result['rss_mb']:.0f} MB  peer {result['peer_rss_mb']:.0f} MB")
        print(f"  in ONNX Runtime: {100 * result['runtime_share']:.1f} % of the stages' time; ms an image and thread, of that in it: "
              + ", ".join(f"{stage['stage']} {stage['duration_ms'] / result['images']:.1f} ({stage['runtime_ms'] / result['images']:.1f})"
                          for stage in result["stages"]))
    scores = {package["name"]: package["scores"] for _, package in networks.packages("vqgan")}
    fidelity = lambda name: f"{scores[name]['psnr_db']:.2f} dB, SSIM {scores[name]['ssim']:.4f}"
    ratios = lambda side: ", ".join(f"{a / b:.2f}" for a, b in zip(own[side], own["peer"]))
    print(f"\nown network ({fidelity(networks.packages('vqgan')[0][1]['name'])}) against the peer with {WIDE} ({fidelity(WIDE)}), 512 x 512")
    print(f"  images/s {statistics.median(own['own']):.3f}  peer {statistics.median(own['peer']):.3f}  rounds {ratios('own')}")
    print(f"  four images of each background: images/s {statistics.median(own['shared']):.3f}  rounds {ratios('shared')}")
    print("\ntraining step, seconds (peak MB)")
    for model, row in steps.items():
        print(f"  {model}: {row['seconds']:.4f} ({row['peak_mb']})  PyTorch {row['peer_seconds']:.4f} ({row['peer_peak_mb']})  "
              f"ratio {row['ratio']:.3f}")
    print(f"\nmeasured in {time.perf_counter() - started:.0f} s on {CORES} cores")
    keys = ("images_per_s", "peer_images_per_s", "ratio", "runtime_share", "rss_mb", "peer_rss_mb")
    print(json.dumps({**{key: round(results[512][0][key], 4) for key in keys},
                      "train_step_ratio": {model: round(row["ratio"], 4) for model, row in steps.items()}}))


if __name__ == "__main__":
    main()
