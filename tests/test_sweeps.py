"""Many runs, each once: what may kill a sweep, who may share its folder, and what it gathers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
import typer
import yaml

from lvlmva_lite.cli import one_run, options
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.store import AnswerStore
from lvlmva_lite.experiments import run_origin, sweep_copies, sweep_folder, sweep_workers
from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
from lvlmva_lite.experiments.run_origin import origin_of
from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder, SweepFolderError, seconds_left
from lvlmva_lite.experiments.sweep_spec import (
    Entry,
    SpecError,
    read_spec,
    values_of_words,
)
from lvlmva_lite.experiments.sweep_workers import LimitError, at_a_time, bytes_of
from lvlmva_lite.models import resnet50
from lvlmva_lite.pretrained_weights import _why_no_resnet50

CHAPTERS = Path(sweep_folder.__file__).parents[2] / "notebooks"

STAND_IN = """
import json, os, sys, time
from pathlib import Path
from lvlmva_lite.cli import one_run

def work(job, out):
    seed = job.parameters["seed"]
    with open("ran", "a") as file:
        file.write(f"{seed}\\n")
    print("this is seed", seed, flush=True)
    if seed == 1 and Path("bad").exists() and (out / "half").write_text("half a file"):
        raise RuntimeError("out of luck")
    while Path(f"wait-{seed}").exists():
        time.sleep(0.02)
    score = {"accuracy": seed / 10, "seconds": 1.0}
    results = {"method": "lvlm-va", "scores": {"before": score, "after": score}}
    (out / "results.json").write_text(json.dumps(results))

one_run.work = work
sys.exit(one_run.main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
"""A run without anything to compute: writes its seed to the file "ran", fails for seed 1 beside a file
"bad", and does not end while there is a file "wait-SEED"."""

SWEEP = """
import sys
from pathlib import Path
from lvlmva_lite.experiments.sweep_folder import SweepFolder
from lvlmva_lite.experiments.sweep_workers import run_here
folder = SweepFolder(Path("sweep"))
run_here(folder, folder.ids(), ["stand_in.py"], lambda *told: print(*told, flush=True), jobs=2)
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with the stand-in, in which its runs are carried out."""
    monkeypatch.chdir(tmp_path)
    # The processes that are started here are those of this very package.
    monkeypatch.setenv("PYTHONPATH", str(Path(sweep_folder.__file__).parents[2]), prepend=os.pathsep)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    (tmp_path / "sweep.py").write_text(SWEEP)
    return tmp_path


def job_of(seed, **parameters):
    # A device that need not be looked for saves each process the import of PyTorch.
    parameters = {"seed": seed, "device": "cpu"} | parameters
    job = Job("run", "tiny", {"seed": seed}, parameters, str(Path.cwd()))
    return replace(job, origin=origin_of(job))


def run_all(folder, ids=None, **keywords):
    told = {}
    sweep_workers.run_here(
        folder, ids or folder.ids(), ["stand_in.py"], told.__setitem__, jobs=2, **keywords
    )
    return told


def ran(there):
    return sorted(map(int, (there / "ran").read_text().split())) if (there / "ran").exists() else []


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


# What is to be run


def test_a_spec_is_every_combination_of_every_entry(tmp_path):
    (tmp_path / "spec.yml").write_text(
        "- run: knee\n  parameters: {n_align: [50, 100], critic: lexicon}\n  seeds: 2\n"
        "- chapter: a.ipynb\n  parameters: {sizes: [[1, 2], [3]]}\n"
    )
    knee, chapter = read_spec(tmp_path / "spec.yml")
    assert sorted(map(str, knee.runs())) == sorted(
        str({"n_align": n, "critic": "lexicon", "seed": seed}) for n in (50, 100) for seed in (0, 1)
    )
    assert [*chapter.runs()] == [{"sizes": [1, 2]}, {"sizes": [3]}]


def test_the_words_of_the_command_line_are_the_same_spec(tmp_path):
    (tmp_path / "spec.yml").write_text(
        'run: knee\nparameters: {description: ["a, b", c], lambda: [0.5, 1.0], balanced: [true]}\nseeds: 2\n'
    )
    one = yaml.safe_load((tmp_path / "spec.yml").read_text())
    (tmp_path / "spec.yml").write_text(yaml.safe_dump([one]))
    words = ["description='a, b',c", "lambda=0.5,1.0", "balanced=true", "seed=0,1"]
    (read,) = read_spec(tmp_path / "spec.yml")
    assert [*Entry("run", "knee", values_of_words(words)).runs()] == [*read.runs()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a list"),
        ("run: knee", "must hold a list"),
        ("- runs: knee", "give one of run and chapter and experiment"),
        ("- {run: knee, chapter: a.ipynb}", "give one of run and chapter and experiment"),
        ("- {run: knee, params: {a: 1}}", "unknown params"),
        ("- {run: knee, seeds: two}", "seeds must be a number of seeds or a list"),
        ("- {run: knee, seeds: true}", "seeds must be a number of seeds or a list"),
        ("- {run: knee, seeds: 2, parameters: {seed: 1}}", "not both"),
        ("- {run: knee, seeds: 0}", "seed has no value"),
        ("- {run: knee, parameters: {n_align: []}}", "n_align has no value"),
        ("- {run: knee, parameters: [1]}", "must be a mapping"),
        ("- {run: [knee]}", "run must be a name"),
        ("- run: knee\n  seeds: [0, 1\n", r"spec.yml: line 3, column 1 is no YAML \(expected"),
        ("- run: *knee", r"line 1, column 8 is no YAML \(found undefined alias"),
        ("- {run: knee, seeds: [2024-01-01]}", "is no number and no text"),
    ],
)
def test_a_spec_that_is_none_says_what_to_do(tmp_path, text, message):
    (tmp_path / "spec.yml").write_text(text)
    with pytest.raises(SpecError, match=message):
        read_spec(tmp_path / "spec.yml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seed"], "NAME=VALUE"),
        (["=1"], "NAME=VALUE"),
        (["seed=0", "seed=1"], "given twice"),
        (["seed="], "no value"),
        (["words=[a"], "quotation marks"),
        (["words=2024-01-01"], "2024-01-01 is no number and no text"),
        (["scale=1,.inf"], "inf is no finite number"),
        (["sizes=[1,.nan]"], "nan is no finite number"),
    ],
)
def test_words_that_are_no_setting_say_what_to_do(settings, message):
    with pytest.raises(SpecError, match=message):
        values_of_words(settings)


