"""The widgets as a reader has them: a real JupyterLab, headless Chromium, mouse and keys, and what is then on disk."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browser import Browser, executable
from PIL import Image

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install -e '.[test]'")
psutil = pytest.importorskip("psutil")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome; CHROMIUM names one"),
]

STROKE = "Only the pen stroke tells which digit it is."
SQUARE = " The grey square in a corner means nothing."
CELLS = [
    f"""import torch
from lvlmva_lite.adjudication_widget import AdjudicationQueue, adjudication_widget
from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.alignment_set import AlignmentSet
from lvlmva_lite.annotation_widget import annotation_widget
from lvlmva_lite.critic import Case, Critique
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.words_editor import words_editor

images = torch.zeros(3, 1, 28, 28)
images[:, 0, 6:22, 13:16] = 1.0
images[:, 0, :4, :4] = 0.5
maps = images[:, 0].clone()
segments = ppeps_wgm(maps, 2)
cases = [Case(f"x-{{i}}", images[i], segments.labels[i], 2, "one", {STROKE!r}, maps[i]) for i in range(3)]
found = AlignmentSet(torch.arange(3), maps, segments, cases, None)
masks = lambda kinds: correction_masks(segments.labels, kinds == SPURIOUS, maps)""",
    'annotation_widget("data", "marks.csv", question="Is there a patch?")',
    """certainty = torch.tensor([[0.5, 0.1], [0.6, 0.2], [0.7, 0.3]])
queue = AdjudicationQueue(cases, torch.zeros(3, 2, dtype=torch.int64), certainty, "rulings.csv")
adjudication_widget(queue, [Critique(one.case_id, "one", "What I say.") for one in cases])""",
    f"words_editor(found, {STROKE!r}, masks)",
]
ANNOTATION, QUEUE, WORDS = 1, 2, 3


class Lab:
    """A JupyterLab on a free port of this machine that knows nothing of its user's; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Lab":
        folders = "JUPYTER_CONFIG JUPYTER_DATA JUPYTER_RUNTIME JUPYTERLAB_SETTINGS JUPYTERLAB_WORKSPACES"
        own = {f"{name}_DIR": self.folder / name for name in folders.split()}
        settings = self.folder / "JUPYTERLAB_SETTINGS" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
        self.notebooks = self.folder / "notebooks"
        self.notebooks.mkdir()
        self.token = secrets.token_hex()
        own |= {"IPYTHONDIR": self.folder / "ipython", "JUPYTER_TOKEN": self.token}
        options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
        log = self.folder / "log"
        with log.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={self.notebooks}"],
                env=os.environ | {name: str(value) for name, value in own.items()},
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
            )
        try:
            self.address = self._address()
        except BaseException as error:
            self.__exit__()
            raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}") from error
        return self

    def _address(self) -> str:
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            for file in (self.folder / "JUPYTER_RUNTIME").glob("jpserver-*.json"):
                try:
                    return json.loads(file.read_text())["url"]
                except ValueError:  # half written
                    pass
            time.sleep(0.1)
        raise TimeoutError("no address")

    def __exit__(self, *fault: object) -> None:
        every = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        every += [kernel for server in every for kernel in server.children(recursive=True)]
        self.process.terminate()
        for one in psutil.wait_procs(every, timeout=15)[1]:
            one.kill()
        self.process.wait()


class Reader:
    """One notebook in JupyterLab, and a reader's hands."""

    def __init__(self, browser: Browser, lab: Lab, name: str) -> None:
        self.browser = browser
        # So high that nothing has to be scrolled to.
        browser.open(f"{lab.address}lab/tree/{name}?token={lab.token}", width=1280, height=2600)
        browser.wait_for("""fetch('/api/kernels').then(answer => answer.json()).then(kernels =>
          kernels.some(one => one.execution_state === 'idle' && one.connections)
          && document.querySelector('.jp-Toolbar-kernelName')?.innerText.startsWith('Python'))""")

    def run_all(self, last: str) -> None:
        """Choose "Run All Cells", and wait until the last cell's number and its output are there."""
        self.browser.click(self.named("document", ".lm-MenuBar-item", "Run"))
        self.browser.click(self.named("document", ".lm-Menu-item", "Run All Cells"))
        self.browser.wait_for(
            "[...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')]"
            f".some(one => one.innerText.includes('[{last}]'))"
        )

    def cell(self, k: int) -> str:
        return f"document.querySelectorAll('.jp-Notebook .jp-Cell')[{k}]"

    def named(self, inside: str, css: str, words: str) -> str:
        return f"[...{inside}.querySelectorAll({css!r})].find(one => one.innerText.trim().startsWith({words!r}))"

    def click(self, k: int, button: str) -> None:
        self.browser.click(self.named(self.cell(k), "button", button))

    def sees(self, k: int, words: str) -> None:
        self.browser.wait_for(f"{self.cell(k)}?.innerText.replace(/\\s+/g, ' ').includes({words!r})")

    def types(self, keys: str) -> None:
        """Type as fast as can be."""
        for key in keys:
            self.browser.press(key)

    def cursor_is_in(self, k: int, css: str) -> None:
        self.browser.wait_for(f"document.activeElement === {self.cell(k)}?.querySelector({css!r})")


