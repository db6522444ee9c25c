"""What asking a model would take, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass

from lvlmva_lite.critic.batch import FIRST_ANSWERS
from lvlmva_lite.critic.budget import DISCOUNT, Price, prompt_tokens_at_most
from lvlmva_lite.critic.openai_critic import AnswerSettings, critic_request, judge_request
from lvlmva_lite.critic.prompts import named_segments
from lvlmva_lite.critic.types import Case

LIKELY_ANSWER = {"critic": 700, "judge": 100}
"""Tokens that an answer of each kind is taken to have in an estimate."""

_LIKELY_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Estimate:
    """What asking about so many cases would take.

    Attributes
    ----------
    calls, tokens, dollars : likely; dollars None where no price is known
    calls_at_most, tokens_at_most, dollars_at_most : with every answer as long
        as it may be and every question asked twice
    dollars_in_batches : likely, with all but the first few questions in batches
    """

    calls: int
    tokens: int
    dollars: float | None
    calls_at_most: int
    tokens_at_most: int
    dollars_at_most: float | None
    dollars_in_batches: float | None


def estimate(
    case: Case,
    n_cases: int,
    settings: AnswerSettings,
    critic_price: Price | None,
    judge_price: Price | None,
) -> Estimate:
    """The likely and the largest cost of ``n_cases`` like ``case``; sends nothing.

    Tokens of text are taken as a quarter of its bytes, those of a panel as
    the price list says.  Answers that the store holds already cost nothing;
    this does not know of them.
    """
    questions = {
        "critic": (critic_request(case, "", settings), critic_price),
        "judge": (judge_request("", named_segments(case), "", settings), judge_price),
    }
    n_questions = n_cases * settings.samples
    tokens, tokens_at_most, dollars, dollars_at_most = 0, 0, 0.0, 0.0
    for kind, (request, price) in questions.items():
        images = 3 * (price or Price(0, 0)).tokens_per_image if kind == "critic" else 0
        text = prompt_tokens_at_most(request.messages, 0)
        # The judge reads what the critic wrote.
        read, read_at_most = (
            (LIKELY_ANSWER["critic"], settings.max_answer_tokens) if kind == "judge" else (0, 0)
        )
        prompt = text // _LIKELY_BYTES_PER_TOKEN + images + read
        # Asked again, the first answer and the complaint (some 500 bytes) are part of the prompt.
        longest = text + images + read_at_most
        twice = 2 * longest + settings.max_answer_tokens + 500
        answer = min(LIKELY_ANSWER[kind], settings.max_answer_tokens)
        tokens += n_questions * (prompt + answer)
        tokens_at_most += n_questions * (twice + 2 * settings.max_answer_tokens)
        if price is not None:
            dollars += n_questions * price.of(prompt, answer)
            dollars_at_most += n_questions * price.of(twice, 2 * settings.max_answer_tokens)
    alone = min(FIRST_ANSWERS / max(n_questions, 1), 1.0)
    in_batches = dollars * (alone + DISCOUNT * (1 - alone))
    priced = critic_price is not None and judge_price is not None
    return Estimate(
        2 * n_questions, tokens, dollars if priced else None,
        4 * n_questions, tokens_at_most, dollars_at_most if priced else None,
        in_batches if priced else None,
    )  # fmt: skip
