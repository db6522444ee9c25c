"""Whole runs of the command line with a critic that is a model, on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from answering_server import AnsweringServer, critic_or_judge

KEY = "sk-sentinel-91c7e2"
LVLMVA = Path(__file__).with_name("few_decoys.py")
SMALL = ["--n-align", "20", "--train-epochs", "1", "--align-epochs", "1", "--quiet"]


def lvlmva(*arguments, **environment):
    """The command as a process of its own; (status, stdout, stderr)."""
    command = [sys.executable, LVLMVA, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": KEY, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--critic", "openai"], "--critic-model"),
        (["--critic", "openai", "--critic-model", "unheard-of"], "--price"),
        (["--critic", "openai", "--critic-model", "gpt-4o", "--price", "cheap"], "--price"),
        (["--critic", "openai", "--critic-model", "gpt-4o", "--max-cost", "-1"], "--max-cost"),
        (["--critic", "replay", "--critic-model", "gpt-4o", "--store", "nowhere"], "no recorded answers"),
        (["--critic", "simulated", "--simulated-accuracy", "2"], "--simulated-accuracy"),
        (["--critic", "oracle"], "unknown critic"),
    ],
)
def test_bad_settings_are_refused_before_any_work(tmp_path, arguments, complaint):
    from typer.testing import CliRunner

    from lvlmva_lite.cli import app

    done = CliRunner().invoke(app, ["run", "decoy-mnist", "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2
    assert complaint in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_killed_half_way_is_taken_up_replayed_and_holds_no_key(tmp_path):
    def echoing(body):
        """As indiscreet as a server can be: it says the key back."""
        answer = critic_or_judge(body)
        return answer if isinstance(body["messages"][1]["content"], str) else f"{answer} Your key is {KEY}."

    with AnsweringServer(echoing, seconds=0.1) as server:
        arguments = [
            "run", "decoy-mnist", *SMALL, "--out", tmp_path / "out", "--store", tmp_path / "store",
            "--critic", "openai", "--critic-model", "gpt-4o", "--base-url", server.url,
            "--max-concurrency", 2,
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, LVLMVA, *map(str, arguments)],
            env={**os.environ, "OPENAI_API_KEY": KEY},
        )
        while len(server.bodies) < 8 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(server.bodies) < 20
        status, stdout, stderr = lvlmva(*arguments)
        assert status == 0, stderr
        asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
        assert len(asked) - len(set(asked)) <= 2
        assert server.url.split("/")[2] in stderr  # where the images go
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["critic"] == "openai:gpt-4o"
        assert results["n_undecided"] == 0

        replay = ["--critic", "replay", "--critic-model", "gpt-4o", "--store", tmp_path / "store"]
        replayed = lvlmva("run", "decoy-mnist", *SMALL, "--out", tmp_path / "again", *replay)
        assert replayed[0] == 0, replayed[2]
        assert len(server.bodies) == len(asked)
        again = json.loads((tmp_path / "again" / "results.json").read_text())
        assert again["accuracy_after"] == results["accuracy_after"]

    exported = lvlmva(
        "critic", "export", "--store", tmp_path / "store", "--out", tmp_path / "answers.jsonl"
    )
    assert exported[0] == 0
    for text in (stdout, stderr, *replayed[1:], *exported[1:]):
        assert KEY not in text
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 10
    assert b"[key]" in (tmp_path / "answers.jsonl").read_bytes()
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file
    for file in (tmp_path / "answers.jsonl", *(tmp_path / "out").glob("*.json*")):
        text = file.read_text().lower()
        assert str(tmp_path).lower() not in text, file
        assert "authorization" not in text
        assert server.url.split("/")[2] not in text, file


@pytest.mark.slow
def test_a_critic_that_always_refuses_changes_nothing_and_is_counted(tmp_path):
    with AnsweringServer(lambda _: {"role": "assistant", "content": None, "refusal": "no"}) as server:
        status, stdout, stderr = lvlmva(
            "run", "decoy-mnist", *SMALL, "--out", tmp_path / "out", "--store", tmp_path / "store",
            "--critic", "openai", "--critic-model", "gpt-4o", "--base-url", server.url,
        )  # fmt: skip
    assert status == 0, stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["n_cases_undecided"] == results["n_cases"] == 20
    assert results["accuracy_after"] == results["accuracy_before"]
    assert "undecided: 1" in stdout


@pytest.mark.slow
def test_an_evaluation_killed_half_way_pays_for_no_answer_twice(tmp_path):
    with AnsweringServer(critic_or_judge, seconds=0.1) as server:
        arguments = [
            "critic", "evaluate", "decoy-mnist", "--n", 20, "--train-epochs", 1, "--quiet",
            "--out", tmp_path / "out", "--store", tmp_path / "store", "--critic", "openai",
            "--critic-model", "gpt-4o", "--base-url", server.url, "--max-concurrency", 2,
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, LVLMVA, *map(str, arguments)],
            env={**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"},
        )
        while len(server.bodies) < 8 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 8 <= len(server.bodies) < 40
        assert not list((tmp_path / "out").iterdir())
        status, _, stderr = lvlmva(*arguments, OMP_NUM_THREADS="2")
        assert status == 0, stderr
        asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
        assert len(asked) - len(set(asked)) <= 2  # those under way when it was killed
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["providers"][0]["n_cases"] == 20
    status, _, stderr = lvlmva(
        "critic", "export", "--store", tmp_path / "store", "--out", tmp_path / "store/answers.sqlite"
    )
    assert status == 2
    assert "is the store's own" in stderr


@pytest.mark.slow
def test_evaluate_and_estimate_from_the_command_line(tmp_path):
    evaluate = ["critic", "evaluate", "decoy-mnist", "--n", 20, "--train-epochs", 10, "--quiet"]
    status, stdout, stderr = lvlmva(
        *evaluate,
        "--critic",
        "simulated",
        "--simulated-accuracy",
        1,
        "--against",
        "lexicon",
        "--out",
        tmp_path,
    )
    assert status == 0, stderr
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["providers"][0]["accuracy"] == 1
    assert "simulated" in written["providers"][0]["critic"]
    assert "simulated" in stdout
    assert written["cohen_kappa"] > 0.5
    status, stdout, _ = lvlmva("critic", "estimate", "--critic-model", "gpt-4o", "--n", 10)
    assert status == 0
    assert "likely: 20 calls" in stdout
    assert lvlmva("critic", "estimate", "--critic-model", "unheard-of")[0] == 2