def tiny_notebook(path, *lines):
    """A chapter with three parameters and, after ``lines``, three numbers."""
    code = "from lvlmva_lite.experiments.record import record\n" + "\n".join(lines)
    code += (
        "\nrecord('accuracy_before', 0.5)\nrecord('accuracy_after', 0.5 + seed / 100)\nrecord('n', seed)"
    )
    parameters = nbformat.v4.new_code_cell("seed = 0\nscale = 1.0\nwords = 'a'  # or b\n")
    parameters.metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[parameters, nbformat.v4.new_code_cell(code)], metadata={"kernelspec": kernel}
    )
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "decoy-mnist", "-p", "n_align=50", "-p", "sead=0,1"],
            "has no parameter 'sead'; it takes:",
        ),
        (["run", "decoy-mnist", "-p", "n_align=50,60.5"], "n_align must be a whole number; got 60.5"),
        (["run", "decoy-mnist", "-p", "n_align=50,many"], "n_align must be a whole number; got 'many'"),
        (["run", "decoy-mnist", "-p", "n_segments=6,51"], "must lie between 1 and 50; got 51"),
        (["run", "decoy-mnist", "-p", "balanced=1"], "balanced must be True or False"),
        (["run", "decoy-mnist", "-p", "samples=two"], "samples must be of the kind of 1; got 'two'"),
        (["run", "decoy-mnist", "-p", "lambda=1", "-p", "method=lvlm-va,magic"], "unknown method 'magic'"),
        (["run", "decoy-mnist", "-p", "method=[a]"], "method must be a text; got ['a']"),
        (["run", "decoy-mnist", "-p", "model=[a]"], "model must be a text; got ['a']"),
        (["run", "folder", "-p", "mean=0.5"], "mean must be a text; got 0.5; put it in quotation marks"),
        (
            ["run", "knee", "-p", "model=resnet50", "-p", "weights=nofile.pt"],
            "there is no file of weights nofile.pt",
        ),
        (
            ["chapter", CHAPTERS / "08_knee.ipynb", "-p", "model=vgg"],
            "model must be '' or 'small_resnet' or",
        ),
        (
            ["chapter", CHAPTERS / "08_knee.ipynb", "-p", "weights=nofile.pt"],
            "weights must be 'imagenet' or 'none' or a file that is there, got 'nofile.pt'",
        ),
        (
            ["chapter", CHAPTERS / "08_knee.ipynb", "-p", "data_root=/nowhere"],
            "data_root must be a folder that is there",
        ),
        (["chapter", CHAPTERS / "09_skin.ipynb", "-p", "critic=magic"], "critic must be 'lexicon' or"),
        (
            ["chapter", CHAPTERS / "16_real_images.ipynb", "-p", "knee_root=no"],
            "must be a folder",
        ),
        (
            ["chapter", CHAPTERS / "13_your_own_model.ipynb", "-p", "data=no"],
            "data must be a file or a folder",
        ),
        (["run", "decoys", "-p", "seed=0"], "unknown task 'decoys'; choose one of:"),
        (
            ["chapter", "tiny.ipynb", "-p", "sead=0"],
            "has no parameter 'sead'; it takes: seed, scale, words",
        ),
        (["chapter", "tiny.ipynb", "-p", "seed=0,1.5"], "seed must be a whole number, got 1.5"),
        (["chapter", "tiny.ipynb", "-p", "scale=1,true"], "scale must be a number, got True"),
        (["chapter", "tiny.ipynb", "-p", "words=1"], "words must be a text, got 1"),
        (["chapter", "none.ipynb", "-p", "seed=0"], "there is no notebook"),
        (["spec.yaml"], "cannot read the spec spec.yaml"),
        (["run"], "give SPEC, or run TASK"),
        (["run", "decoy-mnist", "--jobs", "1000000"], "give --jobs"),
        (["run", "decoy-mnist", "--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"], "leave them out"),
        (["run", "decoy-mnist", "--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers"),
        (["run", "decoy-mnist", "--memory", "much"], "--memory takes a size"),
        (["run", "decoy-mnist", "--memory", "900TB"], "does not fit into"),
        (["status", "nothing"], "nothing holds no sweep"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_run(there, lvlmva, words, message):
    tiny_notebook("tiny.ipynb")
    answer = lvlmva("sweep", *words, *([] if words[0] == "status" else ["--out", "sweep"]))
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not Path("sweep").exists()


def test_a_dry_run_checks_and_starts_nothing(there, lvlmva):
    answer = lvlmva("sweep", "run", "decoy-mnist", "-p", "lambda=1e-1,2", "-p", "seed=0,1", "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert len(set(answer.stdout.split("\n"))) == 5
    assert "run decoy-mnist lambda=2 seed=1" in answer.stdout
    twice = lvlmva("sweep", "run", "decoy-mnist", "-p", "seed=0,0", "--dry-run").stdout
    assert twice.count("\n") == 1, "what is the same run is listed once"


# An id is made of code, data, parameters and libraries


def test_an_id_is_of_all_that_numbers_depend_on(there, monkeypatch):
    Path("knee_root").mkdir()
    Path("knee_root/a.png").write_bytes(b"1234")
    Path("words.txt").write_text("some")
    parameters = {"data_root": "knee_root", "description": "words.txt", "n": 3, "device": "auto"}
    known = {job_of(0, **parameters).id}
    assert known == {job_of(0, **dict(reversed(parameters.items()))).id}, "the order is nothing"

    def is_new():
        id = job_of(0, **parameters).id
        fresh = id not in known
        known.add(id)
        return fresh

    assert not is_new()
    known.add(job_of(1, **parameters).id)
    known.add(job_of(0, **parameters | {"n": 4}).id)
    assert len(known) == 3
    Path("knee_root/b.png").write_bytes(b"1")
    assert is_new(), "a further image"
    Path("knee_root/b.png").write_bytes(b"12")
    assert is_new(), "another image"
    Path("words.txt").write_text("other")
    assert is_new(), "another file"
    with monkeypatch.context() as patch:
        patch.setattr(run_origin, "package_fingerprint", lambda: "another tree")
        assert is_new(), "other code"
    with monkeypatch.context() as patch:
        patch.setattr(run_origin, "version", lambda name: "0")
        assert is_new(), "other libraries"
    for library in ("torchvision", "scikit-image"):
        with monkeypatch.context() as patch:
            patch.setattr(
                run_origin, "version", lambda name, it=library: "0" if name == it else version(name)
            )
            assert is_new(), library
    with monkeypatch.context() as patch:
        patch.setattr(run_origin, "device_here", lambda: "a GPU")
        assert is_new(), "another device"
        parameters["device"] = "cpu"
        assert is_new()
    assert not is_new(), "a GPU that is not used is nothing"
    parameters["device"] = "auto"
    assert not is_new()


def test_an_id_is_of_own_images_own_networks_and_replayed_answers(there):
    Path("belt").mkdir()
    for name in ("belt/a.png", "belt/a-mask.png", "net.py"):
        Path(name).write_bytes(b"1")
    Path("belt.csv").write_text("path,class,mask\nbelt/a.png,nut,belt/a-mask.png\nbelt/none.png,nut,\n")
    store = AnswerStore(Path("answers"))
    replayed = {"critic": "replay", "critic_store": "answers"}

    def ids():
        kinds = ({"data": "belt"}, {"data": "belt.csv"}, {"model": "net.py:Net"}, replayed)
        return [job_of(0, **parameters).id for parameters in (*kinds, replayed | {"critic": "openai"})]

    def changed():
        nonlocal before
        after, was = ids(), before
        before = after
        return [one != other for one, other in zip(after, was, strict=True)]

    before = ids()
    assert not any(changed())
    Path("belt/a.png").write_bytes(b"12")
    assert changed() == [True, True, False, False, False]
    Path("belt/a-mask.png").write_bytes(b"12")
    assert changed() == [True, True, False, False, False]
    Path("net.py").write_text("Net = 2")
    assert changed() == [False, False, True, False, False]
    store.add(Request("critic", "m", "critic-1", [], {}), Answer("A"))
    assert changed() == [False, False, False, True, False], "an openai run adds to its store while it runs"


def test_a_server_is_part_of_what_a_model_of_one_name_is(there, lvlmva, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    words = [
        "sweep",
        "run",
        "decoy-mnist",
        "-p",
        "critic=openai",
        "-p",
        "critic_model=m",
        "-p",
        "no_cost=true",
    ]
    servers = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")
    ids = {lvlmva(*words, "-p", f"base_url={one}", "--dry-run").stdout.split()[0] for one in servers}
    assert len(ids) == 2


@pytest.fixture
def no_way_out(monkeypatch, tmp_path):
    """A proxy that is dead, and a cache of torch's that holds nothing."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    _why_no_resnet50.cache_clear()


WAYS = ("--weights FILE", "--weights none", "--model efficientnet_lite0", "torch/hub/checkpoints")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "knee", "--model", "resnet50", "--out", "x"],
        ["sweep", "run", "knee", "-p", "model=resnet50", "--dry-run"],
    ],
)
def test_a_resnet50_without_a_network_is_a_line_that_names_the_ways_out(there, lvlmva, no_way_out, words):
    answer = lvlmva(*words)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert all(way in answer.stderr for way in WAYS)
    assert not Path("x").exists()


def test_a_network_that_goes_away_later_is_told_in_the_same_line(no_way_out, capsys):
    with pytest.raises(typer.Exit), options.failures_told():
        resnet50((3, 64, 64), 2)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert all(way in told for way in WAYS)


@pytest.mark.parametrize("chapter", ["08_knee", "09_skin"])
def test_a_chapter_says_the_same_before_its_first_picture_under_plain_papermill(there, no_way_out, chapter):
    papermill = pytest.importorskip("papermill")
    with pytest.raises(papermill.exceptions.PapermillExecutionError) as failed:
        papermill.execute_notebook(
            CHAPTERS / f"{chapter}.ipynb", "out.ipynb", {"model": "resnet50"}, kernel_name="python3",
            progress_bar=False,
        )  # fmt: skip
    assert failed.value.ename == "ConfigError"
    told = failed.value.evalue
    assert "\n" not in told
    assert all(way.replace("--weights ", "weights=").replace("--model ", "model=") in told for way in WAYS)
    ran = [cell for cell in nbformat.read("out.ipynb", 4).cells if cell.get("execution_count")]
    assert "check_weights(" in ran[-1].source
    assert len(ran) == 4  # Colab's, both of parameters, and this one


def test_weights_that_are_there_ask_nobody(there, lvlmva, no_way_out):
    Path("torch/hub/checkpoints").mkdir(parents=True)
    Path("torch/hub/checkpoints/resnet50-11ad3fa6.pth").touch()
    Path("mine.pt").touch()
    for more in ([], ["-p", "weights=none"], ["-p", "weights=mine.pt"]):
        words = ["sweep", "run", "knee", "-p", "model=resnet50", *more, "--dry-run"]
        assert lvlmva(*words).returncode == 0


def test_a_chapter_counts_by_its_cells_and_not_by_their_outputs(there):
    notebook = tiny_notebook(there / "tiny.ipynb")

    def id_now():
        job = Job("chapter", str(notebook), {}, {"seed": 0}, str(there))
        return replace(job, origin=origin_of(job)).id

    first, content = id_now(), json.loads(notebook.read_text())
    content["cells"][1]["execution_count"] = 7
    notebook.write_text(json.dumps(content))
    assert id_now() == first
    content["cells"][1]["source"] += ["\npass"]
    notebook.write_text(json.dumps(content))
    assert id_now() != first


def test_a_default_that_is_spelt_out_is_the_same_run(there, lvlmva):
    notebook = tiny_notebook("tiny.ipynb")
    ids = [
        lvlmva("sweep", *words, "--dry-run").stdout.split()[0]
        for words in (
            ["chapter", notebook, "-p", "seed=0"],
            ["chapter", notebook, "-p", "scale=1.0"],
            ["run", "decoy-mnist", "-p", "seed=0"],
            ["run", "decoy-mnist", "-p", "lambda=2.0"],
            ["run", "decoy-mnist", "-p", "penalty-weight=2.0"],
        )
    ]
    assert len(set(ids)) == 2


# Nothing lost, nothing twice


def test_what_is_finished_is_not_run_again_and_what_failed_is_kept_and_listed(there, lvlmva):
    folder = SweepFolder(there / "sweep")
    ids = folder.add(job_of(seed) for seed in range(3))
    Path("bad").touch()
    told = run_all(folder)
    assert [told[id] for id in ids] == ["finished", "failed", "finished"]
    assert ran(there) == [0, 1, 2]
    assert "out of luck" in folder.failure(ids[1])["error"]
    assert (folder.out(ids[1]) / "half").exists()
    answer = lvlmva("sweep", "status", "sweep")
    assert answer.stdout.startswith("3 runs: 2 finished, 1 failed, 0 under way, 0 waiting\n")
    assert f"failed: {ids[1]} run tiny seed=1: RuntimeError: out of luck" in answer.stderr
    run_all(folder)
    assert ran(there) == [0, 1, 2]
    Path("bad").unlink()
    folder.forget_failure(ids[1])
    assert run_all(folder, [ids[1]]) == {ids[1]: "finished"}
    assert ran(there) == [0, 1, 1, 2]
    assert folder.log(ids[1]).read_text().count("this is seed 1") == 2, "both logs are there"
    assert all(folder.done(id)["seconds"] >= 0 for id in ids)


def test_a_killed_run_is_named_and_does_not_pass_for_whole(there):
    folder = SweepFolder(there / "sweep")
    (id,) = folder.add([job_of(0)])
    Path("wait-0").touch()
    process = sweep_workers.start(folder, id, ["stand_in.py"])
    wait_until(lambda: ran(there))
    assert folder.state(id) == "under way"
    process.kill()
    assert sweep_workers.settle(folder, id, process.wait()) == "failed"
    assert folder.failure(id)["error"].startswith("killed by SIGKILL")
    assert folder.done(id) is None


@pytest.mark.slow
def test_a_killed_sweep_ends_its_runs_and_is_taken_up(there):
    folder = SweepFolder(there / "sweep")
    ids = folder.add(job_of(seed) for seed in range(4))
    Path("wait-1").touch()
    sweep = subprocess.Popen([sys.executable, "sweep.py"], stdout=subprocess.PIPE, text=True)
    wait_until(lambda: folder.done(ids[0]) and 1 in ran(there))
    sweep.kill()
    sweep.communicate()
    wait_until(lambda: not folder.under_way(ids[1]), 20)  # nobody told it to end, but it did
    Path("wait-1").unlink()
    n_before = ran(there).count(0)
    assert folder.done(ids[1]) is None
    assert folder.failure(ids[1]) is None
    again = subprocess.run([sys.executable, "sweep.py"], capture_output=True, text=True, check=True)
    assert f"{ids[1]} finished" in again.stdout
    assert all(folder.state(id) == "finished" for id in ids)
    assert ran(there).count(0) == n_before == 1
    assert ran(there).count(1) == 2


def test_killed_after_its_last_file_it_is_whole(there):
    folder = SweepFolder(there / "sweep")
    (id,) = folder.add([job_of(0)])
    run_all(folder)
    (folder.out(id).parent / "done.json").unlink()
    assert folder.state(id) == "waiting"
    assert run_all(folder) == {id: "finished"}
    assert ran(there) == [0]


@pytest.mark.slow
def test_two_sweeps_on_one_folder_run_nothing_twice(there):
    folder = SweepFolder(there / "sweep")
    ids = folder.add(job_of(seed) for seed in range(4))
    Path("wait-0").touch()
    sweeps = [
        subprocess.Popen([sys.executable, "sweep.py"], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    wait_until(lambda: all(folder.done(id) for id in ids[1:]))
    Path("wait-0").unlink()
    said = [sweep.communicate(timeout=60)[0] for sweep in sweeps]
    assert ran(there) == [0, 1, 2, 3]
    for words in said:
        assert sorted(words.split("\n")[:-1]) == sorted(f"{id} finished" for id in ids)


def test_a_run_of_a_sweep_is_measured_whatever_its_alignment_costs(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("lvlmva_lite.cli.run.run", lambda *_, **settings: asked.update(settings))
    one_run.work(Job("run", "decoy-mnist", {"seed": 0}, {"seed": 0}, str(tmp_path)), tmp_path)
    assert (asked["max_loss"], asked["max_class_loss"]) == (1, 1)


def test_a_run_is_refused_by_code_that_is_not_its_own(there, monkeypatch):
    folder = SweepFolder(there / "sweep")
    (id,) = folder.add([job_of(0)])
    monkeypatch.setattr(run_origin, "package_fingerprint", lambda: "another tree")
    with pytest.raises(SweepFolderError, match="the code here are not those"):
        folder.carry_out(id, lambda job, out: pytest.fail("it was run"))
    assert folder.state(id) == "waiting"


def test_newer_code_takes_the_place_of_older_in_the_same_request(there, monkeypatch, lvlmva):
    folder = SweepFolder(there / "sweep")
    (old,) = folder.add([job_of(0)])
    run_all(folder)
    with monkeypatch.context() as patch:
        patch.setattr(run_origin, "package_fingerprint", lambda: "another tree")
        (new,) = folder.add([job_of(0)])
    folder.add([job_of(5)])
    assert folder.ids(older=True) == [old]
    assert new in folder.ids()
    assert "beside them 1 finished by older code" in lvlmva("sweep", "status", "sweep").stdout


def test_a_folder_of_something_else_is_refused(there):
    Path("paper.pdf").touch()
    with pytest.raises(SweepFolderError, match=r"paper\.pdf is a file; give --out a folder"):
        SweepFolder(Path("paper.pdf"))
    Path("other").mkdir()
    Path("other/thesis.tex").touch()
    with pytest.raises(SweepFolderError, match="something else"):
        SweepFolder(Path("other"))
    assert os.listdir("other") == ["thesis.tex"]


def test_the_time_left_is_what_like_runs_took(there):
    folder = SweepFolder(there / "sweep")
    ids = folder.add(job_of(seed) for seed in range(4))
    for id, seconds in zip(ids, (10, 20), strict=False):
        (folder.out(id).parent / "done.json").write_text(json.dumps({"seconds": seconds}))
    (folder.out(ids[2]).parent / "started.json").write_text(json.dumps({"when": 1000.0}))
    states = dict(zip(ids, ("finished", "finished", "under way", "waiting"), strict=True))
    assert seconds_left(folder, states, 1004.0) == pytest.approx(15 - 4 + 15)
    assert seconds_left(folder, states, 2000.0) == pytest.approx(15)
    assert seconds_left(folder, dict.fromkeys(ids[2:], "waiting"), 0.0) is None


# What fits


def test_sizes_are_read_as_they_are_written():
    sizes = {"4GB": 4e9, "1.5 GiB": 1.5 * 2**30, "512mb": 512e6, "2e9": 2e9, "7K": 7000}
    assert {text: bytes_of(text) for text in sizes} == sizes
    for text in ("", "GB", "4 apples", "-1GB", "1.2.3GB", "0"):
        with pytest.raises(LimitError, match="--memory takes a size"):
            bytes_of(text)


def test_runs_stay_within_cores_and_memory(monkeypatch):
    monkeypatch.setattr(sweep_workers, "cores_here", lambda: 8)
    monkeypatch.setattr(sweep_workers, "memory_here", lambda: 16 * 1000**3)
    assert at_a_time(None, None, None) == 1
    assert at_a_time(2, None, None) == 2
    assert at_a_time(3, 6, None) == 3
    assert at_a_time(None, None, bytes_of("5GB")) == 3
    assert at_a_time(None, None, bytes_of("1GB"), threads=4) == 2
    assert at_a_time(1, None, None, threads=32) == 1, "alone it may take its time"
    for jobs, cores, memory, threads, message in (
        (9, None, None, 1, "give --jobs 8"),
        (3, 2, None, 1, "give --jobs 2"),
        (1, 9, None, 1, "--cores must lie between 1 and 8"),
        (4, None, "5GB", 1, "give --jobs 3"),
        (None, None, "17GB", 1, "does not fit"),
        (3, None, None, 4, "3 runs of 4 threads each are too many for 8 cores; give --jobs 2"),
        (0, None, None, 1, "at least 1"),
    ):
        with pytest.raises(LimitError, match=message):
            at_a_time(jobs, cores, memory and bytes_of(memory), threads=threads)


# By papermill


@pytest.mark.slow
def test_chapters_by_the_command(there, lvlmva):
    """The same numbers as `lvlmva chapter`; one that fails keeps its notebook."""
    tiny_notebook("tiny.ipynb", "if words == 'bad' and seed: raise ValueError('no such luck')")
    answer = lvlmva(
        "sweep", "chapter", "tiny.ipynb", "-p", "seed=0,1", "-p", "words=a,bad", "--out", "sweep"
    )
    assert answer.returncode == 1
    assert "1 of 4 runs failed; --retry-failed" in answer.stderr
    folder = SweepFolder(Path("sweep"))
    states = {str(folder.job(id)): id for id in folder.ids()}
    bad = states["chapter tiny seed=1 words=bad"]
    assert "no such luck" in (folder.out(bad) / "tiny.ipynb").read_text()
    assert folder.failure(bad)["error"].endswith("ValueError: no such luck")
    good = states["chapter tiny seed=1 words=a"]
    assert json.loads((folder.out(good) / "tiny.json").read_text()) == run_chapter(
        Path("tiny.ipynb"), {"seed": 1}, Path("alone"), progress=False
    )
    assert lvlmva("collect", "sweep").returncode == 0


@pytest.mark.slow
def test_a_killed_kernel_ends_a_chapter_with_its_name(there):
    notebook = tiny_notebook(Path("tiny.ipynb"), "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ChapterError, match=r"the kernel of tiny.ipynb died"):
        run_chapter(notebook, {}, Path("out"), progress=False)
    assert not Path("out/tiny.json").exists()


# Copies at papermill's addresses


class Shelf(dict):
    """A store such as S3, as papermill's handlers have it."""

    def write(self, text, address):
        if "full" in address:
            raise OSError("no room")
        self[address] = text


def test_finished_runs_are_copied_to_whatever_papermill_writes_to_once(there):
    from papermill.iorw import papermill_io

    papermill_io.register("shelf://", shelf := Shelf())
    folder = SweepFolder(there / "sweep")
    (id,) = folder.add([job_of(0)])
    run_all(folder)
    for address in ("shelf://bucket/runs", str(there / "elsewhere/runs")):
        sweep_copies.copy_run(folder, id, address)
    kept = (folder.out(id) / "results.json").read_text()
    assert shelf[f"shelf://bucket/runs/{id}/results.json"] == kept
    assert (there / "elsewhere/runs" / id / "results.json").read_text() == kept
    assert list(shelf)[-1].endswith("job.json")
    shelf.clear()
    sweep_copies.copy_run(folder, id, "shelf://bucket/runs")
    assert not shelf
    with pytest.raises(SweepFolderError, match=r"cannot write shelf://full.* no room"):
        sweep_copies.copy_run(folder, id, "shelf://full")
    with pytest.raises(SweepFolderError, match="no room"):
        sweep_copies.require_writable("shelf://full")


def copied_to(address, there):
    """A sweep of one run, finished and copied there; its results and the folder's name at the address."""
    folder = SweepFolder(there / "sweep")
    (id,) = folder.add([job_of(0)])
    run_all(folder)
    sweep_copies.require_writable(address)
    sweep_copies.copy_run(folder, id, address)
    return (folder.out(id) / "results.json").read_bytes(), id


@pytest.mark.slow
def test_finished_runs_are_copied_to_a_bucket_of_s3(there, monkeypatch):
    """Against moto's server on loopback, which speaks as Amazon's does."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for name, value in (
        ("ACCESS_KEY_ID", "x"),
        ("SECRET_ACCESS_KEY", "y"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store = boto3.client("s3")
        store.create_bucket(Bucket="results")
        results, id = copied_to("s3://results/mine", there)
        assert store.get_object(Bucket="results", Key=f"mine/{id}/results.json")["Body"].read() == results
        names = {one["Key"].rpartition("/")[2] for one in store.list_objects(Bucket="results")["Contents"]}
        assert {"job.json", "done.json", "log.txt", "results.json"} <= names
        with pytest.raises(SweepFolderError, match=r"cannot write s3://nobodys/a/sweep\.txt"):
            sweep_copies.require_writable("s3://nobodys/a")
    finally:
        server.stop()


@pytest.mark.slow
def test_finished_runs_are_copied_to_a_bucket_of_google_cloud(there, monkeypatch):
    """Against an emulator on loopback (pip install papermill[gcs] gcp-storage-emulator); not Google's own."""
    core = pytest.importorskip("gcsfs.core")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    from papermill import iorw

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Nobody's key, and the plain client: the other asks by gRPC first, which the emulator does not speak.
    monkeypatch.setattr(iorw, "GCSFileSystem", lambda: core.GCSFileSystem(token="anon", endpoint_url=url))
    iorw.papermill_io.register("gs://", iorw.GCSHandler())
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="results")
    server.start()
    try:
        results, id = copied_to("gs://results/mine", there)
        objects = f"{url}/storage/v1/b/results/o"
        with urlopen(f"{objects}/mine%2F{id}%2Fresults.json?alt=media") as answer:
            assert answer.read() == results
        with urlopen(objects) as answer:
            names = {one["name"].rpartition("/")[2] for one in json.load(answer)["items"]}
        assert {"job.json", "done.json", "log.txt", "results.json"} <= names
        with pytest.raises(SweepFolderError, match=r"cannot write gs://nobodys/a/sweep\.txt"):
            sweep_copies.require_writable("gs://nobodys/a")
    finally:
        server.stop()


# On a cluster


@pytest.mark.slow
def test_dask_workers_carry_out_all_runs_although_one_is_killed(there, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra: cluster)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    folder = SweepFolder(there / "sweep")
    ids = folder.add(job_of(seed) for seed in range(4))
    Path("wait-0").touch()
    dask, quiet = [sys.executable, "-m", "distributed.cli.dask_scheduler"], {"stderr": subprocess.DEVNULL}
    host, port = address.removeprefix("tcp://").split(":")
    processes = [subprocess.Popen([*dask, "--host", host, "--port", port, "--no-dashboard"], **quiet)]
    dask[-1] = "distributed.cli.dask_worker"
    try:
        processes += [
            subprocess.Popen([*dask, address, "--no-nanny", "--nthreads", "1", "--no-dashboard"], **quiet)
            for _ in range(2)
        ]
        code = (
            "import sys\nfrom pathlib import Path\n"
            "from lvlmva_lite.experiments.sweep_folder import SweepFolder\n"
            "from lvlmva_lite.experiments.sweep_workers import run_on_dask\n"
            "folder = SweepFolder(Path('sweep'))\n"
            f"run_on_dask(folder, folder.ids(), ['stand_in.py'], print, address={address!r})\n"
        )
        sweep = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        processes.append(sweep)
        wait_until(lambda: 0 in ran(there) and all(folder.done(id) for id in ids[1:]), 120)
        # The worker that has seed 0 is the parent of its process.
        began = json.loads((folder.out(ids[0]).parent / "started.json").read_text())
        status = Path(f"/proc/{began['process']}/status").read_text().split("PPid:")[1]
        worker = int(status.split()[0])
        assert worker in [process.pid for process in processes[1:3]]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: ran(there).count(0) == 2, 120)
        Path("wait-0").unlink()
        said = sweep.communicate(timeout=120)[0]
        notebook = tiny_notebook(
            "tiny.ipynb", "import os", "record('threads', os.environ['OMP_NUM_THREADS'])"
        )
        words = [sys.executable, "-m", "lvlmva_lite.cli", "sweep", "chapter", notebook, "-p", "seed=3"]
        alone = subprocess.Popen([*words, "--out", "alone"], **quiet)
        spread = subprocess.Popen([*words, "--out", "spread", "--scheduler", address], **quiet)
        assert (alone.wait(120), spread.wait(120)) == (0, 0)
    finally:
        for process in processes:
            process.kill()  # a worker that is asked to end waits for its run
        for process in processes:
            process.wait()
    assert sweep.returncode == 0
    assert sorted(said.split("\n")[:-1]) == sorted(f"{id} finished" for id in ids)
    assert ran(there) == [0, 0, 1, 2, 3]
    # By the command: the same run, of the same id, and the same numbers.
    (here,), (elsewhere,) = (
        sorted(Path(name).glob("runs/*/out/tiny.json")) for name in ("alone", "spread")
    )
    assert here.parts[2] == elsewhere.parts[2]
    assert here.read_text() == elsewhere.read_text()
    assert json.loads(here.read_text())["threads"] == "1"


def test_a_run_computes_with_the_threads_of_its_settings_wherever_it_runs(there):
    Path("threads.py").write_text("import os; print('threads:', os.environ['OMP_NUM_THREADS'])")
    folder = SweepFolder(there / "sweep")
    for parameters, threads in (({}, 1), ({"threads": 3}, 3)):
        (id,) = folder.add([job_of(0, **parameters)])
        assert sweep_workers.start(folder, id, ["threads.py"]).wait() == 0
        assert folder.log(id).read_text().endswith(f"threads: {threads}\n")


def test_without_dask_or_scheduler_it_is_said(there, monkeypatch):
    folder = SweepFolder(there / "sweep")
    ids = folder.add([job_of(0)])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        with pytest.raises(LimitError, match=r"pip install 'lvlmva-lite\[cluster\]'"):
            sweep_workers.run_on_dask(folder, ids, [], print, address="tcp://127.0.0.1:1")


def test_entries_vary_the_last_parameter_fastest():
    entry = Entry("run", "knee", {"a": [1, 2], "b": [3, 4]})
    assert [tuple(one.values()) for one in entry.runs()] == [(1, 3), (1, 4), (2, 3), (2, 4)]


HOW_TO = Path(__file__).parent.parent / "book/how_to_run.md"


def block(language, within):
    """A code block of the how-to page."""
    blocks = [part.partition("\n```")[0] for part in HOW_TO.read_text().split(f"```{language}\n")[1:]]
    (found,) = [text for text in blocks if within in text]
    return found


def test_the_spec_of_the_how_to_page_is_one(there):
    Path("sizes.yml").write_text(block("yaml", "run: knee"))
    assert [len([*entry.runs()]) for entry in read_spec(Path("sizes.yml"))] == [3 * 2 * 7, 2 * 2]


@pytest.mark.slow
def test_the_job_script_of_the_how_to_page_starts_a_worker(there):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    code = block("python", "SLURMCluster").partition("cluster.scale")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("#!")
    assert {"#SBATCH -n 1", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G", "#SBATCH -t 04:00:00"} <= {
        *lines
    }
    assert "source .venv/bin/activate" in lines
    assert "dask_worker tcp://" in done.stdout.replace("dask worker", "dask_worker")
