"""Make ``book/benchmarks.md`` and its figures of what the benchmarks have written.

``python benchmarks/page.py`` measures nothing: it reads ``benchmarks/*.json``.  A section says what the
step's file says at its head, and shows what its ``main()`` handed to :func:`timing.write`.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "benchmarks.md"
FIGURES = ROOT / "book" / "_static"

ORDER = (
    "attribution", "segmentation", "panels", "model_client", "alignment", "sampling_and_metrics", "commands",
)  # fmt: skip
"""Steps in the order in which data flows; others follow by name."""

OPENING = """\
# Benchmarks

How fast the steps are, each beside a named peer: both do the same work on the same inputs, in turn, in one process.
A ratio is the peer's time over ours, so that more is better; in brackets stand the lowest and the highest of the
repeats. Processor time is of one thread, and what other work on the machine disturbs least; by the clock, both had
all cores. What the results are worth stands beside each ratio, so that speed is not bought with it. `make bench`
measures everything anew and writes this page; `python benchmarks/STEP.py` measures a step, and
`python benchmarks/page.py` writes the page of all that was measured.
"""

CLIENT = """\
A server on the same machine takes {seconds:g} seconds for each answer, whatever it is asked. A real model takes
longer and is shared with others; what is measured here is what our own client adds.

```{{figure}} _static/benchmark-model-client.svg
:name: benchmark-model-client
:class: drawing
:alt: Left, answers a second against questions in flight, from {first} to {last}, on logarithmic axes, beside lines of perfect scaling. {ends}. Right, memory of the client over {cases} answers: it begins at {begin:.0f} MB and ends at {end:.0f} MB.
:width: 100%

Left: answers a second by questions in flight; dashed, as many times the first value as there are questions in
flight. Right: memory of the client's process over {cases} answers of the judge with {last} in flight.
```

With {last} questions in flight the client gets this many times as many answers as with one (the runs with one are short,
so that the last digit is uncertain):

| questions | one at a time | {last} in flight | times as many |
|---|---|---|---|
{rows}

The judge's questions are words. The critic's hold three panels, and to draw them takes {drawing:.1f} ms of a processor
for each case, which {last} questions in flight share. Memory after a tenth of the {cases} answers was
{tenth:.0f} MB, at the end {end:.0f} MB. The client computes on one core; {disturbed}.
"""

DISTURBED = {
    True: "client and server had real-time priority over the other work there",
    False: "other work there took its turns",
}

KINDS = {
    "judge": "the judge's",
    "critic, drawn before": "the critic's, panels drawn before",
    "critic": "the critic's, panels drawn on the way",
}

_COMMON = {"date", "commit", "machine", "step", "rows", "curves"}
_CLIENT = {"openai", "undisturbed", "seconds_per_answer", "in_flight", "cases", "drawing_ms", *KINDS}


def measured() -> dict[str, dict[str, Any]]:
    """What there is, by the name of the step, in the order of the page."""
    found = {
        file.stem: json.loads(file.read_text("utf-8")) for file in (ROOT / "benchmarks").glob("*.json")
    }
    return {step: found[step] for step in sorted(found, key=lambda step: (*_place(step), step))}


def _place(step: str) -> tuple[int]:
    return (ORDER.index(step) if step in ORDER else len(ORDER),)


def page(steps: dict[str, dict[str, Any]]) -> str:
    """The page, as MyST text, of what :func:`measured` gives."""
    return "\n".join([OPENING, *(section(step, found) for step, found in steps.items())])


def section(step: str, found: dict[str, Any]) -> str:
    """A step's section: its words, its ratios, its curves, all else it wrote, and where it was measured."""
    parts = [f"## {step.replace('_', ' ').capitalize()}", words_of(step)]
    if "in_flight" in found:
        parts.append(_client(found))
    if found.get("rows"):
        parts.append(_ratios(found["rows"]))
    if found.get("curves"):
        parts.append(_curves(step, found["curves"]))
    more = {name: value for name, value in found.items() if name not in _COMMON | _CLIENT}
    parts += [_told(name.replace("_", " ").capitalize(), value) for name, value in more.items()]
    return "\n\n".join([*(part.strip() for part in parts), _provenance(found)]) + "\n"


