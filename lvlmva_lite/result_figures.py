"""Figures of a run, before and after: some cases, and the accuracy in each group or class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lvlmva_lite import plots
from lvlmva_lite.alignment_set import draw_baselines, smooth_maps
from lvlmva_lite.attribution import runner_up
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import predict_proba
from lvlmva_lite.results import Result

MOST_PARTS = 30
"""Groups or classes that one figure shows."""


def as_png(result: Result) -> dict[str, bytes]:
    """Every figure of a run: the file's name -> its contents."""
    made = {"cases.png": cases(result), "accuracy.png": accuracies(result)}
    files = {}
    for name, figure in made.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        plt.close(figure)
        files[name] = file.getvalue()
    return files


def chosen_cases(result: Result, n: int = 6) -> list[int]:
    """Cases to show, of every class in turn, and of these first those in which something was masked."""
    order = torch.argsort(~result.masks.flatten(1).any(1), stable=True).tolist()
    of_class: dict[int, list[int]] = {}
    for case in order:
        of_class.setdefault(int(result.case_labels[case]), []).append(case)
    queues = [of_class[label] for label in sorted(of_class)]
    turns = max(map(len, queues))
    return [queue[i] for i in range(turns) for queue in queues if i < len(queue)][:n]


def cases(result: Result, indices: Sequence[int] | None = None) -> Figure:
    """One row a case: the image, its map before, the segments with their verdicts, the mask, the map after.

    Parameters
    ----------
    result : from :func:`methods.run`
    indices : of cases of the alignment set; None: :func:`chosen_cases`
    """
    chosen = list(chosen_cases(result) if indices is None else indices)
    train = result.task.load("train", seed=result.config.seed)
    images = train.images[result.indices[chosen]]
    before, after = result.attributions[chosen], _after(result, chosen, train)
    columns = ("image", "map before", "verdicts", "mask", "map after")
    figure, axes = plots.image_grid(len(chosen), len(columns), size=1.5)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize="medium")
    for row, case in enumerate(chosen):
        kinds = [KINDS[code] for code in result.kinds[case].tolist()]
        limit = float(before[row].abs().max())
        plots.show_image(axes[row, 0], images[row])
        axes[row, 0].set_ylabel(result.class_names[result.case_labels[case]], fontsize="small")
        plots.show_attribution(axes[row, 1], before[row], limit)
        plots.show_segments(axes[row, 2], images[row], result.segments.labels[case], kinds)
        plots.show_mask(axes[row, 3], images[row], result.masks[case])
        plots.show_attribution(axes[row, 4], after[row], limit)
    plots.kind_legend(figure)
    return figure


def accuracies(result: Result) -> Figure:
    """Accuracy in each group of the test set, or where none are known in each class, before and after."""
    rows = ("before", "after")
    names = result.group_names or result.class_names
    if result.group_names:
        values = {row: result.group_accuracies[row].tolist() for row in rows}
    else:
        values = {row: [part[row] for part in result.by_class().values()] for row in rows}
    table = pd.DataFrame(values, index=names, dtype=float).dropna(how="all")
    # Of many those that changed most.
    table = table.loc[(table.after - table.before).abs().sort_values().index[-MOST_PARTS:]]
    table = table.reindex([name for name in names if name in table.index])
    figure, axis = plt.subplots(figsize=(6.5, 1.1 + 0.38 * len(table)), layout="constrained")
    axis.hlines(range(len(table)), table.before, table.after, color="#999999", linewidth=2, zorder=1)
    for row, marker, colour in (("before", "o", "white"), ("after", "o", "#0072b2")):
        axis.scatter(
            table[row], range(len(table)), marker=marker, s=55, color=colour, edgecolor="#0072b2", label=row,
            zorder=2, clip_on=False,
        )  # fmt: skip
    axis.set(yticks=range(len(table)), yticklabels=table.index, xlim=(0, 1))
    axis.set_xlabel(f"accuracy in each {'group' if result.group_names else 'class'} of the test set")
    axis.invert_yaxis()
    axis.margins(y=0.15)
    axis.grid(axis="x", alpha=0.4)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    sns.despine(ax=axis, left=True)
    axis.tick_params(axis="y", length=0, pad=10)
    return figure


def _after(result: Result, chosen: Sequence[int], train: ShortcutDataset) -> Tensor:
    """Maps (n, H, W) of the aligned network for some cases, of the question that the alignment set asks."""
    config, shown = result.config, train.subset(result.indices[chosen])
    rivals = None
    if config.explain == "contrast":
        rivals = runner_up(predict_proba(result.models["before"], shown.images), shown.labels)
    baselines = draw_baselines(config, train)
    return smooth_maps(config, result.task, result.models["after"], shown, baselines, rivals)
