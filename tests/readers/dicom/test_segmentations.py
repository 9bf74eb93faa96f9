"""DICOM Segmentations as masks, beside the arrays that highdicom made them of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers import read_image
from lepton_vision.readers.mask import read_mask
from lepton_vision.types import SampleAddress
from tests.readers.segmentation_files import AXIAL, OBLIQUE, blobs, write_seg, write_series, write_slice

highdicom = pytest.importorskip("highdicom")


@pytest.mark.parametrize("way", [AXIAL, OBLIQUE])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("BINARY", {}),
        ("BINARY", {"omit_empty_frames": False}),
        ("LABELMAP", {"is_rle": True}),
        ("FRACTIONAL", {}),
        ("LABELMAP", {}),
        ("LABELMAP", {"omit_empty_frames": False}),
    ],
)
def test_segments_lie_where_highdicom_put_them(
    tmp_path: Path, way: Sequence[float], kind: str, more: dict[str, Any]
) -> None:
    sources, truth = write_series(tmp_path / "ct", way=way), blobs()
    if kind == "FRACTIONAL":
        more = {"fractional_type": "PROBABILITY"}
    path = write_seg(tmp_path / "seg.dcm", sources, truth, kind=kind, **more)
    uids = [one.SOPInstanceUID for one in sources]
    other = highdicom.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(other, truth)
    image = read_image(tmp_path / "ct")
    mask = read_mask(path, on=image)
    np.testing.assert_array_equal(mask.pixels[0], truth)  # the series runs along its normal, as the sources do
    assert mask.geometry == image.geometry
    for k in range(6):  # a slice at a time, by its address
        found = read_mask(path, on=SampleAddress(tmp_path / f"ct/{k}.dcm")).pixels
        np.testing.assert_array_equal(found[0], truth[k])
    alone = read_mask(path)
    kept = truth if more.get("omit_empty_frames") is False else truth[1:5]
    np.testing.assert_array_equal(alone.pixels[0], kept)
    assert alone.spacing_mm == pytest.approx((3.0, 0.5, 0.7))


def test_the_order_of_frames_and_the_way_of_rows_say_nothing(tmp_path: Path) -> None:
    """The same planes, listed backwards and drawn from the other corner."""
    sources, truth = write_series(tmp_path / "ct"), blobs()
    path = write_seg(tmp_path / "seg.dcm", sources, truth, omit_empty_frames=False)
    dataset = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames = bits[: dataset.NumberOfFrames * 63].reshape(-1, 7, 9)[::-1, :, ::-1]
    dataset.PixelData = np.packbits(frames, axis=None, bitorder="little").tobytes()
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = list(groups)[::-1]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [float(x) + 8 * 0.7, y, z]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    dataset.save_as(path)
    np.testing.assert_array_equal(read_mask(path, on=read_image(tmp_path / "ct")).pixels[0], truth)


def test_a_sparse_mask_of_one_slice(tmp_path: Path) -> None:
    sources, truth = write_series(tmp_path / "ct"), blobs(segments=1)
    truth[[1, 3]] = 0
    path = write_seg(tmp_path / "seg.dcm", sources, truth, segments=1)
    assert pydicom.dcmread(path).NumberOfFrames == 1
    np.testing.assert_array_equal(read_mask(path, on=read_image(tmp_path / "ct")).pixels[0], truth)
    alone = read_mask(path)
    np.testing.assert_array_equal(alone.pixels[0], truth[2])
    assert alone.geometry is not None
    assert alone.geometry.origin_mm == pytest.approx((-10.25, 4.5, 106.125))


def test_an_image_without_a_place_is_found_by_reference(tmp_path: Path) -> None:
    films = [write_slice(tmp_path / f"{k}.dcm", k, position=None) for k in range(2)]
    truth = blobs()[2:3]
    path = write_seg(tmp_path / "seg.dcm", films[:1], truth)
    np.testing.assert_array_equal(read_mask(path, on=SampleAddress(tmp_path / "0.dcm")).pixels[0], truth[0])
    with pytest.raises(ReadError, match="Expected a Segmentation of this image") as caught:
        read_mask(path, on=read_image(tmp_path / "1.dcm"))
    assert caught.value.reason == "mask_position"


@pytest.mark.parametrize(
    ("shift", "far"), [((0.0, 0.0, 1.5), "1.500"), ((0.25, 0.0, 0.0), "0.250"), ((0, 0, 0.02), "")]
)
def test_frames_beside_the_voxels_are_refused_with_the_distance(
    tmp_path: Path, shift: tuple[float, float, float], far: str
) -> None:
    sources, truth = write_series(tmp_path / "ct"), blobs()
    path = write_seg(tmp_path / "seg.dcm", sources, truth)
    dataset = pydicom.dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(a) + b for a, b in zip(place.ImagePositionPatient, shift, strict=True)]
    dataset.save_as(path)
    image, places = read_image(tmp_path / "ct"), [SampleAddress(tmp_path / f"ct/{k}.dcm") for k in (2, 3)]
    if not far:  # rounded headers
        np.testing.assert_array_equal(read_mask(path, on=image).pixels[0], truth)
        np.testing.assert_array_equal(read_mask(path, on=places[0]).pixels[0], truth[2])
        return
    for on in (image, *places):
        with pytest.raises(ReadError, match=rf"position \(by {far} mm") as caught:
            read_mask(path, on=on)
        assert caught.value.reason == "mask_position"


def test_frames_beyond_the_image_and_of_another_size(tmp_path: Path) -> None:
    sources, truth = write_series(tmp_path / "ct"), blobs()
    path = write_seg(tmp_path / "seg.dcm", sources, truth)
    part = read_image(tmp_path / "ct")
    for k in (4, 5):
        (tmp_path / f"ct/{k}.dcm").unlink()
    with pytest.raises(ReadError, match=r"frames that lie 3\.000 mm beyond its image"):
        read_mask(path, on=read_image(tmp_path / "ct"))
    np.testing.assert_array_equal(read_mask(path, on=part).pixels[0], truth)
    other = [write_slice(tmp_path / f"b/{k}.dcm", k, position=(0, 0, 3 * k), shape=(4, 4)) for k in range(3)]
    assert len(other) == 3
    with pytest.raises(ReadError, match="Expected a Segmentation on the voxels of its image"):
        read_mask(path, on=read_image(tmp_path / "b"))


def test_what_one_label_per_voxel_cannot_say_is_refused(tmp_path: Path) -> None:
    sources = write_series(tmp_path / "ct")
    both = np.stack([blobs() == 1, blobs() == 2], axis=-1)
    both[2, 2, 2] = True
    path = write_seg(tmp_path / "both.dcm", sources, both)
    with pytest.raises(ReadError, match="segments 1 and 2 share 1 voxels") as caught:
        read_mask(path, on=read_image(tmp_path / "ct"))
    assert caught.value.reason == "mask_overlap"
    soft = (blobs(segments=1) * 0.4).astype(np.float32)
    path = write_seg(tmp_path / "soft.dcm", sources, soft, segments=1, kind="FRACTIONAL", fractional_type="PROBABILITY")
    with pytest.raises(ReadError, match="values between 0 and 255") as caught:
        read_mask(path)
    assert caught.value.reason == "mask_values"
    path = write_seg(tmp_path / "many.dcm", sources, blobs(segments=1), segments=1)
    dataset = pydicom.dcmread(path)
    dataset.SegmentSequence[0].SegmentNumber = 300
    dataset.save_as(path)
    with pytest.raises(ReadError, match="segment numbers up to 255"):
        read_mask(path)
    with pytest.raises(ReadError, match="order says nothing"):
        read_mask(tmp_path / "both.dcm", frame=0)


def test_numbers_of_segments_are_the_labels_whatever_they_are(tmp_path: Path) -> None:
    sources, truth = write_series(tmp_path / "ct"), blobs()
    path = write_seg(tmp_path / "seg.dcm", sources, truth)
    dataset = pydicom.dcmread(path)
    for one in dataset.SegmentSequence:
        one.SegmentNumber = {1: 7, 2: 255}[one.SegmentNumber]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        item = group.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = {1: 7, 2: 255}[item.ReferencedSegmentNumber]
    dataset.save_as(path)
    found = read_mask(path, on=read_image(tmp_path / "ct")).pixels[0]
    np.testing.assert_array_equal(found, np.array([0, 7, 255])[truth])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ct_binary", ""),
        ("ct_binary_fractional", ""),
        ("ct_binary_single_frame", ""),
        ("ct_binary_overlap", "mask_overlap"),
        ("ct_true_fractional", "mask_values"),
        ("sm_dots", "unsupported"),
        ("sm_dots_tiled_full", "unsupported"),
        ("sm_control_labelmap_palette_color", "unsupported"),
    ],
)
def test_files_of_highdicom_are_read_as_it_reads_them(corpus: Path, name: str, reason: str) -> None:
    path = corpus / f"ImagingDataCommons+highdicom/data/test_files/seg_image_{name}.dcm"
    if reason:
        with pytest.raises(ReadError) as caught:
            read_mask(path)
        assert caught.value.reason == reason
        return
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    found = read_mask(path)
    labels = found.pixels[0].reshape(volume.array.shape)
    assert found.geometry is not None
    first = np.append(found.geometry.origin_mm, 1.0)
    corner = np.linalg.inv(volume.affine) @ first  # where our first voxel lies in highdicom's array
    assert np.array_equal(volume.array if abs(corner[0]) < 0.5 else volume.array[::-1], labels)
