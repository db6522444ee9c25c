"""The chapters with Colab's own versions, opened there as a reader would: a clean environment, run all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import papermill
import pytest
import torch
from filelock import FileLock

from lvlmva_lite.experiments.claims import contradicted, load_claims
from lvlmva_lite.experiments.record import recorded

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from notebooks import SETUP_TAG, repository  # noqa: E402

PINS = ROOT / "tests" / "colab.txt"
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
FEW = {
    "00_lvlm_va_in_ten_minutes": {"epochs": 1, "critic": "lexicon", "n_align": 60, "n_segments": 3},
    "14_talking_to_the_model": {"n_align": 60},
}
"""The chapters of the quick test, which show widgets, with parameters that make them short."""
BORROWED = ("torch", "torchgen", "functorch", "torchvision", "torchvision.libs", "nvidia", "triton")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        sys.platform != "linux" or sys.version_info >= (3, 13) or not shutil.which("git"),
        reason="Colab's versions are for Linux and Python 3.12 or older; its setup cell needs git",
    ),
]


def packages() -> Path:
    """The folder with Colab's packages, installed once for a list and a Python; every environment links them."""
    of = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / "_build" / "colab" / of
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = Path(tempfile.mkdtemp(dir=folder.parent))
            done = subprocess.run(
                [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--target", part, "--no-deps",
                 "--no-compile", "--retries", "1", "--timeout", "20", "--requirement", PINS],
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                shutil.rmtree(part)
                if "after connection broken" in done.stderr:
                    pytest.skip("the package registry cannot be reached")
                raise RuntimeError(f"Colab's packages could not be installed:\n{done.stderr[-2000:]}")
            part.rename(folder)
    return folder


class Colab:
    """An environment with Colab's packages and no lvlmva_lite, whose notebooks find a local repository.

    Parameters
    ----------
    folder : empty folder for all of it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env" / "bin" / "python"
        self._make_environment()
        address, tag = repository()
        variables = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{self._make_repository(tag)}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
            "PYTHONPATH": "",
        }
        kernel = folder / "jupyter" / "kernels" / "colab"
        kernel.mkdir(parents=True)
        command = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": command, "display_name": "Colab", "language": "python", "env": variables}
        (kernel / "kernel.json").write_text(json.dumps(spec))

    def _make_environment(self) -> None:
        venv.create(self.folder / "env", with_pip=False)
        # PyTorch is large, and Colab's own build needs a GPU's libraries: take the one that is here.
        here, there = Path(torch.__file__).parent.parent, next((self.folder / "env/lib").glob("python*"))
        borrowed = [here / name for name in BORROWED] + list(here.glob("torch*-*.dist-info"))
        for path in [*borrowed, *packages().iterdir()]:
            if path.exists() and path.name not in ("bin", "share", "etc"):
                (there / "site-packages" / path.name).symlink_to(path)

    def _make_repository(self, tag: str) -> Path:
        """The working tree, as the repository that the setup cell installs from."""
        tree = self.folder / "repository"
        listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
        git = ["git", "-C", tree, "-c", "user.name=reader", "-c", "user.email=reader@example.org"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "As it is"], ["tag", tag]):
            subprocess.run([*git, *command], check=True)
        return tree

    def run_all(self, chapter: str, parameters: dict) -> dict:
        """Execute a committed notebook from its first cell to its last; return the notebook."""
        (self.folder / "work").mkdir(exist_ok=True)
        executed = self.folder / "work" / f"{chapter}.ipynb"
        papermill.execute_notebook(
            str(ROOT / "notebooks" / f"{chapter}.ipynb"),
            str(executed),
            parameters=parameters,
            kernel_name="colab",
            progress_bar=False,
            cwd=str(self.folder / "work"),
        )
        return json.loads(executed.read_text("utf-8"))


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    made = Colab(tmp_path_factory.mktemp("colab"))
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(made.folder / "jupyter")
    yield made
    if before is None:
        del os.environ["JUPYTER_PATH"]
    else:
        os.environ["JUPYTER_PATH"] = before


def setup_said(notebook):
    cell = next(cell for cell in notebook["cells"] if SETUP_TAG in cell["metadata"].get("tags", ()))
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def shows_a_widget(notebook):
    return any(
        "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
    )


def test_colab_shows_the_chapters_with_widgets_and_fits_by_l1(colab):
    # One test, for the environment takes longest. The first notebook installs the package, ...
    first, second = (colab.run_all(chapter, parameters) for chapter, parameters in FEW.items())
    assert "restart the kernel" in setup_said(first)
    assert shows_a_widget(first)
    # ... which then is there, as after "restart and run all".
    assert setup_said(second) == ""
    assert shows_a_widget(second)

    # Before scikit-learn 1.8, l1_ratio alone meant L2.
    tests = [
        ROOT / "tests" / name
        for name in (
            "test_widgets.py",
            "test_annotation_widget.py",
            "test_words_editor.py",
            "test_adjudication_widget.py",
        )
    ]
    l1 = ROOT / "tests" / "test_l1_regression.py"
    done = subprocess.run(
        [colab.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, l1],
        cwd=colab.folder / "work", env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    versions = subprocess.run(
        [colab.python, "-c", "import sklearn, ipywidgets, lvlmva_lite as l;"
         "print(sklearn.__version__, ipywidgets.__version__, l.__file__)"],
        cwd=colab.folder / "work", env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert versions.stdout.startswith(f"1.6.1 7.7.1 {colab.folder}")


@pytest.mark.skipif(not os.environ.get("LVLMVA_COLAB"), reason="takes half an hour: make colab")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_colab_runs_every_chapter_as_it_is(colab, chapter):
    values = recorded(colab.run_all(chapter, {}))
    assert contradicted(load_claims(), chapter, values) == []
