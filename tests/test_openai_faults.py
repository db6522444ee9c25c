"""What a user sees of a server that misbehaves, and that no answer is lost or paid for twice."""

import json
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
import torch
from fault_server import (
    BROKEN,
    DROPPED,
    DROPPED_AT_ONCE,
    EMPTY,
    FILTERED,
    REFUSAL,
    SLOW,
    TRUNCATED,
    Fault,
    FaultServer,
    says,
    too_many,
)
from few_decoys import take_few

pytest.importorskip("openai", reason="needs the openai extra: pip install 'lvlmva-lite[openai]'")

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.batch import NothingUsable, criticise_all, judge_all, unusable_counts
from lvlmva_lite.critic.budget import Budget, CapReached, Price
from lvlmva_lite.critic.chat import ChatClient
from lvlmva_lite.critic.endpoint import SettingsError
from lvlmva_lite.critic.failures import Interrupted, ServerError, asked_pause
from lvlmva_lite.critic.openai_critic import AnswerSettings, OpenAICritic, OpenAIJudge, VerdictList
from lvlmva_lite.critic.providers import Connection, CriticSettings, check
from lvlmva_lite.critic.store import AnswerStore

KEY = "sk-sentinel-fault-0815"
MODEL = "some-model"
LABELS = torch.arange(2).repeat_interleave(14)[:28, None].expand(28, 28)


def case_of(number: int) -> Case:
    image = torch.full((1, 28, 28), number / 100)
    return Case(
        f"decoy-mnist-{number}",
        image,
        LABELS,
        2,
        "digit 3",
        "The square means nothing.",
        torch.ones(image.shape[1:]),
    )


class Session:
    """A critic and a judge on a server, with their store, the waits that they asked for, and what they told."""

    def __init__(self, folder, url: str, **client) -> None:
        self.store, self.waits, self.told = AnswerStore(folder), [], []
        client = {
            "timeout": 0.6, "sleep": self.waits.append, "clock": lambda: sum(self.waits),
            "notify": self.told.append,
        } | client  # fmt: skip
        self.client = ChatClient(self.store, base_url=url, schema=VerdictList.model_json_schema(), **client)
        self.critic = OpenAICritic(MODEL, self.client.ask)
        self.judge = OpenAIJudge(MODEL, self.client.ask)

    def reason(self, case: Case) -> str:
        """Why there is no ruling, as "kind: words"."""
        return self.judge.judge(self.critic.criticise(case), case.n_segments).reason

    def ruled(self, case: Case) -> tuple:
        return self.judge.judge(self.critic.criticise(case), case.n_segments).kinds


@contextmanager
def ruled_after(fault: Fault, folder):
    """A session that has ruled on case 1 with one question more than usual, the first try gone so; its server."""
    with FaultServer(fault) as server:
        session = Session(folder, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 3
        yield session, server


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1))


PASSING = {
    # fault: (script, waits asked for: exactly, or None for a back-off that grows; tries that may be billed)
    "429 with Retry-After": ([too_many(retry_after="7")], [7.0], 0),
    "429 with Retry-After in milliseconds": ([too_many(retry_after_ms="250")], [0.25], 0),
    "429 without Retry-After": ([too_many(), too_many()], None, 0),
    "429 with a Retry-After that means nothing": ([too_many(retry_after="soon")], None, 0),
    "a burst of 500": ([BROKEN] * 4, None, 0),
    "503 with Retry-After": ([Fault(503, {"Retry-After": "3"}, "busy")], [3.0], 0),
    "slow first byte": ([SLOW], None, 1),
    "connection dropped in the body": ([DROPPED], None, 1),
    "connection dropped before the body": ([DROPPED_AT_ONCE, DROPPED_AT_ONCE], None, 2),
    "truncated JSON": ([TRUNCATED], None, 1),
    "all of them": ([too_many(), BROKEN, DROPPED, TRUNCATED], None, 2),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_waited_out(tmp_path, fault):
    script, waits, may_be_billed = PASSING[fault]
    with FaultServer(*script) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == session.client.calls == len(script) + 2
        if waits is None:
            assert len(session.waits) == len(script)
            # Each wait between three quarters and all of 0.5, 1, 2, 4, ... seconds.
            for number, wait in enumerate(session.waits):
                assert 0.75 * 0.5 * 2**number - 1e-9 <= wait <= 0.5 * 2**number + 1e-9
        else:
            assert session.waits == waits
        assert len(session.store.failures()) == may_be_billed
        # Both answers are there: asking again costs nothing.
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == len(script) + 2


LASTING = {
    "500": (BROKEN, "HTTP 500"),
    "slow": (SLOW, "timed out"),
    "dropped": (DROPPED, "tries (last: "),
    "truncated": (TRUNCATED, "a reply cut short or of another form"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_dead_server_ends_the_run_in_one_line_and_keeps_what_was_answered(tmp_path, fault):
    what, words = LASTING[fault]
    cases = [case_of(number) for number in range(4)]
    with FaultServer(Fault(), *[what] * 6) as server:
        session = Session(tmp_path, server.url, tries=2, timeout=0.3)
        with pytest.raises(ServerError) as told:
            criticise_all(session.critic, cases)
        assert words in str(told.value)
        assert "in 2 tries" in str(told.value)
        assert "answers so far are kept" in str(told.value)
        assert "\n" not in str(told.value)
        assert (server.requests, len(session.store)) == (7, 1)
        # The server has recovered: only what is missing is asked.
        said = criticise_all(session.critic, cases)
        assert all(critique.text for critique in said)
        assert (server.requests, len(session.store)) == (10, 4)


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path):
    with FaultServer(too_many(retry_after="3600"), too_many(retry_after=in_an_hour())) as server:
        session = Session(tmp_path, server.url)
        for _ in range(2):
            with pytest.raises(
                ServerError,
                match=r"asks to wait 3[56]\d\d seconds \(HTTP 429: slow down\); answers so far are kept",
            ):
                session.critic.criticise(case_of(1))
        assert session.waits == []
        assert server.requests == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_rejection_is_told_at_once_and_does_not_repeat_the_key(tmp_path, status):
    with FaultServer(*[Fault(status, {}, f"wrong key\n{KEY}, for instance")] * 3) as server:
        session = Session(tmp_path, server.url)
        with pytest.raises(ServerError, match=f"HTTP {status}: wrong key") as told:
            session.critic.criticise(case_of(1))
        assert KEY not in str(told.value)
        assert "\n" not in str(told.value)
        assert server.requests == 1
        assert len(session.store) == 0
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no such thing", "code": None}},
        {"error": "no such thing"},
        {"object": "error", "message": "no such thing", "code": 400},
        {"detail": "no such thing"},
        {"detail": [{"loc": ["body", "model"], "msg": "no such thing"}]},
        "no such thing",
        "<html>\n<h1>no such thing</h1>\n</html>",
    ],
)
def test_the_servers_own_words_are_shown_whatever_their_form(tmp_path, body):
    with FaultServer(Fault(400, body=body)) as server:
        session = Session(tmp_path, server.url)
        with pytest.raises(ServerError, match=r"HTTP 400: .*no such thing") as told:
            session.critic.criticise(case_of(1))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("form", [lambda text: {"error": {"message": text}}, lambda text: {"detail": text}])
