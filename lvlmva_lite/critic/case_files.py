"""Cases as files: answered elsewhere, by a person or a model, and read back as recorded answers.

A case becomes a folder with its three panels, the prompt word for word and an
``answer.json`` to fill in.  What is read back is kept in the store under the
very requests that a critic and a judge would have made, so that ``replay``
serves it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lvlmva_lite.critic import prompts
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.openai_critic import AnswerSettings, critic_request, judge_request
from lvlmva_lite.critic.png import repacked
from lvlmva_lite.critic.store import AnswerStore
from lvlmva_lite.critic.types import KINDS, Case
from lvlmva_lite.critic.verdicts import MalformedAnswer, parse_verdicts
from lvlmva_lite.files import to_json, write_whole

PANELS = ("image.png", "segment_map.png", "overlay.png")
"""Panel files of a case, in the order in which the prompt speaks of them."""

SOURCE = "recorded elsewhere"
"""``Answer.source`` of what was read back."""

_DATA_URL = "data:image/png;base64,"
_FIELDS = ("model", "date", "critique", "verdicts")

_README = """\
# Cases for a critic

Each folder here is one case. To answer it:

1. Look at `image.png`, `segment_map.png` and `overlay.png`, in this order, and read `prompt.txt`.
   For a model: send it that text with these three pictures, in a new conversation for each case.
2. Fill in `answer.json`, and change nothing else:
   - `model`: who answered, as a short name. For a model, its full name with the version. For a person,
     for instance "reader-1"; a real name is not needed.
   - `date`: when, as YYYY-MM-DD.
   - `critique`: the answer word for word, all six steps. In JSON a line break is written `\\n`.
   - `verdicts`: for each segment one of {words}, as the critique says.
3. Read the answers back, as often as you like; cases not yet answered are listed:

       lvlmva critic import THIS_FOLDER --store answers

   One folder holds one answer to each case. For another model or person, copy the unanswered folder.
4. Use them: `--critic replay --critic-model NAME --store answers`, NAME being what stands under `model`,
   with the number of cases, the seed and all else as in the command that exported them.

The pictures may be of patients, or otherwise not yours to give away. Before they go to a service on
another machine, make sure that their owners and your rules allow it.
"""


class CaseFilesError(ValueError):
    """A folder of cases that cannot be written or read; the message says why."""


@dataclass(frozen=True)
class Imported:
    """What became of each case of a folder, by case id.

    Attributes
    ----------
    recorded : answers new in the store
    known : answers that the store already held, word for word
    unanswered : cases whose answer.json is as it was written
    refused : case id -> what is wrong with its answer
    """

    recorded: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """The counts in one line, then a line for each case that is not in the store."""
        counts = (
            f"{len(self.recorded)} answers recorded, {len(self.known)} already there, "
            f"{len(self.unanswered)} cases unanswered, {len(self.refused)} refused"
        )
        unanswered = [f"unanswered: {case_id}" for case_id in self.unanswered]
        refused = [f"refused: {case_id}: {why}" for case_id, why in self.refused.items()]
        return "\n".join([counts, *unanswered, *refused])


def export_cases(cases: Sequence[Case], folder: Path) -> None:
    """Write cases to be answered elsewhere, each into a folder of its own, and a README.

    Raises
    ------
    CaseFilesError : the folder holds something already or cannot be written,
        or the case ids are no distinct file names
    """
    ids = [case.case_id for case in cases]
    for case_id in ids:
        if not re.fullmatch(r"\w[\w.-]*", case_id, re.ASCII) or ids.count(case_id) > 1:
            raise CaseFilesError(f"case ids must be distinct and fit for file names, got {case_id!r}")
    require_new_folder(folder)
    try:
        for case in cases:
            _export(case, folder / case.case_id)
        words = ", ".join(f'"{word}"' for word in KINDS)
        (folder / "README.md").write_text(_README.format(words=words), "utf-8")
    except OSError as error:
        raise CaseFilesError(f"cannot write cases to {folder}: {error}") from error


def require_new_folder(folder: Path) -> None:
    """Make a folder, or take an empty one.

    Raises
    ------
    CaseFilesError : it holds something already or cannot be made
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CaseFilesError(f"{folder} is not empty; give a new folder")
    except OSError as error:
        raise CaseFilesError(f"cannot write cases to {folder}: {error}") from error


