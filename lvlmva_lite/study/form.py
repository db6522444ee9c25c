"""The form: one HTML file that asks, works without a network, and hands its answers to whoever fills it in."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2

from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.study.answers import COLUMNS
from lvlmva_lite.study.trials import QUESTIONS, Trial, study_id

_SIZE = 384
"""Longer side of a panel, in pixels, at least."""


def study_page(trials: Sequence[Trial], *, seed: int = 0) -> str:
    """The form as HTML: consent, the trials in an order of each participant's own, a file of answers.

    It holds neither the truth nor the critic's verdicts.  Nothing is sent:
    answers stay in the browser until the participant saves the file.  A
    participant is a code of eight hex digits that the browser draws; the order
    follows from it and the seed.

    Parameters
    ----------
    trials : from :func:`study_trials`
    seed : of the order
    """
    shown = [_shown(trial) for trial in trials]
    data = {
        "study": study_id(trials),
        "seed": seed,
        "columns": COLUMNS,
        "questions": QUESTIONS,
        "trials": shown,
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(resources.files(__package__).joinpath("form.html.j2").read_text("utf-8"))
    # Within a script "<" might end it.
    return page.render(n=len(trials), data=json.dumps(data).replace("<", "\\u003c"))


def _shown(trial: Trial) -> dict[str, Any]:
    panels = render_panels(trial.case, _SIZE)
    pictures = {
        "image": (panels.image, f"The image, a “{trial.case.class_name}”"),
        "segments": (panels.segment_map, "The segments with their letters; the brighter, the more support"),
        "both": (panels.overlay, "The segments laid over the image"),
    }
    return {
        "id": trial.trial_id,
        "segment": trial.segment,
        "class": trial.case.class_name,
        "words": trial.case.description,
        "critique": trial.critique,
        "pictures": [
            {"name": name, "png": base64.b64encode(png).decode("ascii"), "alt": alt}
            for name, (png, alt) in pictures.items()
        ],
    }