def test_a_server_that_knows_other_parameters_is_met_half_way(tmp_path, form):
    """Each rejected form is tried once and not again, and nothing of it is billed or waited for."""
    script = [
        Fault(400, body=form("'max_tokens' is not supported, use 'max_completion_tokens'")),
        Fault(),
        Fault(422, body=form("response_format: json_schema is unknown")),
        Fault(400, body=form("response_format is not allowed here")),
    ]
    with FaultServer(*script) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert [body.get("max_tokens") for body in server.bodies] == [2048] + [None] * 4
        assert [body.get("max_completion_tokens") for body in server.bodies] == [None] + [2048] * 4
        asked = [body.get("response_format", {}).get("type") for body in server.bodies]
        assert asked == [None, None, "json_schema", "json_object", None]
        assert session.waits == session.store.failures() == []
        session.critic.criticise(case_of(2))
        assert server.requests == 6


SILENT = {"refusal": REFUSAL, "content filter": FILTERED, "empty answer": EMPTY, "blanks": says(" \n ")}


@pytest.mark.parametrize("fault", SILENT)
def test_a_critic_that_says_nothing_is_asked_once_more(tmp_path, fault):
    with ruled_after(SILENT[fault], tmp_path) as (session, server):
        assert len(session.store) == 3  # the refusal was paid for, too
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 3


@pytest.mark.parametrize("fault", SILENT)
def test_a_critic_that_keeps_saying_nothing_leaves_the_case_undecided(tmp_path, fault):
    with FaultServer(*[SILENT[fault]] * 2) as server:
        session = Session(tmp_path, server.url)
        for _ in range(2):
            assert session.ruled(case_of(1)) == ("undecided", "undecided")
        assert server.requests == 2  # twice the critic; with nothing to read, the judge is not asked


MALFORMED = {
    "wrong segment names": '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "Q", "verdict": "relevant"}]}',
    "one segment more": '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "B", "verdict": "relevant"}, '
    '{"segment": "C", "verdict": "relevant"}]}',
    "a segment left out": '{"verdicts": [{"segment": "A", "verdict": "spurious"}]}',
    "duplicate segments": '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "A", "verdict": "relevant"}, '
    '{"segment": "B", "verdict": "relevant"}]}',
    "duplicate keys": '{"A": "spurious", "A": "relevant", "B": "relevant"}',
    "another word": '{"verdicts": [{"segment": "A", "verdict": "bad"}, {"segment": "B", "verdict": "relevant"}]}',
    "half an object": '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segm',
    "prose": "A looks odd to me.",
    "refusal": None,
    "empty": "",
}


