#!/usr/bin/env python3
"""Makes the fixtures and expectations of the parity tests again: expectations.json, images/*.npy, features/*.npy.

Needs numpy, scipy, scikit-image 0.26 and scikit-learn. Everything is seeded: a second run writes the same inputs, and values
that differ by rounding only. The arithmetic of LPIPS is that of the published package (version 0.1), in numpy.
"""
import json
import pathlib

import numpy
import scipy.linalg
import scipy.stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import cohen_kappa_score
from sklearn.metrics.pairwise import polynomial_kernel

FOLDER = pathlib.Path(__file__).parent / "fixtures"
RANDOM = numpy.random.default_rng(20240611)


def smooth(height, width, grain):
    y, x = numpy.mgrid[0:height, 0:width]
    waves = numpy.sin(x / 9.0) * numpy.cos(y / 7.0) + 0.3 * numpy.sin((x + 2 * y) / 3.0)
    return waves + grain * RANDOM.standard_normal((height, width))


def image_pairs():
    """Values, data range: 8 bits, Hounsfield units, the unit range, a constant image, odd and smallest sizes."""
    eight = [numpy.clip(100 * smooth(61, 83, g) + 128, 0, 255).round() for g in (0.05, 0.4)]
    hounsfield = [(500 * smooth(96, 70, g) - 300).round() for g in (0.02, 0.1)]
    unit = [smooth(64, 64, g) * 0.2 + 0.5 for g in (0.0, 0.02)]
    least = [100 * smooth(11, 11, g) for g in (0.1, 0.5)]
    constant = [numpy.full((30, 20), 40.0), 100 * smooth(30, 20, 0.1)]
    return {"eight": (eight, 255), "hounsfield": (hounsfield, 1400), "unit": (unit, 1), "least": (least, 400),
            "constant": (constant, 255)}


def images():
    expected = []
    for name, (pair, data_range) in image_pairs().items():
        a, b = (image.astype("<f4") for image in pair)
        for side, image in zip("ab", (a, b)):
            numpy.save(FOLDER / f"image-{name}-{side}.npy", image)
        a, b = a.astype(float), b.astype(float)
        options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range)
        ssim, full = structural_similarity(a, b, full=True, **options)
        # The mask of the tests: a rectangle from a third to two thirds of each side.
        height, width = a.shape
        outside = numpy.ones(a.shape, bool)
        outside[height // 3:2 * height // 3, width // 3:2 * width // 3] = False
        inner = (slice(5, height - 5), slice(5, width - 5))
        left = full[inner][outside[inner]]
        expected.append({
            "name": name, "data_range": data_range,
            "psnr": peak_signal_noise_ratio(a, b, data_range=data_range),
            "ssim": ssim, "ssim_outside_mask": left.mean() if left.size else None,
        })
    return expected


def fid(x, y):
    """As pytorch-fid has it; for a singular product the trace by singular values, with nothing on the diagonal."""
    c1, c2 = numpy.cov(x, rowvar=False), numpy.cov(y, rowvar=False)
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    root = scipy.linalg.sqrtm(c1 @ c2)
    singular = min(len(x), len(y)) <= x.shape[1]
    by_sqrtm = means + numpy.trace(c1) + numpy.trace(c2) - 2 * numpy.trace(root).real
    # |Xc Ycᵀ|_* / sqrt((m - 1)(n - 1)) is the same trace without any square root of a singular matrix.
    cross = (x - x.mean(0)) @ (y - y.mean(0)).T / numpy.sqrt((len(x) - 1) * (len(y) - 1))
    exact = means + numpy.trace(c1) + numpy.trace(c2) - 2 * numpy.linalg.svd(cross, compute_uv=False).sum()
    return {"fid_sqrtm": float(by_sqrtm), "fid_exact": float(exact), "singular": bool(singular)}


def kid(x, y):
    kernel = lambda a, b: polynomial_kernel(a, b, degree=3, gamma=1 / x.shape[1], coef0=1)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    m, n = len(x), len(y)
    within = lambda k, n: (k.sum() - numpy.trace(k)) / (n * (n - 1))
    return float(within(xx, m) + within(yy, n) - 2 * xy.mean())


def features():
    expected = []
    for name, m, n, dimension, offset in [("regular", 150, 130, 12, 0.0), ("offset", 90, 120, 8, 300.0), ("singular", 14, 18, 40, 1.0)]:
        mix = RANDOM.standard_normal((dimension, dimension)) / numpy.sqrt(dimension)
        x = RANDOM.standard_normal((m, dimension)) @ mix + offset
        y = 1.2 * RANDOM.standard_normal((n, dimension)) @ mix.T + offset + 0.3
        x, y = x.astype("<f4"), y.astype("<f4")
        numpy.save(FOLDER / f"features-{name}-a.npy", x)
        numpy.save(FOLDER / f"features-{name}-b.npy", numpy.asfortranarray(y))
        x, y = x.astype(float), y.astype(float)
        expected.append({"name": name, **fid(x, y), "kid": kid(x, y)})
    return expected


def lpips():
    """Feature maps by a formula that the test repeats, random weights, the published arithmetic."""
    layers, total = [], 0.0
    for channels, side in [(6, 8), (10, 4), (4, 3)]:
        index = numpy.arange(channels * side * side)
        a = numpy.maximum(numpy.sin(index * 0.37) + 0.2, 0).astype("<f4").reshape(channels, side, side)
        b = numpy.maximum(numpy.cos(index * 0.53) + 0.1, 0).astype("<f4").reshape(channels, side, side)
        a[:, 0, 0] = 0  # a pixel without any activation
        weights = RANDOM.random(channels).astype("<f4")
        unit = lambda f: f / (numpy.sqrt((f.astype(float) ** 2).sum(0, keepdims=True)) + 1e-10)
        difference = (unit(a) - unit(b)) ** 2
        total += (difference * weights[:, None, None].astype(float)).sum(0).mean()
        layers.append({"channels": channels, "side": side, "weights": weights.tolist()})
    return {"layers": layers, "distance": float(total)}


def statistics():
    """Counts to p and κ; the readings that give a table to a κ."""
    pairs = [(130, 200), (110, 200), (45, 100), (0, 12), (12, 12), (7, 15), (8, 15), (1003, 1900), (4980, 10000), (31, 1000)]
    tables = [[[85, 15], [55, 45]], [[65, 35], [55, 45]], [[20, 5], [10, 15]], [[1, 0], [3, 9]], [[0, 7], [2, 0]]]
    expected = []
    for table in tables:
        first, second = [], []
        for i in (0, 1):
            for j in (0, 1):
                first += [i] * table[i][j]
                second += [j] * table[i][j]
        expected.append({"table": table, "kappa": float(cohen_kappa_score(first, second))})
    binomial = [{"k": k, "n": n, "p": float(scipy.stats.binomtest(k, n, 0.5).pvalue)} for k, n in pairs]
    return {"binomial": binomial, "kappa": expected}


def main():
    FOLDER.mkdir(exist_ok=True)
    expected = {"images": images(), "features": features(), "lpips": lpips(), "statistics": statistics()}
    text = json.dumps(expected, indent=1, ensure_ascii=False, allow_nan=False)
    (FOLDER / "expectations.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
