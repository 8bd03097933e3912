#!/usr/bin/env python3
"""Holds the workspace's dependency edges against the ones that infra/docs/ARCHITECTURE.md allows."""
import json
import subprocess
import sys

SHARED = {"protocol", "services", "imaging", "inference", "models", "compositing", "scores", "telemetry"}
ALLOWED = {
    "protocol": set(),
    "telemetry": set(),
    "imaging": set(),
    "inference": set(),
    "services": {"protocol"},
    "models": {"imaging", "inference"},
    "compositing": {"imaging", "inference"},
    "scores": {"imaging", "inference"},
    "coordinator": {"protocol", "services", "telemetry"},
    "worker": SHARED,
    "cli": SHARED | {"coordinator", "worker"},
    "tests": SHARED | {"coordinator", "worker", "cli"},
}
# A crate on the left must not have the package on the right anywhere below it, with default features.
FORBIDDEN = {
    "coordinator": ["ort", "dicom-object", "tch"],
    "protocol": ["tokio"],
    "imaging": ["tokio", "tch", "ort"],
    "inference": ["tokio", "tch"],
    "models": ["tokio", "tch"],
    "compositing": ["tokio", "tch"],
    "scores": ["tokio", "tch"],
    "worker": ["tch"],
    "cli": ["tch"],
}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    faults = []
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--no-deps"))
    for package in metadata["packages"]:
        name = package["name"].removeprefix("hiresmed-")
        if name not in ALLOWED:
            faults.append(f"{package['name']}: not in the list of crates; add it to .ci/edges.py and the architecture page")
            continue
        for dependency in package["dependencies"]:
            other = dependency["name"].removeprefix("hiresmed-")
            if dependency["name"].startswith("hiresmed-") and other not in ALLOWED[name] and dependency["kind"] != "dev":
                faults.append(f"{name} -> {other}: this edge is not allowed")
    for name, packages in FORBIDDEN.items():
        tree = run("cargo", "tree", "-p", f"hiresmed-{name}", "--edges", "normal", "--prefix", "none", "--format", "{p}")
        below = {line.split(" ")[0] for line in tree.splitlines()}
        faults += [f"{name} links {package}" for package in packages if package in below]
    for fault in faults:
        print(f"edges: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"edges: {len(ALLOWED)} crates, all as drawn")


if __name__ == "__main__":
    main()
