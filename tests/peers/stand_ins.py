"""Stands in for the CUDA libraries that PyTorch's Linux wheel loads when it is imported and never calls on a CPU: 2 GB less to
fetch. Each stand-in has the names that PyTorch looks up; calling one ends the program. Needs a C compiler and binutils.

usage: stand_ins.py FOLDER (of libtorch_cuda.so)
"""
import pathlib
import re
import subprocess
import sys
import tempfile

REPLACED = re.compile(r"lib(cublas|cublasLt|cudnn|cufft|cufile|curand|cusparse|cusparseLt|nccl|nvrtc)\.so\.\d+$")


def main():
    folder = pathlib.Path(sys.argv[1])
    needed, names = set(), set()
    for library in ("libtorch_cuda.so", "libtorch_python.so"):
        command = ["objdump", "-T", "-p", folder / library]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        needed.update(name for name in re.findall(r"NEEDED\s+(\S+)", text) if REPLACED.match(name))
        names.update(re.findall(r"\*UND\*\s+[0-9a-f]+\s+(?:\(?\S+\)?\s+)?((?:cu|nccl|nvrtc)\w+)", text))
    # The CUDA runtime and CUPTI are there themselves.
    names = sorted(name for name in names if not re.match("cuda[A-Z]|cupti", name))
    source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names)
    with tempfile.TemporaryDirectory() as scratch:
        versions = pathlib.Path(scratch, "versions")
        for library in sorted(needed):
            versions.write_text(f"{library} {{ global: *; }};\n")
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}", "-x", "c", "-",
                       "-o", folder / library]
            subprocess.run(command, input=source, check=True, text=True)


if __name__ == "__main__":
    main()
