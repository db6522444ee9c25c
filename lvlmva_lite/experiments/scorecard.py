"""The scorecard: every claim beside the numbers that it was held against."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import pandas as pd
import yaml

from lvlmva_lite.experiments.claims import DATA, EXPERIMENTS, STATUSES, Claim
from lvlmva_lite.experiments.import_closure import code_ids
from lvlmva_lite.experiments.run_origin import module_of, origin_of
from lvlmva_lite.experiments.sweep_folder import Job

# Role and symbol of each status: never colour alone.
BADGES = {
    "reproduced": ("primary", "✓"),
    "not reproduced": ("warning", "✗"),
    "not testable here": ("muted", "○"),
}
PROVENANCE = ("machine", "date", "commit", "command")


def scorecard(
    page: str,
    claims: Sequence[Claim],
    values: Mapping[str, Mapping[str, Any]],
    profile: str,
    results: Traversable | None = None,
) -> str:
    """Put what was measured into the scorecard page.

    Parameters
    ----------
    page : MyST text in which ``{{ profile }}``, ``{{ counts }}``, ``{{ data }}``,
        ``{{ claims }}`` and ``{{ recorded }}`` each stand once
    claims : the rows
    values : for each chapter, the names and values that it recorded
    profile : with which the chapters ran
    results : folder of recorded tables, default: the package's own

    Returns
    -------
    str : the page, as MyST text

    Raises
    ------
    ValueError : a place is missing from the page or stands there twice; a
        number was not recorded; or a recorded table lacks its provenance
    """
    parts = {
        "profile": profile,
        "counts": counts_table(claims),
        "data": data_list(claims),
        "claims": "\n".join(claims_lists(claims, values)),
        "recorded": recorded_results(results),
    }
    for name in parts:
        if (n := page.count(f"{{{{ {name} }}}}")) != 1:
            raise ValueError(f"the scorecard page must hold {{{{ {name} }}}} once, it does {n} times")
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match[1]], page)


def shown(claim: Claim, values: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a claim's check as the page shows them.

    Floats have three significant digits, or as many more as it takes for the
    check to come out the same on the rounded numbers: 0.9496 is not shown as
    0.95 beside ``accuracy >= 0.95``.

    Raises
    ------
    ValueError : a number was not recorded
    """
    measured = {name: values[name] for name in claim.names if name in values}
    truth = claim.holds(values)
    for digits in range(3, 18):
        texts = {name: _number(value, digits) for name, value in measured.items()}
        rounded = {
            name: float(texts[name]) if isinstance(value, float) else value
            for name, value in measured.items()
        }
        try:
            if claim.holds(rounded) == truth:
                break
        except ValueError:  # a divisor rounded to nought
            continue
    return texts


def _number(value: Any, digits: int) -> str:
    if not isinstance(value, float):
        return repr(value)
    return f"{value:.{max(digits, len(str(int(abs(value)))))}g}"


def counts_table(claims: Sequence[Claim]) -> str:
    """How many claims have which status, in words and by experiment."""
    of_status = Counter(claim.status for claim in claims)
    of_both = Counter((claim.experiment, claim.status) for claim in claims)
    words = ", ".join(f"{of_status[status]} {status}" for status in STATUSES)
    rows = [["Experiment", "Claims"]]
    for name in EXPERIMENTS:
        badges = [_badge(status, n) for status in STATUSES if (n := of_both[name, status])]
        label = f"[{_heading(name)}](claims-{name.lower()})" if badges else _heading(name)
        rows.append([label, " ".join(badges) or "no claim yet"])
    return f"**Of {len(claims)} claims: {words}.**\n\n" + _list_table(rows, "scorecard-counts", "50 50")


def _badge(status: str, n: int | None = None) -> str:
    colour, symbol = BADGES[status]
    return f"{{bdg-{colour}}}`{symbol} {status if n is None else f'{n} {status}'}`"


def data_list(claims: Sequence[Claim]) -> str:
    """What each kind of data is, of those that claims were checked on."""
    used = {claim.data for claim in claims}
    return "\n".join(f"- **{name}**: {words}" for name, words in DATA.items() if name in used)


