"""The batch endpoint: half the price, one payment whatever happens on the way, and caps that hold."""

import json
import subprocess
import sys

import pytest
import torch
from batch_server import BatchServer
from fault_server import Fault, FaultServer

pytest.importorskip("openai", reason="needs the openai extra: pip install 'lvlmva-lite[openai]'")

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.batch import NothingUsable, criticise_all, judge_all
from lvlmva_lite.critic.batches import BatchClient
from lvlmva_lite.critic.budget import Budget, CapReached, Price
from lvlmva_lite.critic.failures import ServerError
from lvlmva_lite.critic.openai_critic import OpenAICritic, OpenAIJudge, VerdictList
from lvlmva_lite.critic.providers import Connection, CriticSettings, SettingsError, check
from lvlmva_lite.critic.store import AnswerStore

MODEL = "some-model"
PRICE = Price(1.0, 10.0, tokens_per_image=1000)
LABELS = torch.arange(2).repeat_interleave(14)[:28, None].expand(28, 28)


def cases(n):
    return [
        Case(f"case-{i}", torch.full((1, 28, 28), i / 250), LABELS, 2, "3", "words", torch.ones(28, 28))
        for i in range(n)
    ]


class Stopped(BaseException):
    """What a killed process never tells."""


class Session:
    def __init__(self, folder, url, **client):
        self.waits, self.told = [], []
        client = {"sleep": self.waits.append, "notify": self.told.append, "prices": {MODEL: PRICE}} | client
        self.store = AnswerStore(folder)
        self.client = BatchClient(
            self.store, base_url=url, schema=VerdictList.model_json_schema(), **client
        )
        more = {"ask_ahead": self.client.ask_ahead}
        self.critic = OpenAICritic(MODEL, self.client.ask, **more)
        self.judge = OpenAIJudge(MODEL, self.client.ask, **more)

    def run(self, n):
        """Critic and judge on n cases."""
        said = criticise_all(self.critic, cases(n), judge=self.judge)
        return judge_all(self.judge, said, 2)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sentinel-batch-12")


def numbered(body):
    """A critic whose answers differ, so that each is a question of its own to the judge."""
    said = body["messages"][1]["content"]
    if isinstance(said, list):
        return f"Segment A is spurious. Segment B is relevant. ({hash(json.dumps(said)) % 10**6})"
    return (
        '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "B", "verdict": "relevant"}]}'
    )


def test_all_but_the_first_few_go_in_two_batches_at_half_the_price(tmp_path):
    with BatchServer(numbered) as server:
        session = Session(tmp_path, server.url)
        assert [verdict.kinds for verdict in session.run(20)] == [("spurious", "relevant")] * 20
        assert len(server.alone) == 5 + 5  # critic and judge, tried before a batch is paid for
        assert [len(server.questions(number)) for number in range(2)] == [15, 15]
        asked = server.questions(0)[0]
        assert (asked["method"], asked["url"]) == ("POST", "/v1/chat/completions")
        alone = next(body for body in server.alone if isinstance(body["messages"][1]["content"], list))
        assert set(asked["body"]) == set(alone)
        assert server.created[0]["completion_window"] == "24h"
        budget = session.client.budget
        assert budget.spent_tokens == 40 * 120
        assert budget.spent_dollars == pytest.approx((10 + 0.5 * 30) * PRICE.of(100, 20))
        costs = [record["answer"]["cost"] for record in session.store.records()]
        assert sum(costs) == pytest.approx(budget.spent_dollars)
        assert any("same command collects" in line for line in session.told)
        again = Session(tmp_path, server.url)
        assert [verdict.kinds for verdict in again.run(20)] == [("spurious", "relevant")] * 20
        assert (len(server.alone), len(server.created), again.client.budget.spent_tokens) == (10, 2, 0)


@pytest.mark.parametrize("moment", ["under way", "reply lost", "between"])
@pytest.mark.parametrize("who", ["critic", "judge"])
def test_a_command_that_is_stopped_collects_its_batch_and_pays_once(tmp_path, monkeypatch, moment, who):
    """Killed while it waits, after a lost reply, or between the sending and its note."""
    nth = {"critic": 1, "judge": 2}[who]
    with BatchServer(numbered, lose=moment == "reply lost") as server:
        session = Session(tmp_path, server.url)

        def stop(*arguments):
            if len(server.created) == nth:
                raise Stopped

        if moment == "under way":
            session.client._sleep = stop
        elif moment == "between":
            note = session.store.begin_batch
            monkeypatch.setattr(
                session.store,
                "begin_batch",
                lambda *all_: stop() or note(*all_) if all_[3:] else note(*all_),
            )
        if moment == "reply lost":
            session.run(20)
        else:
            with pytest.raises(Stopped):
                session.run(20)
            assert len(server.created) == nth
            session.store.close()
            session = Session(tmp_path, server.url)
            assert [verdict.kinds for verdict in session.run(20)] == [("spurious", "relevant")] * 20
        assert [len(server.questions(number)) for number in range(len(server.created))] == [15, 15]
        assert len(server.alone) == 10
        assert session.store.batches(session.client.server_id) == []
        assert len(session.store) == 40


