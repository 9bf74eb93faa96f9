"""Register of reason codes: why a file has no image, a row no score, a score no mask or report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Meaning of a reason code, and what to do about it."""

    meaning: str
    advice: str


_COPY = "Copy or export the file again."
_TAKE_IN = "Nothing; or take such objects in with `--include` (`scan.include`)."
_GRID = "Draw or resample the mask on the grid of its image."

READ_REASONS: Final[Mapping[str, Reason]] = {
    "missing": Reason("no such file, or no permission to read it", "Check the path and its permissions."),
    "empty": Reason("zero bytes, or an archive or DICOMDIR without a file", _COPY),
    "not_an_image": Reason("the content is none of the formats that are read", "Remove the file, or convert it."),
    "no_pixels": Reason("a DICOM object that holds none: a report, a presentation state, a structure set", "Nothing."),
    "truncated": Reason("fewer bytes than the header promises", _COPY),
    "corrupt": Reason("header or codestream contradicts itself", _COPY),
    "too_large": Reason(
        "above the limit of pixels, bytes, memory or parts",
        "Raise the limit: `--max-file-gb`, `--max-archive-gb`, `--max-ratio`, `--max-megapixels` of `score`, or "
        "`LEPTON_VISION_FILE_MEMORY_GB`.",
    ),
    "too_slow": Reason("above the time that a file may take", "Raise `LEPTON_VISION_FILE_SECONDS`."),
    "unsupported": Reason(
        "a valid file of a kind that is not decoded", "Convert the file; the message names the kind."
    ),
    "encrypted": Reason("an archive, or a member of one, that needs a password", "Unpack it first."),
    "unsafe_member": Reason(
        "a member of an archive that is a link or device, or whose name leads out of it", "Pack the file itself."
    ),
    "unreachable": Reason("an object store that refused or did not answer", "Check address and access; score again."),
    "decoder_missing": Reason("the decoder of the transfer syntax is not installed", "Install what the message names."),
    "decoder_failed": Reason(
        "the decoder refused the file, crashed or ran out of its limits", f"{_COPY} Report a file that others can open."
    ),
    "mismatch": Reason("codestream and header disagree on size, bits or samples", _COPY),
    "non_finite": Reason("NaN or infinity among the pixels", "Replace these values in the file."),
    "no_frame": Reason("the frame or array asked for does not exist", "Scan again: the file has changed."),
    "volume": Reason(
        "a 2-D image was asked for, and the file holds several frames, or the other way round",
        "Name a frame, or set `volume.view` (and scan with `--volumes`).",
    ),
    "geometry": Reason(
        "slices that form no regular volume, or pages of a file that differ in size",
        "`--gaps fill` (`volume.gaps`) where single steps differ; else export the series again.",
    ),
    "no_slices": Reason("a folder or list without a DICOM slice, or without the series asked for", "Check the folder."),
    "one_slice": Reason("a series of a single slice: its thickness is not known", "Take it as a 2-D image."),
    "several_series": Reason("more than one series where one was expected", "Name one; `inspect --series` lists them."),
    "several_volumes": Reason(
        "a series of several volumes: time points, echoes or other repetitions",
        "Name one; `inspect --series` lists them. `scan --volumes` and `score` take each.",
    ),
    "copy": Reason("the same slice once more", "Nothing."),
    "mixed_slices": Reason(
        "slices of different size, spacing, orientation, photometric interpretation or units",
        "Export the series again.",
    ),
    "localizer": Reason("a scout or localizer, alone or among the slices", _TAKE_IN),
    "segmentation": Reason("a DICOM Segmentation", f"{_TAKE_IN} As a mask, name it in the label table."),
    "secondary_capture": Reason("a picture of a screen, or a converted one", _TAKE_IN),
    "parametric_map": Reason("a map computed from images", _TAKE_IN),
    "dose": Reason("a grid of radiation dose", _TAKE_IN),
    "mask_file": Reason("a file that is the mask of an image, by its name", _TAKE_IN),
    "no_position": Reason("slices or an image without a place in the patient", "Export with position and orientation."),
    "no_spacing": Reason(
        "the distance of the voxels is needed and not known", "Export with the spacing; take PNG for masks."
    ),
    "duplicate_position": Reason("several slices at one place", "Remove the copies, or export the series again."),
    "missing_slices": Reason("gaps between the slices", "`--gaps fill` (`volume.gaps`), or export the series again."),
    "tilt": Reason("slices that are shifted against each other: a tilted gantry", "`--tilt shear` (`volume.tilt`)."),
    "units": Reason("a window in HU on pixels that are not HU", "Set `preprocess.windows` to `[header]`."),
    "no_window": Reason(
        "no window in the header, and the configuration chooses none", "Set `preprocess.missing_window`."
    ),
    "channels": Reason(
        "another number of channels than the model takes", "Set `preprocess.color` or `volume.channels`."
    ),
    "missing_channel": Reason(
        "a case without one of the files of its channels", "Add the file, or leave the case out."
    ),
    "channel_grid": Reason("channels of different size or place", "Resample them to one grid."),
    "mask_size": Reason("a mask of another size than its image", _GRID),
    "mask_spacing": Reason("a mask of another spacing than its image", _GRID),
    "mask_orientation": Reason("a mask whose axes point elsewhere than those of its image", _GRID),
    "mask_position": Reason("a mask that lies elsewhere in the patient than its image", _GRID),
    "mask_values": Reason(
        "a mask that holds no labels, or a value of which nothing is stated",
        "Save whole numbers without compression losses; state values in `segmentation`.",
    ),
    "mask_overlap": Reason(
        "a DICOM Segmentation with two segments in one voxel", "Export segments that do not overlap."
    ),
}
"""Of ``ReadError``: of rejected rows of a manifest, failures of predictions and rows of scores alike."""

FURTHER_REASONS: Final[Mapping[str, Reason]] = {
    "leakage": Reason(
        "a manifest row that `audit.on_leakage: drop_train` left out: its image stands in another split too",
        "Nothing, or correct the splits.",
    ),
    "duplicate": Reason(
        "another image of the same id has the prediction, mask or report: a copy of the file", "Nothing."
    ),
    "unknown": Reason("a rejected row of a manifest that does not say why", "Scan again."),
    "non_finite_output": Reason("the network gave no finite number", "Train again; look at the loss and the pixels."),
}
"""Beside those of reading: of rows and failures."""

FILE_REASONS: Final[Mapping[str, Reason]] = {
    "not_dicom": Reason(
        "the source is no DICOM file, and a DICOM Segmentation or report refers to one", "Choose another mask format."
    ),
    "refused": Reason(
        "`refused: …`, in words: the source is of a kind that the format cannot refer to", "Do what the words say."
    ),
}
"""Beside the others: of ``mask_reason`` and ``report_reason``, why a row of scores has no such file."""

UNFORESEEN: Final = "unexpected"
"""``unexpected:TYPE``: an error that nobody foresaw ended this input, and no other."""
