"""Two small questions about pictures of known content: does a model see, and what will it take?"""

from __future__ import annotations

import base64
import io
import json
import random
from dataclasses import dataclass

from PIL import Image

from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.chat import ChatClient
from lvlmva_lite.critic.openai_critic import AnswerSettings
from lvlmva_lite.critic.prompts import Message

COLOURS = {
    "red": (220, 20, 20), "green": (20, 160, 40), "blue": (30, 60, 220),
    "yellow": (245, 225, 30), "black": (0, 0, 0), "white": (255, 255, 255),
}  # fmt: skip
"""Of the halves of a picture, by the names that a model is given to choose from."""

SCHEMA = {
    "type": "object",
    "properties": {side: {"type": "string", "enum": list(COLOURS)} for side in ("left", "right")},
    "required": ["left", "right"],
    "additionalProperties": False,
}
"""What is asked of a server that knows structured output."""

_SIDE = 224


@dataclass(frozen=True)
class Trial:
    """What two questions have shown.

    Attributes
    ----------
    right : int, pictures of 2 that were named right; by chance, one in thirty each
    structured : "json_schema", "json_object" or "none", how the server takes the wish for JSON
    is_json : the first answer is the JSON object that was asked for
    reasons : the model reasons before it answers
    tokens : int, in and out, of both; None where the server does not say
    reasoning_tokens : int, of both
    model : who the server says has answered
    said : the two answers
    """

    right: int
    structured: str
    is_json: bool
    reasons: bool
    tokens: int | None
    reasoning_tokens: int
    model: str
    said: tuple[str, str]


def try_model(
    client: ChatClient,
    model: str,
    settings: AnswerSettings | None = None,
    *,
    draw: random.Random | None = None,
) -> Trial:
    """Show a model two pictures of two colours each and ask for the colours.

    Parameters
    ----------
    client : made with ``schema=SCHEMA``, on a store of its own
    model : its name
    settings : AnswerSettings
    draw : draws the colours; default: other ones each time

    Raises
    ------
    what :meth:`ChatClient.ask` raises
    """
    draw = draw or random.SystemRandom()
    settings = settings or AnswerSettings()
    answers, right = [], 0
    for number in range(2):
        left, other = draw.sample(list(COLOURS), 2)
        parameters = settings.parameters(sample=number, **({} if number else {"structured": "colours"}))
        answer = client.ask(Request("check", model, "check-1", [_question(left, other)], parameters))
        right += _names(answer) == [left, other]
        answers.append(answer)
    counts = [(one.prompt_tokens, one.completion_tokens) for one in answers]
    known = all(None not in count for count in counts)
    return Trial(
        right,
        client.completions.structured,
        _is_json(answers[0]),
        any(one.reasoning_tokens or one.said != one.text for one in answers),
        sum(map(sum, counts)) if known else None,
        sum(one.reasoning_tokens for one in answers),
        answers[0].model,
        (answers[0].text, answers[1].text),
    )


def _question(left: str, right: str) -> Message:
    picture = Image.new("RGB", (_SIDE, _SIDE), COLOURS[left])
    picture.paste(COLOURS[right], (_SIDE // 2, 0, _SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    words = (
        f"The picture has two halves, each of one colour of these: {', '.join(COLOURS)}. Which are they? "
        'Answer with one JSON object and nothing else, such as {"left": "colour", "right": "colour"}.'
    )
    return {
        "role": "user",
        "content": [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": address}}],
    }


def _names(answer: Answer) -> list[str]:
    """The colours that an answer names, in order, each once."""
    words = "".join(letter if letter.isalpha() else " " for letter in answer.said.lower()).split()
    return list(dict.fromkeys(word for word in words if word in COLOURS))


def _is_json(answer: Answer) -> bool:
    try:
        value = json.loads(answer.said)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"left", "right"}
