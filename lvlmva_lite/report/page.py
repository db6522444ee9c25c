"""The report as a page: one HTML file that needs nothing else, and Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import torch
from matplotlib import pyplot as plt
from torch import nn

from lvlmva_lite import plots
from lvlmva_lite.alignment_set import draw_baselines, smooth_maps
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic.types import KINDS, segment_names
from lvlmva_lite.datasets.image_files import ImageFileDataset
from lvlmva_lite.report.counterfactual import Counterfactual, without
from lvlmva_lite.report.finished_run import FinishedRun
from lvlmva_lite.report.leaning import BARE, MUCH, Leaning, Thing, leaning
from lvlmva_lite.report.things import segment_texts


@dataclass(frozen=True)
class Example:
    """One case as the page shows it.

    Attributes
    ----------
    case_id, class_name : str
    picture : PNG, base64
    alt : what it shows, in words
    said : lines of the critique, (segment, kind, text)
    """

    case_id: str
    class_name: str
    picture: str
    alt: str
    said: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes
    ----------
    run : FinishedRun
    leaning : Leaning
    counterfactuals : thing's key -> what filling it does to the model's answers before alignment, and after it
    examples : list of Example
    ruled : name of a candidate -> "accepted" or "refused", now or before
    told, told_by : a summary in a model's words, and the model's name; empty where none was asked for
    """

    run: FinishedRun
    leaning: Leaning
    counterfactuals: dict[tuple[str, str], dict[str, Counterfactual]]
    examples: list[Example]
    ruled: dict[str, str]
    told: str = ""
    told_by: str = ""

    @property
    def files(self) -> dict[str, str]:
        """Case id -> the image's file, below the folder of the data; empty where images are not in files."""
        train = self.run.train
        if not isinstance(train, ImageFileDataset):
            return {}
        return {
            case.case_id: train.names[index]
            for case, index in zip(self.run.cases, self.run.indices.tolist(), strict=True)
        }

    @property
    def candidates(self) -> tuple[Thing, ...]:
        """Those on which the expert has not ruled."""
        return tuple(thing for thing in self.leaning.candidates if thing.name not in self.ruled)

    @property
    def accepted(self) -> tuple[Thing, ...]:
        """Candidates that the expert accepted."""
        return self._ruled("accepted")

    @property
    def refused(self) -> tuple[Thing, ...]:
        """Candidates that the expert refused."""
        return self._ruled("refused")

    def _ruled(self, how: str) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.leaning.candidates if self.ruled.get(thing.name) == how)

    @property
    def words(self) -> str:
        """The expert's, with a sentence for each candidate that was accepted."""
        return " ".join([self.run.config.description.strip(), *(thing.sentence for thing in self.accepted)])

    def html(self) -> str:
        """One file: pictures, style and all."""
        return self._filled("page.html.j2", autoescape=True)

    def markdown(self) -> str:
        """The same words and numbers, without pictures."""
        return self._filled("page.md.j2", autoescape=False)

    def _filled(self, template: str, *, autoescape: bool) -> str:
        environment = jinja2.Environment(
            autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.0f} %"
        environment.filters["signed"] = _signed
        text = resources.files(__package__).joinpath(template).read_text("utf-8")
        return environment.from_string(text).render(
            report=self, kinds=KINDS, much=MUCH, bare=BARE, **self._numbers()
        )

    def _numbers(self) -> dict[str, Any]:
        results, leaning = self.run.results, self.leaning
        whens = ("before", "after") if self.run.aligned else ("before",)
        suffix = {when: f", {when}" if self.run.aligned else "" for when in whens}
        measures = {
            label: {when: results["scores"][when][name] for when in whens}
            for label, name in (
                ("accuracy", "accuracy"), ("worst group", "wga"), ("average of groups", "aga"),
                ("accuracy without the shortcut", "accuracy_clean"),
            )
            if results["scores"]["before"].get(name) is not None
        }  # fmt: skip
        return {
            "whens": whens,
            "suffix": suffix,
            "explainer": {
                "auto": "DeepLIFT-SHAP (integrated gradients where the network does not let it)"
            }.get(self.run.config.explainer, self.run.config.explainer),
            "hardly_seen": 1 - leaning.total["background"] - leaning.total["undecided"] < MUCH,
            "measures": measures,
            # Classes stand for groups where none are known.
            "groups": results["groups"] or results.get("classes", {}),
            "rows": [
                *((name, leaning.n_cases[name], row) for name, row in leaning.by_class.iterrows()),
                ("over all", len(self.run.cases), leaning.total),
            ],
            "n": len(self.run.cases),
            "summary": self.summary,
        }

    @property
    def summary(self) -> str:
        """The report in two sentences."""
        total = self.leaning.total
        n, on = len(self.run.cases), round(total["leans on spurious"] * len(self.run.cases))
        first = (
            f"In {on} of {n} images at least {MUCH:.0%} of what speaks for the class lies on something that the critic "
            f"calls spurious; over all images {total['spurious']:.0%} lies there, and {total['background']:.0%} on "
            "surroundings."
        )
        if not self.leaning.things:
            return first + " No thing was named."
        thing = self.leaning.things[0]
        where = ", ".join(
            f"{of}: {len(ids)} of {self.leaning.n_cases[of]}" for of, ids in thing.cases.items()
        )
        return f"{first} Most of it is called {thing.name}" + (f": {where}." if where else ".")


