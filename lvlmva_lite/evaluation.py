"""How good a critic and judge are on cases whose truth is known, and at what cost."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lvlmva_lite import metrics, plots
from lvlmva_lite.critic.store import Answer, Request
from lvlmva_lite.critic.types import Case, Critic, Judge, Verdict
from lvlmva_lite.files import to_json, write_whole

RULINGS = ("spurious", "relevant", "undecided")
"""What a verdict can be, in the order of the columns of a confusion table."""


@dataclass(frozen=True)
class Evaluation:
    """The quality of one provider's verdicts, over all segments that hold a pixel.

    Attributes
    ----------
    critic, judge : names
    n_cases, n_verdicts : int
    accuracy : undecided counts as wrong, in [0, 1]
    balanced_accuracy : mean of the accuracies on truly spurious and truly
        relevant segments; None if the cases hold only one kind
    undecided : share of the verdicts, in [0, 1]
    confusion : for each class name and for "all": truth -> ruling -> count
    tokens_per_100_verdicts : in and out; None where no answer said how many
    cost_per_100_verdicts : US dollars; None where no price is known
    """

    critic: str
    judge: str
    n_cases: int
    n_verdicts: int
    accuracy: float
    balanced_accuracy: float | None
    undecided: float
    confusion: dict[str, dict[str, dict[str, int]]]
    tokens_per_100_verdicts: float | None = None
    cost_per_100_verdicts: float | None = None


def evaluate(
    cases: Sequence[Case],
    verdicts: Sequence[Verdict],
    truth: Tensor,
    *,
    critic: str = "",
    tally: Tally | None = None,
) -> Evaluation:
    """Hold verdicts against the truth.

    Parameters
    ----------
    cases : n cases of J segments each
    verdicts : n, in the same order
    truth : (n, J) bool, True where a segment is spurious
    critic : the critic's name, for the record
    tally : what the answers took, if models gave them

    Raises
    ------
    ValueError : cases, verdicts and truth do not belong together
    """
    if [case.case_id for case in cases] != [verdict.case_id for verdict in verdicts] or len(truth) != len(
        cases
    ):
        raise ValueError("cases, verdicts and truth must be of the same cases in the same order")
    spurious = _matrix(verdicts)
    measured = metrics.verdict_accuracy(
        spurious, truth, torch.stack([case.segment_labels for case in cases])
    )
    classes = sorted({case.class_name for case in cases})
    confusion = {name: _empty_table() for name in ("all", *classes)}
    for case, ruled, true in zip(cases, spurious.tolist(), truth.tolist(), strict=True):
        of_class = confusion[case.class_name]
        for j in _present(case):
            row = "spurious" if true[j] else "relevant"
            column = "undecided" if math.isnan(ruled[j]) else RULINGS[int(ruled[j] == 0)]
            of_class[row][column] += 1
            confusion["all"][row][column] += 1
    n_verdicts = sum(map(len, map(_present, cases)))
    balanced = measured["balanced_accuracy"]
    return Evaluation(
        critic=critic,
        judge=verdicts[0].judge,
        n_cases=len(cases),
        n_verdicts=n_verdicts,
        accuracy=measured["accuracy"],
        balanced_accuracy=None if math.isnan(balanced) else balanced,
        undecided=measured["undecided"],
        confusion=confusion,
        tokens_per_100_verdicts=_per_100(tally and tally.tokens, n_verdicts),
        cost_per_100_verdicts=_per_100(tally and tally.cost, n_verdicts),
    )


def cohen_kappa(cases: Sequence[Case], first: Sequence[Verdict], second: Sequence[Verdict]) -> float | None:
    """Agreement of two providers beyond chance (Cohen 1960), over all segments that hold a pixel.

    Undecided is a ruling like any other.  1: they always agree, 0: no more
    than by chance; None where both gave one and the same ruling throughout,
    for which chance leaves no room.
    """
    table = np.zeros((3, 3))
    for case, one, other in zip(cases, first, second, strict=True):
        if not case.case_id == one.case_id == other.case_id:
            raise ValueError("both providers' verdicts must be on the same cases in the same order")
        for j in _present(case):
            table[_column(one.spurious[j]), _column(other.spurious[j])] += 1
    table /= table.sum()
    by_chance = float(table.sum(0) @ table.sum(1))
    return None if math.isclose(by_chance, 1.0) else (float(np.trace(table)) - by_chance) / (1 - by_chance)


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
        return sum(i + o for i, o in counts) if counts and all(None not in c for c in counts) else None

    @property
    def cost(self) -> float | None:
        """US dollars; None if any answer has no known cost."""
        costs = [answer.cost for answer in self._answers.values()]
        return sum(costs) if costs and None not in costs else None


def write_evaluation(
    folder: Path, evaluations: Sequence[Evaluation], kappa: float | None, **more: object
) -> None:
    """``evaluation.png`` and, last, ``evaluation.json`` in ``folder``, made if need be; each whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    values = more | {"providers": [asdict(evaluation) for evaluation in evaluations]}
    if len(evaluations) > 1:
        values["cohen_kappa"] = kappa
    figure = evaluation_figure(evaluations)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    plt.close(figure)
    write_whole(folder / "evaluation.png", picture.getvalue())
    write_whole(folder / "evaluation.json", to_json(values, indent=1) + "\n")


def evaluation_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """For each provider: truth against ruling (counts), and the accuracy in each class."""
    plots.set_theme()
    figure, axes = plt.subplots(
        len(evaluations), 2, figsize=(9, 3.2 * len(evaluations)), squeeze=False, layout="constrained"
    )
    for (table, bars), evaluation in zip(axes, evaluations, strict=True):
        counts = evaluation.confusion["all"]
        values = np.array([[counts[row][column] for column in RULINGS] for row in RULINGS[:2]])
        shares = values / np.maximum(values.sum(1, keepdims=True), 1)
        sns.heatmap(
            shares, annot=values, fmt="d", cmap="cividis", vmin=0, vmax=1, ax=table,
            xticklabels=RULINGS, yticklabels=RULINGS[:2], cbar_kws={"label": "share of the row"},
        )  # fmt: skip
        table.set(xlabel="ruled", ylabel="in truth", title=evaluation.critic)
        classes = [name for name in evaluation.confusion if name != "all"]
        right = [_right_share(evaluation.confusion[name]) for name in classes]
        sns.barplot(x=classes, y=right, ax=bars, color=sns.color_palette("colorblind")[0])
        bars.set(ylim=(0, 1), xlabel="class", ylabel="verdict accuracy")
        bars.axhline(evaluation.accuracy, color="black", linewidth=1, linestyle="--")
        sns.despine(ax=bars)
    return figure


def _matrix(verdicts: Sequence[Verdict]) -> Tensor:
    return torch.tensor(
        [
            [math.nan if ruled is None else float(ruled) for ruled in verdict.spurious]
            for verdict in verdicts
        ]
    )


def _present(case: Case) -> list[int]:
    present = set(case.segment_labels.unique().tolist())
    return [j for j in range(case.n_segments) if j in present]


def _column(ruled: bool | None) -> int:
    return {True: 0, False: 1, None: 2}[ruled]


def _empty_table() -> dict[str, dict[str, int]]:
    return {row: dict.fromkeys(RULINGS, 0) for row in RULINGS[:2]}


def _right_share(table: dict[str, dict[str, int]]) -> float:
    total = sum(sum(row.values()) for row in table.values())
    return sum(table[row][row] for row in table) / max(total, 1)


def _per_100(amount: float | None, n_verdicts: int) -> float | None:
    return None if amount is None else 100 * amount / n_verdicts
