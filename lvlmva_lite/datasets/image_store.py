"""Images that need not fit into memory: kept as bytes, on disk or not, handed out as float32."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm.auto import tqdm

from lvlmva_lite.datasets.decoding import ImageDataError

KEPT = 256 * 2**20
"""Bytes of a file up to which its mapping is kept.

A new mapping asks the system for each page again, which for small images takes longer than to read them.
"""


class ImageStore:
    """Images as bytes, of which each access makes a float32 tensor in [0, 1].

    It stands where a tensor of images would: ``len``, ``shape``, ``dtype``, ``split``, and one
    index of images.  A file of more than ``KEPT`` bytes is mapped anew for each access, so that what
    was read does not stay with this process; the system keeps what it has room for.

    Parameters
    ----------
    values : (N, C, H, W) uint8, as an array or tensor, or the path of a ``.npy`` file that holds it

    Raises
    ------
    ValueError : another shape or dtype, or a file that is no ``.npy``
    FileNotFoundError : there is no such file
    """

    def __init__(self, values: np.ndarray | Tensor | str | Path) -> None:
        if isinstance(values, Tensor):
            values = values.numpy()
        self._values = Path(values) if isinstance(values, str | Path) else values
        self._rows: np.ndarray | None = None
        self._kept: np.ndarray | None = None
        mapped = self._opened() if isinstance(self._values, Path) else self._values
        if mapped.dtype != np.uint8 or mapped.ndim != 4:
            raise ValueError(
                f"an ImageStore holds uint8 of shape (N, C, H, W), got {mapped.dtype} of shape {mapped.shape}"
            )
        self.shape = torch.Size(mapped.shape)
        if isinstance(self._values, Path):  # all that a later access needs, so that it need not read it
            order = "C" if mapped.flags.c_contiguous else "F"
            self._place = {"offset": mapped.offset, "shape": mapped.shape, "order": order}

    dtype = torch.float32
    ndim = 4
    device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor | np.ndarray) -> Tensor:
        """One image (C, H, W), or those of a slice, of indices or of a mask (m, C, H, W)."""
        rows, values = self._chosen(index), self._mapped()
        if isinstance(rows, np.ndarray):
            picked = values.take(np.flatnonzero(rows) if rows.dtype == bool else rows, 0)
        else:
            picked = np.array(values[rows])
        return torch.from_numpy(picked).to(torch.float32).div_(255)

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """Batches in order, each read when it is its turn."""
        return (self[start : start + batch_size] for start in range(0, len(self), batch_size))

    def take(self, indices: Tensor | np.ndarray) -> ImageStore:
        """The images at ``indices`` (int64, any order, repeats allowed, or a mask), still unread."""
        part = object.__new__(ImageStore)
        part.__dict__.update(self.__dict__)
        part._rows = np.atleast_1d(self._chosen(np.asarray(indices)))
        if part._rows.dtype == bool:
            part._rows = np.flatnonzero(part._rows)
        part.shape = torch.Size((len(part._rows), *self.shape[1:]))
        return part

    def __getstate__(self) -> dict[str, object]:
        """Without the mapping: a copy makes its own, and holds none of the file."""
        return self.__dict__ | {"_kept": None}

    def __repr__(self) -> str:
        return f"ImageStore{tuple(self.shape)}"

    def _mapped(self) -> np.ndarray:
        if not isinstance(self._values, Path):
            return self._values
        if self._kept is not None:
            return self._kept
        # A third of the time of np.memmap, which is that of a small batch.
        with self._values.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        values = np.ndarray(dtype=np.uint8, buffer=mapping, **self._place)
        if len(mapping) <= KEPT:
            self._kept = values
        return values

    def _opened(self) -> np.memmap:
        try:
            return np.load(self._values, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{self._values} is no .npy file of images, or cut short ({error})") from None

    def _chosen(self, index: int | slice | Tensor | np.ndarray) -> int | slice | np.ndarray:
        """The index as one of the whole array."""
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        if isinstance(index, list):
            index = np.asarray(index, np.int64)
        if not isinstance(index, int | np.integer | slice | np.ndarray):
            raise TypeError(
                f"an ImageStore takes one index of images, got {index!r}; read the images first, "
                "store[i], and index what comes"
            )
        if isinstance(index, np.ndarray) and index.dtype == bool and index.shape != self.shape[:1]:
            raise IndexError(f"a mask of {index.shape} for {len(self)} images; give one value each")
        return index if self._rows is None else self._rows[index]


def kept_rows(
    folder: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: type,
    key: object,
    row: Callable[[int], np.ndarray],
    *,
    progress: bool = False,
) -> Path:
    """The ``.npy`` file in a folder that holds ``row(0)``, ``row(1)``, ..., made if it is not there.

    Parameters
    ----------
    folder : made if need be
    name : how the file's name begins
    shape, dtype : of the array; an element is one byte, uint8 or bool
    key : all that the values follow from; of another key it is another file
    row : makes one of them
    progress : show a progress bar

    Raises
    ------
    ImageDataError : no room on the disk, or from ``row``; no file is left then
    """
    target = folder / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npy"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    room, needed = shutil.disk_usage(folder).free, int(np.prod(shape))
    if room < needed:
        raise ImageDataError(
            f"the images of {name} take {needed / 2**30:.1f} GB, and {folder} has room for {room / 2**30:.1f}; "
            "give another folder or a smaller image_size"
        )
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        values = open_memmap(part, "w+", dtype, shape)
        for i in tqdm(range(len(values)), desc=f"images of {name}", disable=not progress):
            values[i] = row(i)
        values.flush()
        del values
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
