"""What a run gives: one type, one table, one JSON, for every task and method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite.config import Config
from lvlmva_lite.critic import Critique, Verdict
from lvlmva_lite.critic.types import KINDS, UNDECIDED
from lvlmva_lite.environment import environment
from lvlmva_lite.models import OwnNetwork
from lvlmva_lite.registry import METHODS
from lvlmva_lite.segmentation import Segments
from lvlmva_lite.tasks import Task

ROWS = {
    "before": "before",
    "lvlm_va": "LVLM-VA",
    "ground_truth_masks": "ground-truth masks",
    "never_saw_decoys": "never saw decoys",
}
"""Rows of DecoyMNIST's tables: key -> what people read."""


@dataclass(frozen=True)
class Score:
    """One row of the result table.

    Attributes
    ----------
    accuracy : on the test set, in [0, 1]; each sample counts alike
    accuracy_clean : on the same images without the spurious feature, None where
        there are none such
    mu_align : share of attribution outside the spurious feature, test set; None where
        nobody knows where it is
    wga, aga : worst and average accuracy over the test set's groups; None without groups
    conflict_auc, letter_effect : of :func:`crossed.crossed_readouts`, over the test images with and
        without the spurious feature; None where there are no such twins
    verdict_sensitivity, verdict_specificity, verdict_balanced_accuracy,
    verdict_accuracy, verdict_base_rate : of critic and judge, from
        :func:`metrics.verdict_scores`; None where nobody judged or there was
        nothing of the sort to judge
    seconds : wall time of what this row needed beyond the row before it
    """

    accuracy: float
    accuracy_clean: float | None
    mu_align: float | None
    seconds: float
    wga: float | None = None
    aga: float | None = None
    conflict_auc: float | None = None
    letter_effect: float | None = None
    verdict_sensitivity: float | None = None
    verdict_specificity: float | None = None
    verdict_balanced_accuracy: float | None = None
    verdict_accuracy: float | None = None
    verdict_base_rate: float | None = None