def judged_by(*texts):
    """A critic's good answer, then these of the judge."""
    return [Fault(), *(REFUSAL if text is None else says(text) for text in texts)]


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_judge_that_answers_badly_is_asked_once_more_and_told_why(tmp_path, fault):
    with FaultServer(*judged_by(MALFORMED[fault])) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 3
        assert "cannot be used" in server.bodies[2]["messages"][-1]["content"]
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 3


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_judge_that_keeps_answering_badly_leaves_the_case_undecided(tmp_path, fault):
    with FaultServer(*judged_by(*[MALFORMED[fault]] * 2)) as server:
        session = Session(tmp_path, server.url)
        for _ in range(2):
            assert session.ruled(case_of(1)) == ("undecided", "undecided")
        assert server.requests == 3
        assert len(session.store) == 3


def test_faults_among_concurrent_requests_cost_each_case_one_answer(tmp_path):
    cases = [case_of(number) for number in range(12)]
    faults = [too_many(), BROKEN, TRUNCATED, DROPPED, too_many(retry_after="1")]
    with FaultServer(*faults) as server:
        session = Session(tmp_path, server.url)
        session.critic.concurrency = session.judge.concurrency = 4
        said = criticise_all(session.critic, cases)
        assert [verdict.kinds for verdict in judge_all(session.judge, said, 2)] == [
            ("spurious", "relevant")
        ] * 12
        # All critiques read the same, so that they make one question to the judge.
        assert server.requests == len(faults) + 12 + 1
        assert len(session.store) == 13


def test_a_call_that_may_have_been_billed_counts_against_the_cap(tmp_path):
    """A dropped connection leaves its cost unknown: the most it can have been is taken as spent."""
    price = Price(10.0, 10.0, tokens_per_image=1000)
    with FaultServer(DROPPED) as server:
        session = Session(tmp_path, server.url, prices={MODEL: price}, budget=Budget(max_dollars=0.12))
        with pytest.raises(CapReached, match="answers so far are kept"):
            session.critic.criticise(case_of(1))
        assert server.requests == 1
        assert 0.05 < session.client.budget.spent_dollars <= 0.12
    assert len(session.store) == 0


def test_a_rejected_call_costs_nothing_of_the_cap(tmp_path):
    price = Price(10.0, 10.0, tokens_per_image=1000)
    with FaultServer(too_many(), BROKEN) as server:
        session = Session(tmp_path, server.url, prices={MODEL: price}, budget=Budget(max_dollars=0.12))
        assert session.critic.criticise(case_of(1)).text
        assert session.client.budget.spent_dollars == pytest.approx(price.of(100, 20))


def test_the_key_is_in_no_file_of_the_store(tmp_path):
    script = [
        Fault(401, {}, KEY),
        DROPPED,
        says(f"your key is {KEY}"),
        Fault(text="", message={"refusal": KEY}),
    ]
    with FaultServer(*script) as server:
        session = Session(tmp_path, server.url)
        with pytest.raises(ServerError):
            session.critic.criticise(case_of(1))
        session.ruled(case_of(1))
        session.store.export(tmp_path / "export.jsonl")
        assert set(server.keys) == {f"Bearer {KEY}"}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 2
    assert not [file.name for file in files if KEY.encode() in file.read_bytes()]


# --- docs/client_faults.md, by kind; "beyond" marks an input that the list does not name


@pytest.mark.parametrize("end", ["\n", "\r\n", "  ", "\t\n"])  # 1; beyond: blanks
def test_a_key_with_a_line_end_is_cleaned_once_and_shown_nowhere(tmp_path, monkeypatch, end):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + end)
    with FaultServer(Fault(500, {}, f"bad header Bearer {KEY}"), DROPPED) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert set(server.keys) == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("key", ["sk-a\nb-secret", "sk-schlüssel", "sk-a b-secret", "sk-\x00secret"])
def test_a_key_that_no_header_may_hold_is_refused_before_any_work(tmp_path, monkeypatch, key):
    if "\0" in key:
        monkeypatch.setattr("lvlmva_lite.critic.endpoint.os.environ", {"OPENAI_API_KEY": key})
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SettingsError, match="copy the key again") as told:
        Session(tmp_path, "http://127.0.0.1:9/v1")
    assert key not in str(told.value)