def claims_lists(claims: Sequence[Claim], values: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """A section for each experiment that has claims, one folded row for each claim, by kind of data."""
    kinds = list(DATA)
    for name in EXPERIMENTS:
        group = [claim for claim in claims if claim.experiment == name]
        if group:
            group.sort(key=lambda claim: kinds.index(claim.data))
            rows = [_row(claim, values.get(claim.chapter, {})) for claim in group]
            yield "\n\n".join([f"(claims-{name.lower()})=\n## {_heading(name)}", *rows, ""])


def _heading(experiment: str) -> str:
    title = EXPERIMENTS[experiment]
    return title if experiment == "ours" else f"{experiment}: {title}"


def _row(claim: Claim, values: Mapping[str, Any]) -> str:
    parts = [f"**Note:** {_escaped(claim.note)}"] if claim.note else []
    if not claim.names:
        parts.append("Nothing here could check it.")
    elif claim.status == "not testable here" and not set(claim.names) <= set(values):
        parts.append(f"**Check:** `{_line(claim.check)}`. Not measured.")
    else:
        measured = ", ".join(f"`{name} = {text}`" for name, text in shown(claim, values).items())
        parts.append(f"**Check:** `{_line(claim.check)}`, with {measured}.")
    chapter = f"{{doc}}`chapter {int(claim.chapter[:2])} <../notebooks/{claim.chapter}>`"
    where = f"**Stands in:** {_escaped(claim.source)}; checked in {chapter} as `{claim.id}`."
    title = f"{_badge(claim.status)} {claim.data}: {_escaped(claim.statement)}"
    return _folded(title, [*parts, where])


def _folded(title: str, parts: Sequence[str]) -> str:
    """A row that opens: its title in Markdown, and the paragraphs within."""
    return "\n\n".join([f":::{{dropdown}} {title}\n:class-container: folded-row", *parts]) + "\n:::"


def recorded_results(folder: Traversable | None = None) -> str:
    """Where each recorded table comes from, a folded row for each.

    Parameters
    ----------
    folder : holds ``NAME.csv`` and ``NAME.yml``, default: the package's own

    Raises
    ------
    ValueError : a table without provenance, or with part of it
    """
    if folder is None:
        folder = resources.files("lvlmva_lite.experiments").joinpath("results")
    names = sorted(
        file.name.removesuffix(".csv") for file in folder.iterdir() if file.name.endswith(".csv")
    )
    if not names:
        return "No table has been recorded yet."
    rows = []
    for name in names:
        origin_file = folder.joinpath(f"{name}.yml")
        origin = yaml.safe_load(origin_file.read_text("utf-8")) if origin_file.is_file() else {}
        if lacking := [key for key in PROVENANCE if not origin.get(key)]:
            raise ValueError(
                f"the recorded table {name} does not say its {', '.join(lacking)} in {name}.yml"
            )
        with folder.joinpath(f"{name}.csv").open(encoding="utf-8") as stream:
            table = pd.read_csv(stream)
        n = table["seed"].nunique() if "seed" in table else 0
        seeds = f"{n} seed{'s' * (n != 1)}" if n else "no seeds"
        of_tables = (
            {"software": f"Python {origin['python']}, torch {origin['torch']}"} if "torch" in origin else {}
        )
        machine = "; ".join(
            _escaped(value)
            for key in ("machine", "processor", "software")
            if (value := (origin | of_tables).get(key))
        )
        command = f"`{_line(origin['command'])}`"
        since = code_since(name, origin)
        told = f"Recorded on {origin['date']} at `{origin['commit']}` on {machine}."
        parts = [told, f"**Code since:** {since}.", f"**Command:** {command}"]
        title = f"`{name}`: {seeds}, code {since.partition(':')[0].partition(',')[0]}"
        rows.append(_folded(title, parts))
    return "\n\n".join(rows)


def code_since(name: str, origin: Mapping[str, Any]) -> str:
    """Whether the code that a recorded table was made by is still the code that would make it.

    Parameters
    ----------
    name : of the table and its experiment
    origin : the table's provenance, as ``lvlmva collect`` keeps it: "modules", by
        :func:`import_closure.code_ids`, and "again" where some seeds were run anew
        (:func:`recording.run_again`), or "code", by :func:`run_origin.origin_of`, or neither
    """
    again = origin.get("again", {})
    now = code_ids(module_of(name)) if "modules" in origin or again else {}

    def changed(modules: Mapping[str, str]) -> list[str]:
        return [part for part, id in modules.items() if now.get(part) != id]

    if "modules" in origin:
        parts = changed(origin["modules"])
        since = f"changed since: {', '.join(f'`{part}`' for part in parts)}" if parts else "the same"
    elif "code" in origin:
        code = origin_of(Job("experiment", name, {}, {}, ""))["code"]
        since = "the same" if code == origin["code"] else "changed since"
    else:
        since = "unknown (the table is older than this check)"
    if since == "the same" or not again.get("modules") or changed(again["modules"]):
        return since
    away = again["largest_difference"]
    numbers = "the same numbers" if away == 0 else f"numbers differ by at most {away:.2g}"
    seeds = f"seed{'s' * (',' in again['seeds'])} {again['seeds']}"
    before = "older than this check" if since.startswith("unknown") else "changed since"
    return f"{before}, and run again at `{again['commit']}`, {seeds}: {numbers}"


def _list_table(rows: Sequence[Sequence[str]], kind: str, widths: str) -> str:
    """A MyST table whose cells are blocks of Markdown; the first row is its head."""
    lines = ["````{list-table}", ":header-rows: 1", f":widths: {widths}", f":class: {kind}", ""]
    for row in rows:
        for i, cell in enumerate(row):
            first, *rest = cell.split("\n")
            lines.append(f"{'  - ' if i else '* - '}{first}")
            lines += [f"    {line}" if line else "" for line in rest]
    return "\n".join([*lines, "````"])


def _line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """``text`` on one line, with no character that Markdown would take for its own."""
    line = re.sub(r"([\\`*_{}\[\]<>$|~#&])", r"\\\1", _line(str(text)))
    # A line that begins like a list.
    return re.sub(r"^([-+]|\d+(?=[.)]\s))", lambda m: m[1] + "\\" if m[1].isdigit() else "\\" + m[1], line)
