"""Reads a request's stream with the webdataset package, as a training loop would; prints a JSON object a sample."""
import json
import sys
import urllib.request

import webdataset

url, key = sys.argv[1:]
call = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
with urllib.request.urlopen(call) as stream:
    files = webdataset.tariterators.tar_file_expander([{"url": url, "stream": stream}])
    samples = webdataset.tariterators.group_by_keys(files)
    for sample in samples:
        content = {name: value.decode() for name, value in sample.items() if not name.startswith("__")}
        print(json.dumps({"key": sample["__key__"], **content}), flush=True)
