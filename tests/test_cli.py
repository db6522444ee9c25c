import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lvlmva_lite
from lvlmva_lite import registry
from lvlmva_lite.config import Config
from lvlmva_lite.critic import providers
from lvlmva_lite.datasets import load_decoy_mnist
from lvlmva_lite.models import mlp, predict

# A network that has hardly begun to learn swings from class to class.
ANYTHING = ["--max-loss", "1", "--max-class-loss", "1"]
SMALL = ["--n-align", "40", "--n-segments", "3", "--train-epochs", "1", "--align-epochs", "1", *ANYTHING]

RECORDED = ["--critic", "recorded", "--critic-model", "claude"]


def lvlmva(*arguments, **keywords):
    command = shutil.which("lvlmva", path=os.path.dirname(sys.executable))
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, **keywords)


def test_help_and_version():
    for arguments in ((), ("--help",)):
        answer = lvlmva(*arguments)
        assert answer.returncode == 0
        assert "run" in answer.stdout
        assert "chapter" in answer.stdout
    assert "--lambda" in lvlmva("run", "--help").stdout
    assert lvlmva("--version").stdout.strip() == lvlmva_lite.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "decoy-mnist"], "Missing option '--out'"),
        (["run", "moons", "--out", "OUT"], "unknown task 'moons'; choose one of: decoy-mnist"),
        (["run", "decoy-mnist", "--out", "OUT", "--critic", "oracle"], "choose one of: lexicon"),
        (["run", "decoy-mnist", "--out", "OUT", "--lambda", "-1"], "lambda must be a number of at least 0"),
        (["run", "decoy-mnist", "--out", "OUT", "--lambda", "much"], "Invalid value for '--lambda'"),
        (["run", "decoy-mnist", "--out", "OUT", "--n-segments", "0"], "between 1 and 50; got 0"),
        (["run", "decoy-mnist", "--out", "OUT", "--n-align", "70000"], "got 70000"),
        (
            ["run", "decoy-mnist", "--out", "OUT", "--description", "no.txt"],
            "cannot read the description file",
        ),
        (["run", "decoy-mnist", "--out", "OUT", "--description", "Be fair."], "understands nothing of"),
        (["run", "decoy-mnist", "--out", "OUT", "--description", ""], "the description is empty"),
        (["run", "knee", "--out", "OUT", "--description", "  "], "the description is empty"),
        (
            ["run", "decoy-mnist", "--out", "OUT", "--description", "/"],
            "cannot read the description file /",
        ),
        (["run", "knee", "--out", "OUT", *RECORDED, "--seed", "9"], "there are: decoy-mnist with seed 0"),
        (
            ["run", "knee", "--out", "OUT", *RECORDED, "--n-align", "61"],
            "n_align must lie between 1 and 60",
        ),
        (["run", "skin", "--out", "OUT", *RECORDED, "--description", "Skin."], "with description"),
        (
            ["run", "skin", "--out", "OUT", *RECORDED, "--critic-prompt", "critic-1"],
            "claude under critic-2",
        ),
        (["run", "knee", "--out", "OUT", "--critic", "recorded"], "choose by --critic-model"),
        (["run", "knee", "--out", "OUT", "--critic-prompt", "critic-1"], "for the recorded critic alone"),
        (["run", "knee", "--out", "OUT", "--mask", "core"], "choose one of: spurious, spurious+background"),
        (["run", "knee", "--out", "OUT", "--penalty-fill", "noise"], "does nothing with the penalty 'rrr'"),
        (["run", "knee", "--out", "OUT", "--mask-near", "1.5"], "mask_near must lie between 0 and 1"),
        (["run", "--seed", "x"], "`lvlmva run --help` explains"),
        (["run", "decoy-mnist", "--out", "OUT", "--fast"], "No such option: --fast"),
        (["walk"], "No such command 'walk'"),
        (["chapter", "x.ipynb", "--out", "OUT", "-p", "seed"], "-p takes NAME=VALUE, got 'seed'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, tmp_path, in_process):
    out = tmp_path / "out"
    answer = in_process(*[str(out) if a == "OUT" else a for a in arguments])
    assert answer.returncode == 2
    assert message in answer.stderr
    lines = answer.stderr.strip().splitlines()
    assert len([line for line in lines if not line.startswith("I read: ")]) == 1
    assert not out.exists()


IDLE = [
    ("--segmenter-checkpoint sam.pth", "--segmenter-checkpoint does nothing with --segmenter ppeps-wgm"),
    ("--method look --max-loss 0.1", "do nothing with --method look"),
    ("--segmenter slic --fill 3", "--fill does nothing with --segmenter slic"),
    ("--segmenter felzenszwalb --tolerance 1e-4", "--tolerance does nothing with --segmenter felzenszwalb"),
    ("--segmenter slic --feature-weight 1", "--feature-weight does nothing with --segmenter slic"),
    ("--penalty-fill surroundings", "--penalty-fill does nothing with --penalty rrr"),
    ("--weights imagenet", "--weights does nothing with --model small_resnet, which starts from random"),
    ("--method subg --critic simulated", "--critic does nothing with --method subg"),
    ("--method subg --lambda 3", "--lambda does nothing with --method subg"),
    ("--method jtt --align-epochs 3", "--align-epochs does nothing with --method jtt"),
    ("--method cdep --penalty jacobian", "--penalty does nothing with --method cdep"),
    ("--method finetune --penalty-scale initial", "--penalty-scale does nothing with --method finetune"),
    ("--method rrr-gt --mask-near 0.2", "--mask-near does nothing with --method rrr-gt"),
    ("--method rrr-gt --description Stroke.", "--description does nothing with --method rrr-gt"),
    ("--method look --keep-unjudged", "--keep-unjudged does nothing with --method look"),
    ("--critic simulated --description Stroke.", "--description does nothing with --critic simulated"),
    ("--store answers-2", "--store is for a model, and --critic lexicon asks none"),
    ("--critic recorded --critic-model claude --max-cost 3", "--max-cost is for a model"),
    ("--critic replay --critic-model m --timeout 3", "--timeout does nothing with --critic replay"),
    ("--explain auto --explainer deeplift-shap", "explain 'auto' and explainer 'deeplift-shap': name one"),
]


@pytest.mark.parametrize(("options", "message"), IDLE)
def test_options_that_do_nothing_are_refused_in_one_line(options, message, tmp_path, in_process):
    answer = in_process("run", "knee", *options.split(), "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_of_each_method_segmenter_and_critic_it_is_known_which_options_do_something():
    from lvlmva_lite.cli import idle

    # One that is new may read any setting, until somebody says otherwise.
    assert set(idle._OF_METHOD) <= set(registry.METHODS.names())
    assert set(idle._OF_SEGMENTER) <= set(registry.SEGMENTERS.names())
    assert set(idle._OF_CRITIC) <= set(providers.names())
    for name, used in idle._OF_METHOD.items():
        assert ("critic" in used) == registry.METHODS.get(name).asks


@pytest.mark.parametrize("name", ["ppeps-wgm", "slic", "felzenszwalb", "sam"])
def test_a_segmenter_reads_the_settings_that_it_is_said_to_read(name, monkeypatch):
    """By a config that notes what is read of it; SAM itself is not there."""
    from lvlmva_lite import superpixels
    from lvlmva_lite.cli import idle

    read = set()

    class Noting:
        def __getattr__(self, setting):
            read.add(setting)
            return getattr(config, setting)

    config = Config(segmenter="ppeps-wgm", fill=3.0, feature_weight=0.5, n_segments=2)
    monkeypatch.setattr(superpixels, "sam", lambda *args, checkpoint, progress: checkpoint)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    registry.SEGMENTERS.get(name)(images, images.mean(1), Noting())
    assert read & set().union(*idle._OF_SEGMENTER.values()) == idle._OF_SEGMENTER[name]


def test_an_explainer_may_be_named_by_explain(tmp_path, in_process):
    for options in (["--explain", "integrated-gradients"], ["--explainer", "integrated-gradients"]):
        out = tmp_path / options[0]
        answer = in_process("run", "decoy-mnist", *SMALL, *options, "--quiet", "--out", out)
        assert answer.returncode == 0, answer.stderr
        config = json.loads((out / "results.json").read_text())["config"]
        assert (config["explainer"], config["explain"]) == ("integrated-gradients", "contrast")


@pytest.mark.parametrize("there", ["no store", "an empty folder", "rubbish"])
def test_an_export_of_nothing_makes_nothing(there, tmp_path, in_process):
    store, out = tmp_path / "store", tmp_path / "new" / "answers.jsonl"
    if there != "no store":
        store.mkdir()
    if there == "rubbish":
        (store / "answers.sqlite").write_text("no database, but long enough to be looked at " * 10)
    answer = in_process("critic", "export", "--store", store, "--out", out)
    assert answer.returncode == 2
    assert len(answer.stderr.strip().splitlines()) == 1
    assert str(store) in answer.stderr
    assert not out.parent.exists()


def test_missing_chapter_is_named(tmp_path, in_process):
    answer = in_process("chapter", "none.ipynb", "--out", tmp_path)
    assert answer.returncode == 1
    assert (
        answer.stderr.strip()
        == "lvlmva: there is no notebook none.ipynb; chapters lie in notebooks/*.ipynb"
    )


def test_the_source_of_a_chapter_is_no_notebook(tmp_path, in_process):
    (tmp_path / "00_x.md").write_text("# X")
    answer = in_process("chapter", tmp_path / "00_x.md", "--out", tmp_path / "out")
    assert answer.returncode == 1
    assert answer.stderr.strip().endswith("00_x.md is no notebook; give 00_x.ipynb")


def test_run_writes_what_it_says(tmp_path, in_process):
    sentence = tmp_path / "sentence.txt"
    sentence.write_text("The grey square in a corner\nmeans nothing.\n")
    out = tmp_path / "out"
    answer = lvlmva("run", "decoy-mnist", *SMALL, "--seed", 5, "--description", sentence, "--out", out)
    assert answer.returncode == 0, answer.stderr
    assert "LVLM-VA" in answer.stdout
    assert "aligning" in answer.stderr  # progress
    assert 'I read: dismissed: "The grey square in a corner means nothing"\n' in answer.stderr
    assert "nothing was judged spurious" not in answer.stdout

    results = json.loads((out / "results.json").read_text())
    assert {
        "accuracy_before", "accuracy_after", "accuracy_ground_truth_masks", "mu_align_before",
        "mu_align_after", "verdict_accuracy", "n_cases", "seed", "seconds", "config",
    } <= set(results)  # fmt: skip
    assert results["n_cases"] == 40
    assert results["seed"] == results["config"]["seed"] == 5
    assert results["config"]["n_segments"] == 3
    assert results["config"]["description"].startswith("The grey square")

    with np.load(out / "masks.npz") as masks:
        assert masks["masks"].shape == (40, 28, 28)
        assert masks["indices"].shape == (40,)
    critiques = [json.loads(line) for line in (out / "critiques.jsonl").read_text().splitlines()]
    assert len({critique["case_id"] for critique in critiques}) == 40

    # The weights are those of the model whose accuracy stands in the results.
    model = mlp((1, 28, 28), 10)
    model.load_state_dict(load_file(out / "aligned.safetensors"))
    test = load_decoy_mnist("test", random_state=5)
    accuracy = (predict(model, test.images) == test.labels).double().mean()
    torch.testing.assert_close(float(accuracy), results["accuracy_after"])

    again = in_process("run", "decoy-mnist", *SMALL, "--seed", 6, "--out", out)
    assert again.returncode == 2
    assert "holds another run" in again.stderr
    assert json.loads((out / "results.json").read_text()) == results


def strict(file):
    """The values of a JSON file that says nothing of NaN."""

    def refuse(word):
        raise AssertionError(f"{word} in {file}")

    return json.loads(file.read_text(), parse_constant=refuse)


@pytest.mark.slow
def test_a_run_of_one_case_writes_strict_json_and_bad_data_settings_leave_the_folder_free(
    tmp_path, in_process
):
    arguments = ["run", "knee", "--image-size", 32, "--train-epochs", 1, "--align-epochs", 1, "--quiet"]
    refused = in_process(*arguments, "--n-align", 2001, "--out", tmp_path / "out")
    assert refused.returncode == 2
    simulated = ["--critic", "simulated", "--n-align", 1, "--n-segments", 1]
    answer = in_process(*arguments, *simulated, *ANYTHING, "--out", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    results = strict(tmp_path / "out/results.json")
    # One segment is of one kind: there is no mean over both kinds.
    assert results["verdict_balanced_accuracy"] is None
    strict(tmp_path / "out/config.json")


def told_spurious(confusion):
    """Sensitivity and specificity for "spurious" of a table of counts, undecided segments left out."""
    decided = {
        truth: (row["spurious"], sum(row.values()) - row["undecided"]) for truth, row in confusion.items()
    }
    found, spurious = decided.pop("spurious")
    alarms, others = (sum(column) for column in zip(*decided.values(), strict=True))
    return found / spurious, 1 - alarms / others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "n_cases", "specificity"),
    [
        # As counted in a first look at these answers, with none of this package's code.
        (["knee", "--seed", 2], 60, 1 - 3 / 317),
        (["skin", "--seed", 1, "--mask-near", 0], 60, 1 - 1 / 236),
        (["decoy-mnist", "--critic-prompt", "critic-1", "--mask", "spurious+background"], 50, 0.422),
    ],
)
def test_a_run_by_recorded_answers_reports_their_verdicts(tmp_path, arguments, n_cases, specificity):
    out = tmp_path / "out"
    quick = ["--train-epochs", 1, "--align-epochs", 1, "--quiet", *ANYTHING]
    answer = lvlmva("run", *arguments, *RECORDED, *quick, "--out", out)
    assert answer.returncode == 0, answer.stderr
    assert "recorded (claude, prompt critic-" in answer.stdout
    assert "of another network, not of the one trained here (train_epochs 1 in place of" in answer.stderr
    results = strict(out / "results.json")
    assert results["n_cases"] == n_cases
    assert results["verdict_sensitivity"] == 1
    assert results["verdict_specificity"] == pytest.approx(specificity, abs=5e-4)
    confusion = results["verdict_confusion"]
    assert set(confusion) == {"core", "spurious", "neither"}
    assert told_spurious(confusion) == pytest.approx((1, results["verdict_specificity"]))
    n_segments = sum(sum(row.values()) for row in confusion.values())
    assert results["verdict_base_rate"] == pytest.approx(
        1 - sum(confusion["spurious"].values()) / n_segments
    )


def test_a_run_that_dismisses_nothing_says_so(tmp_path, in_process):
    out = tmp_path / "out"
    words = "The pen stroke matters and blorps, never mind the watermark in the corner."
    answer = in_process("run", "decoy-mnist", *SMALL, "--quiet", "--description", words, "--out", out)
    assert answer.returncode == 0, answer.stderr
    assert "I read: dismissed: nothing\n" in answer.stderr
    assert "I read: words I do not know: blorps, watermark\n" in answer.stderr
    assert 'not understood: "never mind the watermark in the corner"' in answer.stderr
    assert "nothing was judged spurious in any of 40 cases" in answer.stdout


@pytest.mark.slow
def test_killed_run_is_taken_up(tmp_path):
    arguments = ["run", "decoy-mnist", "--n-align", "300", *SMALL[2:], "--out", str(tmp_path / "out")]
    command = [sys.executable, Path(__file__).with_name("few_decoys.py"), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    answers = tmp_path / "out/critiques.jsonl"
    deadline = time.monotonic() + 120
    while not (answers.exists() and answers.stat().st_size > 10_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # A whole line only: the kill may have cut the last one.
    kept = answers.read_bytes().rpartition(b"\n")[0].splitlines()
    assert 0 < len(kept) < 300
    assert not (tmp_path / "out/results.json").exists()
    again = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
    )
    assert again.returncode == 0, again.stderr
    strict(tmp_path / "out/results.json")
    lines = answers.read_bytes().splitlines()
    assert lines[: len(kept)] == kept
    assert len({json.loads(line)["case_id"] for line in lines}) == len(lines) == 300


# Knee and skin


@pytest.mark.slow
def test_a_method_on_phantoms_writes_its_results(tmp_path, in_process):
    out = tmp_path / "out"
    answer = in_process(
        "run", "skin", "--method", "finetune", "--out", out, "--image-size", 32, "--n-align", 20,
        "--n-segments", 3, "--train-epochs", 1, "--align-epochs", 1, "--quiet", *ANYTHING,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "plain fine-tuning" in answer.stdout
    assert "WGA" in answer.stdout
    results = json.loads((out / "results.json").read_text())
    assert results["method"] == "finetune"
    assert 0 <= results["wga_before"] <= results["aga_before"] <= 1
    assert results["delta_wga"] == pytest.approx(results["wga_after"] - results["wga_before"])
    assert len(results["groups"]) == 4
    assert results["config"]["image_size"] == 32
    assert load_file(out / "aligned.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "knee", "--method", "erm"], "unknown method 'erm'; choose one of: "),
        (
            ["run", "decoy-mnist", "--method", "dfr", "--evaluate-on", "validation"],
            "dfr is fitted on the validation",
        ),
        (["run", "decoy-mnist", "--data-root", "."], "No such option: --data-root"),
        (["run", "skin", "--data-root", "no/such/folder"], "there is no folder no/such/folder"),
        (
            ["run", "knee", "--n-align", "2001", "--image-size", "32", "--quiet"],
            "n_align must be at most 2000, the training images there are; got 2001",
        ),
    ],
)
def test_bad_settings_of_knee_and_skin_end_in_one_line(tmp_path, arguments, message, in_process):
    answer = in_process(*arguments, "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert message in answer.stderr
    lines = answer.stderr.strip().splitlines()
    assert len([line for line in lines if not line.startswith("I read: ")]) == 1
