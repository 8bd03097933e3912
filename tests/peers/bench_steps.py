"""The project's training steps beside PyTorch's. First build the project's side:
`cargo build --release -p hiresmed-models --features training --example steps`.

usage: bench_steps.py [--device cpu|cuda] [--rounds N] [--steps N] [--threads N] [--precision f32,tf32,bf16]
[--no-compile] [--only KIND,..] [--large] [--binary PATH] [--autoencoder FOLDER]

The peer's settings are swept first; then both sides alternate, and medians are compared with its fastest setting. Which device
the project's side takes is its own choice, and is checked. A prior's tokens come from an autoencoder's package of as many tokens.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# As trainers run; for the peer as well.
MALLOC = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"
# What two processor cores train, and what only a GPU does.
SMALL = [("unet", "lung"), ("yolo", "stone"), ("prior", "ct512-coarse"), ("ddpm", "ct64"), ("styleswin", "ct64")]
LARGE = [("yolo", "n"), ("ddpm", "paper")]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    # More than R1's period.
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--precision", help="of the peer on CUDA, with commas; all without")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="on CUDA; never on the CPU")
    parser.add_argument("--only", help="kinds, with commas")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "examples" / "steps")
    parser.add_argument("--autoencoder", type=pathlib.Path)
    return parser.parse_args()


def run(command, options):
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "GLIBC_TUNABLES": MALLOC}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr or done.stdout).strip().splitlines()
        return None, said[-1][:160] if said else f"status {done.returncode}"
    return json.loads(lines[-1]), None


def ours(kind, preset, options):
    command = [options.binary, kind, preset, options.steps, "--threads", options.threads]
    command += ["--autoencoder", options.autoencoder] if kind == "prior" else []
    result, fault = run(command, options)
    if result and result["device"].lower().startswith("cpu") != (options.device == "cpu"):
        return None, f"it ran on {result['device']}, not on {options.device}"
    return result, fault


def peer(kind, preset, setting, options):
    return run([sys.executable, HERE / "steps.py", kind, preset, options.steps, "--device", options.device, "--threads",
                options.threads, *setting], options)


def settings(options):
    precisions = (options.precision or "f32,tf32,bf16").split(",") if options.device == "cuda" else ["f32"]
    return [["--precision", precision, *layout] for precision in precisions for layout in ([], ["--channels-last"])]


def name(setting):
    return " ".join(setting).removeprefix("--precision ").replace("--", "")


def sweep(kind, preset, options):
    """The peer's fastest setting, or none where none runs; only the fastest is compiled too, which takes a minute or more."""
    found = {}

    def tried(setting):
        result, fault = peer(kind, preset, setting, options)
        if result:
            found[tuple(setting)] = result["seconds"]
        shown = f"{1e3 * result['seconds']:.2f} ms, {result['peak_mb']} MB" if result else f"does not run here: {fault}"
        print(f"  {name(setting)}: {shown}", flush=True)

    for setting in settings(options):
        tried(setting)
    if found and options.compile:
        fastest = min(found, key=found.get)
        # Fewer kernels, and fewer kernels in one launch.
        for mode in ([], ["reduce-overhead"]):
            tried([*fastest, "--compile", *mode])
    return min(found, key=found.get) if found else None


def alternate(kind, preset, setting, options):
    rounds = []
    for _ in range(options.rounds):
        (mine, fault), (theirs, of_peer) = ours(kind, preset, options), peer(kind, preset, setting, options)
        if fault or of_peer:
            print(f"  {fault or of_peer}")
            return None
        if mine["parameters"] != theirs["parameters"]:
            raise SystemExit(f"{kind} {preset}: {mine['parameters']} parameters, the peer {theirs['parameters']}")
        rounds.append((mine, theirs))
    middle = lambda side, key: statistics.median(pair[side][key] for pair in rounds)
    ratios = sorted(mine["seconds"] / theirs["seconds"] for mine, theirs in rounds)
    return {"parameters": rounds[0][0]["parameters"], "seconds": middle(0, "seconds"), "peer_seconds": middle(1, "seconds"),
            "ratio": statistics.median(ratios), "ratios": ratios, "peak_mb": middle(0, "peak_mb"),
            "peer_peak_mb": middle(1, "peak_mb"), "setting": name(setting)}


def autoencoder():
    """The package whose tokens the shipped prior has learned, where it is there."""
    for description in (ROOT / "infra" / "pack" / "models" / "prior").glob("*/model.json"):
        digest = json.loads(description.read_text())["configuration"]["autoencoder"]
        folder = description.parents[2] / "vqgan" / digest
        if folder.is_dir():
            return folder
    return None


def main():
    options = arguments()
    options.compile = options.compile and options.device == "cuda"
    options.autoencoder = options.autoencoder or autoencoder()
    only, table = options.only and options.only.split(","), {}
    for kind, preset in SMALL + (LARGE if options.large else []):
        if only and kind not in only:
            continue
        print(f"{kind} {preset}, the peer's settings:", flush=True)
        if kind == "prior" and not options.autoencoder:
            print("  left out: there is no autoencoder's package; name its folder with --autoencoder")
            continue
        best = sweep(kind, preset, options)
        row = best is not None and alternate(kind, preset, best, options)
        if row:
            table[f"{kind} {preset}"] = row
    # The project's peak is of the process, the peer's on CUDA of what it has on the device.
    print(f"\nmedian step of {options.steps}, median of {options.rounds} rounds, {options.device}, {options.threads} threads")
    print(f"{'':20} {'parameters':>11} {'ms':>9} {'PyTorch':>9} {'ratio':>6} {'MB':>6} {'PyTorch':>8}  rounds; PyTorch's setting")
    for model, row in table.items():
        rounds = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
        print(f"{model:20} {row['parameters']:>11,} {1e3 * row['seconds']:>9.2f} {1e3 * row['peer_seconds']:>9.2f} "
              f"{row['ratio']:>6.3f} {row['peak_mb']:>6.0f} {row['peer_peak_mb']:>8.0f}  {rounds}; {row['setting']}")
    print(json.dumps({model: round(row["ratio"], 4) for model, row in table.items()}))


if __name__ == "__main__":
    main()