@pytest.mark.parametrize("key", ["a", "relev"])  # 29; beyond: another dummy
def test_a_dummy_key_does_not_strike_out_the_answers_words(tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with FaultServer() as server:
        assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")


ERROR_BODIES = {
    "429 beside a null": Fault(text="", message={"content": None}, reply={"error": {"code": 429, "message": "busy"}}),  # 2
    "429 alone": Fault(body={"error": {"code": 429, "message": "busy"}, "choices": []}),  # beyond
    "502 in the choice": Fault(
        text="Segment A is", finish_reason="error", choice={"error": {"code": 502, "message": "lost the model"}}
    ),  # 5
    "the word error alone": Fault(text="Segment A is", finish_reason="error"),  # beyond
    "words alone": Fault(body={"error": "the model is loading"}),  # 11
    "a text code": Fault(body={"error": {"code": "rate_limit_exceeded", "message": "try again in 7s"}}),  # beyond
}  # fmt: skip


@pytest.mark.parametrize("fault", ERROR_BODIES)
def test_an_error_within_a_200_is_a_failed_try(tmp_path, fault):
    with ruled_after(ERROR_BODIES[fault], tmp_path) as (session, _):
        assert len(session.waits) == 1
        assert len(session.store) == 2
        if fault == "a text code":
            assert session.waits == [7.0]


THOUGHT = {"content": "", "reasoning_content": "Let me see. The square ..."}
SPENT = {
    "prompt_tokens": 100,
    "completion_tokens": 2048,
    "completion_tokens_details": {"reasoning_tokens": 2048},
}
ON_REASONING = {
    "reasoning_content": Fault(text="", message=THOUGHT, finish_reason="length", usage=SPENT),  # 3
    "<think> never closed": Fault(text="<think>Segment A is relevant. Hm", finish_reason="length"),  # 8
    "[THINK] never closed": Fault(text="[THINK]Segment A is", finish_reason="length"),  # beyond
    "cut before step 6": Fault(
        text="1. I see a three. Segment A is spurious.", finish_reason="length"
    ),  # 22
    "cut in a verdict": Fault(text="Segment A is spurious. Segment B i", finish_reason="length"),  # beyond
}


@pytest.mark.parametrize("fault", ON_REASONING)
def test_an_answer_that_spent_its_tokens_is_asked_for_with_more_once(tmp_path, fault):
    with FaultServer(ON_REASONING[fault]) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert [body["max_tokens"] for body in server.bodies] == [2048, 4 * 2048, 2048]
        assert "--max-answer-tokens" in session.told[0]
        assert len(session.store) == 2
        assert len(session.store.failures()) == 1  # it was paid for


@pytest.mark.parametrize("fault", ON_REASONING)
def test_what_is_still_not_finished_is_counted_and_asked_again_by_the_next_run(tmp_path, fault):
    with FaultServer(*[ON_REASONING[fault]] * 2) as server:
        reason = Session(tmp_path, server.url).reason(case_of(1))
        assert reason.partition(":")[0] in ("reasoning", "cut")
        if fault == "reasoning_content":
            assert "2048 tokens on reasoning" in reason
        assert server.requests == 2
        (kept,) = AnswerStore(tmp_path).list("decoy-mnist-1")
        assert kept.unusable == reason.partition(":")[0]
        assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 4


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])  # 4; beyond: its other name
def test_a_verdict_in_the_reasoning_is_no_verdict(tmp_path, field):
    ruled = json.dumps(
        {"verdicts": [{"segment": "A", "verdict": "relevant"}, {"segment": "B", "verdict": "relevant"}]}
    )
    lost = Fault(text="", message={"content": None, field: ruled})
    with FaultServer(Fault(), lost) as server:
        assert Session(tmp_path / "once", server.url).ruled(case_of(1)) == ("spurious", "relevant")
    with FaultServer(Fault(), lost, lost) as server:
        assert Session(tmp_path / "twice", server.url).reason(case_of(1)).startswith("reasoning: ")


DRAFT = '{"verdicts": [{"segment": "A", "verdict": "relevant"}, {"segment": "B", "verdict": "spurious"}]}'
FINAL = '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "B", "verdict": "relevant"}]}'
DRAFTED = {
    "<think>": f"<think>Perhaps {DRAFT}</think>{FINAL}",  # 6
    "the opening is missing": f"Perhaps {DRAFT}\n</think>\n\n{FINAL}",  # 7
    "[THINK]": f"[THINK]{DRAFT}[/THINK]{FINAL}",  # beyond
    "harmony": f"<|channel|>analysis<|message|>{DRAFT}<|channel|>final<|message|>{FINAL}",  # beyond
}


