"""What CONTRIBUTING.md says, done: a package of its code blocks and entry points, and a run with each."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of a package that consists of the blocks, and how Python finds it."""
    folder = tmp_path_factory.mktemp("package")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL):
        (folder / name).write_text(code)
    points: dict[str, list[str]] = {"lvlmva_lite.critics": ["broken = no_such_module:X"]}
    for group, lines in re.findall(
        r'```toml\n\[project.entry-points."(.*?)"\]\n(.*?)\n```', TEXT, re.DOTALL
    ):
        points.setdefault(group, []).append(lines.replace('"', ""))
    about = folder / "belt-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: belt\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in points.items())
    )
    assert len(points) == 6
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return folder, {**os.environ, "PYTHONPATH": path}


def python(package, *arguments):
    folder, environment = package
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=folder
    )


RUN = """
import torch
from lvlmva_lite import methods, metrics, tasks
task = tasks.get("belt")()
prepared = {}
for explainer in ("deeplift-shap", "slopes"):
    config = task.config(critic="corners", explainer=explainer, n_segments=4, align_epochs=20, penalty="absolute")
    result = methods.run(task, config)
    print(explainer, result.scores["before"].wga, result.scores["after"].wga, result.critiques[0].critic)
"""


def test_a_package_with_one_of_each_runs_by_their_names(package):
    done = python(package, "-c", RUN)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        _, before, after, critic = line.split()
        assert critic == "corners"
        # Who masks the sticker's corner unlearns the sticker.
        assert float(after) > float(before)
    out = package[0] / "out"
    done = python(
        package, "-m", "lvlmva_lite.cli", "run", "belt", "--method", "patience", "--n-images", "80", "--segmenter",
        "quarters", "--explainer", "slopes", "--penalty", "absolute", "--critic", "corners", "--quiet", "--out", out,
        "--max-loss", "1", "--max-class-loss", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert (results["task"], results["method"], results["config"]["n_images"]) == ("belt", "patience", 80)
    assert {"segmenter": "quarters", "explainer": "slopes"}.items() <= results["config"].items()
    assert len(results["groups"]) == 4
    assert "patience" in done.stdout


NAMES = """
import torch
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Case, providers
from lvlmva_lite.registry import EXPLAINERS, METHODS, PENALTIES, SEGMENTERS, TASKS, RegistryError
assert providers.names()[:5] == ("lexicon", "openai", "recorded", "replay", "simulated")
assert {"corners", "broken"} <= set(providers.names())
for registry, name, own in (
    (TASKS, "belt", "knee"), (METHODS, "patience", "jtt"), (EXPLAINERS, "slopes", "deeplift-shap"),
    (SEGMENTERS, "quarters", "slic"), (PENALTIES, "absolute", "rrr"),
):
    assert {name, own} <= set(registry.names())
    assert registry.get(name)
    for taken in (name, own):
        try:
            registry.register(taken, object())
        except RegistryError as error:
            assert f"there is a {registry.kind} {taken!r} already" in str(error)
        else:
            raise AssertionError(taken)
Config(critic="corners", segmenter="quarters", explainer="slopes", penalty="absolute")
for field, name in (("critic", "corners"), ("segmenter", "quarters"), ("penalty", "absolute")):
    try:
        Config(**{field: "edges"})
    except ConfigError as error:
        assert name in str(error)
try:
    providers.check("broken", providers.CriticSettings(), providers.Connection(), "decoy-mnist")
except providers.SettingsError as error:
    assert "no_such_module" in str(error)
providers.check("corners", providers.CriticSettings(), providers.Connection(), "decoy-mnist")
critic, judge = providers.make("corners")
labels = torch.full((9, 9), 1); labels[:3, :3] = 0
case = Case("c", torch.zeros(1, 9, 9), labels, 2, "3", "words", torch.ones(9, 9))
print(critic.criticise(case).text)
providers.register("mine", lambda settings: (critic, judge))
assert providers.make("mine") == (critic, judge)
try:
    providers.register("lexicon", None)
except ValueError:
    print("taken")
"""


def test_names_are_listed_taken_ones_refused_and_a_broken_package_named(package):
    done = python(package, "-c", NAMES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Segment A is spurious. Segment B is spurious.\ntaken\n"


LINE = """
import importlib
import sys
from lvlmva_lite import registry
from lvlmva_lite.critic import providers
for home in ("tasks", "methods", "critic"):
    importlib.import_module(f"lvlmva_lite.{home}").__path__.append(sys.argv[1])
for kind, names in (
    (registry.TASKS, registry.TASKS.names()), (registry.METHODS, registry.METHODS.names()),
    (registry.CRITICS, providers.names()),
):
    assert "mine" in names, kind.kind
    assert kind.get("mine") == kind.kind
assert not [name for name in sys.modules if name.endswith("needs_what_is_not_there")]
"""


def test_in_this_package_one_line_registers_where_it_is_written(tmp_path):
    """A new file of tasks, of methods and of critics is found; those that register nothing are left alone."""
    (tmp_path / "a_new_file.py").write_text(
        "from lvlmva_lite.registry import CRITICS, METHODS, TASKS\n"
        "for kind in (CRITICS, METHODS, TASKS):\n"
        "    if kind.kind == {'lvlmva_lite.critic': 'critic', 'lvlmva_lite.methods': 'method',\n"
        "                     'lvlmva_lite.tasks': 'task'}[__package__]:\n"
        "        kind.register('mine', kind.kind)\n"
    )
    (tmp_path / "needs_what_is_not_there.py").write_text("import no_such_package\n")
    done = subprocess.run([sys.executable, "-c", LINE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "home"),
    [
        ("EXPLAINERS", "lvlmva_lite.attribution"), ("SEGMENTERS", "lvlmva_lite.segmenters"),
        ("PENALTIES", "lvlmva_lite.alignment"),
    ],
)  # fmt: skip
def test_what_stands_in_one_module_is_imported_when_a_name_is_asked_for(kind, home):
    """In a fresh process, by its registry alone."""
    code = (
        f"import sys\nfrom lvlmva_lite.registry import {kind} as kind\nassert {home!r} not in sys.modules\n"
        f"kind.names()\nassert {home!r} in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
