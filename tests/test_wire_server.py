"""The wire format, images included, against a server we did not write (see wire_server.py)."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from wire_server import MODEL, TOKENS_PER_IMAGE

from lvlmva_lite.critic import Case, prompts
from lvlmva_lite.critic.failures import ServerError
from lvlmva_lite.critic.openai_critic import AnswerSettings, critic_request
from lvlmva_lite.critic.providers import Connection, CriticSettings, make
from lvlmva_lite.critic.store import AnswerStore

MISSING = [name for name in ("transformers", "fastapi", "uvicorn", "openai") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}: pip install 'lvlmva-lite[wire]'"),
]
KEY = "sk-sentinel-wire-4711"
SHORT = 12  # tokens, after which the garbage is cut


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address.  Nothing outside this machine is asked for anything."""
    folder = tmp_path_factory.mktemp("wire")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("wire_server.py")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, script, folder, str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    """Makes (critic, judge, client, store folder) on the server."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def made(model=MODEL, **connection):
        settings = CriticSettings(model=model, temperature=0.0, max_answer_tokens=SHORT)
        connection = Connection(store=tmp_path / "answers", base_url=server, no_cost=True, **connection)
        critic, judge = make("openai", settings, connection)
        return critic, judge, critic.ask.__self__, tmp_path / "answers"

    return made


def case_of(number: int, **changes) -> Case:
    draw = torch.Generator().manual_seed(number)
    fields = {
        "case_id": f"decoy-mnist-{number}",
        "image": torch.rand(1, 28, 28, generator=draw),
        "segment_labels": torch.arange(3).repeat_interleave(10)[:28, None].expand(28, 28),
        "n_segments": 3,
        "class_name": "digit 3",
        "description": "The stroke matters; the square – grey – does not.",
        "evidence": torch.ones(28, 28),
    }
    return Case(**fields | changes)


def test_every_byte_of_the_prompt_and_three_images_arrive(ask):
    critic, _, client, folder = ask()
    case = case_of(0)
    answer = client.ask(whatever(critic.request(case)))
    (record,) = AnswerStore(folder, read_only=True).records()
    steps, words = prompts.critic_text(case)
    rendered = f"system: {steps}\nuser: {words}\nassistant: "
    assert record["answer"]["prompt_tokens"] == len(rendered.encode()) + 3 * TOKENS_PER_IMAGE
    assert record["answer"]["completion_tokens"] == SHORT
    assert record["answer"]["finish_reason"] == "length"
    assert record["answer"]["text"] == answer.text != ""
    assert client.calls == 1


@pytest.mark.parametrize("panel", ["image", "segment_map"])
def test_the_server_sees_the_pictures(ask, panel):
    """At temperature 0 the same case gets the same answer, one with other pictures another."""
    critic, _, client, _ = ask()
    other = {
        "image": {"image": torch.zeros(1, 28, 28)},
        "segment_map": {"segment_labels": case_of(0).segment_labels.T.contiguous()},
    }[panel]
    first, second = (client.ask(_again(case_of(0), n)).text for n in (1, 2))
    assert first == second
    assert client.ask(whatever(critic.request(case_of(0, **other)))).text != first
    assert client.calls == 3


def _again(case, number):
    """The critic's request with a parameter that no server sees: another key, the same question."""
    return whatever(critic_request(case, MODEL, AnswerSettings(1, 0.0, SHORT), sample=number))


def whatever(request):
    """The request with any answer taken for usable: garbage is all that this model has to say."""
    return replace(request, fault=lambda answer: None)


def test_a_rerun_costs_nothing_and_replay_needs_no_server(ask):
    critic, _, client, folder = ask()
    requests = [whatever(critic.request(case_of(number))) for number in range(4)]
    said = [client.ask(request) for request in requests]
    assert client.calls == len(AnswerStore(folder, read_only=True)) == 4
    _, _, client, _ = ask()
    assert [client.ask(request) for request in requests] == said
    assert client.calls == 0
    critic, _ = make(
        "replay",
        CriticSettings(model=MODEL, temperature=0.0, max_answer_tokens=SHORT),
        Connection(store=folder),
    )
    assert [critic.ask(request) for request in requests] == said


def test_what_is_cut_off_is_asked_for_with_more_once_and_then_undecided(ask):
    critic, judge, client, _ = ask()
    critique = critic.criticise(case_of(0))
    assert critique.reason.startswith("cut: ")
    assert client.calls == 2
    good = replace(critique, text="Segment A is spurious.", reason="")
    verdict = judge.judge(good, 3)
    assert verdict.kinds == ("undecided",) * 3
    assert verdict.reason.startswith("cut: ")
    assert client.calls == 4


def test_an_unknown_model_is_told_in_one_line(ask):
    critic, _, client, folder = ask("no-such-model")
    with pytest.raises(ServerError) as refused:
        critic.criticise(case_of(0))
    assert "HTTP 400" in str(refused.value)
    assert "requested 'no-such-model'" in str(refused.value)  # the server's own words
    assert "\n" not in str(refused.value)
    assert client.calls == 1
    assert len(AnswerStore(folder, read_only=True)) == 0


def test_the_key_is_not_in_the_store(ask):
    critic, _, _, folder = ask()
    critic.criticise(case_of(0))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not any(KEY.encode() in file.read_bytes() for file in files)
