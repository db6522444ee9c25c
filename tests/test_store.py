"""The store of answers: keyed by what decides an answer, shared by processes, free of addresses."""

import base64
import io
import json
import multiprocessing
import os
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.openai_critic import asked_again, critic_request
from lvlmva_lite.critic.panels import Panels, render_panels
from lvlmva_lite.critic.prompts import critic_messages, critic_version
from lvlmva_lite.critic.store import AnswerStore, StoreError

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


def test_answers_of_two_servers_stand_side_by_side(tmp_path):
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("of one"), "server-1")
    assert store.get(request(), "server-2") is None
    store.add(request(), Answer("of two"), "server-2")
    assert [store.get(request(), f"server-{n}").text for n in (1, 2)] == ["of one", "of two"]
    with pytest.raises(StoreError, match=r"2 servers .*--base-url"):
        store.replay(request())
    assert store.replay(request(), "server-2").text == "of two"


def test_what_is_returned_is_what_the_store_holds(tmp_path):
    store, other = AnswerStore(tmp_path), AnswerStore(tmp_path)
    assert store.add(request(), Answer("first")).text == "first"
    assert other.add(request(), Answer("second")).text == "first"


def test_an_unusable_answer_makes_room_for_a_good_one_and_for_no_other(tmp_path):
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("", refusal="no"))
    assert [one.unusable for one in store.list()] == ["refused"]
    store.add(request(), Answer("yes"))
    store.add(request(), Answer(""))
    assert store.get(request()).text == "yes"
    assert [one.unusable for one in store.list()] == [""]


def test_answers_are_listed_and_forgotten_by_case_model_date_and_use(tmp_path):
    store = AnswerStore(tmp_path)
    for number in range(4):
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,AAA{number}"}}
        asked = request(
            messages=[{"role": "user", "content": [picture]}],
            model=f"model-{number % 2}",
            case_id=f"case-{number}",
        )
        store.add(asked, Answer("" if number == 3 else "yes", date=f"2026-11-0{number + 1}"))
    assert [one.cases for one in store.list()] == [(f"case-{number}",) for number in range(4)]
    assert len(store.list("case-2")) == 1
    for condition, left in (
        ({"unusable": True}, 3),
        ({"case": "case-2"}, 2),
        ({"before": "2026-11-01T12"}, 1),
        ({"model": "model-0"}, 1),
        ({"model": "model-1"}, 0),
    ):
        store.forget(**condition)
        assert len(store) == left
    assert store._rows("SELECT COUNT(*) FROM images") == [(0,)]  # a forgotten image is gone
    with pytest.raises(ValueError, match="what to forget"):
        store.forget()


def _old_store(path):
    """A store as the first version wrote it, with an answer, an empty one, and a key that leaked."""
    path.mkdir(parents=True)
    database = sqlite3.connect(path / "answers.sqlite")
    database.executescript("""
        CREATE TABLE images (sha256 TEXT PRIMARY KEY, png BLOB NOT NULL);
        CREATE TABLE answers (
            key TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
            parameters TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL, recorded TEXT NOT NULL
        );
        CREATE TABLE failures (
            key TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL, recorded TEXT NOT NULL
        );
    """)
    leaked = "Illegal header value b'Bearer sk-leaked\\r\\n'"
    database.execute("INSERT INTO failures VALUES ('k', 'critic', 'm', ?, '')", (leaked,))
    for words, text in (("look", "yes"), ("look again", "")):
        answer = {
            "text": text, "refusal": "", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1,
            "cost": None, "source": "model", "date": "2026-11-01",
        }  # fmt: skip
        row = (
            request(words).key,
            "critic",
            "model-1",
            "critic-1",
            "{}",
            "[]",
            json.dumps(answer),
            "2026-11-01",
        )
        database.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.commit()
    database.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_the_first_version_is_read(tmp_path, read_only):
    _old_store(tmp_path / "old")
    store = AnswerStore(tmp_path / "old", read_only=read_only)
    assert store.replay(request()).text == "yes"
    assert store.get(request(), "any server").text == "yes"
    assert sorted(one.unusable for one in store.list()) == ["", "empty"]
    if not read_only:
        assert store.failures() == []
        assert AnswerStore(tmp_path / "old").replay(request()).text == "yes"


def _question_as_before(i):
    """A case, its question with panels as Pillow packs them by itself, and today's question."""
    draw = torch.Generator().manual_seed(i)
    case = Case(
        f"case-{i}", torch.rand(3, 9, 9, generator=draw), torch.arange(9).expand(9, 9) // 5, 2, "3", "Words.",
        torch.ones(9, 9),
    )  # fmt: skip
    today = critic_request(case, "model-1")

    def other(png):
        file = io.BytesIO()
        Image.open(io.BytesIO(png)).save(file, "png")
        return file.getvalue()

    drawn = render_panels(case)
    before = Panels(other(drawn.image), other(drawn.segment_map), other(drawn.overlay))
    return today, replace(today, messages=critic_messages(case, before))


