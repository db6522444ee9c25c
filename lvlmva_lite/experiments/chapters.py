"""Execute a chapter with papermill and gather what it made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvlmva_lite.experiments.parameters import declared
from lvlmva_lite.experiments.record import recorded
from lvlmva_lite.files import to_json, write_whole


class ChapterError(RuntimeError):
    """A chapter could not be run to its end; the message says where and why."""


def run_chapter(
    notebook_path: Path,
    parameters: Mapping[str, Any],
    out_dir: Path,
    *,
    progress: bool = True,
    first: str | None = None,
) -> dict[str, Any]:
    """Execute a notebook and write what it made to ``out_dir``.

    Writes ``<name>.ipynb`` (after every cell, so that an interrupted run
    leaves what it had), ``figures/<figure name>.png`` and, last and in one
    step, ``<name>.json`` (the recorded numbers).

    Parameters
    ----------
    notebook_path : the ``.ipynb`` of a chapter
    parameters : values for its ``parameters`` cell, by name
    out_dir : folder, made if need be
    progress : show papermill's progress bar over the cells
    first : a line of Python that the kernel runs before the first cell

    Returns
    -------
    dict : recorded names and values

    Raises
    ------
    ChapterError : papermill is not installed, the file is missing, a
        parameter is unknown or cannot work, the executed notebook would take its place, a
        cell failed, or the kernel died
    """
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        raise ChapterError(
            "running a chapter needs papermill; install it with `pip install 'lvlmva-lite[notebooks]'`"
        ) from error
    notebook_path, out_dir = Path(notebook_path), Path(out_dir)
    if not notebook_path.is_file():
        raise ChapterError(f"there is no notebook {notebook_path}; chapters lie in notebooks/*.ipynb")
    if notebook_path.suffix != ".ipynb":
        raise ChapterError(
            f"{notebook_path} is no notebook; give {notebook_path.with_suffix('.ipynb').name}"
        )
    known = papermill.inspect_notebook(str(notebook_path))
    kinds = declared(notebook_path)
    for name, value in parameters.items():
        if name not in known:
            raise ChapterError(
                f"{notebook_path.name} has no parameter {name!r}; it takes: {', '.join(known) or 'none'}"
            )
        if name in kinds and not kinds[name].fits(value):
            raise ChapterError(f"{notebook_path.name}: {name} must be {kinds[name].words}, got {value!r}")
    out_dir.mkdir(parents=True, exist_ok=True)
    executed = out_dir / notebook_path.name
    if executed.exists() and executed.samefile(notebook_path):
        raise ChapterError(
            f"{executed} would be overwritten with its own outputs; give --out another folder"
        )
    try:
        papermill.execute_notebook(
            str(notebook_path),
            str(executed),
            parameters=dict(parameters),
            kernel_name="python3",
            progress_bar=progress,
            log_output=False,
            # The kernel's notices about its own transport are no news to a reader.
            extra_arguments=[
                "--log-level=ERROR",
                *([f"--IPKernelApp.exec_lines={first}"] if first else []),
            ],
        )
    except PapermillExecutionError as error:
        raise ChapterError(
            f"{notebook_path.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"what ran until then is in {executed}"
        ) from error
    except DeadKernelError as error:
        raise ChapterError(
            f"the kernel of {notebook_path.name} died; too little memory? What ran until then is in {executed}"
        ) from error
    notebook = json.loads(executed.read_text("utf-8"))
    values = recorded(notebook)
    _write_figures(notebook, out_dir / "figures")
    write_whole(executed.with_suffix(".json"), to_json(values, indent=1) + "\n")
    return values


def _write_figures(notebook: dict[str, Any], folder: Path) -> None:
    """The PNG of every cell that gives its figure a name (``mystnb: figure: name``)."""
    for cell in notebook["cells"]:
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
        images = [
            o["data"]["image/png"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})
        ]
        if name and images:
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.png").write_bytes(base64.b64decode(images[0]))
