"""Reads a stream with the webdataset package, as a training loop would: a line `index sha256` a sample, of the image's bytes.

After PAUSE samples it takes nothing until a line comes on standard input; it ends where that is closed.
"""
import hashlib
import sys
import urllib.request

import webdataset

url, key, pause = sys.argv[1:]
call = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
with urllib.request.urlopen(call) as stream:
    files = webdataset.tariterators.tar_file_expander([{"url": url, "stream": stream}])
    samples = webdataset.tariterators.group_by_keys(files)
    for taken, sample in enumerate(samples, start=1):
        index = int(sample["__key__"].rsplit("-", 1)[1])
        print(index, hashlib.sha256(sample["image.dcm"]).hexdigest(), flush=True)
        if taken == int(pause) and not sys.stdin.readline():
            break