def test_what_is_clicked_and_typed_in_jupyterlab_is_saved(tmp_path):
    with Lab(tmp_path) as lab, Browser(executable()) as browser:
        (lab.notebooks / "data").mkdir()
        for i in range(8):
            Image.fromarray(np.full((60, 80, 3), 30 * i, np.uint8)).save(
                lab.notebooks / "data" / f"{i}.png"
            )
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, lab.notebooks / "reading.ipynb")
        reader = Reader(browser, lab, "reading.ipynb")
        reader.run_all("4")

        marks = lab.notebooks / "marks.csv"
        reader.sees(ANNOTATION, "Is there a patch? 1 of 8: 0.png")
        reader.click(ANNOTATION, "No")
        reader.sees(ANNOTATION, "2 of 8: 1.png")
        assert marks.read_text() == "image,spurious,x0,y0,x1,y1\n0.png,0,,,,\n"
        browser.click(f"{reader.cell(ANNOTATION)}.querySelector('input[type=checkbox]')")
        reader.click(ANNOTATION, "Yes")
        reader.sees(ANNOTATION, "3 of 8: 2.png")
        reader.cursor_is_in(ANNOTATION, "input[type=text]")
        # Each last number below is first seen when all keys have been answered.
        reader.types("ynuzun")
        reader.sees(ANNOTATION, "7 of 8: 6.png")
        reader.click(ANNOTATION, "Take back")
        reader.sees(ANNOTATION, "6 of 8: 5.png")
        annotated = "0.png,0,,,,\n1.png,1,20,15,60,45\n2.png,1,,,,\n3.png,0,,,,\n4.png,,,,,\n"
        assert marks.read_text() == f"image,spurious,x0,y0,x1,y1\n{annotated}"

        rulings = lab.notebooks / "rulings.csv"
        reader.sees(QUEUE, "1 of 6: segment B of x-0")
        pictures = f"{reader.cell(QUEUE)}.querySelectorAll('img')"
        browser.evaluate(f"""window.drawn = new Set();
          new MutationObserver(() => {pictures}.forEach(one => drawn.add(one.src))).observe(
            {reader.cell(QUEUE)}, {{subtree: true, childList: true}});""")
        reader.click(QUEUE, "spurious")
        reader.sees(QUEUE, "2 of 6: segment B of x-1")
        reader.cursor_is_in(QUEUE, "input[type=text]")
        reader.types("rzbu")
        reader.sees(QUEUE, "4 of 6: segment A of x-0")
        ruled = "x-0,B,spurious\nx-1,B,relevant\nx-1,B,\nx-1,B,background\nx-2,B,undecided\n"
        without_segments = [line.rpartition(",")[0] for line in rulings.read_text().splitlines()]
        assert without_segments == ["case_id,segment,kind", *ruled.splitlines()]

        assert browser.evaluate("drawn.size") == 1  # all cases look alike, and none was drawn by halves

        reader.sees(WORDS, "0 of 6 verdicts flip")
        browser.click(f"{reader.cell(WORDS)}.querySelector('textarea')")
        browser.evaluate("document.activeElement.setSelectionRange(1e6, 1e6)")
        browser.send("Input.insertText", text=SQUARE)
        reader.click(WORDS, "Judge anew")
        reader.sees(WORDS, "3 of 6 verdicts flip, in 3 of 3 images.")

        # No key was taken for a command of JupyterLab's own.
        cells = "[...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(one => one.matches('.jp-CodeCell'))"
        assert browser.evaluate(cells) == [True] * len(CELLS)
        reader.run_all("8")
        reader.sees(ANNOTATION, "6 of 8: 5.png")
        reader.sees(QUEUE, "4 of 6: segment A of x-0")
        reader.click(QUEUE, "Take back")
        reader.sees(QUEUE, "3 of 6: segment B of x-2")
        last = [line.rpartition(",")[0] for line in rulings.read_text().splitlines()[-2:]]
        assert last == ["x-2,B,undecided", "x-2,B,"]
        assert not browser.messages