@pytest.mark.parametrize("form", DRAFTED)
def test_only_what_follows_the_reasoning_is_read(tmp_path, form):
    with FaultServer(Fault(), says(DRAFTED[form])) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 2
    critique = "<think>Segment A is relevant.</think>Segment A is spurious. Segment B is relevant."
    with FaultServer(says(critique)) as server:
        session = Session(tmp_path / "critic", server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert "think" not in server.bodies[1]["messages"][1]["content"]


def test_lines_and_json_that_disagree_are_refused(tmp_path):
    with FaultServer(Fault(), says(f"A: relevant\nB: relevant\n{FINAL}")) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert "disagree" in server.bodies[2]["messages"][-1]["content"]


SURROGATES = {
    "text": Fault(text="A square \ud83d. Segment A is spurious. Segment B is relevant."),  # 9
    "refusal": Fault(text="", message={"content": None, "refusal": "no \udc80"}),  # beyond
    "error": Fault(500, {}, "broken \ud83d"),  # beyond
}


@pytest.mark.parametrize("where", SURROGATES)
def test_a_lone_surrogate_is_replaced_on_the_way_in_and_from_the_store(tmp_path, where):
    with FaultServer(SURROGATES[where]) as server:
        for _ in range(2):
            assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")
        session = Session(tmp_path, server.url)
        session.critic.criticise(case_of(1)).text.encode()
        session.store.export(tmp_path / "answers.jsonl")


def test_an_old_store_with_a_lone_surrogate_is_read(tmp_path):
    with FaultServer() as server:
        session = Session(tmp_path, server.url)
        session.critic.criticise(case_of(1))
        session.store._database.execute(
            "UPDATE answers SET answer = replace(answer, 'Segment', '\\ud83dSegment')"
        )
        assert session.critic.criticise(case_of(1)).text.startswith("\N{REPLACEMENT CHARACTER}Segment A")


TOLD = {
    # the server's reply: what the user reads, how many tries
    "no eyes, 500": (Fault(500, {}, "image input is not supported - hint: mmproj"), "does not see", 1),  # 10
    "no eyes, 400": (Fault(400, {}, "this model does not support images"), "does not see", 1),  # beyond
    "no eyes, vLLM": (Fault(400, {}, "NAME is not a multimodal model"), "does not see", 1),  # beyond, as tried
    "error in a 200": (Fault(body={"error": "Unexpected endpoint or method. (POST /x)"}), "end in /v1", 1),  # 12
    "a page": (Fault(body="<!DOCTYPE html><title>Hello</title>"), "Hello.*end in /v1", 1),  # 13
    "a page, 404": (Fault(404, body="<html>nothing here</html>"), "nothing here.*end in /v1", 1),  # beyond
    "another form": (Fault(body={"completion": "yes"}), '"completion": "yes"', 2),
    "silence": (Fault(seconds=1.2), "--timeout", 2),  # 34
    "one 402": (Fault(402, {}, "top up"), "top up.*balance", 1),
}  # fmt: skip


@pytest.mark.parametrize("fault", TOLD)
def test_the_message_holds_the_servers_words_and_what_to_do(tmp_path, fault):
    reply, words, tries = TOLD[fault]
    with FaultServer(*[reply] * tries) as server:
        session = Session(tmp_path, server.url, tries=2, timeout=0.3)
        with pytest.raises(ServerError, match=words) as told:
            session.critic.criticise(case_of(1))
        assert server.requests == tries
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ([{"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "41s"}]}}], 41),  # 15
        ({"error": {"message": "Rate limit reached. Please try again in 1m2.5s."}}, 62.5),  # beyond
        ({"error": {"message": "Please try again in 250ms"}}, 0.25),  # beyond
        ("please retry after 20 seconds", 20),
        ({"error": {"message": "slow down"}}, None),
    ],
)
def test_a_delay_in_the_body_is_waited_for(tmp_path, body, seconds):
    assert asked_pause(body) == seconds
    if seconds:
        with FaultServer(Fault(429, body=body)) as server:
            session = Session(tmp_path, server.url)
            assert session.ruled(case_of(1)) == ("spurious", "relevant")
            assert session.waits == [seconds]
            assert bool(session.told) == (seconds > 10)  # longer waits are announced


def test_a_minutes_quota_is_waited_for_and_a_quota_for_ever_is_not(tmp_path):
    with FaultServer(*[too_many()] * 12) as server:  # 30: with doubling waits, well over a minute
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == ("spurious", "relevant")
        assert sum(session.waits) > 90
        assert len(session.told) >= 3
    with FaultServer(*[too_many(retry_after="250")] * 3) as server:  # 31
        session = Session(tmp_path / "more", server.url)
        with pytest.raises(ServerError, match=r"busy for 600 seconds .*slow down.*answers so far are kept"):
            session.critic.criticise(case_of(1))
        assert server.requests == 3


def test_a_wait_that_one_worker_is_told_holds_for_all(tmp_path):
    gate, sent = threading.Event(), []

    def clock():
        return 100.0 if gate.is_set() else 0.0

    with FaultServer(Fault(), too_many(retry_after="99")) as server:
        session = Session(
            tmp_path, server.url, clock=clock, sleep=lambda seconds: sent.append(seconds) or gate.wait(5)
        )
        session.critic.concurrency = 4
        work = threading.Thread(
            target=criticise_all, args=(session.critic, [case_of(n) for n in range(20)])
        )
        work.start()
        while len(sent) < 4 and work.is_alive():
            time.sleep(0.01)
        asked = server.requests
        assert asked < 9  # those that were under way, and no more
        gate.set()
        work.join()
        assert server.requests == 21
        assert len(session.told) == 1


@pytest.mark.parametrize("answer", ["", " \n"])  # 16; beyond: blanks
def test_after_an_empty_answer_the_complaint_joins_the_users_message(tmp_path, answer):
    with FaultServer(says(answer), Fault(), says(answer)) as server:
        assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")
        for body in server.bodies:
            roles = [message["role"] for message in body["messages"]]
            assert all(one != other for one, other in pairwise(roles))
        assert "cannot be used" in server.bodies[1]["messages"][1]["content"][-1]["text"]


@pytest.mark.parametrize("fault", [Fault(403, {}, "moderation"), Fault(413, {}, "too large")])  # 17; beyond
@pytest.mark.parametrize("position", [0, 2])
def test_one_bad_case_is_set_aside_and_asked_again_later(tmp_path, fault, position):
    script = [Fault()] * position + [fault]
    cases = [case_of(number) for number in range(5)]
    with FaultServer(*script) as server:
        session, kept = Session(tmp_path, server.url), []
        said = criticise_all(session.critic, cases, on_critique=kept.append)
        assert unusable_counts(said) == {"failed": 1}
        assert fault.text in said[position].reason
        assert len(kept) == 4  # a run that is taken up asks for the fifth
        ruled = judge_all(session.judge, said, 2)
        assert ruled[position].reason == said[position].reason
        assert [verdict.kinds for verdict in ruled].count(("undecided", "undecided")) == 1
        assert all(one.text for one in criticise_all(session.critic, cases))


def test_three_bad_cases_in_a_row_stop_the_run_also_at_once(tmp_path):
    for good in (0, 2):
        with FaultServer(*[Fault()] * good, *[Fault(403, {}, "go away")] * 9) as server:
            session = Session(tmp_path / str(good), server.url)
            with pytest.raises(ServerError, match="go away"):
                criticise_all(session.critic, [case_of(number) for number in range(9)])
            assert server.requests == good + 3


def test_a_rejection_of_one_sample_does_not_cost_the_others_their_schema(tmp_path):
    invalid = {"error": {"code": "json_validate_failed", "message": "Failed to generate JSON"}}
    bare = {"error": {"message": "something about this one"}}  # beyond
    for number, body in enumerate((invalid, bare)):  # 19
        with FaultServer(Fault(), Fault(400, body=body)) as server:
            session = Session(tmp_path / str(number), server.url)
            assert session.ruled(case_of(1)) == ("spurious", "relevant")
            session.judge.judge(
                session.critic.criticise(case_of(2)).__class__(
                    "x", "c", "Segment A is relevant. Segment B is relevant."
                ),
                2,
            )
            asked = [
                body.get("response_format", {}).get("type")
                for body in server.bodies
                if isinstance(body["messages"][1]["content"], str)
            ]
            assert asked[0] == asked[-1] == "json_schema"
            assert asked[1] != "json_schema"


@pytest.mark.parametrize("text", ["```json\n{}\n```", "{}"])
@pytest.mark.parametrize(
    "extra", [{"reasoning": "B is the digit."}, {"note": 1, "confidence": [0.5]}]
)  # 20; beyond
def test_a_key_beside_valid_verdicts_does_no_harm(tmp_path, text, extra):
    ruled = json.dumps(extra | json.loads(FINAL))
    with FaultServer(Fault(), says(text.replace("{}", ruled))) as server:
        assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")
        assert server.requests == 2


BLIND = [
    "I'm sorry, but I can\u2019t see any images in our conversation.",  # 21
    "As a text-based model I am unable to view the pictures. Segment A is spurious. Segment B is relevant.",
    "No image was provided, so here is a guess.",  # beyond
]


@pytest.mark.parametrize("text", BLIND)
def test_a_model_without_eyes_is_told_apart_and_stops_the_run(tmp_path, text):
    with FaultServer(*[says(text)] * 9) as server:
        session = Session(tmp_path, server.url)
        assert session.reason(case_of(0)) == "blind: the model says that it sees no image"
        with pytest.raises(NothingUsable, match=r"5 blind.*does not see images"):
            criticise_all(session.critic, [case_of(number) for number in range(9)])
        assert server.requests == 5


def test_a_model_that_sees_may_say_what_it_cannot_see(tmp_path):
    text = "I cannot see a stroke in the image at the corner. Segment A is spurious. Segment B is relevant."
    with FaultServer(says(text)) as server:
        assert Session(tmp_path, server.url).ruled(case_of(1)) == ("spurious", "relevant")


@pytest.mark.parametrize(("fault", "kind"), [(REFUSAL, "refused"), (EMPTY, "empty")])
def test_a_critic_that_never_answers_stops_after_five_cases(tmp_path, fault, kind):
    with FaultServer(*[fault] * 40) as server:
        session = Session(tmp_path, server.url)
        session.critic.concurrency = 8
        with pytest.raises(NothingUsable, match=f"5 {kind}"):
            criticise_all(session.critic, [case_of(number) for number in range(20)])
        assert server.requests == 10


def test_a_judge_that_answers_in_prose_is_found_before_all_is_paid_for(tmp_path):
    def critic_and_prose(body):  # 23
        judge = isinstance(body["messages"][1]["content"], str)
        number = len(server.bodies)
        return "It depends." if judge else f"Segment A is spurious. Segment B is relevant. ({number})"

    with FaultServer(good=critic_and_prose) as server:
        session = Session(tmp_path, server.url)
        with pytest.raises(
            NothingUsable, match=r"of the judge .*5 malformed.*it holds no verdicts.*--judge-model"
        ):
            criticise_all(session.critic, [case_of(number) for number in range(50)], judge=session.judge)
        assert server.requests == 5 + 2 * 5


@pytest.mark.parametrize(
    ("answers", "warned"),
    [("qwen-2", True), ("other/some-thing", True), (MODEL, False), (f"{MODEL}-2026-01-01", False),
     (f"/models/{MODEL}.gguf", False), ("", False)],
)  # fmt: skip
def test_another_model_than_was_asked_for_is_kept_and_told_once(tmp_path, answers, warned):  # 24
    with FaultServer(*[Fault(reply={"model": answers})] * 2) as server:
        session = Session(tmp_path, server.url)
        for number in range(2):
            session.critic.criticise(case_of(number))
        assert len(session.told) == warned
        assert all(answers in line for line in session.told)
        assert {record["answer"]["model"] for record in session.store.records()} == {answers}


USAGES = {
    # usage of the answer: tokens that count; None: all that was set aside
    "reasoning in the total alone": ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 900}, 900),  # 25
    "reasoning beside the answer": (
        {"prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 500}}, 620,
    ),  # beyond
    "nothing": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),  # 26
    "negative": ({"prompt_tokens": -1, "completion_tokens": -1}, None),  # beyond
    "no usage": ({}, None),
}  # fmt: skip


