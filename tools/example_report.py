"""The report of chapter 0's run, to which the landing page links."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from lvlmva_lite.fingerprint import package_fingerprint

PAGE = "_static/example-report.html"
"""Where it lies in the rendered book."""

RUN = ("run", "decoy-mnist", "--critic", "recorded", "--critic-model", "claude", "--quiet")


def example_report(folder: Path) -> Path:
    """Make the report in ``folder``, unless it lies there already and the package is what it was made by.

    Raises
    ------
    SystemExit : a command failed; what it said stands above
    """
    made, stamp = folder / "run" / "report.html", folder / "made-by.txt"
    code = package_fingerprint()
    if made.exists() and stamp.exists() and stamp.read_text() == code:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in ([*RUN, "--out", str(made.parent)], ["report", str(made.parent)]):
        done = subprocess.run(
            [sys.executable, "-m", "lvlmva_lite.cli", *command],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(
                f"{done.stdout}\nthe landing page's report could not be made: lvlmva {command[0]}"
            )
    stamp.write_text(code)
    return made
