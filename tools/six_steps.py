"""Draw the six steps as a picture for the README and the landing page.

``python tools/six_steps.py`` writes ``book/_static/six-steps.svg`` (three boxes in a row) and
``six-steps-narrow.svg`` (two in a row, for phones).  Every box leads to the chapter that derives the
step and to the module that does it; the addresses are relative to the files.  Seen as an image the
picture follows the reader's system into the dark, inside a page of the book it follows the theme.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_static"


class Step(NamedTuple):
    """A step: its name, what happens in it (two short lines), its chapter and its module."""

    name: str
    words: tuple[str, str]
    chapter: str
    module: str


STEPS = (
    Step("Sample", ("the images of which the", "network is surest"), "02_entropy_sampling", "sampling.py"),
    Step("Explain", ("each pixel's part", "in the answer"), "03_explanations", "attribution.py"),
    Step("Segment", ("that evidence into", "a few pieces"), "04_ppeps_wgm", "segmentation.py"),
    Step("Critic and judge", ("hold every piece against", "the expert's sentence"), "05_critic_and_judge",
         "critic"),
    Step("Mask", ("the pieces that", "were ruled spurious"), "06_right_for_the_right_reasons", "alignment.py"),
    Step("Align", ("train on, without looking", "where the masks are"), "06_right_for_the_right_reasons",
         "alignment.py"),
)  # fmt: skip
STYLE = """\
.six-steps { --ink: var(--pst-color-text-base, #1f2328); --box: var(--pst-color-surface, #f3f4f5);
  --line: var(--pst-color-text-muted, #57606a); --link: var(--pst-color-link, #0a58ca); --said: #b34700;
  font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .six-steps { --ink: var(--pst-color-text-base, #e6edf3);
  --box: var(--pst-color-surface, #21262d); --line: var(--pst-color-text-muted, #9198a1);
  --link: var(--pst-color-link, #79b8ff); } .six-steps:not(html *) { --said: #ffa657; } }
html[data-theme="dark"] .six-steps { --said: #ffa657; }
.six-steps rect { fill: var(--box); stroke: var(--line); }
.six-steps .said { stroke: var(--said); stroke-width: 2.5; }
.six-steps text { fill: var(--ink); font-size: 16px; }
.six-steps .name { font-size: 20px; font-weight: 600; }
.six-steps a text { fill: var(--link); font-size: 15px; text-decoration: underline; }
.six-steps .sentence { fill: var(--said); font-style: italic; }
.six-steps path { fill: none; stroke: var(--line); stroke-width: 2; }
.six-steps marker path { fill: var(--line); stroke: none; }"""
WIDTH, HEIGHT, GAP, EDGE = 238, 126, 30, 4


def picture(columns: int) -> str:
    """Return the picture as SVG with ``columns`` boxes in a row, to be read row by row."""
    rows = -(-len(STEPS) // columns)
    width = 2 * EDGE + columns * WIDTH + (columns - 1) * GAP
    height = 2 * EDGE + rows * HEIGHT + (rows - 1) * GAP + 30
    told = "; ".join(
        f"{number} {step.name}: {' '.join(step.words)}" for number, step in enumerate(STEPS, 1)
    )
    tip = f"tip-{columns}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="six-steps of-{columns}" viewBox="0 0 {width} {height}" '
        f'width="{width}" role="group" aria-label="The six steps. {escape(told)}.">',
        f"<title>The six steps</title>\n<style>\n{STYLE}\n</style>",
        f'<marker id="{tip}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" '
        'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z"/></marker>',
    ]
    for number, step in enumerate(STEPS):
        x, y = EDGE + number % columns * (WIDTH + GAP), EDGE + number // columns * (HEIGHT + GAP)
        said = ' class="said"' if step.name == "Critic and judge" else ""
        parts += [
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="10"{said}/>',
            f'<text class="name" x="{x + 14}" y="{y + 30}">{number + 1} {step.name}</text>',
            *(
                f'<text x="{x + 14}" y="{y + 55 + 20 * line}">{escape(words, quote=False)}</text>'
                for line, words in enumerate(step.words)
            ),
            f'<a href="../../notebooks/{step.chapter}.md"><text x="{x + 14}" y="{y + 112}">'
            f"chapter {int(step.chapter[:2])}</text></a>",
            f'<a href="../../lvlmva_lite/{step.module}"><text x="{x + 100}" y="{y + 112}">'
            f"{step.module}</text></a>",
        ]
        if number + 1 == len(STEPS):
            continue
        if (number + 1) % columns:
            way = f"M{x + WIDTH + 4} {y + HEIGHT // 2} h{GAP - 8}"
        else:  # down to the next row, and back to its first box
            middle = y + HEIGHT + GAP // 2
            way = f"M{x + WIDTH // 2} {y + HEIGHT + 4} V{middle} H{EDGE + WIDTH // 2} v{GAP // 2 - 4}"
        parts.append(f'<path d="{way}" marker-end="url(#{tip})"/>')
    said = "An expert's sentence enters at step 4."
    parts.append(f'<text class="sentence" x="{EDGE + 2}" y="{height - 10}">{said}</text>')
    return "\n".join([*parts, "</svg>\n"])


def files() -> dict[Path, str]:
    """Return what every file of the picture should hold."""
    return {FOLDER / "six-steps.svg": picture(3), FOLDER / "six-steps-narrow.svg": picture(2)}


def for_the_book(drawn: str, address: str, tag: str) -> str:
    """Return the picture with its addresses as they are seen from a page in ``book/`` of the rendered book."""
    for step in STEPS:
        drawn = drawn.replace(f'"../../notebooks/{step.chapter}.md"', f'"../notebooks/{step.chapter}.html"')
    return drawn.replace('"../../lvlmva_lite/', f'"{address}/blob/{tag}/lvlmva_lite/')


if __name__ == "__main__":
    for path, drawn in files().items():
        path.write_text(drawn)