def _signed(change: float) -> str:
    """A change in per cent, with its sign where it is not nothing."""
    return f"{round(100 * change):+d} %".replace("-", "−").replace("+0 ", "0 ")


def make_report(
    run: FinishedRun, *, accept: Sequence[str] = (), refuse: Sequence[str] = (), n_examples: int = 6
) -> Report:
    """Gather a run, check each thing by filling it in, and draw examples.

    Parameters
    ----------
    run : from :func:`read_run`
    accept, refuse : names of candidates on which the expert rules so, also anew; held against those
        there are before the long work
    n_examples : images shown: those that lean most on each thing, then the first without any

    Raises
    ------
    ConfigError : no candidate is called so, or one is accepted and refused; the run kept no weights of before
    """
    gathered = leaning(run.cases, run.config.description, run.train.class_names)
    ruled = run.ruled | _rulings(gathered, accept, refuse)
    whens = ("before", "after") if run.aligned else ("before",)
    networks = {when: run.network(when) for when in whens}
    counterfactuals = {
        thing.key: {when: without(run, network, thing) for when, network in networks.items()}
        for thing in (*gathered.things, *gathered.surroundings)
    }
    # Of bare ground the images without anything spurious are examples enough.
    shown = {thing.key: thing for thing in (*gathered.things, *gathered.candidates) if thing.name != BARE}
    return Report(
        run, gathered, counterfactuals, _examples(run, [*shown.values()], networks, n_examples), ruled
    )


def _rulings(gathered: Leaning, accept: Sequence[str], refuse: Sequence[str]) -> dict[str, str]:
    known = [thing.name for thing in gathered.candidates]
    if both := set(accept) & set(refuse):
        raise ConfigError(f"{min(both)!r} is accepted and refused; say one of the two")
    for names, how in ((accept, "accept"), (refuse, "refuse")):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"there is no candidate {name!r} to {how}; there are: {', '.join(map(repr, known)) or 'none'}"
                )
    return dict.fromkeys(accept, "accepted") | dict.fromkeys(refuse, "refused")


def _examples(
    run: FinishedRun, things: Sequence[Thing], networks: dict[str, nn.Module], n_examples: int
) -> list[Example]:
    chosen: dict[str, None] = {}
    # In turn, so that each thing has one before any has two.
    ids = [[case for of in thing.cases.values() for case in of] for thing in things]
    for k in range(max(map(len, ids), default=0)):
        for of in ids:
            if k < len(of):
                chosen[of[k]] = None
    shown = list(chosen)[: n_examples - min(2, n_examples // 3)]
    shown += [case.case_id for case in run.cases if "spurious" not in case.kinds][: n_examples - len(shown)]
    if not shown:
        return []
    place = {case.case_id: i for i, case in enumerate(run.cases)}
    rows = torch.tensor([place[case_id] for case_id in shown], dtype=torch.int64)
    data = run.train.subset(run.indices[rows]).in_memory()
    baselines = draw_baselines(run.config, run.train)
    maps = {
        when: smooth_maps(run.config, run.task, network, data, baselines, None)
        for when, network in networks.items()
    }
    return [
        _example(run, int(row), data.images[k], {when: of[k] for when, of in maps.items()})
        for k, row in enumerate(rows)
    ]


def _example(run: FinishedRun, row: int, image: torch.Tensor, maps: dict[str, torch.Tensor]) -> Example:
    case = run.cases[row]
    labels = run.segment_labels[row]
    plots.set_theme()
    figure, axes = plots.image_grid(1, 2 + len(maps), size=1.8)
    plots.show_image(axes[0, 0], image)
    plots.show_segments(axes[0, 1], image, labels, case.kinds)
    limit = max(float(one.abs().max()) for one in maps.values())
    for axis, (when, one) in zip(axes[0, 2:], maps.items(), strict=True):
        plots.show_attribution(axis, one, limit)
        axis.set_title(f"evidence {when}" if len(maps) > 1 else "evidence", fontsize=9)
    axes[0, 0].set_title("image", fontsize=9)
    axes[0, 1].set_title("verdicts", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, facecolor="white")
    plt.close(figure)
    names = segment_names(len(case.kinds))
    said = segment_texts(case.text, names)
    by_kind = ", ".join(
        f"{kind}: {' '.join(name for name, of in zip(names, case.kinds, strict=True) if of == kind)}"
        for kind in KINDS
        if kind in case.kinds
    )
    return Example(
        case.case_id, case.class_name, base64.b64encode(file.getvalue()).decode("ascii"),
        f"{case.case_id}, {case.class_name}: the image, its segments ({by_kind}), and the evidence "
        + " and ".join(maps),
        tuple((name, kind, said.get(name, "")) for name, kind in zip(names, case.kinds, strict=True)),
    )  # fmt: skip
