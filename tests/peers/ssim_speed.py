#!/usr/bin/env python3
"""Milliseconds for scikit-image's structural similarity of two images of 1024 x 1024, median of 50.

The counterpart of shared/scores/examples/ssim_speed.rs: same images, same definition. Needs scikit-image 0.26.
"""
import json
import time

import numpy
from skimage.metrics import structural_similarity

SIDE, RUNS = 1024, 50


def image(seed):
    at = numpy.arange(SIDE * SIDE, dtype=numpy.uint64)
    values = (((at + numpy.uint64(7919 * seed)) * numpy.uint64(2_654_435_761)) >> numpy.uint64(16)) % numpy.uint64(256)
    return values.astype(numpy.float64).reshape(SIDE, SIDE)


def main():
    a, b = image(1), image(2)
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        score = structural_similarity(a, b, **options)
        times.append((time.perf_counter() - started) * 1e3)
    times.sort()
    print(json.dumps({"ssim": float(score), "median_ms": times[RUNS // 2], "best_ms": times[0]}))


if __name__ == "__main__":
    main()
