"""What the answers of models took: tokens, and US dollars."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from lvlmva_lite.alignment_set import make_cases
from lvlmva_lite.critic import providers
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.endpoint import effective_url
from lvlmva_lite.critic.providers import Connection
from lvlmva_lite.critic.store import StoreError
from lvlmva_lite.critic.types import Critic, Judge
from lvlmva_lite.results import Result


class Tally:
    """Counts what answers took as they pass by, recorded ones included, each once.

    Parameters
    ----------
    ask : what answers the requests
    """

    def __init__(self, ask: Callable[[Request], Answer]) -> None:
        self._ask = ask
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        answer = self._ask(request)
        with self._lock:
            self._answers[request.key] = answer
        return answer

    @classmethod
    def of(cls, critic: Critic, judge: Judge) -> Tally | None:
        """A tally of what this critic and judge ask from now on; None if they ask no model."""
        if not (hasattr(critic, "ask") and hasattr(judge, "ask")):
            return None
        critic.ask = judge.ask = tally = cls(critic.ask)
        return tally

    @property
    def tokens(self) -> int | None:
        """Tokens in and out; None if any answer did not say."""
        counts = [(a.prompt_tokens, a.completion_tokens) for a in self._answers.values()]
        return sum(i + o for i, o in counts) if all(None not in c for c in counts) else None

    @property
    def cost(self) -> float | None:
        """US dollars; None if any answer has no known cost."""
        costs = [answer.cost for answer in self._answers.values()]
        return sum(costs) if None not in costs else None


def cost_of(result: Result, connection: Connection) -> dict[str, int | float | None]:
    """What the answers took on which a run's verdicts rest, whoever asked for them first.

    They are looked up in the store once more, by the very questions.  A try that a server billed and
    that left no answer is not among them.

    Parameters
    ----------
    result : Result
    connection : with which it was made

    Returns
    -------
    dict
        "critic_tokens": in and out; "critic_dollars".  0 where no model was asked; None where nobody
        knows: a price, a server that does not count, answers that ship with the package, a critic of
        another package, a store without the answers
    """
    config = result.config
    if not result.critiques or config.critic in ("lexicon", "simulated"):
        return {"critic_tokens": 0, "critic_dollars": 0.0}
    unknown = {"critic_tokens": None, "critic_dollars": None}
    if config.critic not in ("openai", "replay"):
        return unknown
    train = result.task.load("train", seed=config.seed)
    cases = {
        case.case_id: case
        for case in make_cases(
            train, result.indices, result.attributions, result.segments, config.description
        )
    }
    if config.critic == "openai":  # a store may hold what another server said to the same
        connection = replace(connection, base_url=effective_url(connection.base_url))
    try:
        critic, judge = providers.make("replay", config.critic_settings, connection)
        tally = Tally.of(critic, judge)
        for said in result.critiques:
            case = cases[said.case_id]
            # One of no segment is not asked about; one that failed has no answer.
            if (case.segment_labels >= 0).any() and not said.reason.startswith("failed"):
                critic.criticise(case, said.sample)
                judge.judge(said, case.n_segments)
    except StoreError:
        return unknown
    return {"critic_tokens": tally.tokens, "critic_dollars": tally.cost}