@dataclass(frozen=True)
class Result:
    """All that a run made.

    Attributes
    ----------
    task : Task
    config : Config
    method : str, its name
    indices : Tensor, (N,), int64, the alignment set within the training data
    attributions : Tensor, (N, H, W), of the model before alignment
    segments : Segments
    critiques : list of N times the number of samples; empty where nobody was asked
    verdicts : list of N; empty where nobody was asked
    kinds : Tensor, (N, J), int64, codes of ``KINDS``
    masks : Tensor, (N, H, W), bool, what the verdicts amount to; where nobody was asked, those used
    confusion : dict, truth -> kind -> count, from :func:`metrics.kind_confusion`;
        None where nobody was asked
    models : dict of nn.Module, "before", "after" and the task's bounds
    scores : dict of Score, by the same keys
    group_accuracies : dict of Tensor, (n_groups,), by the same keys; nan where a group is
        empty; no key without groups
    group_names : tuple of str
    class_names : tuple of str
    case_labels : Tensor, (N,), int64, classes of the alignment set
    labels : Tensor, (n,), int64, classes of the test set
    answers : dict of Tensor, (n,), int64, what is predicted there, by the keys of ``models``
    trials : list of dict, the method's settings tried and their "score"
    spurious_share_align : share of the alignment set that shows the spurious feature; None
        where nobody knows
    validation_loss : mean accuracy over groups, or over classes where none are known, that the
        validation split lost; negative where it gained
    validation_classes : class -> its images "n" in the validation split and the share told right "before"
        and "after", None where there are none
    """

    task: Task
    config: Config
    method: str
    indices: Tensor
    attributions: Tensor
    segments: Segments
    critiques: list[Critique]
    verdicts: list[Verdict]
    kinds: Tensor
    masks: Tensor
    confusion: dict[str, dict[str, int]] | None
    models: dict[str, nn.Module]
    scores: dict[str, Score]
    group_accuracies: dict[str, Tensor]
    group_names: tuple[str, ...]
    class_names: tuple[str, ...]
    case_labels: Tensor
    labels: Tensor
    answers: dict[str, Tensor]
    trials: list[dict[str, Any]]
    spurious_share_align: float | None
    validation_loss: float
    validation_classes: dict[str, dict[str, Any]]

    @property
    def model(self) -> nn.Module:
        """The aligned network; of a user's own it is their class again, as they gave it."""
        model = self.models["after"]
        return model.network if isinstance(model, OwnNetwork) else model

    def by_class(self) -> dict[str, dict[str, Any]]:
        """For each class of the test set: images, accuracy before and after, and how many answers changed.

        Of those "mended" are right now and were wrong, "broken" the reverse. The
        key "verdicts" counts what was judged of the class's segments that hold a pixel.
        """
        before, after = (self.answers[row] for row in ("before", "after"))
        seen = torch.stack(
            [(self.segments.labels == j).flatten(1).any(1) for j in range(self.kinds.shape[1])], 1
        )
        table = {}
        for label, name in enumerate(self.class_names):
            own = self.labels == label
            was, became = before[own], after[own]
            judged = self.kinds[(self.case_labels == label)[:, None] & seen]
            table[name] = {
                "n": int(own.sum()),
                "before": _share(was == label),
                "after": _share(became == label),
                "changed": int((was != became).sum()),
                "mended": int(((was != label) & (became == label)).sum()),
                "broken": int(((was == label) & (became != label)).sum()),
                "verdicts": {kind: int((judged == code).sum()) for code, kind in enumerate(KINDS)},
            }
        return table

    def changes(self) -> str:
        """What alignment changed of the answers to the test set, in one line."""
        rows = self.by_class()
        n, changed, mended, broken = (
            sum(row[count] for row in rows.values()) for count in ("n", "changed", "mended", "broken")
        )
        of_classes = ", ".join(f"{name} {row['changed']}" for name, row in rows.items() if row["changed"])
        return (
            f"{changed} of {n} test answers changed"
            + (f" ({of_classes}): {mended} mended, {broken} broken" if changed else "")
        )  # fmt: skip

    def class_losses(self) -> dict[str, float]:
        """What each class lost of its accuracy on the validation split, the most first; gains are negative."""
        lost = {
            name: row["before"] - row["after"] for name, row in self.validation_classes.items() if row["n"]
        }
        return dict(sorted(lost.items(), key=lambda item: -item[1]))

    def told_losses(self, above: float = 0.1) -> str:
        """The classes that lost more than ``above`` there, in one line; empty where none did."""
        rows = [
            (name, self.validation_classes[name])
            for name, lost in self.class_losses().items()
            if lost > above
        ]
        told = (
            f"{name} {row['before']:.2f} before, {row['after']:.2f} after ({row['n']} images)"
            for name, row in rows
        )
        return f"right less often on the validation split: {'; '.join(told)}" if rows else ""

    def too_costly(self, max_loss: float, max_class_loss: float) -> tuple[str, str, float] | None:
        """What was lost on the validation split beyond a bound.

        Parameters
        ----------
        max_loss : of ``validation_loss``, in [0, 1]
        max_class_loss : of each of :meth:`class_losses`, in [0, 1]

        Returns
        -------
        tuple
            the cost in words, the name of the bound it exceeds, and that bound; None: it exceeds none
        """
        if self.validation_loss > max_loss:
            cost = f"{self.validation_loss:.2f} of the accuracy on the validation split"
            return cost, "max_loss", max_loss
        name, lost = next(iter(self.class_losses().items()), ("", 0.0))
        if lost > max_class_loss:
            cost = f"{lost:.2f} of the accuracy on the class {name} of the validation split"
            return cost, "max_class_loss", max_class_loss
        return None

    def summary(self) -> dict[str, Any]:
        """The numbers of a run as plain values, ready for JSON."""
        before, after = self.scores["before"], self.scores["after"]
        scores = {row: asdict(score) for row, score in self.scores.items()}
        # The keys under which earlier results had this row.
        scores |= dict.fromkeys((self.method, self.method.replace("-", "_")), scores["after"])
        return {
            "task": self.task.name,
            "method": self.method,
            **{
                f"{measure}_{row}": getattr(score, measure)
                for row, score in self.scores.items()
                for measure in ("accuracy", "wga", "aga", "mu_align", "conflict_auc", "letter_effect")
            },
            "delta_wga": _change(before.wga, after.wga),
            "delta_aga": _change(before.aga, after.aga),
            **{name: value for name, value in scores["after"].items() if name.startswith("verdict_")},
            "verdict_confusion": self.confusion,
            "spurious_share_align": self.spurious_share_align,
            "validation_loss": self.validation_loss,
            "validation_classes": self.validation_classes,
            "n_cases": len(self.indices),
            "n_cases_judged_spurious": int(self.masks.flatten(1).any(1).sum()),
            "n_undecided": int((self.kinds == UNDECIDED).sum()),
            "n_cases_undecided": int((self.kinds == UNDECIDED).any(1).sum()),
            "critic": self.critiques[0].critic if self.critiques else None,
            "judge": self.verdicts[0].judge if self.verdicts else None,
            "groups": {
                name: {when: _number(values[i]) for when, values in self.group_accuracies.items()}
                for i, name in enumerate(self.group_names)
            },
            "classes": self.by_class(),
            "trials": self.trials,
            "seed": self.config.seed,
            "seconds": sum(score.seconds for score in self.scores.values()),
            "scores": scores,
            "environment": environment(self.config.threads),
            "config": settings_of(self.task, self.config, self.method),
        }

    def table(self, after: str | None = None) -> str:
        """The result as text, see :func:`format_table`; classes stand for groups where none are known.

        ``after`` is what the aligned model's row is called; None: the method's label.
        """
        parts = {row: values.tolist() for row, values in self.group_accuracies.items()}
        if not parts:
            rows = self.by_class().values()
            parts = {when: [_or_nan(row[when]) for row in rows] for when in ("before", "after")}
        return format_table(
            self.scores,
            parts,
            self.group_names or self.class_names,
            after=after or METHODS.get(self.method).label,
        )


