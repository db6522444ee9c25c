import importlib.util

import numpy as np
import pytest
from PIL import Image

from lvlmva_lite.datasets.decoding import ImageDataError, image_size, is_grey, read_image

needs_pydicom = pytest.mark.skipif(importlib.util.find_spec("pydicom") is None, reason="pydicom is missing")
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("end", [".png", ".bmp", ".tif", ".tiff", ".webp", ".TIF"])
def test_lossless_formats_give_the_pixels_back(tmp_path, end):
    Image.fromarray(COLOURS).save(tmp_path / f"x{end}", **({"lossless": True} if end == ".webp" else {}))
    np.testing.assert_array_equal(read_image(tmp_path / f"x{end}", "RGB"), COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("end", [".jpg", ".png", ".tif", ".webp"])
def test_an_image_is_turned_upright(tmp_path, orientation, end):
    """By the EXIF standard: where row 0 and column 0 of the file belong in the picture."""
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :24] = 250
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"x{end}", exif=exif)
    found = read_image(tmp_path / f"x{end}", "L")
    assert found.shape == (32, 48)
    assert image_size(tmp_path / f"x{end}") == (48, 32)
    np.testing.assert_allclose(found.astype(int), upright, atol=12)
    assert read_image(tmp_path / f"x{end}", "L", 16)[:8, :8].min() > 200


@pytest.mark.parametrize("end", [".png", ".tif"])
def test_more_than_eight_bits_are_scaled_by_their_own_range(tmp_path, end):
    values = np.array([[1000, 1255, 1510], [1127, 4060, 2020]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x{end}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{end}", "L"), [[0, 21, 42], [11, 255, 85]])
    assert is_grey(tmp_path / f"x{end}")


def test_floats_are_scaled_too_and_must_be_finite(tmp_path):
    values = np.array([[-1.5, 0], [0.25, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif", "L"), [[0, 153], [178, 255]])
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageDataError, match=r"x.tif holds NaN or infinity"):
        read_image(tmp_path / "x.tif", "L")


def test_an_image_of_one_grey_is_black_not_an_error(tmp_path):
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "x.png")
    assert not read_image(tmp_path / "x.png", "L").any()


def test_several_pictures_in_one_file(tmp_path):
    pages = [Image.fromarray(COLOURS)] * 3
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageDataError, match=r"x.tif holds 3 pictures; save the one that you mean"):
        read_image(tmp_path / "x.tif", "RGB")


def test_what_cannot_be_read_is_one_error(tmp_path, monkeypatch):
    with pytest.raises(ImageDataError, match=r"there is no image .*none.png"):
        read_image(tmp_path / "none.png", "L")
    Image.fromarray(COLOURS).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageDataError, match=r"x.png is too large to be read"):
        read_image(tmp_path / "x.png", "L")


def dicom(path, values, photometric, **fields):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * values.dtype.itemsize
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@needs_pydicom
def test_dicom_greys_colours_and_inverted_greys(tmp_path):
    values = np.array([[100, 355], [610, 1120]], np.uint16)
    scaled = np.array([[0, 64], [128, 255]])
    bright = dicom(tmp_path / "a.dcm", values, "MONOCHROME2")
    np.testing.assert_array_equal(read_image(bright, "L"), scaled)
    np.testing.assert_array_equal(read_image(dicom(bright, values, "MONOCHROME1"), "L"), 255 - scaled)
    eight = np.array([[3, 90], [100, 7]], np.uint8)
    np.testing.assert_array_equal(read_image(dicom(bright, eight, "MONOCHROME2"), "L"), eight)
    np.testing.assert_array_equal(read_image(dicom(bright, eight, "MONOCHROME1"), "L"), 255 - eight)
    np.testing.assert_array_equal(read_image(dicom(bright, COLOURS[:, :8], "RGB"), "RGB"), COLOURS[:, :8])
    assert image_size(bright) == (8, 6)


@needs_pydicom
def test_dicom_window_and_slope(tmp_path):
    values = np.array([[0, 40], [60, 4000]], np.uint16)
    fields = {"WindowCenter": 50, "WindowWidth": 101, "RescaleSlope": 1, "RescaleIntercept": 0}
    found = read_image(dicom(tmp_path / "a.dcm", values, "MONOCHROME2", **fields), "L")
    np.testing.assert_allclose(found, [[0, 102], [153, 255]], atol=2)  # 0 .. 100 is the window


@needs_pydicom
def test_dicom_that_cannot_be_read(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no")
    with pytest.raises(ImageDataError, match=r"cannot read the DICOM file .*a.dcm .*; save it as PNG"):
        read_image(tmp_path / "a.dcm", "L")
    many = np.zeros((2, 2), np.uint8)
    path = dicom(tmp_path / "b.dcm", many, "MONOCHROME2", NumberOfFrames=2)
    with pytest.raises(ImageDataError, match="holds 2 pictures"):
        read_image(path, "L")


def test_dicom_without_pydicom_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.dcm").write_bytes(b"")
    with pytest.raises(
        ImageDataError, match=r"needs pydicom; install it with `pip install 'lvlmva-lite\[dicom\]'`"
    ):
        read_image(tmp_path / "a.dcm", "L")
