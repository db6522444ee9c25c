"""Fetching images of the ISIC Archive with its own command, ``isic``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lvlmva_lite.datasets.decoding import ImageDataError


def download_isic(
    folder: str | Path, *, collections: Sequence[int] = (), search: str = "", limit: int = 0
) -> Path:
    """Call ``isic image download``; it writes images, ``metadata.csv``, ``attribution.txt`` and ``licenses/``.

    Its own progress bar and messages are passed on.  Without ``collections``
    and ``search`` it would fetch the whole archive, hundreds of gigabytes;
    that is refused unless ``limit`` says how many images.

    Parameters
    ----------
    folder : where to; made if there is none
    collections : numbers that ``isic collection list`` shows
    search : as in the archive's search field, e.g. ``diagnosis_1:Malignant``
    limit : at most so many images; 0 means all that match

    Returns
    -------
    Path : ``folder``, for :func:`lvlmva_lite.datasets.load_skin`

    Raises
    ------
    ValueError : nothing narrows the download; a negative limit
    ImageDataError : the command is missing or failed
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 (all) or more, got {limit}")
    if not collections and not search and not limit:
        raise ValueError("this would fetch the whole ISIC Archive; give collections, search or limit")
    command = shutil.which("isic") or shutil.which("isic", path=str(Path(sys.executable).parent))
    if command is None:
        raise ImageDataError(
            "the command isic is missing; install it with `pip install 'lvlmva-lite[isic]'`"
        )
    arguments = ["image", "download", "--limit", str(limit)]
    if collections:
        arguments += ["--collections", ",".join(map(str, collections))]
    if search:
        arguments += ["--search", search]
    status = subprocess.run([command, *arguments, str(folder)], check=False).returncode
    if status != 0:
        raise ImageDataError(
            f"`isic {' '.join(arguments)} {folder}` ended with status {status}; its message stands above. "
            "A second call passes over images that are already there"
        )
    return Path(folder)
