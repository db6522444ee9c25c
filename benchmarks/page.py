"""Make ``book/benchmarks.md`` and its figure of what the benchmarks have written.

``python benchmarks/page.py`` measures nothing: it reads ``benchmarks/*.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "model_client.json"
PAGE = ROOT / "book" / "benchmarks.md"
FIGURE = ROOT / "book" / "_static" / "model_client.svg"

WORDS = """\
# Benchmarks

How fast the package asks a model, measured against a server on the same machine that takes {seconds:g} seconds for
each answer, whatever it is asked. A real model takes longer and is shared with others; what is measured here is what
our own client adds. `python benchmarks/model_client.py` measures, `python benchmarks/page.py` writes this page from
what it found.

```{{figure}} _static/model_client.svg
:name: model-client
:alt: Left, answers a second against questions in flight, from {first} to {last}, on logarithmic axes. The judge's questions and the critic's with panels drawn before lie along the line of perfect scaling and end at {judge:.1f} and {drawn:.1f} times their start; the critic's with panels drawn on the way bend off and end at {critic:.1f} times. Right, memory of the client over {cases} answers: it begins at {begin:.0f} MB and ends at {end:.0f} MB.
:width: 100%

Left: answers a second by questions in flight; dashed, as many times the first value as there are questions in
flight. Right: memory of the client's process over {cases} answers of the judge with {last} in flight.
```

With {last} questions in flight the client gets this many times as many answers as with one (the runs with one are short,
so that the last digit is uncertain):

| questions | one at a time | {last} in flight | times as many |
|---|---|---|---|
{rows}

The judge's questions are words. The critic's hold three panels, and to draw them takes {drawing:.0f} ms of a processor
for each case, which {last} questions in flight share: with a model that answers as fast as this one it is the
drawing that one waits for, with one that takes seconds it is not. Memory after a tenth of the {cases} answers was
{tenth:.0f} MB, at the end {end:.0f} MB.

Measured on {date}, commit `{commit}`: {cores} cores of {processor}, of which the client computes on one; {disturbed}. Python {python}, `openai` {openai}, PyTorch {torch}.
"""

DISTURBED = {
    True: "client and server had real-time priority over the other work there ({load:g} processes)",
    False: "other work there kept {load:g} processes busy",
}

KINDS = {
    "judge": "the judge's",
    "critic, drawn before": "the critic's, panels drawn before",
    "critic": "the critic's, panels drawn on the way",
}


def page(measured: dict) -> str:
    """The page, as MyST text.

    Parameters
    ----------
    measured : as ``benchmarks/model_client.py`` writes it
    """
    machine, memory = measured["machine"], measured["judge"]["megabytes"]
    rows = [
        f"| {name} | {found['answers_per_second'][0]:.2f} a second | {found['answers_per_second'][-1]:.1f} a second "
        f"| {found['ratio']:.1f} |"
        for kind, name in KINDS.items()
        if (found := measured[kind])
    ]
    return WORDS.format(
        seconds=measured["seconds_per_answer"],
        first=measured["in_flight"][0],
        last=measured["in_flight"][-1],
        judge=measured["judge"]["ratio"],
        drawn=measured["critic, drawn before"]["ratio"],
        critic=measured["critic"]["ratio"],
        drawing=measured["drawing_ms"],
        cases=measured["cases"],
        begin=memory[0],
        tenth=memory[len(memory) // 10],
        end=memory[-1],
        rows="\n".join(rows),
        date=measured["date"],
        commit=measured["commit"],
        openai=measured["openai"],
        disturbed=DISTURBED[measured["undisturbed"]].format(load=machine["load"]),
        **{name: machine[name] for name in ("cores", "processor", "python", "torch")},
    )


def draw(measured: dict, file: Path) -> None:
    """The figure, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 10})
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    in_flight = measured["in_flight"]
    for (kind, name), marker, colour in zip(
        KINDS.items(), "osD", ("#0072b2", "#009e73", "#e69f00"), strict=True
    ):
        rates = measured[kind]["answers_per_second"]
        left.plot(in_flight, rates, marker=marker, color=colour, label=name)
        left.plot(in_flight, [rates[0] * n for n in in_flight], "--", color=colour, linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="questions in flight", ylabel="answers a second")
    left.set_xticks(in_flight, [str(n) for n in in_flight])
    left.set_yticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    left.minorticks_off()
    left.legend(fontsize=8, frameon=False)
    memory = measured["judge"]["megabytes"]
    answers = [(i + 1) * measured["cases"] / len(memory) for i in range(len(memory))]
    right.plot(answers, memory, color="#0072b2")
    right.set(xlabel="answers", ylabel="memory (MB)", ylim=(0, 1.2 * max(memory)))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Write both."""
    measured = json.loads(MEASURED.read_text("utf-8"))
    PAGE.write_text(page(measured), "utf-8")
    draw(measured, FIGURE)


if __name__ == "__main__":
    main()
