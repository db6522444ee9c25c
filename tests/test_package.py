import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lvlmva_lite"

# The order in which data flows; a module may use those before it, never those after.
ORDER = (
    "torchvision_compat", "files", "registry", "fingerprint", "agreement", "streams", "threads", "environment", "fills",
    "datasets", "models", "sampling", "completeness", "deeplift", "attribution", "mixture", "segmentation", "segment_choice",
    "superpixels", "critic", "config", "segmenters", "passes", "alignment", "contextual_decomposition", "crossed", "metrics", "tasks",
    "pretrained_weights", "alignment_set", "results", "pipeline", "methods", "tally", "run_folder", "plots", "experiments",
    "result_figures", "report", "em_by_hand", "exercises", "checks", "evaluation", "study", "widgets", "annotation_widget", "adjudication_widget",
    "words_editor", "cli",
)  # fmt: skip


def test_importing_touches_neither_network_nor_disk_nor_random_state():
    code = (
        "import sys, random, socket, torch, numpy as np\n"
        "import sklearn.linear_model  # draws from random by itself\n"
        "state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import lvlmva_lite.pipeline, lvlmva_lite.cli, lvlmva_lite.plots, lvlmva_lite.run_folder\n"
        "from lvlmva_lite.datasets import mnist\n"
        "assert mnist._load.cache_info().currsize == 0\n"
        "assert 'torchvision' not in sys.modules\n"
        "assert torch.equal(state[0], torch.get_rng_state())\n"
        "assert state[1] == np.random.get_state()[1].tolist() and state[2] == random.getstate()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_upward(name):
    import ast

    source = PACKAGE / name
    files = source.rglob("*.py") if source.is_dir() else [source.with_suffix(".py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lvlmva_lite"):
                parts = node.module.split(".")
                modules = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for used in set(modules) - {"__version__", name}:
                assert ORDER.index(used) < ORDER.index(name), f"{file.name} imports {used}"


def test_every_module_stands_in_the_order():
    modules = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert modules - {"__init__"} == set(ORDER)


def test_modules_fit_into_a_head():
    """None is above 400 lines, and the steps in their order take fewer than 300."""
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert not {file.name: n for file, n in lengths.items() if n > 400}
    assert lengths[PACKAGE / "pipeline.py"] < 300


def test_the_command_answers_before_anything_large_is_imported():
    code = (
        "import sys\nfrom lvlmva_lite.cli import build\nbuild(['--help'])\nbuild(['critic', '--help'])\n"
        "print(sorted({'torch', 'numpy', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_imports_little_besides_torch():
    code = (
        "import sys\nimport lvlmva_lite.methods\n"
        "late = {'sklearn', 'pandas', 'scipy.stats', 'scipy.optimize', 'scipy.ndimage', 'skimage.filters'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


WITH_EXAMPLES = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text("utf-8")]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_the_examples_in_docstrings_run(file):
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name))
    assert not result.failed
    # All that stand there: one of a function that doctest does not see would count as good.
    lines = re.findall(r"^ *>>> .*$", file.read_text("utf-8"), re.MULTILINE)
    assert result.attempted == sum("doctest: +SKIP" not in line for line in lines)


def test_torchvision_imports_without_its_compiled_operators():
    code = (
        "from lvlmva_lite.torchvision_compat import import_torchvision as f\n"
        "assert f() is f()\n"
        "import torch, torchvision\n"
        "assert torchvision.models.resnet18()(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