def words_of(step: str) -> str:
    """What the step's file says at its head, as Markdown; empty if there is no such file."""
    file = ROOT / "benchmarks" / f"{step}.py"
    head = ast.get_docstring(ast.parse(file.read_text("utf-8"))) if file.is_file() else None
    plain = re.sub(r":\w+:`([^`]+)`", r"`\1`", (head or "").replace("``", "`"))
    return re.sub(r"  +", " ", plain)


def _ratios(rows: list[dict[str, Any]]) -> str:
    table = [
        "| work | peer | by processor time | by the clock | ours / the peer's |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        quality = "; ".join(
            f"{name}: {_number(ours)} / {_number(theirs)}"
            for name, (ours, theirs) in row["quality"].items()
        )
        table.append(
            f"| {row['what']} | {row['peer']} | {_ratio(row['cpu'])} | {_ratio(row['wall'])} | {quality} |"
        )
    return "\n".join(table)


def _ratio(found: dict[str, Any]) -> str:
    low, high = (_number(end) for end in found["spread"])
    return f"**{_number(found['ratio'])}** ({low} to {high}); ours {_seconds(found['seconds'])}"


def _curves(step: str, curves: list[dict[str, Any]]) -> str:
    name = _figure(step)
    told = [
        f"{curve['what']}, against {curve['against']} from {_number(curve['sizes'][0])} to {_number(curve['sizes'][-1])}: from "
        f"{_seconds(curve['seconds'][0])} to {_seconds(curve['seconds'][-1])}, exponent {curve['exponent']:.2f}"
        for curve in curves
    ]
    rows = [
        f"| {curve['what']} | {curve['against']}, {_number(curve['sizes'][0])} to {_number(curve['sizes'][-1])} "
        f"| {_seconds(curve['seconds'][0])} to {_seconds(curve['seconds'][-1])} | {curve['exponent']:.2f} |"
        for curve in curves
    ]
    return "\n".join(
        [
            f"```{{figure}} _static/{name}.svg",
            f":name: {name}",
            ":class: drawing",
            f":alt: Time against size on logarithmic axes, a line for each piece of work. {'; '.join(told)}.",
            ":width: 100%",
            "",
            "Time of one thread against the size of the work, and the straight lines through their logarithms, "
            "whose slopes are the exponents.",
            "```",
            "",
            "| work | against | one thread | exponent |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _told(name: str, value: Any) -> str:
    """What a step says beside its ratios: a sentence, or tables of plain values."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(column for row in value for column in row))
        table = [
            "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
            "|---" * len(columns) + "|",
        ]
        table += [
            "| " + " | ".join(_number(row.get(column, "")) for column in columns) + " |" for row in value
        ]
        return f"**{name}**\n\n" + "\n".join(table)
    if isinstance(value, list):
        return f"**{name}:** " + ", ".join(_number(one) for one in value)
    if isinstance(value, dict):
        plain = {key: one for key, one in value.items() if not isinstance(one, dict | list)}
        # A row of many columns is wider than a page.
        long = [{"of": key.replace("_", " "), "value": one} for key, one in plain.items()]
        parts = [_told(name, long if len(plain) > 5 else [plain])] if plain else []
        return "\n\n".join(
            parts + [_told(f"{name}, {key}", one) for key, one in value.items() if key not in plain]
        )
    return f"**{name}:** {_number(value)}"


def _client(found: dict[str, Any]) -> str:
    memory = found["judge"]["megabytes"]
    rows = [
        f"| {name} | {rates[0]:.2f} a second | {rates[-1]:.1f} a second | {found[kind]['ratio']:.1f} |"
        for kind, name in KINDS.items()
        if (rates := found[kind]["answers_per_second"])
    ]
    ends = ", ".join(
        f"{name} end at {found[kind]['ratio']:.1f} times their start" for kind, name in KINDS.items()
    )
    return CLIENT.format(
        seconds=found["seconds_per_answer"],
        first=found["in_flight"][0],
        last=found["in_flight"][-1],
        ends=ends[0].upper() + ends[1:],
        drawing=found["drawing_ms"],
        cases=found["cases"],
        begin=memory[0],
        tenth=memory[len(memory) // 10],
        end=memory[-1],
        rows="\n".join(rows),
        disturbed=DISTURBED[found["undisturbed"]],
    )


def _provenance(found: dict[str, Any]) -> str:
    machine = dict(found["machine"])
    cores, processor, load = (machine.pop(name) for name in ("cores", "processor", "load"))
    for other in ("threads", "cpu_capability"):
        machine.pop(other, None)
    versions = machine | ({"openai": found["openai"]} if "openai" in found else {})
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"Measured on {found['date']}, commit `{found['commit']}`: {cores} cores of {processor}, load {load:g} "
        f"when it was written; {told}."
    )


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    )


def _seconds(value: float) -> str:
    return (
        f"{value:.3g} s"
        if value >= 1
        else f"{value * 1e3:.3g} ms"
        if value >= 1e-3
        else f"{value * 1e6:.3g} µs"
    )


def _figure(step: str) -> str:
    return f"benchmark-{step.replace('_', '-')}"


def draw(step: str, found: dict[str, Any], file: Path) -> bool:
    """The step's figure, as SVG; False if it has none."""
    if not (found.get("curves") or "in_flight" in found):
        return False
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    from lvlmva_lite.plots import set_theme

    set_theme()
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 10})
    figure = _draw_client(found) if "in_flight" in found else _draw_curves(found["curves"])
    sns.despine(figure)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return True