def import_answers(folder: Path, store: AnswerStore, *, model: str = "", date: str = "") -> Imported:
    """Read the answers of a folder into a store; may be run again as more come in.

    A good answer is recorded whatever becomes of the others.  Each gives two
    records, one of the critic and one of the judge, both under the model's
    name and with default settings.

    Parameters
    ----------
    folder : made by :func:`export_cases`
    store : where the answers go
    model, date : taken where an answer leaves its own empty

    Raises
    ------
    CaseFilesError : the folder holds no cases, or all of them ask by a version
        of the prompt that is asked no more
    """
    cases = sorted(file.parent for file in folder.glob("*/case.json"))
    if not cases:
        raise CaseFilesError(f"{folder} holds no cases (no */case.json)")
    _refuse_old(folder, cases)
    imported = Imported()
    for case in cases:
        try:
            requests = _requests(case, {"model": model, "date": date})
            if requests is None:
                imported.unanswered.append(case.name)
                continue
            held = [store.get(request) for request, _ in requests]
            for old, (request, new) in zip(held, requests, strict=True):
                if old and old.text != new.text:
                    what = {"critic": "critique of this case", "judge": "verdict on this same critique"}
                    raise CaseFilesError(
                        f"the store holds another {what[request.kind]} by {request.model!r}; "
                        "give the second one a model name of its own, or use another store"
                    )
            for request, answer in requests:
                store.add(request, answer)
            (imported.known if all(held) else imported.recorded).append(case.name)
        except CaseFilesError as error:
            imported.refused[case.name] = str(error)
    return imported


def _export(case: Case, folder: Path) -> None:
    request = critic_request(case, model="")
    names, panels = prompts.named_segments(case), iter(PANELS)
    folder.mkdir()
    texts, messages = [], []
    for message in request.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        kept = []
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
                kept.append(part)
            else:
                file = next(panels)
                png = part["image_url"]["url"].removeprefix(_DATA_URL)
                (folder / file).write_bytes(base64.b64decode(png))
                kept.append({"type": "panel", "file": file})
        messages.append({**message, "content": content if isinstance(content, str) else kept})
    asked = {"prompt_version": request.prompt_version, "segments": names, "messages": messages}
    _write_json(folder / "case.json", asked)
    _write_json(
        folder / "answer.json",
        {"model": "", "date": "", "critique": "", "verdicts": dict.fromkeys(names, "")},
    )
    (folder / "prompt.txt").write_text("\n\n".join(texts) + "\n", "utf-8")


def _refuse_old(folder: Path, cases: Sequence[Path]) -> None:
    """Refuse in one line what an older version of the package wrote, answered or not."""
    versions = set()
    for case in cases:
        try:
            versions.add(_read_json(case / "case.json").get("prompt_version"))
        except CaseFilesError:
            return  # each case is told by itself
    if len(versions) == 1 and prompts.critic_version() not in versions:
        raise CaseFilesError(
            f"the cases in {folder} were written with the prompt {versions.pop()}, which is asked no more "
            f"(now {prompts.critic_version()}): answers to it are none to what is asked now. Nothing was read, "
            "and nothing there was changed; write them anew with `lvlmva critic cases` into another folder"
        )


