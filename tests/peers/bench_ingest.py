"""`hiresmed ingest` beside pydicom on the same files: make the files, then alternate.

usage: bench_ingest.py HIRESMED FOLDER [COPIES]; prints files a second and the ratios, then one line of JSON. FOLDER is made with COPIES
(default 20) of each slice of the sample series, each with a number and a UID of its own, once as JPEG-LS and once uncompressed. Ingest
decodes the pixels, looks for text, de-identifies, writes JPEG-LS and its records. One peer, `read`, decodes every file's pixels and does
nothing with them. The other, `rewrite`, does most of what ingest does: it decodes, drops private attributes and the patient, codes JPEG-LS
(CharLS), digests and writes; it does not look for text, goes by no list, and leaves the disk to write when it likes. Each runs in one
process and in as many as there are cores; the faster setting counts.
"""
import functools
import hashlib
import io
import json
import multiprocessing
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

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


def rewrite(out, path):
    data = pydicom.dcmread(path)
    data.remove_private_tags()
    data.PatientName = data.PatientID = "P1"
    data.compress(JPEGLSLossless, data.pixel_array, generate_instance_uid=False)
    buffer = io.BytesIO()
    data.save_as(buffer)
    (out / f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.dcm").write_bytes(buffer.getvalue())


def rate(work, paths, processes):
    started = time.perf_counter()
    if processes == 1:
        for path in paths:
            work(path)
    else:
        with multiprocessing.Pool(processes) as pool:
            pool.map(work, paths, chunksize=8)
    return len(paths) / (time.perf_counter() - started)


def peer(work, paths):
    return max(rate(work, paths, processes) for processes in (1, multiprocessing.cpu_count()))


def ours(program, source, out):
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run([program, "ingest", source, "--out", out, "--state", out.with_suffix(".state")], check=True, capture_output=True)
    return len(list((out / "images").iterdir())) / (time.perf_counter() - started)


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    make(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    rewritten = folder / "rewritten"
    rewritten.mkdir(exist_ok=True)
    result = {}
    for name in ("jpeg-ls", "uncompressed"):
        paths = sorted(str(path) for path in (folder / name).iterdir())
        rounds = []
        for _ in range(ROUNDS):
            here = ours(program, folder / name, folder / "out")
            rounds.append((here, peer(read, paths), peer(functools.partial(rewrite, rewritten), paths)))
            print(name, "ingest {:.1f} files/s, pydicom reading {:.1f}, rewriting {:.1f}".format(*rounds[-1]), flush=True)
        ratio = lambda there: round(statistics.median(round_[0] / round_[there] for round_ in rounds), 2)
        rates = [round(statistics.median(rates), 1) for rates in zip(*rounds)]
        result[name] = dict(zip(("files_per_s", "read_files_per_s", "rewrite_files_per_s"), rates))
        result[name] |= {"to_read": ratio(1), "to_rewrite": ratio(2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
