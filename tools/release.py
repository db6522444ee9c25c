"""Put together what a release attaches: ``python tools/release.py [v1.2.3]`` fills ``dist/``.

The wheel, the built book as a zip, its PDF, the notebooks as a zip, and the changelog's part on this version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import ROOT, repository


def changes(text: str, version: str) -> str:
    """What a changelog says about a version.

    Raises
    ------
    ValueError : it says nothing about it
    """
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(?P<told>.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL
    )
    if found is None or not found["told"].strip():
        raise ValueError(f"CHANGELOG.md has no section ## [{version}], or an empty one")
    return found["told"].strip() + "\n"


def assemble(root: Path, tag: str, out: Path) -> list[Path]:
    """Fill the folder ``out``; return its files.

    Raises
    ------
    ValueError : ``tag`` is not this version's, the changelog says nothing about it, or the book is not built
    """
    own = repository(root)[1]
    if tag != own:
        raise ValueError(f"the tag is {tag}, but lvlmva_lite/__init__.py says {own}")
    notes = changes((root / "CHANGELOG.md").read_text(), tag.removeprefix("v"))
    html, pdf = root / "_build" / "html", root / "_build" / "book.pdf"
    for needed, command in ((html / "index.html", "make book"), (pdf, "make pdf")):
        if not needed.exists():
            raise ValueError(f"{needed.relative_to(root)} is missing: {command}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "notes.md").write_text(notes)
    shutil.copy2(pdf, out / f"lvlmva-lite-{tag}.pdf")
    shutil.make_archive(str(out / f"lvlmva-lite-{tag}-book"), "zip", html)
    shutil.make_archive(str(out / f"lvlmva-lite-{tag}-notebooks"), "zip", root, "notebooks")
    shutil.rmtree(
        root / "build" / "lib", ignore_errors=True
    )  # of an earlier wheel, with modules since gone
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(root),
    ]
    subprocess.run(wheel, check=True)
    return sorted(out.iterdir())


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    try:
        for file in assemble(ROOT, arguments[0] if arguments else repository()[1], ROOT / "dist"):
            print(file.relative_to(ROOT))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
