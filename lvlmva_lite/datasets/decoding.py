"""One image file, read: formats, rotation, bit depth.

JPEG, PNG, BMP, TIFF, WebP, and DICOM with ``pip install 'lvlmva-lite[dicom]'``.
Photographs are turned upright by their EXIF orientation.  What has more than 8
bits a channel is scaled by its own range: the least value becomes black, the
largest white (a DICOM image by its window first, where it has one; MONOCHROME1,
in which low values are bright, is inverted).  So grey levels of two such images
cannot be compared.  Of a file with several pictures none is taken.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lvlmva_lite.datasets.mnist import DataFileError

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", *DICOM_SUFFIXES)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageDataError(DataFileError):
    """Files that the reader supplied are missing, unreadable or not in the layout expected."""


def read_image(path: Path, mode: str, size: int | None = None) -> np.ndarray:
    """One image, (H, W) for mode "L" or (H, W, 3) for "RGB", uint8.

    With ``size``, each pixel of the (size, size) result is the mean of the
    area that it covers; the aspect is not kept.

    Raises
    ------
    ImageDataError : no such file, or none that can be read; DICOM without pydicom
    """
    with _opened(path) as image:
        if size is not None:
            image.draft(mode, (2 * size, 2 * size))  # lets the JPEG decoder do the first halvings
        image = _eight_bits(_upright(image), path).convert(mode)
        if size is not None:
            image = image.resize((size, size), Image.Resampling.BOX)
        return np.asarray(image)


def read_marked(path: Path) -> np.ndarray:
    """A mask file as (H, W) bool: True where any colour is not zero and nothing is transparent."""
    with _opened(path) as image:
        image = _upright(image)
        if image.mode.startswith(("I", "F")):
            return np.asarray(image) != 0
        marked = np.asarray(image.convert("RGB")).max(axis=2) > 0
        if "A" in image.getbands():
            marked &= np.asarray(image.getchannel("A")) > 0
        return marked


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of an image that stands upright.

    Raises
    ------
    ImageDataError : as for :func:`read_image`
    """
    with _opened(path) as image:
        return (image if _orientation(image) == 1 else _upright(image)).size


def is_grey(path: Path) -> bool:
    """Whether the file itself says that its image has no colours; its pixels are not looked at."""
    with _opened(path) as image:
        return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


def is_turned(path: Path) -> bool:
    """Whether the image is turned upright by what the file says of its camera."""
    with _opened(path) as image:
        return _orientation(image) in _UPRIGHT


def check_readable(path: Path) -> None:
    """Refuse a DICOM file where pydicom is missing, before anything is read."""
    if path.suffix.lower() in DICOM_SUFFIXES and importlib.util.find_spec("pydicom") is None:
        raise ImageDataError(
            f"reading {path} needs pydicom; install it with `pip install 'lvlmva-lite[dicom]'`"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as a Pillow image; whatever goes wrong within is one clear error."""
    check_readable(path)
    try:
        # Not by its path: Pillow maps such a file, and then scrambles a TIFF that lies on its side.
        with (
            path.open("rb") as file,
            _dicom(path) if path.suffix.lower() in DICOM_SUFFIXES else Image.open(file) as image,
        ):
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview behind
                raise ImageDataError(f"{path} holds {frames} pictures; save the one that you mean")
            yield image
    except FileNotFoundError as error:
        raise ImageDataError(f"there is no image {path}") from error
    except Image.DecompressionBombError as error:
        raise ImageDataError(f"{path} is too large to be read ({error}); make it smaller") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ImageDataError(
            f"cannot read the image {path} ({error}); delete it, download it again or save it as PNG"
        ) from error


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # damaged EXIF says nothing
        return image.getexif().get(_ORIENTATION, 1)
    return 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # which turns a TIFF by itself, and then says so
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    return Image.fromarray(_own_range(np.asarray(image, np.float64), path))


def _own_range(values: np.ndarray, path: Path) -> np.ndarray:
    """Values (H, W) as uint8, from the least (0) to the largest (255); all 0 where they are equal."""
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ImageDataError(f"{path} holds NaN or infinity; save it without")
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint8)


def _dicom(path: Path) -> Image.Image:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    try:
        dataset = pydicom.dcmread(path)
        frames = int(getattr(dataset, "NumberOfFrames", None) or 1)
        values = pixel_array(dataset) if frames == 1 else None
        if frames == 1 and dataset.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, dataset)
            values = values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
        elif frames == 1 and values.ndim == 2:
            windowed = "WindowCenter" in dataset or "VOILUTSequence" in dataset
            if windowed or values.dtype != np.uint8:
                values = apply_voi_lut(apply_modality_lut(values, dataset), dataset)
                values = _own_range(values.astype(np.float64), path)
            if dataset.PhotometricInterpretation == "MONOCHROME1":
                values = 255 - values
    except (FileNotFoundError, ImageDataError):
        raise
    except Exception as error:  # pydicom and its decoders raise of every kind
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ImageDataError(f"cannot read the DICOM file {path} ({reason}); save it as PNG") from error
    if frames > 1:
        raise ImageDataError(f"{path} holds {frames} pictures; save the one that you mean")
    if values.dtype != np.uint8:
        values = np.rint(values / (values.max() or 1) * 255).astype(np.uint8)
    return Image.fromarray(values)
