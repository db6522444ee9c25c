"""MNIST, whole, from the files that ship with the package.

Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten
digits", CC BY-SA 3.0.  The four archives hold the original IDX files byte for
byte; only the gzip wrapping is ours, so their checksums differ from those of
1998.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

DATA_DIR = Path(__file__).resolve().parent.parent / "data" / "mnist"

SHA256 = {
    "train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}
_MEND = "reinstall it with `pip install --force-reinstall --no-deps lvlmva-lite`, or `git checkout` it"


class DataFileError(RuntimeError):
    """A data file that ships with the package is missing or damaged."""


def load_mnist(split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The 60 000 training or 10 000 test digits.

    Files are checked against their SHA-256 on first read; the decoded arrays
    are kept in memory (55 MB for both splits) and are read-only.

    Parameters
    ----------
    split : "train" or "test"
    data_dir : folder of the four ``.gz`` archives, default: the package's own

    Returns
    -------
    images : ndarray, (N, 28, 28), uint8 in 0 .. 255
    labels : ndarray, (N,), uint8 in 0 .. 9

    Raises
    ------
    ValueError : ``split`` is neither "train" nor "test"
    DataFileError : an archive is missing or its checksum is wrong
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return _load(split, Path(data_dir) if data_dir is not None else DATA_DIR)


@lru_cache(maxsize=4)
def _load(split: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(data_dir / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read_idx(data_dir / f"{prefix}-labels-idx1-ubyte.gz")
    return images, labels


def _read_idx(path: Path) -> np.ndarray:
    try:
        archive = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"cannot read {path} ({error.strerror}); {_MEND}") from error
    digest = hashlib.sha256(archive).hexdigest()
    if digest != SHA256[path.name]:
        raise DataFileError(
            f"{path} is damaged (SHA-256 {digest[:12]}..., expected {SHA256[path.name][:12]}...); {_MEND}"
        )
    raw = gzip.decompress(archive)
    n_dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", count=n_dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
