"""Say image by image which ones show the spurious feature; needs ``pip install 'lvlmva-lite[notebooks]'``."""

from __future__ import annotations

import base64
import html
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from lvlmva_lite.datasets.annotations import append_annotation, read_annotations, remove_annotation
from lvlmva_lite.datasets.decoding import ImageDataError, image_size, read_image
from lvlmva_lite.datasets.image_files import data_folder, image_files, named_file
from lvlmva_lite.widgets import focus, key_field

if TYPE_CHECKING:
    from ipywidgets import VBox

SHOWN = 480
"""Longer side of the image on the screen, in pixels; a small image is enlarged by a whole factor."""


def annotation_widget(
    root: str | Path,
    table: str | Path,
    *,
    names: Sequence[str] | None = None,
    question: str = "Does the image show the spurious feature?",
) -> VBox:
    """Show one image after the other and write each answer down at once.

    Images that already have a row are passed over, so a later call goes on
    where the last one stopped.  "Can't say" writes an empty answer.  "Take
    back" removes the last answer that was given here, and asks again.  By
    mouse, or by keys in the field, where a click on a button puts the cursor:
    y, n, u, and z to take back.

    Parameters
    ----------
    root : the data folder
    table : annotation file, made if there is none; see
        :func:`lvlmva_lite.datasets.annotations.read_annotations`
    names : paths below ``root``, in the order to show them; default: every
        image in ``root`` and below, by name, but for ``patch_masks``.
        ``data.names`` of a loaded data set serves too.
    question : stands above the image

    Returns
    -------
    VBox : show it at the end of a cell

    Raises
    ------
    ImageDataError : no such folder or image; a damaged annotation file
    """
    from ipywidgets import HTML, BoundedIntText, Button, Checkbox, HBox, VBox

    root, table = data_folder(root), Path(table)
    if names is None:
        below = sorted(path for path in root.rglob("*") if path.is_dir() and path.name != "patch_masks")
        folders = [root, *below]
        names = [path.relative_to(root).as_posix() for folder in folders for path in image_files(folder)]
    if not names:
        raise ImageDataError(f"no image in {root}")
    for name in names:
        named_file(root, name, "the list of names")
    done = read_annotations(table, root) if table.exists() else {}
    waiting = [name for name in names if name not in done]

    status, picture = HTML(), HTML()
    yes = Button(description="Yes (y)")
    no = Button(description="No (n)")
    unsure = Button(description="Can't say (u)")
    back = Button(description="Take back (z)", disabled=True)
    given: list[str] = []  # answered here, the latest last
    acting = threading.RLock()  # JupyterLab may have a key and a click answered in two threads
    boxed = Checkbox(value=False, description="with a box around it", indent=False)
    # Fields, for the handles of a range slider have no name that could be read aloud.
    left, top, right, bottom = edges = [
        BoundedIntText(min=0, max=1, description=edge, layout={"width": "12em"})
        for edge in ("left", "top", "right", "bottom")
    ]
    controls = (yes, no, unsure, boxed, *edges)

    def box() -> tuple[int, int, int, int] | None:
        if not boxed.value or left.value >= right.value or top.value >= bottom.value:
            return None
        return left.value, top.value, right.value, bottom.value

    def draw(_=None) -> None:
        image = Image.fromarray(read_image(root / waiting[0], "RGB"))
        if box() is not None:
            ImageDraw.Draw(image).rectangle(
                box(), outline=(255, 0, 255), width=max(1, max(image.size) // 150)
            )
        image.thumbnail((SHOWN, SHOWN))
        buffer = io.BytesIO()
        image.save(buffer, "png")
        source = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(waiting[0], quote=True)
        width = image.width * max(1, SHOWN // max(image.size))
        style = f"width: {width}px; max-width: 100%; image-rendering: pixelated"
        picture.value = f'<img src="data:image/png;base64,{source}" alt="{alt}" style="{style}">'

    def show() -> None:
        answered = len(names) - len(waiting)
        back.disabled = not given
        for control in controls:
            control.disabled = not waiting
        if not waiting:
            status.value = f"All {len(names)} images have a row in {html.escape(str(table))}."
            picture.value = ""
            return
        status.value = (
            f"<b>{html.escape(question)}</b><br>{answered + 1} of {len(names)}: {html.escape(waiting[0])}"
        )
        boxed.value = False
        width, height = image_size(root / waiting[0])
        for first, last, length in ((left, right, width), (top, bottom, height)):
            first.max = last.max = length
            first.value, last.value = length // 4, length - length // 4
        draw()

    def answer(spurious: bool | None) -> None:
        with acting:
            if not waiting:
                return
            append_annotation(table, waiting[0], spurious, box() if spurious else None)
            given.append(waiting.pop(0))
            show()

    def undo() -> None:
        with acting:
            if not given:
                return
            remove_annotation(table, given[-1])
            waiting.insert(0, given.pop())
            show()

    yes.on_click(lambda _: answer(True))
    no.on_click(lambda _: answer(False))
    unsure.on_click(lambda _: answer(None))
    back.on_click(lambda _: undo())
    keys = key_field(
        {"y": lambda: answer(True), "n": lambda: answer(False), "u": lambda: answer(None), "z": undo}
    )
    for button in (yes, no, unsure, back):
        button.on_click(lambda _: focus(keys))
    show()
    for control in (boxed, *edges):
        control.observe(lambda _: draw() if waiting else None, "value")
    return VBox(
        [
            status,
            picture,
            HBox([yes, no, unsure, back]),
            boxed,
            HBox([left, right]),
            HBox([top, bottom]),
            keys,
        ]
    )
