"""What a user sees of a server that misbehaves, and that no answer is lost or paid for twice."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

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

pytest.importorskip("openai", reason="needs the openai extra: pip install 'lvlmva-lite[openai]'")

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.budget import Budget, CapReached, Price
from lvlmva_lite.critic.chat import ChatClient, ServerError
from lvlmva_lite.critic.openai_critic import OpenAICritic, OpenAIJudge, VerdictList
from lvlmva_lite.critic.store import AnswerStore

KEY = "sk-sentinel-fault-0815"
MODEL = "some-model"
LABELS = torch.arange(2).repeat_interleave(14)[:28, None].expand(28, 28)


def case_of(number: int) -> Case:
    image = torch.full((1, 28, 28), number / 100)
    return Case(f"decoy-mnist-{number}", image, LABELS, 2, "digit 3", "The square means nothing.")


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

    def ruled(self, case: Case) -> tuple:
        return self.judge.judge(self.critic.criticise(case), case.n_segments).spurious


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
        assert session.ruled(case_of(1)) == (True, False)
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
        assert session.ruled(case_of(1)) == (True, False)
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
                ServerError, match=r"asks to wait 3[56]\d\d seconds \(HTTP 429: slow down\); answers so far are kept"
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
        assert session.ruled(case_of(1)) == (True, False)
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
    with FaultServer(SILENT[fault]) as server:
        session = Session(tmp_path, server.url)
        assert session.ruled(case_of(1)) == (True, False)
        assert server.requests == 3
        assert len(session.store) == 3  # the refusal was paid for, too
        assert session.ruled(case_of(1)) == (True, False)
        assert server.requests == 3


@pytest.mark.parametrize("fault", SILENT)
def test_a_critic_that_keeps_saying_nothing_leaves_the_case_undecided(tmp_path, fault):
    with FaultServer(*[SILENT[fault]] * 2) as server:
        session = Session(tmp_path, server.url)
        for _ in range(2):
            assert session.ruled(case_of(1)) == (None, None)
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
        assert session.ruled(case_of(1)) == (True, False)
        assert server.requests == 3
        assert "cannot be used" in server.bodies[2]["messages"][-1]["content"]
        assert session.ruled(case_of(1)) == (True, False)
        assert server.requests == 3


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_judge_that_keeps_answering_badly_leaves_the_case_undecided(tmp_path, fault):
    with FaultServer(*judged_by(*[MALFORMED[fault]] * 2)) as server:
        session = Session(tmp_path, server.url)
        for _ in range(2):
            assert session.ruled(case_of(1)) == (None, None)
        assert server.requests == 3
        assert len(session.store) == 3


def test_faults_among_concurrent_requests_cost_each_case_one_answer(tmp_path):
    cases = [case_of(number) for number in range(12)]
    faults = [too_many(), BROKEN, TRUNCATED, DROPPED, too_many(retry_after="1")]
    with FaultServer(*faults) as server:
        session = Session(tmp_path, server.url)
        session.critic.concurrency = session.judge.concurrency = 4
        said = criticise_all(session.critic, cases)
        assert [verdict.spurious for verdict in judge_all(session.judge, said, 2)] == [(True, False)] * 12
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


@pytest.mark.slow
def test_the_command_tells_a_fault_in_one_line_and_goes_on_from_there(tmp_path, monkeypatch, capsys):
    from lvlmva_lite.cli import main

    monkeypatch.chdir(tmp_path)

    def evaluate(url: str) -> tuple[int, str, str]:
        command = (
            f"lvlmva critic evaluate decoy-mnist --n 3 --train-epochs 1 --quiet --critic openai "
            f"--critic-model {MODEL} --base-url {url} --no-cost --max-concurrency 2 --out evaluation"
        )
        monkeypatch.setattr("sys.argv", command.split())
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        return done.value.code or 0, told.out, told.err

    with FaultServer(Fault(), *[Fault(403, text=f"{KEY} is over its quota")] * 2) as server:
        status, out, told = evaluate(server.url)
        assert (status, out) == (1, "")
        assert told.startswith("lvlmva: 127.0.0.1:")
        assert told.endswith("(HTTP 403: [key] is over its quota); check what this key may do\n")
        assert told.count("\n") == 1
        asked = server.requests
        assert asked in (2, 3)  # the first case alone, then up to two at a time
        status, out, told = evaluate(server.url)
        assert (status, told) == (0, "")
        assert "undecided 0.000" in out
        critics = [body for body in server.bodies if isinstance(body["messages"][1]["content"], list)]
        assert len(critics) == asked + 2
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file.name for file in files if KEY.encode() in file.read_bytes()]
