"""How good a critic and judge are on cases whose truth is known, and at what cost."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lvlmva_lite import agreement, metrics, plots
from lvlmva_lite.alignment_set import verdict_matrix
from lvlmva_lite.critic.types import EMPTY, KINDS, Case, Verdict
from lvlmva_lite.files import to_json, write_whole
from lvlmva_lite.tally import Tally


@dataclass(frozen=True)
class Evaluation:
    """The quality of one provider's verdicts, over all segments that hold a pixel.

    Attributes
    ----------
    critic, judge : names
    n_cases, n_verdicts : int
    sensitivity, specificity, balanced_accuracy, accuracy, undecided, base_rate
        of :func:`metrics.verdict_scores`, in [0, 1] or None
    confusion : for each class name and for "all": truth -> kind -> count, of
        :func:`metrics.kind_confusion`
    tokens_per_100_verdicts : in and out; None where no answer said how many
    cost_per_100_verdicts : US dollars; None where no price is known
    """

    critic: str
    judge: str
    n_cases: int
    n_verdicts: int
    sensitivity: float | None
    specificity: float | None
    balanced_accuracy: float | None
    accuracy: float
    undecided: float
    base_rate: float
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
    truth : (n, J) int64, from :func:`metrics.segment_truth`
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
    kinds = verdict_matrix(verdicts)
    classes = [case.class_name for case in cases]
    confusion = {"all": metrics.kind_confusion(kinds, truth)}
    for name in sorted(set(classes)):
        of_class = torch.tensor([one == name for one in classes])
        confusion[name] = metrics.kind_confusion(kinds[of_class], truth[of_class])
    n_verdicts = int((truth != EMPTY).sum())
    return Evaluation(
        critic=critic,
        judge=verdicts[0].judge,
        n_cases=len(cases),
        n_verdicts=n_verdicts,
        **metrics.verdict_scores(kinds, truth),
        confusion=confusion,
        tokens_per_100_verdicts=_per_100(tally and tally.tokens, n_verdicts),
        cost_per_100_verdicts=_per_100(tally and tally.cost, n_verdicts),
    )


def cohen_kappa(cases: Sequence[Case], first: Sequence[Verdict], second: Sequence[Verdict]) -> float | None:
    """Agreement of two providers beyond chance (Cohen 1960), over all segments that hold a pixel.

    Of all four kinds; undecided is a ruling like any other.  1: they always agree, 0: no more
    than by chance; None where both gave one and the same ruling throughout,
    for which chance leaves no room.

    Derived in chapter 5.
    """
    pairs = []
    for case, one, other in zip(cases, first, second, strict=True):
        if not case.case_id == one.case_id == other.case_id:
            raise ValueError("both providers' verdicts must be on the same cases in the same order")
        pairs += [(KINDS.index(one.kinds[j]), KINDS.index(other.kinds[j])) for j in _present(case)]
    kappa = agreement.cohen_kappa(*np.array(pairs).T)
    return None if math.isnan(kappa) else kappa


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
    """For each provider: truth against kind (counts), and sensitivity and specificity in each class."""
    plots.set_theme()
    figure, axes = plt.subplots(
        len(evaluations), 2, figsize=(10, 3.2 * len(evaluations)), squeeze=False, layout="constrained"
    )
    for (table, bars), evaluation in zip(axes, evaluations, strict=True):
        counts = evaluation.confusion["all"]
        values = np.array([[row[kind] for kind in KINDS] for row in counts.values()])
        shares = values / values.sum(1, keepdims=True)
        sns.heatmap(
            shares, annot=values, fmt="d", cmap="cividis", vmin=0, vmax=1, ax=table,
            xticklabels=KINDS, yticklabels=list(counts), cbar_kws={"label": "share of the row"},
        )  # fmt: skip
        table.set(xlabel="ruled", ylabel="in truth", title=evaluation.critic)
        shown = pd.DataFrame(
            [
                {"class": name, "of": what, "share": share}
                for name, rows in evaluation.confusion.items()
                for what, share in zip(("sensitivity", "specificity"), _shares(rows), strict=True)
            ]
        )
        sns.barplot(shown, x="class", y="share", hue="of", ax=bars)
        bars.set(ylim=(0, 1), ylabel="of what was decided")
        bars.legend(
            title="", fontsize="small", ncols=2, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1)
        )
        sns.despine(ax=bars)
    return figure


def _shares(rows: dict[str, dict[str, int]]) -> tuple[float, float]:
    """Sensitivity and specificity of a confusion table, nan where there is nothing to be told."""
    decided = {name: sum(row.values()) - row["undecided"] for name, row in rows.items()}
    called = {name: row["spurious"] for name, row in rows.items()}
    positives = decided.pop("spurious", 0)
    found = called.pop("spurious", 0)
    negatives = sum(decided.values())
    return (
        found / positives if positives else math.nan,
        1 - sum(called.values()) / negatives if negatives else math.nan,
    )


def _present(case: Case) -> list[int]:
    present = set(case.segment_labels.unique().tolist())
    return [j for j in range(case.n_segments) if j in present]


def _per_100(amount: float | None, n_verdicts: int) -> float | None:
    return None if amount is None else 100 * amount / n_verdicts