def settings_of(task: Task, config: Config, method: str) -> dict[str, Any]:
    """Everything that decides a run, as plain values."""
    return {"dataset": task.name, "method": method, **task.options(), **asdict(config)}


_COLUMNS = {
    "accuracy": "accuracy",
    "clean": "accuracy_clean",
    "WGA": "wga",
    "AGA": "aga",
    "mu_Align": "mu_align",
    "conflict": "conflict_auc",
    "letter": "letter_effect",
    "found": "verdict_sensitivity",
    "spared": "verdict_specificity",
}
_MOST_GROUPS = 8


def format_table(
    scores: Mapping[str, Score],
    groups: Mapping[str, list[float]] | None = None,
    group_names: tuple[str, ...] = (),
    *,
    after: str = "after",
) -> str:
    """The result as text, one row per model, one column per measure that any of them has.

    "found" is the sensitivity of the verdicts for what is spurious, "spared"
    their specificity.  Below, where there are not too many, the accuracy in each group.

    Parameters
    ----------
    scores : row -> its scores
    groups : row -> accuracy in each group
    group_names : of these
    after : what the row "after" is called
    """
    label = {row: ROWS.get(row, after if row == "after" else row.replace("_", " ")) for row in scores}
    columns = {
        head: name
        for head, name in _COLUMNS.items()
        if any(getattr(score, name) is not None for score in scores.values())
    }
    lines = [f"{'':<20}" + "".join(f"{head:>10}" for head in columns) + f"{'seconds':>9}"]
    for row, score in scores.items():
        values = (getattr(score, name) for name in columns.values())
        cells = "".join(f"{'-':>10}" if value is None else f"{value:>10.3f}" for value in values)
        lines.append(f"{label[row]:<20}{cells}{score.seconds:>9.1f}")
    if groups and len(group_names) <= _MOST_GROUPS:
        lines += ["", f"{'':<20}" + "  ".join(f"{name:>5}" for name in group_names)]
        for row, values in groups.items():
            cells = "  ".join(
                f"{value:>{max(len(name), 5)}.3f}" for name, value in zip(group_names, values, strict=True)
            )
            lines.append(f"{label[row]:<20}{cells}")
    return "\n".join(lines)


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _share(right: Tensor) -> float | None:
    return right.double().mean().item() if len(right) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()
