"""The paper's Figures 6, 9 and 10 and its Tables 1 and 2, of tables made here, the paper's numbers beside.

Each is made of the table of an experiment, see ``registry.EXPERIMENTS``; none knows where it was made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lvlmva_lite import plots
from lvlmva_lite.experiments.group_arms import LABELS, changes
from lvlmva_lite.metrics import mean_interval, paired_test
from lvlmva_lite.registry import METHODS

FIGURE_6 = {"lvlm_va": "masks from words", "ground_truth_masks": "true masks"}
OF_METHODS = ("knee_phantoms", "skin_phantoms", "knee_real", "skin_real")
"""Experiments that compare methods."""

_COMPARED = {
    "Figure 6": ("penalty_weight",),
    "Figures 9 and 10": ("method",),
    "Table 1": ("critic", "critic_model", "critic_prompt", "critic_simulated_accuracy"),
    "Table 2": ("segmenter",),
}
"""What each of them compares, as parameters of `lvlmva run`."""

_ORIGIN = ("code", "libraries", "data", "device")
"""Runs that differ in these are not compared."""

OF_THE_PAPER = {
    "Table 1": "GPT-4o-mini .42, +0.09 ± 0.02; GPT-4o .87, +0.16 ± 0.06; GPT-5 1.00, +0.20 ± 0.09",
    "Table 2": "PPEPS-WGM +0.16 ± 0.06; SAM +0.11 ± 0.04",
    "Figure 6": "the best lambda comes close to the upper bound, and accuracy falls sharply beyond",
    "Figures 9 and 10": "knee: WGA +0.16 ± 0.06, AGA kept; skin: WGA up, AGA kept",
}
"""What the paper reports, with ResNet-50, real images and models of OpenAI's (arXiv 2512.21985)."""


def of_tables(tables: Mapping[str, pd.DataFrame]) -> tuple[dict[str, bytes], str]:
    """All figures and tables of the paper that these tables of experiments allow.

    Parameters
    ----------
    tables : name of an experiment -> its rows

    Returns
    -------
    figures : name of a PNG file -> its contents
    words : Markdown with the tables, each beside the paper's numbers
    """
    plots.set_theme()
    figures, parts = {}, []
    if "decoy_lambda" in tables:
        figures["figure_6.png"] = _as_png(figure_6(tables["decoy_lambda"]))
        parts.append(_titled("Figure 6", "figure_6.png"))
    for name in OF_METHODS:
        if name in tables and not (rows := changes(tables[name], LABELS)).empty:
            file = f"figures_9_10_{name}.png"
            plots.show_changes(rows)
            figures[file] = _as_png(plt.gcf())
            parts.append(_titled("Figures 9 and 10", file, f", {name}") + _markdown(_of_methods(rows)))
    if "knee_ablations" in tables:
        ablations = tables["knee_ablations"]
        for title, ablation in (("Table 1", "critic"), ("Table 2", "segmentation")):
            if not (rows := ablation_table(ablations, ablation)).empty:
                parts.append(_titled(title, "", ", knee_ablations") + _markdown(rows))
    return figures, "\n".join(parts)


