"""The store of answers: keyed by what decides an answer, shared by processes, free of addresses."""

import multiprocessing
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from lvlmva_lite.critic.prompts import critic_messages, critic_version
from lvlmva_lite.critic.store import Answer, AnswerStore, Request, StoreError

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHER_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}


def request(words="look", picture=PICTURE, **changes):
    messages = [
        {"role": "system", "content": "be exact"},
        {"role": "user", "content": [{"type": "text", "text": words}, picture]},
    ]
    return replace(Request("critic", "model-1", "critic-1", messages, {"sample": 0}), **changes)


def test_an_answer_comes_back_from_a_new_process_worth_of_store(tmp_path):
    answer = Answer("Segment A is spurious.", prompt_tokens=10, completion_tokens=5, cost=0.001)
    AnswerStore(tmp_path).add(request(), answer)
    assert AnswerStore(tmp_path, read_only=True).get(request()) == answer


@pytest.mark.parametrize(
    "other",
    [
        request("look again"),
        request(picture=OTHER_PICTURE),
        request(model="model-2"),
        request(prompt_version="critic-2"),
        request(parameters={"sample": 1}),
        request(kind="judge"),
    ],
)
def test_whatever_decides_an_answer_is_part_of_its_key(tmp_path, other):
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("A"))
    assert request().key == request().key != other.key
    assert store.get(other) is None
    with pytest.raises(StoreError, match="record it"):
        store.replay(other)


def test_the_first_answer_stays(tmp_path):
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("first"))
    store.add(request(), Answer("second"))
    assert store.get(request()).text == "first"
    assert len(store) == 1


def test_images_are_kept_once_and_named_in_the_export(tmp_path):
    store = AnswerStore(tmp_path / "store")
    store.add(request(), Answer("a"))
    store.add(request("again"), Answer("b"))
    parts = [record["messages"][1]["content"][1] for record in store.records()]
    assert parts[0] == parts[1]
    assert store.image(parts[0]["sha256"]) == b"\0\0\0"
    assert store.export(tmp_path / "answers.jsonl") == 2
    exported = (tmp_path / "answers.jsonl").read_text()
    assert exported.count("\n") == 2
    assert "base64" not in exported
    assert str(tmp_path) not in exported


def test_read_only_refuses_an_empty_place_and_anything_refuses_rubbish(tmp_path):
    with pytest.raises(StoreError, match="no recorded answers"):
        AnswerStore(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "answers.sqlite").write_text("this is no database, " * 100)
    with pytest.raises(StoreError, match="cannot use"):
        AnswerStore(tmp_path)


def _write_many(path, writer):
    store = AnswerStore(path)
    for i in range(50):
        store.add(request(f"shared {i}"), Answer(f"from {writer}"))
        store.add(request(f"own {writer} {i}"), Answer("own"))


def test_two_processes_share_the_store(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(AnswerStore(tmp_path)) == 150
    assert sqlite3.connect(tmp_path / "answers.sqlite").execute("PRAGMA integrity_check").fetchone() == (
        "ok",
    )


def test_the_prompt_version_names_every_template():
    assert critic_version() == "critic-2+case-2+again-1"
    assert callable(critic_messages)


@pytest.mark.parametrize("way", ["itself", "relative", "symlink", "hard link", "log"])
def test_an_export_never_overwrites_its_store(tmp_path, monkeypatch, way):
    store = AnswerStore(tmp_path / "st")
    store.add(request(), Answer("paid for"))
    own = tmp_path / "st/answers.sqlite"
    monkeypatch.chdir(tmp_path)
    out = {
        "itself": own,
        "relative": Path("st/../st/answers.sqlite"),
        "log": tmp_path / "st/answers.sqlite-wal",
    }
    out = out.get(way, tmp_path / "out.jsonl")
    if way == "symlink":
        out.symlink_to(own)
    elif way == "hard link":
        os.link(own, out)
    with pytest.raises(StoreError, match="is the store's own"):
        store.export(out)
    assert AnswerStore(tmp_path / "st", read_only=True).get(request()).text == "paid for"


def test_an_export_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("a"))
    with pytest.raises(StoreError, match="cannot write"):
        store.export(tmp_path)
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        store.export(out)
    assert out.read_text() == "before"
    assert not list(tmp_path.glob("*.part"))
