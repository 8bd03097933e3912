"""Training steps of the project in PyTorch eager: architecture, losses and optimiser of shared/models/src/KIND, as fast as
PyTorch makes them on its own. Depends on torch alone.

usage: steps.py KIND PRESET STEPS [--device cpu|cuda] [--threads N] [--batch N] [--precision f32|tf32|bf16] [--compile [MODE]]
[--channels-last]; prints {"kind", "preset", "device", "parameters", "seconds", "seconds_mean", "peak_mb", "loss_first",
"loss_last"}.

`seconds` is the median step, in which a StyleSwin's R1, at every 16th, does not show; `seconds_mean` is over all timed steps.
Parameters are those of the network that is exported. f32 is strict on CUDA: cuDNN's own default would be TF32.
"""
import argparse
import importlib
import json
import os
import pathlib
import statistics
import time

import torch

KINDS = ("unet", "ddpm", "styleswin", "prior", "yolo")
WARM_UP = 3
# Of the shipped packages, and by hand in the models' tests.
PARAMETERS = {("unet", "tiny"): 1_677, ("unet", "lung"): 482_449, ("unet", "kub"): 482_449, ("ddpm", "tiny"): 30_769,
              ("ddpm", "ct64"): 1_318_689, ("styleswin", "tiny"): 3_321, ("prior", "tiny"): 9_592,
              ("prior", "ct512-coarse"): 2_450_424, ("yolo", "stone"): 672_396}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("preset")
    parser.add_argument("steps", type=int)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, help="the preset's without")
    parser.add_argument("--precision", default="f32", choices=("f32", "tf32", "bf16"))
    parser.add_argument("--compile", nargs="?", const="default", help="torch.compile's mode")
    parser.add_argument("--channels-last", action="store_true")
    return parser.parse_args()


def peak_mb(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    # As the other side reads it: ru_maxrss of a fresh process can carry its parent's.
    peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    reduced = options.precision != "f32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cudnn.benchmark = True
    module = importlib.import_module(f"steppers.{options.kind}")
    if options.preset not in module.PRESETS:
        raise SystemExit(f"{options.kind} has no preset {options.preset!r}; choose one of {', '.join(module.PRESETS)}")
    stepper = module.Stepper(options)
    parameters = sum(parameter.numel() for parameter in stepper.exported.parameters())
    expected = PARAMETERS.get((options.kind, options.preset), parameters)
    assert parameters == expected, f"{options.kind} {options.preset}: {parameters} parameters, the project's has {expected}"
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    losses, seconds = [], []
    for at in range(WARM_UP + max(1, options.steps)):
        wait()
        started = time.perf_counter()
        losses.append(stepper.step())
        wait()
        if at >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    losses = torch.stack(losses).tolist()
    assert all(loss - loss == 0 for loss in losses), "a loss is no number"
    print(json.dumps({"kind": options.kind, "preset": options.preset, "device": options.device, "parameters": parameters,
                      "seconds": statistics.median(seconds), "seconds_mean": statistics.fmean(seconds),
                      "peak_mb": peak_mb(options.device), "loss_first": losses[0], "loss_last": losses[-1]}))


if __name__ == "__main__":
    main()
