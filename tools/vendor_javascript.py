"""Fetch the JavaScript of the rendered book, so that it works without a network.

MathJax and the Jupyter widget manager come from npm, in exact versions, into
``book/_static/vendor`` (which git ignores), and axe-core, with which the tests audit the pages and
which is no part of the book.  Without npm the book uses their public CDNs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("book/_static/vendor")
PACKAGES = {"mathjax": "3.2.2", "@jupyter-widgets/html-manager": "1.0.15", "axe-core": "4.14.1"}
# what is taken from each package (a file, or a folder with a final slash) and where it goes
FILES = {
    "mathjax": {
        "LICENSE": "mathjax/LICENSE",
        "es5/tex-chtml.js": "mathjax/tex-chtml.js",
        "es5/input/tex/extensions/": "mathjax/input/tex/extensions/",
        "es5/output/chtml/fonts/woff-v2/": "mathjax/output/chtml/fonts/woff-v2/",
    },
    "axe-core": {"axe.min.js": "axe-core/axe.min.js"},
    # The manager with the standard widgets alone: half the size of the one that loads others.
    "@jupyter-widgets/html-manager": {
        "dist/embed.js": "widgets/embed.js",
        "dist/embed.js.LICENSE.txt": "widgets/LICENSE.txt",
        # the icons of its buttons, looked for beside the script
        "dist/1551f4f60c37af51121f.woff2": "widgets/1551f4f60c37af51121f.woff2",
        "dist/7a3337626410ca2f4071.woff2": "widgets/7a3337626410ca2f4071.woff2",
        "dist/d878b0a6a1144760244f.woff2": "widgets/d878b0a6a1144760244f.woff2",
    },
}
# the settings that make Sphinx use them
SPHINX_CONFIG = {
    "mathjax_path": "vendor/mathjax/tex-chtml.js",
    "nb_ipywidgets_js": {"vendor/widgets/embed.js": {}},
}


def vendor(root: Path = ROOT) -> bool:
    """Fetch what is missing; return whether the book can do without CDNs."""
    folder = root / FOLDER
    versions = folder / "versions.json"
    if versions.exists() and json.loads(versions.read_text()) == PACKAGES:
        return True
    if shutil.which("npm") is None:
        return _fall_back("npm is not installed")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for package, version in PACKAGES.items():
                _fetch(package, version, Path(scratch), folder)
    except (subprocess.SubprocessError, OSError, KeyError, tarfile.TarError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return _fall_back(getattr(error, "stderr", None) or str(error))
    versions.write_text(json.dumps(PACKAGES, indent=1) + "\n")
    return True


def _fetch(package: str, version: str, scratch: Path, folder: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", f"{package}@{version}", "--json", "--pack-destination", str(scratch)],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    name = json.loads(packed.stdout)[0]["filename"].replace("@", "").replace("/", "-")
    with tarfile.open(scratch / name) as archive:
        members = {member.name.removeprefix("package/"): member for member in archive if member.isfile()}
        for source, target in FILES[package].items():
            names = [name for name in members if name.startswith(source)] if source[-1] == "/" else [source]
            for name in names:
                path = folder / (target + name.removeprefix(source) if source[-1] == "/" else target)
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise tarfile.TarError(f"{package} holds {name!r}, which leads out of its folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(members[name]).read())


def _fall_back(reason: str) -> bool:
    print(f"WARNING: {reason.strip()}", file=sys.stderr)
    print("WARNING: the book's mathematics and widgets will need a network (public CDNs)", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(0 if vendor() else 1)