@pytest.mark.parametrize("usage", USAGES)
def test_what_an_answer_took_is_counted_whole(tmp_path, usage):
    said, tokens = USAGES[usage]
    with FaultServer(Fault(usage=said)) as server:
        price = Price(1.0, 10.0, tokens_per_image=1000)
        session = Session(tmp_path, server.url, prices={MODEL: price})
        session.critic.criticise(case_of(1))
        budget = session.client.budget
        if tokens is None:
            assert budget.spent_tokens > 2048
        else:
            assert budget.spent_tokens == tokens
            assert budget.spent_dollars == pytest.approx(price.of(100, tokens - 100))


def test_an_error_within_a_200_costs_nothing(tmp_path):  # 27
    with FaultServer(Fault(body={"error": {"code": 502, "message": "upstream"}})) as server:
        session = Session(tmp_path, server.url)
        session.critic.criticise(case_of(1))
        assert session.client.budget.spent_tokens == 120


def test_the_cap_is_neither_passed_nor_missed_with_sixteen_in_flight(tmp_path):  # 28
    with FaultServer(good=critic_like) as server:
        session = Session(tmp_path, server.url, budget=Budget(max_tokens=8_000))
        session.critic.concurrency = 16
        with pytest.raises(CapReached):
            criticise_all(session.critic, [case_of(number) for number in range(100)])
        one, _ = session.client.most(session.critic.request(case_of(1)))
        assert server.requests * 120 == session.client.budget.spent_tokens
        assert 8_000 - one < session.client.budget.spent_tokens <= 8_000


