#!/usr/bin/env python3
"""Writes the small code streams of `streams/`, and those of JPEG XL in `tests/fixtures`, that the project has no encoder for. Needs `pip install numpy imagecodecs pillow`.

They are of a made picture, 21 x 13 pixels: a ramp with a circle and some grain."""
import io
import pathlib

import imagecodecs
import numpy
from PIL import Image

WIDTH, HEIGHT = 21, 13


def picture(bits, samples=1):
    y, x = numpy.mgrid[:HEIGHT, :WIDTH]
    top = (1 << bits) - 1
    grain = (x * 7919 + y * 104729) % 13 / 13
    value = (x + y) / (WIDTH + HEIGHT) * 0.6 + 0.3 * ((x - 9) ** 2 + (y - 6) ** 2 < 20) + grain * 0.05
    planes = [numpy.roll(value, shift, axis=1) for shift in range(samples)]
    values = numpy.clip(numpy.stack(planes, axis=-1) * top, 0, top)
    return values.astype(numpy.uint8 if bits <= 8 else numpy.uint16).squeeze()


def pillow(image, kind, **options):
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def jpeg_xl():
    """Of the images of `tests/dicom_syntaxes.rs`: one of 12 bits, and a smooth one of 8 bits as it is, with loss, from a JPEG, and in colour."""
    y, x = numpy.mgrid[:32, :40]
    smooth = (x * 3 + y * 4).astype(numpy.uint8)
    deep = ((x * 37 + y * 211 + x * y * 5) % 4096).astype(numpy.uint16)
    code = imagecodecs.jpegxl_encode
    return {
        "gradient.jxl": code(deep, lossless=True, bitspersample=12),
        "smooth-lossy.jxl": code(smooth, distance=1.0),
        "smooth-from-jpeg.jxl": imagecodecs.jpegxl_encode_jpeg(pillow(smooth, "JPEG", quality=95)),
        "rgb.jxl": code(numpy.stack([smooth, 255 - smooth, smooth // 2], -1), lossless=True),
    }


def main():
    folder = pathlib.Path(__file__).parent / "streams"
    folder.mkdir(exist_ok=True)
    grey, deep, rgb, deep_rgb = picture(8), picture(12), picture(8, 3), picture(16, 3)
    ht, jls, j2k = imagecodecs.htj2k_encode, imagecodecs.jpegls_encode, imagecodecs.jpeg2k_encode
    streams = {
        "grey-8-progressive.jpg": pillow(grey, "JPEG", quality=70, progressive=True),
        "rgb-8-subsampled.jpg": pillow(rgb, "JPEG", quality=70, subsampling=2),
        "rgb-8-progressive.jpg": pillow(rgb, "JPEG", quality=70, progressive=True, subsampling=1),
        "grey-8-restarts.jpg": pillow(grey, "JPEG", quality=70, restart_marker_blocks=2),
        "grey-8-lossless.jpg": imagecodecs.ljpeg_encode(grey, bitspersample=8),
        "grey-12-lossless.jpg": imagecodecs.ljpeg_encode(deep, bitspersample=12),
        "grey-12-extended.jpg": imagecodecs.jpeg8_encode(deep, level=70, bitspersample=12),
        "grey-8.jls": jls(grey),
        "grey-8-near.jls": jls(grey, level=3),
        "grey-12.jls": jls(deep),
        "rgb-8.jls": jls(rgb),
        "rgb-16.jls": jls(deep_rgb),
        "grey-8.j2k": pillow(grey, "JPEG2000", no_jp2=True),
        "rgb-8-irreversible.j2k": pillow(rgb, "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[20, 5]),
        "grey-8-tiles.j2k": pillow(grey, "JPEG2000", no_jp2=True, tile_size=(8, 8), num_resolutions=2),
        "rgb-8-position.j2k": pillow(
            rgb, "JPEG2000", no_jp2=True, mct=1, progression="PCRL", codeblock_size=(4, 4), precinct_size=(8, 8)
        ),
        "grey-8.jp2": pillow(grey, "JPEG2000"),
        "grey-12.j2k": j2k(deep, codecformat="j2k", bitspersample=12, reversible=True),
        "grey-8.jhc": ht(grey, reversible=True),
        "grey-12.jhc": ht(deep, reversible=True),
        "rgb-8-irreversible.jhc": ht(rgb, reversible=False),
    }
    fixtures = folder.parents[1] / "tests" / "fixtures"
    for place, named in ((folder, streams), (fixtures, jpeg_xl())):
        for name, stream in named.items():
            (place / name).write_bytes(bytes(stream))
            print(f"{len(stream):6} {name}")


if __name__ == "__main__":
    main()