def _requests(folder: Path, defaults: dict[str, str]) -> list[tuple[Request, Answer]] | None:
    """What the critic and the judge would have been asked, with the answers; None: not answered yet."""
    asked, said = _read_json(folder / "case.json"), _read_json(folder / "answer.json")
    for name in said:
        if name not in _FIELDS:
            raise CaseFilesError(f"answer.json has an unknown field {name!r}; known: {', '.join(_FIELDS)}")
    verdicts = said.get("verdicts") or {}
    if not isinstance(verdicts, dict):
        raise CaseFilesError("verdicts must be a JSON object, segment: verdict")
    texts = {name: said.get(name) or "" for name in _FIELDS[:3]}
    for name, value in {**texts, **verdicts}.items():
        if not isinstance(value, str):
            raise CaseFilesError(f"{name} must be a text in quotes, got {value!r}")
    if not texts["critique"].strip() and not any(word.strip() for word in verdicts.values()):
        return None

    texts = {name: (value.strip() or defaults.get(name, "").strip()) for name, value in texts.items()}
    for name, value in texts.items():
        if not value:
            raise CaseFilesError(f"{name} is missing")
    try:
        datetime.fromisoformat(texts["date"])
    except ValueError:
        raise CaseFilesError(f"date must be given as YYYY-MM-DD, got {texts['date']!r}") from None
    if asked.get("prompt_version") != prompts.critic_version():
        raise CaseFilesError(
            f"its prompt is of version {asked.get('prompt_version')}, which is asked no more "
            f"(now {prompts.critic_version()}); export the cases anew"
        )
    ruled = json.dumps({"verdicts": [{"segment": n, "verdict": w} for n, w in verdicts.items()]})
    try:
        names = tuple(asked["segments"])
        parse_verdicts(ruled, names)
        messages = [_with_panels(message, folder) for message in asked["messages"]]
    except MalformedAnswer as error:
        raise CaseFilesError(f"its verdicts cannot be used: {error}") from None
    except (LookupError, TypeError, AttributeError):
        raise CaseFilesError("case.json is not as it was written; export the cases anew") from None
    critic = Request(
        "critic", texts["model"], prompts.critic_version(), messages,
        AnswerSettings().parameters(sample=0, ask=0),
    )  # fmt: skip
    judge = judge_request(texts["critique"], names, texts["model"])
    return [
        (critic, Answer(texts["critique"], source=SOURCE, date=texts["date"])),
        (judge, Answer(ruled, source=SOURCE, date=texts["date"])),
    ]


def _with_panels(message: dict, folder: Path) -> dict:
    """A message of case.json with its panels' bytes where it names their files."""
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [_with_panel(part, folder) for part in message["content"]]}


def _with_panel(part: dict, folder: Path) -> dict:
    if part["type"] != "panel":
        return part
    if part["file"] not in PANELS:
        raise LookupError(part["file"])
    file = folder / part["file"]
    if file.resolve().parent != folder.resolve():
        raise CaseFilesError(f"{part['file']} leads out of its folder; export the cases anew")
    try:
        png = repacked(file.read_bytes())  # an earlier version packed it otherwise
    except OSError as error:
        raise CaseFilesError(f"cannot read {part['file']}: {error.strerror}") from None
    return {"type": "image_url", "image_url": {"url": _DATA_URL + base64.b64encode(png).decode("ascii")}}


def _write_json(file: Path, value: dict) -> None:
    write_whole(file, to_json(value, indent=1, ensure_ascii=False) + "\n")


def _read_json(file: Path) -> dict:
    def once(pairs: list[tuple[str, object]]) -> dict:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise CaseFilesError(f"{file.name} gives {name} more than once")
        return dict(pairs)

    if file.resolve().parent != file.parent.resolve():
        raise CaseFilesError(f"{file.name} leads out of its folder; export the cases anew")
    try:
        value = json.loads(file.read_text("utf-8-sig"), object_pairs_hook=once)
    except OSError as error:
        raise CaseFilesError(f"cannot read {file.name}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CaseFilesError(f"{file.name} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise CaseFilesError(f"{file.name} must hold a JSON object")
    return value
