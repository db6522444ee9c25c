"""Copies of a sweep's results at any address that papermill writes to: another folder, s3://, gs://, ..."""

from __future__ import annotations

from pathlib import Path

from lvlmva_lite.experiments.sweep_folder import SweepFolder, SweepFolderError
from lvlmva_lite.files import to_json, write_whole
from lvlmva_lite.fingerprint import fingerprint

_TEXTS = (".ipynb", ".json", ".jsonl", ".txt", ".csv", ".md")


def require_writable(address: str) -> None:
    """Refuse an address that nothing can be written to, before any run.

    Raises
    ------
    SweepFolderError : papermill, or what it needs for such addresses, is missing
    """
    _write("written by lvlmva sweep to see whether it can be\n", f"{address.rstrip('/')}/sweep.txt")


def copy_run(folder: SweepFolder, id: str, address: str) -> None:
    """Copy the texts of a finished run to ``address/ID/``, unless that was done before.

    Its notebook or results, and its log; figures are in the notebook, and arrays stay where they are.
    The job goes last: what has none there is not whole.

    Raises
    ------
    SweepFolderError : it cannot be written; what is here is as it was
    """
    run = folder.out(id).parent
    mark = run / f"copied-{fingerprint(address)[:8]}.json"
    if mark.exists():
        return
    texts = sorted(file for file in folder.out(id).iterdir() if file.suffix in _TEXTS)
    for file in [*texts, folder.log(id), run / "done.json", run / "job.json"]:
        _write(file.read_text("utf-8", "replace"), f"{address.rstrip('/')}/{id}/{file.name}")
    write_whole(mark, to_json({"address": address}) + "\n")


def _write(text: str, address: str) -> None:
    try:
        from papermill.iorw import papermill_io
    except ImportError:
        raise SweepFolderError(
            "--copy-to needs papermill; install it with `pip install 'lvlmva-lite[notebooks]'`"
        ) from None
    if "://" not in address:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill_io.write(text, address, extensions=list(_TEXTS))
    except Exception as error:  # of whatever library writes there
        raise SweepFolderError(f"cannot write {address} ({type(error).__name__}: {error})") from error