def of_runs(table: pd.DataFrame, parameters: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """The same of what ``lvlmva run`` gave: methods, critics, segmenters or values of lambda that were compared.

    Parameters
    ----------
    table : as :func:`collect.collect` gathers it
    parameters : names of its columns

    Returns
    -------
    figures, words : see :func:`of_tables`
    """
    plots.set_theme()
    figures: dict[str, bytes] = {}
    parts = []
    for name, rows in table[table["kind"] == "run"].groupby("name", sort=False):
        held = [one for one in (*parameters, *_ORIGIN) if one in rows and one != "seed"]
        varied = [one for one in held if rows[one].nunique(dropna=False) > 1]
        for title, compared in _COMPARED.items():
            if not {*compared} & {*varied}:
                continue
            apart = [
                one for one in varied if one not in compared and (title, one) != ("Figure 6", "method")
            ]
            for values, group in rows.groupby(apart, sort=False, dropna=False) if apart else [((), rows)]:
                of = ", ".join(
                    [f", run {name}", *(f"{one} {v}" for one, v in zip(apart, values, strict=True))]
                )
                arms = [one for one in compared if one in varied and group[one].nunique(dropna=False) > 1]
                if not arms or (frame := _frame(group, arms)) is None:
                    continue
                file = f"runs_{len(figures) + 1}_{name}.png"
                if title == "Figure 6" and name == "decoy-mnist":
                    figures[file] = _as_png(figure_6(_of_lambda(frame)))
                    parts.append(_titled(title, file, of))
                elif title == "Figures 9 and 10":
                    labels = {one: METHODS.get(one).label for one in frame["method"].unique()}
                    if not (found := changes(frame, labels)).empty:
                        if drawn := found["measure"].nunique() == 2:  # WGA left, AGA right
                            plots.show_changes(found)
                            figures[file] = _as_png(plt.gcf())
                        parts.append(
                            _titled(title, file if drawn else "", of) + _markdown(_of_methods(found))
                        )
                elif title.startswith("Table"):
                    ablation = ", ".join(arms)
                    if not (found := ablation_table(frame.assign(ablation=ablation), ablation)).empty:
                        parts.append(_titled(title, "", of) + _markdown(found))
    return figures, "\n".join(parts)


def _frame(rows: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame | None:
    """Rows of runs as an experiment has them: "before" once a seed, else arms by the values of these columns.

    None where two runs of one seed and arm differ in nothing that is known.
    """
    before = rows[rows["arm"] == "before"].drop_duplicates("seed")
    after = rows[rows["arm"] == "after"]
    names = after[[*arms]].fillna("").astype(str).agg(" ".join, axis=1).str.strip()
    after = after.assign(arm=names)
    if after.duplicated(["seed", "arm", "method"]).any():
        return None
    return pd.concat([before, after], ignore_index=True)


def _of_lambda(frame: pd.DataFrame) -> pd.DataFrame:
    """Arms of Figure 6 in place of methods."""
    arms = frame["method"].map({"lvlm-va": "lvlm_va", "rrr-gt": "ground_truth_masks"})
    return frame.assign(arm=frame["arm"].where(frame["arm"] == "before", arms))


def figure_6(table: pd.DataFrame) -> Figure:
    """Accuracy and mu_Align against lambda, with the bound and the network before; mean and 95 % interval.

    Parameters
    ----------
    table : rows of the experiment ``decoy_lambda``
    """
    before, after = table[table["arm"] == "before"], table[table["arm"] != "before"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, column, label in zip(
        axes, ("accuracy", "mu_align"), ("accuracy on test decoys", "μ_Align"), strict=True
    ):
        for (arm, name), marker in zip(FIGURE_6.items(), "os", strict=True):
            if not (after["arm"] == arm).any():
                continue
            groups = after[after["arm"] == arm].groupby("penalty_weight")[column]
            spans = pd.DataFrame({weight: _interval(values) for weight, values in groups}).T
            (line,) = axis.plot(spans.index, spans[0], marker=marker, label=name)
            axis.fill_between(spans.index, spans[1], spans[2], color=line.get_color(), alpha=0.2)
        axis.axhline(before[column].mean(), color="0.3", linestyle="--", label="before")
        axis.set_xscale("symlog", linthresh=0.02)
        axis.set(xlabel="λ", ylabel=label)
    axes[0].legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def ablation_table(table: pd.DataFrame, ablation: str) -> pd.DataFrame:
    """Verdict accuracy, what each arm changes in WGA, mean and 95 % interval over seeds, and its exact p.

    Parameters
    ----------
    table : rows of the experiment ``knee_ablations``
    ablation : a name of its column "ablation"; "critic" is Table 1, "segmentation" Table 2
    """
    before = table[table["arm"] == "before"].set_index("seed")["wga"]
    rows = []
    for arm, of_arm in table[table["ablation"] == ablation].groupby("arm", sort=False):
        change = (of_arm.set_index("seed")["wga"] - before).dropna()
        if len(change):
            quality = of_arm.get("verdict_accuracy", pd.Series(dtype=float)).mean()
            verdicts = "" if pd.isna(quality) else f"{quality:.2f}"
            after = of_arm.set_index("seed")["wga"][change.index]
            p = paired_test(after, before[change.index]).p if len(change) > 1 else math.nan
            rows.append([arm, len(change), verdicts, _signed(*_interval(change)), _p(p)])
    return pd.DataFrame(rows, columns=[ablation, "seeds", "verdict accuracy", "change of WGA", "p"])


def _of_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method: what it reads, and its change in each measure with the exact p."""
    made = []
    for (arm, method), of_method in rows.groupby(["arm", "method"], sort=False):
        row = {"method": method, "reads": supervision(arm), "seeds": of_method["n"].iloc[0]}
        for one in of_method.itertuples():
            row[f"change of {one.measure}"] = _signed(one.mean, one.low, one.high)
            row[f"p of {one.measure}"] = _p(one.p)
        made.append(row)
    return pd.DataFrame(made)


def supervision(method: str) -> str:
    """What a method reads besides images and class labels, in words: "words", "masks, train groups", "-"."""
    reads = asdict(METHODS.get(method).supervision)
    return ", ".join(sorted(name.replace("_", " ") for name, read in reads.items() if read)) or "-"


def _p(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3g}"


def _interval(values: pd.Series) -> tuple[float, float, float]:
    return mean_interval(values) if len(values) > 1 else (float(values.mean()),) * 3


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f}" if pd.isna(low) or low == high else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _titled(name: str, file: str, of: str = "") -> str:
    picture = f"![{name} of the paper, made here{of}]({file})\n\n" if file else ""
    return f"## {name} of the paper{of}\n\n{picture}The paper: {OF_THE_PAPER[name]}.\n\n"


def _markdown(table: pd.DataFrame) -> str:
    lines = [[*table.columns], ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _as_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()
