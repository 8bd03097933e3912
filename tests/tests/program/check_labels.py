"""Holds the DICOM labels of a delivery (pydicom, highdicom) against its manifest and its PNG masks, pixel by pixel."""
import json
import sys
from pathlib import Path

import highdicom
import numpy
import pydicom
from PIL import Image

CODES = {"ct": ("27925004", "Nodule"), "kub": ("56381008", "Calculus")}


def check(folder, image, modality):
    source = pydicom.dcmread(folder / image["file"])
    dataset = pydicom.dcmread(folder / image["seg"]["file"])
    lesions = image["lesions"]

    # Segments: one a lesion, in the manifest's order; all together they are the mask.
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)
    assert len(frames) == len(lesions) == int(dataset.NumberOfFrames)
    mask = numpy.asarray(Image.open(folder / image["mask"]["file"])) > 0
    assert frames.shape[1:] == mask.shape and (frames.any(axis=0) == mask).all()
    segmentation = highdicom.seg.Segmentation.from_dataset(dataset)
    assert segmentation.segmentation_type == highdicom.seg.SegmentationTypeValues.BINARY
    pixels = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    assert pixels.shape == (*mask.shape, len(lesions))
    joined = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)[0]
    assert ((joined > 0) == mask).all() and joined.max() == len(lesions)
    for number, lesion in enumerate(lesions, 1):
        frame = frames[number - 1]
        assert (pixels[..., number - 1] == frame).all()
        rows, columns = numpy.nonzero(frame)
        box = [columns.min(), rows.min(), numpy.ptp(columns) + 1, numpy.ptp(rows) + 1]
        assert box == lesion["bbox"] and len(rows) == lesion["area_px"]
        segment = segmentation.get_segment_description(number)
        assert (segment.segmented_property_type.value, segment.segmented_property_type.meaning) == CODES[modality]
        assert segment.segmented_property_category.value == "49755003"
        assert segment.algorithm_type == highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC

    # Whose they are: the image's study and patient, its frame of reference, and nobody.
    report = pydicom.dcmread(folder / image["sr"]["file"])
    for labels in (dataset, report):
        for name in ("StudyInstanceUID", "PatientID", "PatientName"):
            assert labels[name].value == source[name].value
        assert labels.SeriesInstanceUID != source.SeriesInstanceUID
        assert labels[0x0008001C].value == "YES" and labels.PatientIdentityRemoved == "YES"
        assert labels.get("ContentCreatorName", "") == "" and labels.StudyDate == ""
    assert dataset.get("FrameOfReferenceUID") == source.get("FrameOfReferenceUID")
    assert segmentation.get_source_image_uids() == [
        (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID)
    ]
    if modality == "ct":
        # The masks lie where the image does.
        volume = segmentation.get_volume(combine_segments=True)
        assert (volume.array[0] > 0).tolist() == mask.tolist()
        assert numpy.allclose(volume.position, [float(value) for value in source.ImagePositionPatient])
        assert numpy.allclose(volume.pixel_spacing, image["spacing_mm"])

    # Measurements: a group a lesion, with the manifest's sizes, of the lesion's segment.
    content = highdicom.sr.ComprehensiveSR.from_dataset(report).content
    groups = content.get_planar_roi_measurement_groups(referenced_sop_instance_uid=dataset.SOPInstanceUID)
    assert len(groups) == len(lesions)
    row_mm, column_mm = image["spacing_mm"]
    for number, (group, lesion) in enumerate(zip(groups, lesions), 1):
        segment = segmentation.get_segment_description(number)
        assert (group.tracking_uid, group.tracking_identifier) == (segment.tracking_uid, segment.tracking_id)
        assert group.finding_type == segment.segmented_property_type
        reference = group.referenced_segmentation_frame
        assert reference[0].referenced_frame_numbers == [number]
        assert reference.source_image_for_segmentation.referenced_sop_instance_uid == source.SOPInstanceUID
        measured = {item.name.value: (item.value, item.unit.value) for item in group.get_measurements()}
        expected = {
            "103339001": (lesion["diameter_mm"], "mm"),
            "42798000": (lesion["area_px"] * row_mm * column_mm, "mm2"),
        }
        assert measured.keys() == expected.keys()
        for name, (value, unit) in expected.items():
            assert measured[name][1] == unit and abs(measured[name][0] - value) < 1e-9 * value


folder = Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())
for entry in manifest["images"]:
    check(folder, entry, manifest["modality"])
print(len(manifest["images"]), "images agree")