@pytest.mark.parametrize("usage", [(7_000, 500), (100, 7_400), (3_000, 2_000)])  # beyond: bounds too low
def test_the_cap_is_not_passed_where_the_server_counts_more_than_anybody_thought(tmp_path, usage):
    tokens = sum(usage)
    more = Fault(usage=dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)))
    with FaultServer(*[more] * 100) as server:
        session = Session(tmp_path, server.url, budget=Budget(max_tokens=80_000))
        session.critic.concurrency = 16
        with pytest.raises(CapReached):
            criticise_all(session.critic, [case_of(number) for number in range(100)])
        one, _ = session.client.most(session.critic.request(case_of(1)))
        assert server.requests * tokens == session.client.budget.spent_tokens
        assert 80_000 - max(one, tokens) < session.client.budget.spent_tokens <= 80_000


def test_two_processes_that_ask_one_question_pay_once(tmp_path):  # 35
    script = (
        "import sys; from lvlmva_lite.critic.chat import ChatClient; "
        "from lvlmva_lite.critic.answers import Request; from lvlmva_lite.critic.store import AnswerStore; "
        "client = ChatClient(AnswerStore(sys.argv[1]), base_url=sys.argv[2]); "
        "print(client.ask(Request('judge', 'm', 'v', [{'role': 'user', 'content': 'which?'}])).text)"
    )
    with FaultServer(Fault(seconds=6.0, text="first"), says("second")) as server:
        ask = [sys.executable, "-c", script, tmp_path, server.url]
        processes = [subprocess.Popen(ask, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=60)[0] for process in processes]
        assert said == ["first\n"] * 2
        assert server.requests == 1


def test_a_store_that_cannot_be_written_is_found_before_any_work(tmp_path):  # 39
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):  # beyond: below a file
        with pytest.raises(SettingsError, match="--store"):
            check(
                "openai", CriticSettings(MODEL),
                Connection(folder, base_url="http://127.0.0.1:9/v1", no_cost=True), "decoy-mnist",
            )  # fmt: skip


def critic_like(_):
    return "Segment A is spurious. Segment B is relevant."


def test_a_try_has_a_limit_on_the_wall(tmp_path):
    with FaultServer(Fault(drip=0.1), Fault(drip=0.1)) as server:
        session = Session(tmp_path, server.url, timeout=5.0, deadline=0.3, tries=2)
        begun = time.monotonic()
        with pytest.raises(ServerError, match=r"no end after 0.3 seconds \(--timeout gives more\)"):
            session.critic.criticise(case_of(1))
        assert time.monotonic() - begun < 2
    with FaultServer(Fault(drip=0.01)) as server:  # blanks that keep a connection alive are fine
        assert Session(tmp_path / "fine", server.url).ruled(case_of(1)) == ("spurious", "relevant")