@pytest.mark.parametrize("read_only", [True, False])
def test_answers_about_pictures_that_were_packed_otherwise_are_found(tmp_path, read_only):
    store, asked = AnswerStore(tmp_path), [_question_as_before(i) for i in range(3)]
    for i, (today, before) in enumerate(asked):
        assert today.key != before.key
        again = asked_again(before, Answer("?"), "it is empty", ("A", "B"))
        store.add(before, Answer(f"answer {i}"))
        store.add(again, Answer(f"answer {i} again"))
        store.add_failure(before, "lost")
    store.add(request(kind="judge"), Answer("ruled"))
    assert all(store.get(today) is None for today, _ in asked)
    store._database.execute("PRAGMA user_version = 2")  # tables as they were then
    store = AnswerStore(tmp_path, read_only=read_only)
    for i, (today, _) in enumerate(asked):
        assert store.replay(today).text == f"answer {i}"
        again = asked_again(today, Answer("?"), "it is empty", ("A", "B"))
        assert store.replay(again).text == f"answer {i} again"
        assert len(store.list(today.case_id)) == 2
        part = store.list(today.case_id)[0].request["messages"][1]["content"][1]
        assert store.image(part["sha256"]) == base64.b64decode(
            today.messages[1]["content"][1]["image_url"]["url"].partition(",")[2]
        )
    assert store.replay(request(kind="judge")).text == "ruled"
    assert len(store) == 7
    assert [key for key, _ in store.failures()] == [today.key for today, _ in asked]
    if not read_only:
        assert AnswerStore(tmp_path).replay(asked[0][0]).text == "answer 0"


def test_a_batch_of_before_is_collected_by_what_sent_it(tmp_path):
    store = AnswerStore(tmp_path)
    store.begin_batch("token", "server", ["key"], "batch-1")
    store._database.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="collect it with that version"):
        AnswerStore(tmp_path)
    assert store.batches("server") == [("token", "batch-1", {"key"})]
    store.end_batch("token")
    AnswerStore(tmp_path)


def test_a_store_of_a_later_version_is_refused(tmp_path):
    AnswerStore(tmp_path)._database.execute("PRAGMA user_version = 9")
    for read_only in (True, False):
        with pytest.raises(StoreError, match="upgrade"):
            AnswerStore(tmp_path, read_only=read_only)


def added_together(store, requests):
    """Add answers in threads that all wait for their turn at once; the errors that came of it."""
    errors = []

    def add(one):
        try:
            store.add(one, Answer(f"to {one.messages[1]['content'][0]['text']}"))
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(one,)) for one in requests]
    with store._lock:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(store._commit._waiting) < len(threads) and time.monotonic() < deadline:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    return errors


def test_answers_that_arrive_together_wait_for_the_disk_once(tmp_path):
    store = AnswerStore(tmp_path)
    said = []
    store._database.set_trace_callback(said.append)
    assert added_together(store, [request(f"look {number}") for number in range(8)]) == []
    assert said.count("COMMIT") == 1
    with AnswerStore(tmp_path, read_only=True)._database as database:
        assert database.execute("SELECT COUNT(*) FROM answers").fetchone() == (8,)


def test_an_answer_that_cannot_be_written_spoils_none_that_came_with_it(tmp_path):
    store = AnswerStore(tmp_path)
    store._database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON answers WHEN instr(NEW.answer, 'to look 3') "
        "BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    (error,) = added_together(store, [request(f"look {number}") for number in range(8)])
    assert "no room; 1 paid answers are lost" in str(error)
    assert len(store) == 7
    assert store.get(request("look 3")) is None


def test_a_full_disk_says_how_many_answers_were_lost(tmp_path):  # 37
    store = AnswerStore(tmp_path)
    store.add(request(), Answer("kept"))
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    for lost in (1, 2):
        with pytest.raises(StoreError, match=f"full; {lost} paid answers are lost") as told:
            store.add(request("more"), Answer("x" * 100_000))
        assert "\n" not in str(told.value)
    assert store.get(request()).text == "kept"


@pytest.mark.parametrize("what", ["page", "row", "fields"])  # 38; beyond the list: fields
def test_a_corrupted_store_is_told_in_one_line(tmp_path, what):
    store = AnswerStore(tmp_path)
    for number in range(50):
        store.add(request(f"look {number}"), Answer("x" * 2000))
    if what == "page":
        store.close()
        file = tmp_path / "answers.sqlite"
        data = bytearray(file.read_bytes())
        data[8192:] = b"\xff" * len(data[8192:])
        file.write_bytes(data)
        with pytest.raises(StoreError, match="--store") as told:
            AnswerStore(tmp_path).get(request("look 7"))
    else:
        broken = '{"text": ' if what == "row" else '{"words": 1}'
        store._database.execute(
            "UPDATE answers SET answer = ? WHERE key = ?", (broken, request("look 7").key)
        )
        with pytest.raises(StoreError, match="forget --unusable") as told:
            store.get(request("look 7"))
        assert store.forget(unusable=True) == 1
        assert store.get(request("look 7")) is None
    assert "\n" not in str(told.value)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes another user's part, as root alone may"
)
def test_a_read_only_place_is_read_and_not_written(tmp_path):  # 39
    AnswerStore(tmp_path).add(request(), Answer("yes"))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    tmp_path.chmod(0o555)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)

    def as_nobody():
        os.setuid(65534)
        told = []
        try:
            AnswerStore(tmp_path)
        except StoreError as error:
            told.append(str(error))
        told.append(AnswerStore(tmp_path, read_only=True).replay(request()).text)
        results.put(told)

    process = context.Process(target=as_nobody)
    process.start()
    complaint, text = results.get(timeout=20)
    process.join()
    assert "--store a folder that can be written" in complaint
    assert text == "yes"


def _claim_and_sleep(path, claimed):
    with AnswerStore(path).locks.lock(request()) as mine:
        claimed.put(mine)
        time.sleep(30)


def test_a_lock_on_a_question_is_seen_by_other_processes_and_ends_with_its_own(tmp_path):  # 35
    context = multiprocessing.get_context("fork")
    store, claimed = AnswerStore(tmp_path), context.Queue()
    process = context.Process(target=_claim_and_sleep, args=(tmp_path, claimed))
    process.start()
    assert claimed.get(timeout=20)
    with store.locks.lock(request()) as mine, store.locks.lock(request("look again")) as other:
        assert (mine, other) == (False, True)
    process.kill()
    process.join()
    with store.locks.lock(request()) as mine:
        assert mine


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
