"""Whole runs of the command line with a critic that is a model, on loopback."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from answering_server import AnsweringServer, critic_or_judge
from PIL import Image

from lvlmva_lite.critic import trial
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.store import AnswerStore

KEY = "sk-sentinel-91c7e2"
LVLMVA = Path(__file__).with_name("few_decoys.py")
# A network that has hardly begun to learn swings from class to class.
ANYTHING = ["--max-loss", "1", "--max-class-loss", "1"]
SMALL = ["--n-align", "20", "--train-epochs", "1", "--align-epochs", "1", "--quiet", *ANYTHING]


def lvlmva(*arguments, **environment):
    """The command as a process of its own; (status, stdout, stderr)."""
    command = [sys.executable, LVLMVA, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": KEY, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(in_process, monkeypatch):
    """As ``lvlmva``, in this process: for what is neither killed nor has other threads."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(*arguments):
        done = in_process(*arguments)
        return done.returncode, done.stdout, done.stderr

    return run


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

    from lvlmva_lite.cli import build

    arguments = ["run", "decoy-mnist", "--out", str(tmp_path / "out"), *arguments]
    done = CliRunner().invoke(build(arguments), arguments)
    assert done.exit_code == 2
    assert complaint in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def invoked(*arguments):
    """The command in this process; (status, output)."""
    from typer.testing import CliRunner

    from lvlmva_lite.cli import build

    arguments = [str(argument) for argument in arguments]
    done = CliRunner().invoke(build(arguments), arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def colours_of(body) -> dict:
    """What a model with eyes says about the halves of a picture."""
    picture = body["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
    pixels = Image.open(io.BytesIO(base64.b64decode(picture)))
    names = {rgb: name for name, rgb in trial.COLOURS.items()}
    return {"left": names[pixels.getpixel((9, 9))], "right": names[pixels.getpixel((200, 9))]}


CHECKED = {
    # the model's answer: exit status, what the command says
    "it sees": (lambda body: json.dumps(colours_of(body)), 0, ["2 of 2", "json_schema", "is plain JSON", ": no"]),
    "it reasons": (lambda body: f"<think>Red?</think>{json.dumps(colours_of(body))}", 0, ["2 of 2", ": yes"]),
    "in prose": (lambda body: "Left: {left}, right: {right}.".format(**colours_of(body)), 0, ["2 of 2", "is not plain"]),
    "it guesses": (lambda _: '{"left": "red", "right": "red"}', 1, ["0 of 2", "does not see"]),
    "it is blind": (lambda _: "I can't see images.", 1, ["0 of 2", "does not see", "I can't see images."]),
}  # fmt: skip


@pytest.mark.parametrize("model", CHECKED)
def test_check_tells_what_a_model_can_do(monkeypatch, model):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    reply, status, words = CHECKED[model]
    with AnsweringServer(reply) as server:
        done, said = invoked("critic", "check", "--critic-model", "gpt-4o", "--base-url", server.url)
        assert (done, len(server.bodies)) == (status, 2)
    for part in [*words, "100 cases", "USD"]:
        assert part in said


def test_check_finds_a_server_without_structured_output_and_one_without_eyes(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def plain(body):
        if "response_format" in body:
            return 400, {"error": {"message": "response_format: unknown field"}}
        return json.dumps(colours_of(body))

    with AnsweringServer(plain) as server:
        status, said = invoked("critic", "check", "--critic-model", "x", "--base-url", server.url)
        assert (status, "structured output: not known" in said) == (0, True)
    with AnsweringServer(lambda _: (500, {"error": {"message": "image input is not supported"}})) as server:
        status, said = invoked("critic", "check", "--critic-model", "x", "--base-url", server.url)
        assert (status, "does not see" in said, len(server.bodies)) == (1, True, 1)


def test_list_show_and_forget_from_the_command_line(tmp_path):
    store = AnswerStore(tmp_path)
    for case, answer in (("case-1", Answer("A is odd.")), ("case-2", Answer("", refusal="I will not."))):
        messages = [{"role": "user", "content": case}]
        store.add(Request("critic", "m", "v", messages, {}, case), answer)
    store.close()
    at = ["--store", tmp_path]
    assert "case-1  ok\n" in invoked("critic", "list", *at)[1]
    status, said = invoked("critic", "list", "--unusable", *at)
    assert (status, "case-1" in said, "case-2  refused" in said) == (0, False, True)
    assert "A is odd." in invoked("critic", "show", "case-1", *at)[1]
    assert "(refused)\nI will not." in invoked("critic", "show", "case-2", *at)[1]
    assert invoked("critic", "show", "case-3", *at)[0] == 2
    assert invoked("critic", "forget", *at)[0] == 2
    assert "1 answers forgotten" in invoked("critic", "forget", "--unusable", *at)[1]
    assert "1 answers, 0 of them" in invoked("critic", "list", *at)[1]
    assert invoked("critic", "forget", "--unusable", "--store", tmp_path / "none")[0] == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["slow answers", "busy", "not yet asked"])  # 32; beyond: while it trains
def test_ctrl_c_ends_within_two_seconds_and_says_what_is_kept(tmp_path, fault):
    def reply(body):
        if len(server.bodies) > 3 and fault == "busy":
            return 429, {"error": {"message": "try again in 200s"}}
        return critic_or_judge(body)

    # A shell that starts something in the background has it ignore the signal.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; from lvlmva_lite.cli import main; main()"
    with AnsweringServer(reply, seconds=0.2 if fault == "busy" else 4.0) as server:
        process = subprocess.Popen(
            [
                sys.executable, "-c", code, "critic", "evaluate",
                "decoy-mnist", "--n", "12", "--train-epochs", "1", "--quiet", "--critic", "openai",
                "--critic-model", "gpt-4o", "--base-url", server.url, "--max-concurrency", "4",
                "--store", tmp_path / "store", "--out", tmp_path / "out",
            ],
            env={**os.environ, "OPENAI_API_KEY": KEY}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        training = fault == "not yet asked"
        while process.poll() is None and not (
            (tmp_path / "out").exists() if training else len(server.bodies) >= 5
        ):
            time.sleep(0.02)
        time.sleep(0.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert time.monotonic() - begun < 2
        assert process.returncode == 130
        assert "the same command takes it up again" in told.splitlines()[-1]
        assert "Traceback" not in told
        if training:
            assert server.bodies == []
            return
        kept = int(re.search(r"interrupted: (\d+) of 12 are kept", told)[1])
        assert 1 <= kept <= len(AnswerStore(tmp_path / "store", read_only=True))


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["header", "echo", "crash"])
def test_the_key_is_in_no_output_log_traceback_or_file(tmp_path, trouble):
    """A key with a line end, a server that says it back, a crash in the middle: with everything logged."""
    key = f"{KEY}\r\n" if trouble == "header" else KEY

    def reply(body):
        if trouble == "echo":
            return 401, {"error": {"message": f"wrong key Bearer {KEY}"}}
        return critic_or_judge(body)

    crash = "import lvlmva_lite.critic.panels as p; p.render_panels = None" if trouble == "crash" else ""
    code = (
        f"import logging; logging.basicConfig(level=0)\n{crash}\nfrom lvlmva_lite.cli import main; main()"
    )
    with AnsweringServer(reply) as server:
        arguments = [
            "critic", "evaluate", "decoy-mnist", "--n", "3", "--train-epochs", "1", "--quiet", "--critic",
            "openai", "--critic-model", "gpt-4o", "--base-url", server.url, "--out", tmp_path / "out",
            "--store", tmp_path / "store",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, env={**os.environ, "OPENAI_API_KEY": key, "OPENAI_LOG": "debug"},
        )  # fmt: skip
    assert done.returncode == (0 if trouble == "header" else 1), done.stderr[-2000:]
    assert KEY not in done.stdout + done.stderr
    lvlmva("critic", "export", "--store", tmp_path / "store", "--out", tmp_path / "answers.jsonl")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert (tmp_path / "answers.jsonl") in files
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


@pytest.mark.slow
def test_a_run_killed_half_way_is_taken_up_replayed_and_holds_no_key(tmp_path, here):
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
        status, stdout, stderr = lvlmva(*arguments, OMP_NUM_THREADS="2")
        assert status == 0, stderr
        asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
        assert len(asked) - len(set(asked)) <= 2
        assert server.url.split("/")[2] in stderr  # where the images go
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["critic"] == "openai:gpt-4o"
        assert results["n_undecided"] == 0

        replay = ["--critic", "replay", "--critic-model", "gpt-4o", "--store", tmp_path / "store"]
        replayed = here("run", "decoy-mnist", *SMALL, "--out", tmp_path / "again", *replay)
        assert replayed[0] == 0, replayed[2]
        assert len(server.bodies) == len(asked)
        again = json.loads((tmp_path / "again" / "results.json").read_text())
        assert again["accuracy_after"] == results["accuracy_after"]

    exported = here("critic", "export", "--store", tmp_path / "store", "--out", tmp_path / "answers.jsonl")
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
def test_a_critic_that_always_refuses_stops_the_run_and_one_that_mostly_does_is_counted(tmp_path, here):
    def reply(body):
        first = len(server.bodies) == 1 or isinstance(body["messages"][1]["content"], str)
        return (
            critic_or_judge(body)
            if answers and first
            else {"role": "assistant", "content": None, "refusal": "no"}
        )

    for answers in (False, True):
        with AnsweringServer(reply) as server:
            status, stdout, stderr = here(
                "run", "decoy-mnist", *SMALL, "--out", tmp_path / f"out-{answers}", "--store",
                tmp_path / f"store-{answers}", "--critic", "openai", "--critic-model", "gpt-4o",
                "--base-url", server.url,
            )  # fmt: skip
        if not answers:
            assert status == 1
            assert "5 refused" in stderr
            assert not (tmp_path / "out-False" / "results.json").exists()
        else:
            assert status == 0, stderr
            results = json.loads((tmp_path / "out-True" / "results.json").read_text())
            assert results["n_cases_undecided"] == results["n_cases"] - 1 == 19
            assert "no usable answer in 19 of 20 cases (19 refused)" in stdout


@pytest.mark.slow
def test_an_evaluation_killed_half_way_pays_for_no_answer_twice(tmp_path, here):
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
    status, _, stderr = here(
        "critic", "export", "--store", tmp_path / "store", "--out", tmp_path / "store/answers.sqlite"
    )
    assert status == 2
    assert "is the store's own" in stderr


@pytest.mark.slow
def test_evaluate_and_estimate_from_the_command_line(tmp_path, here):
    evaluate = ["critic", "evaluate", "decoy-mnist", "--n", 20, "--train-epochs", 10, "--quiet"]
    status, stdout, stderr = here(
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
    assert 'I read: dismissed: "The grey square in a corner means nothing"' in stderr.splitlines()
    words = ["--critic", "lexicon", "--description", "The square is irrelevant. The stroke is flurbly."]
    status, _, stderr = here(*evaluate, *words, "--out", tmp_path / "words")
    assert status == 0
    assert [line.removeprefix("I read: ") for line in stderr.splitlines() if line.startswith("I read: ")] == [
        'dismissed: "The square is irrelevant"', "upheld: nothing",
        'not understood: "The stroke is flurbly"', "words I do not know: flurbly",
    ]  # fmt: skip
    words = ["--critic", "simulated", "--against", "lexicon", "--description", "The square is flurbly."]
    status, _, stderr = here(*evaluate, *words, "--out", tmp_path / "unread")
    assert status == 2
    assert "understands nothing of the description 'The square is flurbly.'" in stderr
    assert not (tmp_path / "unread").exists()
    status, stdout, _ = here("critic", "estimate", "--critic-model", "gpt-4o", "--n", 10)
    assert status == 0
    assert "likely: 20 calls" in stdout
    assert "with --batch, where the server knows batches: likely" in stdout
    assert here("critic", "estimate", "--critic-model", "unheard-of")[0] == 2
    # Any task's, with its own options; longer words cost more.
    own = ("critic", "estimate", "folder", "--data", "not-read", "--critic-model", "gpt-4o", "--n", 10)
    short, long = (here(*own, "--description", words) for words in ("The sticker.", "The sticker. " * 100))
    assert short[0] == long[0] == 0
    spent = [float(re.search(r"likely: .*, ([0-9.]+) USD", said)[1]) for _, said, _ in (short, long)]
    assert spent[0] < spent[1]
