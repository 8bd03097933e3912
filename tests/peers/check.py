"""Holds the PyTorch networks against the shipped ONNX graphs on a real slice: equal within 1e-3, or exit 1."""
import sys

import cv2
import numpy
import onnxruntime
import torch

import networks
import pipeline

TOLERANCE = 1e-3


def run(folder, name, **inputs):
    session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def main():
    vqgan, unet, singans = networks.shipped()
    slice_ = pipeline.read(pipeline.series()[0], 512)[0]
    image = torch.from_numpy(slice_)[None, None]
    small = cv2.resize(slice_, (256, 256), interpolation=cv2.INTER_AREA)[None, None]
    errors = {}
    with torch.inference_mode():
        folder, description = networks.packages("vqgan")[0]
        tokens = run(folder, description["graphs"]["encoder"], x=image.numpy())
        errors["tokens that differ, share"] = float((vqgan.tokens(image).numpy() != tokens).mean())
        decoded = run(folder, description["graphs"]["decoder"], tokens=tokens)
        errors["vqgan decoder"] = float(numpy.abs(vqgan.decode(torch.from_numpy(tokens)).numpy() - decoded).max())
        folder, description = networks.packages("unet")[0]
        logits = run(folder, description["graphs"]["segment"], x=small)
        # Logits reach tens; the decision is at 0.
        scale = max(1.0, float(numpy.abs(logits).max()))
        errors["unet, relative"] = float(numpy.abs(unet(torch.from_numpy(small)).numpy() - logits).max()) / scale
        for (folder, description), singan in zip(networks.packages("singan"), singans):
            noises = pipeline.noises(singan, 1.0, torch.Generator().manual_seed(1))
            feeds = {f"z{at}": noise.numpy() for at, noise in enumerate(noises)}
            lesion = run(folder, description["graphs"]["generate"], **feeds)
            errors[f"singan {description['name']}"] = float(numpy.abs(singan(noises).numpy() - lesion).max())
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    print("peer against graphs, largest differences: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    if wrong:
        sys.exit(f"these networks are not the shipped ones: {wrong}")


if __name__ == "__main__":
    main()
