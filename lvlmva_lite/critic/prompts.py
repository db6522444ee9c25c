"""What is said to the models: template files, filled in, as chat messages.

The templates stand in ``critic/prompts/*.md``; the first line of each gives
its version.  They are our own wording of the six steps of the critic and of
the few-shot judge of LVLM-VA (arXiv 2512.21985).

What others wrote (the class, the description, a critique) goes in as data
between tags, with ``<``, ``>`` and ``&`` written as entities, so that no text
can close its tag and speak in the prompt's own voice.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from lvlmva_lite.critic.text_judge import kind_of_example
from lvlmva_lite.critic.types import Case, segment_names

if TYPE_CHECKING:
    from lvlmva_lite.critic.panels import Panels

Message = dict[str, object]
"""One chat message: "role", and "content" as text or as a list of text and image parts."""


@cache
def template(name: str) -> tuple[str, str]:
    """Version and text of the template ``critic/prompts/{name}.md``.

    Raises
    ------
    ValueError : there is no such template, or its first line gives no version
    """
    file = resources.files("lvlmva_lite.critic").joinpath("prompts", f"{name}.md")
    if not file.is_file():
        raise ValueError(f"no prompt template {name!r} ships with the package")
    head, _, text = file.read_text("utf-8").partition("\n")
    label, _, version = head.partition(":")
    if label != "version" or not version.strip():
        raise ValueError(f"the prompt template {name!r} must begin with 'version: ...', got {head!r}")
    return version.strip(), text.strip()


def critic_version() -> str:
    """Versions of all templates that a critic's request is made of."""
    return "+".join(template(name)[0] for name in ("critic", "critic_case", "ask_again"))


def judge_version() -> str:
    """Versions of all templates that a judge's request is made of."""
    return "+".join(template(name)[0] for name in ("judge", "judge_case", "ask_again"))


def as_data(text: str) -> str:
    """Text that cannot close the tag it stands in: ``<``, ``>``, ``&`` become entities."""
    return html.escape(text.strip(), quote=False)


def named_segments(case: Case) -> tuple[str, ...]:
    """The letters of the segments that hold a pixel: what a critic is asked about.

    An empty segment cannot be seen, and its verdict changes nothing.
    """
    present = set(case.segment_labels.unique().tolist())
    return tuple(name for j, name in enumerate(segment_names(case.n_segments)) if j in present)


def critic_text(case: Case) -> tuple[str, str]:
    """The words that go with a case's panels: the six steps, then the case itself.

    Derived in chapter 5.
    """
    return template("critic")[1], template("critic_case")[1].format(
        class_name=as_data(case.class_name),
        description=as_data(case.description),
        names=", ".join(named_segments(case)),
    )


def critic_messages(case: Case, panels: Panels) -> list[Message]:
    """The critic's request: the six steps, the case's words, its three panels.

    Parameters
    ----------
    case : Case
    panels : Panels, PNG bytes ``image``, ``segment_map``, ``overlay``

    Returns
    -------
    list of messages as ``chat.completions`` takes them, images as data URLs
    """
    steps, words = critic_text(case)
    pictures = [_picture(png) for png in (panels.image, panels.segment_map, panels.overlay)]
    return [
        {"role": "system", "content": steps},
        {"role": "user", "content": [{"type": "text", "text": words}, *pictures]},
    ]


def judge_messages(critique: str, names: Sequence[str], examples: Sequence[dict]) -> list[Message]:
    """The judge's request: text only, with a person's readings as examples.

    Parameters
    ----------
    critique : what the critic wrote
    names : letters of the segments to rule on
    examples : dicts with "text" (str) and "kind" (of ``KINDS``)
    """
    shown = "\n".join(
        f"<example><critique>{as_data(example['text'])}</critique> "
        f"<verdict>{kind_of_example(example)}</verdict></example>"
        for example in examples
    )
    case = template("judge_case")[1].format(critique=as_data(critique), names=", ".join(names))
    return [
        {"role": "system", "content": template("judge")[1].format(examples=shown)},
        {"role": "user", "content": case},
    ]


def ask_again(
    messages: Sequence[Message], answer: str, complaint: str, names: Sequence[str]
) -> list[Message]:
    """The same conversation after an answer that cannot be used, with one more request.

    After an empty answer the request is added to the last message: many
    servers take no two messages of the user in a row.
    """
    again = template("ask_again")[1].format(complaint=complaint, names=", ".join(names))
    if answer.strip():
        return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    *before, last = messages
    content = last["content"]
    more = (
        f"{content}\n\n{again}" if isinstance(content, str) else [*content, {"type": "text", "text": again}]
    )
    return [*before, {**last, "content": more}]


def _picture(png: bytes) -> Message:
    address = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return {"type": "image_url", "image_url": {"url": address}}
