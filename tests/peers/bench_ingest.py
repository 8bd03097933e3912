"""`hiresmed ingest` beside pydicom that only reads the same files: make the files, then alternate.

usage: bench_ingest.py HIRESMED FOLDER [COPIES]; prints files a second and the ratio, then one line of JSON. FOLDER is made with COPIES
(default 20) of each slice of the sample series, each with a number and a UID of its own, once as JPEG-LS and once uncompressed. The peer
decodes every file's pixels, in one process and in as many as there are cores; its faster setting counts. Ingest decodes them, looks for
text, de-identifies, writes JPEG-LS and its records.
"""
import json
import multiprocessing
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 3


def make(folder, copies):
    for name in ("jpeg-ls", "uncompressed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "infra/pack/sample/series").glob("*.dcm")):
        for copy in range(copies):
            data = pydicom.dcmread(path)
            data.InstanceNumber, data.SOPInstanceUID = copy + 1, generate_uid(entropy_srcs=[path.name, str(copy)])
            data.save_as(folder / "jpeg-ls" / f"{path.stem}-{copy}.dcm")
            pixels = data.pixel_array
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.PixelData = pixels.tobytes()
            data["PixelData"].VR = "OW"
            data.save_as(folder / "uncompressed" / f"{path.stem}-{copy}.dcm")


def read(path):
    return int(pydicom.dcmread(path).pixel_array.max())


def peer(paths, processes):
    started = time.perf_counter()
    if processes == 1:
        for path in paths:
            read(path)
    else:
        with multiprocessing.Pool(processes) as pool:
            pool.map(read, paths, chunksize=8)
    return len(paths) / (time.perf_counter() - started)


def ours(program, source, out):
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run([program, "ingest", source, "--out", out, "--state", out.with_suffix(".state")], check=True, capture_output=True)
    return len(list((out / "images").iterdir())) / (time.perf_counter() - started)


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    make(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    result = {}
    for name in ("jpeg-ls", "uncompressed"):
        paths = sorted(str(path) for path in (folder / name).iterdir())
        rounds = []
        for _ in range(ROUNDS):
            here = ours(program, folder / name, folder / "out")
            there = {processes: peer(paths, processes) for processes in (1, multiprocessing.cpu_count())}
            rounds.append((here, max(there.values())))
            print(name, f"{here:.1f} files/s, pydicom", {key: round(value, 1) for key, value in there.items()}, flush=True)
        ratios = [here / there for here, there in rounds]
        result[name] = {
            "files_per_s": round(statistics.median(here for here, _ in rounds), 1),
            "peer_files_per_s": round(statistics.median(there for _, there in rounds), 1),
            "ratio": round(statistics.median(ratios), 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
