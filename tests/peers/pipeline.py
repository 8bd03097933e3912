"""The main job as a PyTorch user would write it: DICOM in, background, lesions, placement, composite, DICOM + mask + COCO out.

Prints one line of JSON: images_per_s after a warm-up, rss_mb (peak).
"""
import argparse
import json
import os
import pathlib
import resource
import time

import cv2
import numpy as np
import pydicom
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import networks

LOW, HIGH = -1000.0, 400.0
BORDER_MM, GAP_MM, BRIDGE_MM = 3.0, 3.0, 9.0


def series():
    return sorted((networks.MODELS.parent / "sample" / "series").glob("*.dcm"))


def read(path, size):
    """A slice in [-1, 1] at size x size pixels, its spacing in mm after that."""
    dataset = pydicom.dcmread(path)
    hu = dataset.pixel_array.astype(np.float32) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    image = np.clip((hu - LOW) / (HIGH - LOW), 0, 1) * 2 - 1
    factor = dataset.Rows / size
    if dataset.Rows != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC)
    return np.clip(image, -1, 1).astype(np.float32), float(dataset.PixelSpacing[0]) * factor


def noises(singan, zoom, generator):
    """Noise for every scale; the finer half at `zoom` times its size."""
    config = singan.config
    sizes, count = config["sizes"], len(config["sizes"])
    scaled = [[max(4, round(side * zoom)) for side in (sizes[-1] if zoom < 1 else size)] for size in sizes]
    chosen = sizes[:(count + 1) // 2] + scaled[(count + 1) // 2:]
    return [torch.randn(1, 1 if at == 0 else 2, *size, generator=generator) for at, size in enumerate(chosen)]


def largest(mask):
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8) if count > 1 else mask


def filled(mask):
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), contours, -1, 1, cv2.FILLED)


def lesion(singan, diameter_px, generator):
    """A lesion of about that diameter and its mask, cropped to the mask and 4 pixels around."""
    zoom = max(diameter_px / singan.config["lesion_diameter_px"], 0.7)
    image, channel = singan(noises(singan, zoom, generator))[0].numpy()
    mask = filled(largest((channel > singan.config["mask_threshold"]).astype(np.uint8)))
    if not mask.any():
        return None
    _, _, width, height = cv2.boundingRect(mask)
    factor = diameter_px / max(width, height)
    if abs(factor - 1) > 0.1:
        size = tuple(max(8, round(side * factor)) for side in mask.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        mask = filled(largest(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)))
    image, mask = (np.pad(plane, 4, mode) for plane, mode in ((image, "edge"), (mask, "constant")))
    left, top, width, height = cv2.boundingRect(mask)
    box = np.s_[max(0, top - 4):top + height + 4, max(0, left - 4):left + width + 4]
    return np.clip(image[box], -1, 1), mask[box]


def body_of(image, spacing):
    side = 2 * round(BRIDGE_MM / 2 / spacing) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    solid = filled((image > 0).astype(np.uint8))
    return filled(largest(cv2.morphologyEx(solid, cv2.MORPH_OPEN, kernel)))