def test_a_smaller_command_leaves_the_rest_of_a_batch_for_a_later_one(tmp_path):
    with BatchServer(numbered) as server:
        session = Session(tmp_path, server.url)
        session.client._sleep = lambda _: (_ for _ in ()).throw(Stopped)
        with pytest.raises(Stopped):
            session.run(20)
        assert len(Session(tmp_path, server.url).run(10)) == 10
        assert len(Session(tmp_path, server.url).run(20)) == 20
        critics = [q for n in range(len(server.created)) for q in server.questions(n)
                   if isinstance(q["body"]["messages"][1]["content"], list)]  # fmt: skip
        assert len(critics) == len({q["custom_id"] for q in critics}) == 15


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_a_batch_leaves_is_asked_one_at_a_time(tmp_path, status):
    with BatchServer(numbered, status="expired") as server:
        server.status = status
        session = Session(tmp_path, server.url)
        said = criticise_all(session.critic, cases(15))
        assert all(one.text for one in said)
        assert len(server.alone) == 5 + (5 if status == "expired" else 0)
        assert any(status in line for line in session.told)


def test_answers_that_break_off_are_fetched_again_and_count_once(tmp_path):
    with BatchServer(numbered, cut=2) as server:
        session = Session(tmp_path, server.url)
        assert [verdict.kinds for verdict in session.run(12)] == [("spurious", "relevant")] * 12
        assert session.client.budget.spent_tokens == 24 * 120
        assert len(session.waits) >= 2
        assert len(server.alone) == 10


MEMORY = """
import resource, sys
from lvlmva_lite.critic.answers import Request
from lvlmva_lite.critic.batches import BatchClient
from lvlmva_lite.critic.store import AnswerStore

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def requests():
    for number in range(80):
        text = f"{number} " + "x" * 1_000_000
        yield Request("critic", "m", "v", [{"role": "system", "content": ""}, {"role": "user", "content": text}])

store = AnswerStore(sys.argv[1])
client = BatchClient(store, base_url=sys.argv[2], sleep=lambda _: None, notify=lambda _: None)
client.ask(next(iter(requests())))
before = megabytes()
client.ask_ahead(requests())
print(len(store), megabytes() - before)
"""


@pytest.mark.slow
def test_a_batch_waits_on_disk_not_in_memory(tmp_path):
    """80 MB of questions, one of them asked before; a second copy of any would take 79 MB."""
    with BatchServer(lambda _: "some answer") as server:
        ran = subprocess.run(
            [sys.executable, "-c", MEMORY, tmp_path, server.url], capture_output=True, text=True, check=True
        )
        answers, megabytes = ran.stdout.split()
        assert (int(answers), len(server.questions(0))) == (80, 79)
        assert float(megabytes) < 25


def test_an_error_of_one_question_costs_nothing_and_is_asked_alone(tmp_path):
    failed = []

    def reply(body):
        if server.created and not failed:
            failed.append(body)
            return 500, "overloaded"
        return numbered(body)

    with BatchServer(reply) as server:
        session = Session(tmp_path, server.url)
        assert all(one.text for one in criticise_all(session.critic, cases(12)))
        assert len(server.alone) == 6
        assert session.client.budget.spent_tokens == 12 * 120
        assert "overloaded" in session.store.failures()[0][1]


def test_a_batch_is_as_large_as_the_cap_allows_and_never_larger(tmp_path):
    with BatchServer(numbered) as server:
        session = Session(tmp_path, server.url, budget=Budget(max_tokens=40_000))
        one, _ = session.client.most(session.critic.request(cases(1)[0]))
        session.run(30)
        assert session.client.budget.spent_tokens == 60 * 120 <= 40_000
        left, spent, sizes = 25, 10 * 120, []  # five cases were tried, critic and judge
        while left:
            sizes.append(min(left, (40_000 - spent) // one))
            left, spent = left - sizes[-1], spent + 120 * sizes[-1]
        assert [len(server.questions(number)) for number in range(len(sizes))] == sizes
    with BatchServer(numbered) as server:
        session = Session(tmp_path / "less", server.url, budget=Budget(max_tokens=10_000))
        one, _ = session.client.most(session.critic.request(cases(1)[0]))
        with pytest.raises(CapReached, match="answers so far are kept"):
            session.run(60)
        assert 10_000 - one < session.client.budget.spent_tokens <= 10_000


def test_a_critic_of_no_use_is_found_before_a_batch(tmp_path):
    with BatchServer(lambda _: "I can't see any images.") as server:
        with pytest.raises(NothingUsable, match="blind"):
            Session(tmp_path, server.url).run(30)
        assert server.created == []


@pytest.mark.parametrize("fault", [Fault(404, {}, "no such page"), Fault(405, {}, "not here")])
def test_a_server_without_batches_is_told_in_one_line(tmp_path, fault):
    with FaultServer(*[Fault()] * 5, fault) as server:
        with pytest.raises(ServerError, match=r"knows no batches .*leave out --batch") as told:
            criticise_all(Session(tmp_path, server.url).critic, cases(9))
        assert "\n" not in str(told.value)


def test_a_batch_that_fails_is_told_in_the_servers_words(tmp_path):
    with BatchServer(numbered, status="failed") as server:
        session = Session(tmp_path, server.url)
        with pytest.raises(ServerError, match="no room for batches today"):
            session.run(9)
        assert session.client.budget.spent_tokens == 10 * 120
        assert session.store.batches(session.client.server_id) == []


def test_batches_are_for_models(tmp_path):
    with pytest.raises(SettingsError, match="--batch"):
        check("lexicon", CriticSettings(), Connection(tmp_path, batch=True), "decoy-mnist")