def test_an_interrupt_ends_every_wait_and_leaves_the_client_usable(tmp_path):  # 32
    with FaultServer(too_many(retry_after="250")) as server:
        session = Session(tmp_path, server.url, sleep=None, clock=time.monotonic)
        done = threading.Event()

        def interrupt():  # again and again: on a busy machine the first may come before the wait begins
            while not done.wait(0.3):
                session.client.interrupt()

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        begun = time.monotonic()
        with pytest.raises(Interrupted):
            session.critic.criticise(case_of(1))
        done.set()
        interrupting.join()
        assert time.monotonic() - begun < 30  # of the 250 seconds that were asked
        session.client._not_before = 0.0
        assert session.critic.criticise(case_of(1)).text


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1"]
)  # 40; beyond: another scheme
def test_a_proxy_that_cannot_be_used_is_told_in_one_line(tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SettingsError, match="ALL_PROXY") as told:
        Session(tmp_path, "https://api.example.org/v1")
    assert "\n" not in str(told.value)


def test_a_certificate_is_not_tried_again_and_a_trusted_one_is_taken(tmp_path, monkeypatch):  # 41
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    try:
        subprocess.run(
            [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the command openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultServer() as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        session = Session(tmp_path / "store", url)
        with pytest.raises(ServerError, match=r"(?i)certificate.*SSL_CERT_FILE"):
            session.critic.criticise(case_of(1))
        assert session.client.calls == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Session(tmp_path / "store", url).ruled(case_of(1)) == ("spurious", "relevant")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))  # beyond
    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        Session(tmp_path / "store", url)


def test_further_fields_reach_the_server_and_are_part_of_the_key(tmp_path):
    with FaultServer() as server:
        session = Session(tmp_path, server.url)
        for settings in (
            AnswerSettings(),
            AnswerSettings(reasoning_effort="low", extra_body='{"top_k": 1}'),
        ):
            OpenAICritic(MODEL, session.client.ask, settings=settings).criticise(case_of(1))
        assert [(body.get("reasoning_effort"), body.get("top_k")) for body in server.bodies] == [
            (None, None), ("low", 1),
        ]  # fmt: skip
        assert len(session.store) == 2


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsys):
    """Runs `lvlmva critic evaluate` on three cases: status, and what it said to stdout and stderr."""
    from lvlmva_lite.cli import main

    monkeypatch.chdir(tmp_path)
    take_few(monkeypatch.setattr)

    def run(url: str, n: int = 3) -> tuple[int, str, str]:
        command = (
            f"lvlmva critic evaluate decoy-mnist --n {n} --train-epochs 1 --quiet --critic openai "
            f"--critic-model {MODEL} --base-url {url} --no-cost --max-concurrency 2 --out evaluation"
        )
        monkeypatch.setattr("sys.argv", command.split())
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        return done.value.code or 0, told.out, told.err

    return run


def critics(server: FaultServer) -> list[dict]:
    """What was asked of the critic."""
    return [body for body in server.bodies if isinstance(body["messages"][1]["content"], list)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [(BROKEN, "HTTP 500: something broke"), (DROPPED_AT_ONCE, "disconnected")],  # beyond: no reply at all
)
def test_a_dead_server_ends_the_command_with_what_it_said_and_all_that_it_answered(
    tmp_path, monkeypatch, evaluate, fault, words
):
    monkeypatch.setattr(ChatClient, "_backoff", staticmethod(lambda number: 0.0))
    with FaultServer(*[Fault()] * 2, *[fault] * 500) as server:
        status, out, told = evaluate(server.url, n=8)
        assert (status, out) == (1, "")
        (line,) = told.splitlines()
        assert line.startswith("lvlmva: no answer from 127.0.0.1:")
        assert words in line
        assert line.endswith("answers so far are kept, the same command goes on from there")
        store = AnswerStore(tmp_path / "answers", read_only=True)
        assert len(store) == 2
        store.close()
        tried = len(server.bodies) - 2
        # Perhaps one that failed before the second answer had arrived, three in a row, another under way:
        assert tried <= 5 * 6 < 6 * 6  # not all that are left
        server._script.clear()  # somebody has started it again
        before = len(critics(server))
        status, out, _ = evaluate(server.url, n=8)
        assert status == 0
        assert "undecided 0.000" in out
        assert len(critics(server)) == before + 6


@pytest.mark.slow
def test_the_command_tells_a_fault_in_one_line_and_goes_on_from_there(tmp_path, evaluate):
    with FaultServer(Fault(), *[Fault(402, text=f"{KEY} is over its quota")] * 2) as server:
        status, out, told = evaluate(server.url)
        assert (status, out) == (1, "")
        assert told.startswith("lvlmva: 127.0.0.1:")
        assert told.endswith("(HTTP 402: [key] is over its quota); check the account's balance\n")
        assert told.count("\n") == 1
        asked = server.requests
        assert asked in (2, 3)  # the first case alone, then up to two at a time
        status, out, told = evaluate(server.url)
        assert (status, told) == (0, "")
        assert "undecided 0.000" in out
        assert len(critics(server)) == asked + 2
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file.name for file in files if KEY.encode() in file.read_bytes()]