class Density:
    def __init__(self):
        value = json.loads((networks.packages("density")[0][0] / "density.json").read_text())
        self.step, self.body_mm = value["step_mm"], value["body_mm"]
        self.grid = np.array(value["weights"], np.float32).reshape(value["rows"], value["columns"])

    def weights(self, body, spacing):
        left, top, width, height = cv2.boundingRect(body)
        mm = [np.clip(own / pixels, 0.7 * spacing, 1.4 * spacing) for own, pixels in zip(self.body_mm, (width, height))]
        axis = lambda start, length, mm, count: (
            (np.arange(length) - (length - 1) / 2) * mm / self.step + (count - 1) / 2).astype(np.float32)
        columns, rows = axis(left, width, mm[0], self.grid.shape[1]), axis(top, height, mm[1], self.grid.shape[0])
        grid = cv2.remap(self.grid, *np.meshgrid(columns, rows), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        weights = np.zeros(body.shape, np.float32)
        weights[top:top + height, left:left + width] = grid
        return weights * body


def place(free, weights, mask, rng):
    """A centre at which the whole mask is free, drawn by weight, or None."""
    rows, columns = np.nonzero(mask)
    anchor = (round(columns.mean()), round(rows.mean()))
    fits = cv2.erode(free, mask, anchor=anchor, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    sums = np.cumsum(np.where(fits, weights, 0).ravel(), dtype=np.float64)
    if sums[-1] <= 0:
        return None
    y, x = divmod(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), free.shape[1])
    return x - anchor[0], y - anchor[1]


def blend(image, patch, mask, left, top):
    """A smooth ramp over the mask's edge; the lesion's level is drawn to the background's along it. In place."""
    margin, height, width = 4, *mask.shape
    big = lambda plane, border: cv2.copyMakeBorder(plane, margin, margin, margin, margin, border)
    patch, mask = big(patch.astype(np.float32), cv2.BORDER_REPLICATE), big(mask.astype(np.float32), cv2.BORDER_CONSTANT)
    y, x = top - margin, left - margin
    y0, x0, y1, x1 = max(0, y), max(0, x), min(image.shape[0], y + height + 8), min(image.shape[1], x + width + 8)
    cut = np.s_[y0 - y:y1 - y, x0 - x:x1 - x]
    patch, mask, below = patch[cut], mask[cut], image[y0:y1, x0:x1]
    coverage = cv2.GaussianBlur(mask, (5, 5), 1.2)
    ring = np.where(coverage > 0, 1 - mask, 0).astype(np.float32)
    level = lambda plane: cv2.GaussianBlur(plane, (9, 9), 2.0)
    offset = level(ring * (below - patch)) / np.maximum(level(ring), 1e-4)
    alpha = coverage * coverage * (3 - 2 * coverage)
    mixed = np.clip(below + alpha * (patch + (1 - alpha) * offset - below), -1, 1)
    image[y0:y1, x0:x1] = np.where(coverage > 0, mixed, below)


def write_dicom(path, image, spacing):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    values = dict(
        SOPClassUID=CTImageStorage, SOPInstanceUID=meta.MediaStorageSOPInstanceUID, StudyInstanceUID=generate_uid(),
        SeriesInstanceUID=generate_uid(), PatientName="SYNTHETIC", PatientID="SYNTHETIC", Modality="CT",
        ImageType=["DERIVED", "SECONDARY"], PatientIdentityRemoved="YES", Rows=image.shape[0], Columns=image.shape[1],
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=0, RescaleSlope=f"{(HIGH - LOW) / 65535:.10f}", RescaleIntercept=f"{LOW:.0f}",
        WindowCenter="-300", WindowWidth="1400", PixelSpacing=[f"{spacing:.6f}"] * 2,
        PixelData=((image + 1) * 32767.5 + 0.5).clip(0, 65535).astype("<u2").tobytes())
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


class Job:
    def __init__(self, arguments):
        self.size, self.out = arguments.size, pathlib.Path(arguments.out)
        self.layout = torch.contiguous_format if arguments.mode == "eager" else torch.channels_last
        self.vqgan, self.unet, self.singans = networks.shipped(arguments.vqgan)
        self.vqgan.to(memory_format=self.layout)
        self.unet.to(memory_format=self.layout)
        if arguments.mode == "compiled":
            for network in (self.vqgan.encoder, self.vqgan.decoder, self.unet):
                network.compile()
        self.density, self.files = Density(), series()
        self.rng, self.generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
        self.coco = dict(images=[], annotations=[], categories=[dict(id=1, name="lesion")])

    def batch(self, indices):
        items = [read(self.files[index % len(self.files)], self.size) for index in indices]
        images = torch.from_numpy(np.stack([image for image, _ in items]))[:, None].contiguous(memory_format=self.layout)
        images = self.vqgan(images).contiguous().numpy()[:, 0].copy()
        small = np.stack([cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA) for image in images])
        logits = self.unet(torch.from_numpy(small)[:, None].contiguous(memory_format=self.layout)).contiguous().numpy()
        for index, image, logit, (_, spacing) in zip(indices, images, logits[:, 0], items):
            self.finish(index, image, logit, spacing)

    def finish(self, index, image, logit, spacing):
        size = image.shape[0]
        body = body_of(image, spacing)
        safe = (cv2.resize(logit, (size, size), interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8) & body
        _, labels, stats, _ = cv2.connectedComponentsWithStats(safe, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= 0.002 * size * size
        keep[0] = False
        free, weights = keep[labels].astype(np.uint8), self.density.weights(body, spacing)
        border = max(2, int(np.ceil(BORDER_MM / spacing)))
        free[:border], free[-border:], free[:, :border], free[:, -border:] = 0, 0, 0, 0
        whole = np.zeros((size, size), np.uint8)
        for _ in range(self.rng.integers(1, 4)):
            singan = self.singans[self.rng.integers(len(self.singans))]
            made = lesion(singan, self.rng.uniform(4, 12) / spacing, self.generator)
            at = place(free, weights, made[1], self.rng) if made else None
            if at is None:
                continue
            (patch, mask), (left, top) = made, at
            blend(image, patch, mask, left, top)
            self.annotate(index, mask, left, top)
            rows, columns = np.nonzero(mask)
            own = np.zeros_like(whole)
            own[rows + top, columns + left] = 1
            whole |= own
            gap = 2 * max(5, int(np.ceil(GAP_MM / spacing))) + 1
            free &= 1 - cv2.dilate(own, np.ones((gap, gap), np.uint8))
        stem = f"image-{index:05}"
        write_dicom(self.out / f"{stem}.dcm", image, spacing)
        cv2.imwrite(str(self.out / f"{stem}.png"), whole * 255)
        self.coco["images"].append(dict(id=index, file_name=f"{stem}.dcm", width=size, height=size))

    def annotate(self, index, mask, left, top):
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        x, y, width, height = cv2.boundingRect(mask)
        polygons = [(contour[:, 0] + [left, top]).ravel().tolist() for contour in contours if len(contour) > 2]
        self.coco["annotations"].append(dict(
            id=len(self.coco["annotations"]) + 1, image_id=index, category_id=1, bbox=[x + left, y + top, width, height],
            area=int(mask.sum()), iscrowd=0, segmentation=polygons))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mode", choices=["eager", "channels-last", "compiled"], default="eager")
    parser.add_argument("--out", required=True)
    parser.add_argument("--vqgan", help="name of the shipped autoencoder; the default one without")
    parser.add_argument("--start", help="wait for this file after the warm-up: several processes begin together")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    os.makedirs(arguments.out, exist_ok=True)
    with torch.inference_mode():
        job = Job(arguments)
        for _ in range(2):
            job.batch(list(range(arguments.batch)))
        job.coco["images"], job.coco["annotations"] = [], []
        if arguments.start:
            pathlib.Path(arguments.out, "ready").touch()
            while not os.path.exists(arguments.start):
                time.sleep(0.01)
        started = time.perf_counter()
        for first in range(0, arguments.images, arguments.batch):
            job.batch(list(range(first, min(first + arguments.batch, arguments.images))))
        (job.out / "coco.json").write_text(json.dumps(job.coco))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"images_per_s": arguments.images / seconds, "rss_mb": peak,
                      "lesions": len(job.coco["annotations"])}))


if __name__ == "__main__":
    main()
