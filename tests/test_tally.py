"""What critic and judge took, against what a server on loopback counted and what a price list makes of it."""

from dataclasses import replace

import pytest
from answering_server import AnsweringServer, critic_or_judge
from few_decoys import FewDecoys

from lvlmva_lite import methods
from lvlmva_lite.critic.budget import price_of
from lvlmva_lite.critic.providers import Connection, CriticSettings
from lvlmva_lite.tally import cost_of

SMALL = {"n_align": 3, "train_epochs": 1, "align_epochs": 1, "n_explained": 5}
IN, OUT = 90, 11
NOTHING = {"critic_tokens": 0, "critic_dollars": 0.0}
UNKNOWN = {"critic_tokens": None, "critic_dollars": None}


def run(connection=None, *, seed=0, method="lvlm-va", **settings):
    task = FewDecoys()
    return methods.run(
        task, task.config(**SMALL, seed=seed, **settings), method=method, connection=connection
    )


def test_a_run_took_what_the_server_counted_whoever_asked_first(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    asked = {"critic": "openai", "critic_settings": CriticSettings("gpt-4o")}
    answers = []

    def one_refusal_first(body):
        answers.append(body)
        if len(answers) == 1:  # which is asked again, and counts
            return {"role": "assistant", "content": None, "refusal": "no"}
        return critic_or_judge(body)

    with AnsweringServer(one_refusal_first, usage=(IN, OUT)) as server:
        live = Connection(store=tmp_path, base_url=server.url)
        result = run(live, **asked)
        n = len(server.bodies)
        assert n == 3 + 1 + 1  # the critiques say the same, so that the judge is asked once
        found = cost_of(result, live)
        assert found["critic_tokens"] == n * (IN + OUT)
        price = price_of("gpt-4o")
        dollars = n * (IN * price.input + OUT * price.output) / 1e6
        assert found["critic_dollars"] == pytest.approx(dollars, rel=1e-9)

        # Another seed puts other cases into the same store; the first run has not become dearer.
        run(live, seed=1, **asked)
        assert len(server.bodies) > n
        assert cost_of(result, live) == found
        again = replace(result, config=replace(result.config, critic="replay"))
        assert cost_of(again, live) == found
        assert cost_of(result, replace(live, base_url="http://127.0.0.1:1/v1")) == UNKNOWN

        unpriced = Connection(store=tmp_path / "other", base_url=server.url, no_cost=True)
        without = cost_of(run(unpriced, **asked), unpriced)
        assert without["critic_tokens"] > 0
        assert without["critic_dollars"] is None


def test_who_asks_no_model_took_nothing_and_of_answers_that_ship_nobody_knows():
    result = run()
    assert cost_of(result, Connection()) == NOTHING
    assert cost_of(run(method="rrr-gt"), Connection()) == NOTHING
    shipped = replace(result, config=replace(result.config, critic="recorded"))
    assert cost_of(shipped, Connection()) == UNKNOWN
