"""A summary in a model's words: it must cite cases, and its numbers are held against the report's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from lvlmva_lite.critic import prompts
from lvlmva_lite.critic.answers import Answer, Request, Unusable
from lvlmva_lite.critic.openai_critic import AnswerSettings
from lvlmva_lite.report.page import Report

_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?:\s*(%|per cent|percent))?")
_CITED = re.compile(r"\[([^\[\]]*)\]")
_WORDS = re.compile(
    r"\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|dozens?|half|halves|thirds?|quarters?|"
    r"twice|thrice|doubled?|tripled?)\b",
    re.IGNORECASE,
)


class SummaryError(RuntimeError):
    """A model's summary that cannot be used, also when asked for again; the message says why."""


def summary_faults(text: str, facts: str, case_ids: Sequence[str]) -> list[str]:
    """What is wrong with a summary; empty if it may be shown.

    It must cite a case, in square brackets, and only cases there are; every
    other number in it must stand in the report, a share as a share and a count
    as a count; and no number may be written in words, where this could not be
    checked.  That a number stands in the report does not say that the
    sentence around it is true.

    Parameters
    ----------
    text : the summary
    facts : the report in words and numbers
    case_ids : those that may be cited
    """
    faults = []
    cited = [one.strip() for found in _CITED.findall(text) for one in re.split(r"[,;]", found)]
    if not cited:
        faults.append("it cites no case")
    faults += [f"it cites {one!r}, which is no case of the report" for one in cited if one not in case_ids]
    known = _numbers(facts, case_ids)
    for number, unit in sorted(_numbers(_CITED.sub(" ", text), case_ids) - known):
        faults.append(f"the number {number}{unit} does not stand in the report")
    faults += [f"{word!r} is a number in words" for word in _WORDS.findall(_CITED.sub(" ", text))]
    return faults


def _numbers(text: str, case_ids: Sequence[str]) -> set[tuple[str, str]]:
    """(digits, " %" or "") of every number, those within case ids left out."""
    for one in sorted(case_ids, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(one)}(?![\w-])", " ", text)
    found = set()
    for match in _NUMBER.finditer(text):
        digits = match[0][: match.start(1) - match.start()].strip() if match[1] else match[0]
        found.add((digits, " %" if match[1] else ""))
    return found


def told_by(
    report: Report, ask: Callable[[Request], Answer], model: str, settings: AnswerSettings | None = None
) -> Report:
    """The report with a model's summary, asked for a second time where the first cannot be used.

    Only words and numbers of the report are sent, no image.

    Parameters
    ----------
    report : without one
    ask : what answers a request, such as ``OpenAICritic.ask``
    model : its name
    settings : temperature, length, ...

    Raises
    ------
    SummaryError : both answers are refused, or the report has no case to cite
    """
    facts = report.markdown()
    case_ids = [case.case_id for case in report.run.cases]
    shown = _worth_citing(report)
    if not shown:
        raise SummaryError("the report holds no case to cite, so there is nothing to summarise")

    def fault(answer: Answer) -> Unusable | None:
        if nothing := answer.nothing:
            return nothing
        faults = summary_faults(answer.said, facts, case_ids)
        return Unusable("malformed", "; ".join(faults)) if faults else None

    version, rules = prompts.template("summary")
    words = f"<report>\n{prompts.as_data(facts)}\n</report>\n\nCases to cite: {', '.join(shown)}."
    messages: list[prompts.Message] = [
        {"role": "system", "content": rules.format(example=shown[0])},
        {"role": "user", "content": words},
    ]
    settings = settings or AnswerSettings()
    request = Request("summary", model, version, messages, settings.parameters(ask=0), fault=fault)
    answer = ask(request)
    if wrong := fault(answer):
        again = f"That summary cannot be used: {wrong.words}. Please write it once more, by the same rules."
        more = [
            {"role": "assistant", "content": answer.said or "(nothing)"},
            {"role": "user", "content": again},
        ]
        request = replace(
            request, messages=[*messages, *more], parameters=settings.parameters(ask=1), last=True
        )
        answer = ask(request)
        wrong = fault(answer)
    if wrong:
        raise SummaryError(f"the summary of {model!r} was refused twice: {wrong.words}")
    return replace(report, told=answer.said.strip(), told_by=model)


def _worth_citing(report: Report) -> list[str]:
    """Up to five cases of each thing, then those of the examples."""
    ids = [case for thing in report.leaning.things for of in thing.cases.values() for case in of[:5]]
    return list(dict.fromkeys([*ids, *(example.case_id for example in report.examples)]))