def _draw_curves(curves: list[dict[str, Any]]) -> Any:
    """An axis for each size that something is measured against."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.ticker import LogLocator

    kinds = list(dict.fromkeys(curve["against"] for curve in curves))
    width = min(len(kinds), 3)
    height = -(-len(kinds) // width)
    figure, axes = plt.subplots(
        height, width, figsize=(max(2.9 * width, 4.5), 3.4 * height), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(kinds) :]:
        axis.remove()
    for axis, against in zip(axes.flat, kinds, strict=False):
        for curve, marker in zip(
            (c for c in curves if c["against"] == against), "osD^vP*X" * 9, strict=False
        ):
            label = f"{curve['what']}\n(exponent {curve['exponent']:.2f})"
            (line,) = axis.plot(curve["sizes"], curve["seconds"], marker, markersize=5, label=label)
            slope, height_ = np.polyfit(np.log(curve["sizes"]), np.log(curve["seconds"]), 1)
            axis.plot(
                curve["sizes"], np.exp(height_) * np.array(curve["sizes"], float) ** slope,
                color=line.get_color(), linewidth=1,
            )  # fmt: skip
        sizes = sorted({size for curve in curves if curve["against"] == against for size in curve["sizes"]})
        axis.set(xscale="log", yscale="log", xlabel=against, ylabel="time, one thread")
        shown = [
            size for i, size in enumerate(sizes) if i == 0 or size >= 1.6 * sizes[i - 1] or len(sizes) < 5
        ]
        axis.set_xticks(shown, [f"{size:,}" for size in shown])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: _seconds(value))
        axis.set_ylim(axis.get_ylim()[0] / 1.3, axis.get_ylim()[1] * 1.3)
        axis.tick_params(labelsize=8)
        axis.minorticks_off()
        axis.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    return figure


def _draw_client(found: dict[str, Any]) -> Any:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    in_flight = found["in_flight"]
    for (kind, name), marker in zip(KINDS.items(), "osD", strict=True):
        rates = found[kind]["answers_per_second"]
        (line,) = left.plot(in_flight, rates, marker=marker, label=name)
        left.plot(in_flight, [rates[0] * n for n in in_flight], "--", color=line.get_color(), linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="questions in flight", ylabel="answers a second")
    left.set_xticks(in_flight, [str(n) for n in in_flight])
    left.set_yticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    left.minorticks_off()
    left.legend(fontsize=8, frameon=False)
    memory = found["judge"]["megabytes"]
    answers = [(i + 1) * found["cases"] / len(memory) for i in range(len(memory))]
    right.plot(answers, memory)
    right.set(xlabel="answers", ylabel="memory (MB)", ylim=(0, 1.2 * max(memory)))
    return figure


def main() -> None:
    """Write the page and its figures."""
    steps = measured()
    PAGE.write_text(page(steps), "utf-8")
    for step, found in steps.items():
        draw(step, found, FIGURES / f"{_figure(step)}.svg")


if __name__ == "__main__":
    main()
