import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from answering_server import AnsweringServer
from few_decoys import take_few
from torch import nn

from lvlmva_lite.cli import main
from lvlmva_lite.cli.report import unread
from lvlmva_lite.cli.run import at_odds, in_full
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic import Critique, Verdict, recordings
from lvlmva_lite.critic.types import segment_names
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.datasets.image_files import ImageFileDataset
from lvlmva_lite.report import JudgedCase, leaning, make_report, page, read_run
from lvlmva_lite.report.counterfactual import without
from lvlmva_lite.report.leaning import BARE, MUCH, Thing
from lvlmva_lite.report.things import (
    THINGS,
    named_thing,
    names_it,
    segment_texts,
    telling_words,
    without_mentions,
)
from lvlmva_lite.report.told import summary_faults
from lvlmva_lite.segmentation import positive_effect, segment_sums

PLANTED = {
    "decoy-mnist": "square or block",
    "knee": "letter or marker",
    "knee-phantom": "letter or marker",
    "skin": "sticker, patch or plaster",
    "skin-phantom": "sticker, patch or plaster",
}


def judged(recording, prompt="critic-2"):
    """The recorded cases of a real model, as a run of them is judged."""
    shares = segment_sums(
        recording.segment_labels, recording.n_segments, positive_effect(recording.attributions)
    )
    names = segment_names(recording.n_segments)
    place = {index: i for i, index in enumerate(recording.indices.tolist())}
    return [
        JudgedCase(
            f"{recording.source}-{index}",
            str(int(recording.class_labels[place[index]])),
            tuple(answer.verdicts.get(name, "background") for name in names),
            tuple(shares[place[index]].tolist()),
            answer.critique,
        )
        for index, answer in recording.answers[prompt].items()
    ]


def found_in(recording):
    return leaning(judged(recording), recording.description, [str(i) for i in range(10)])


@pytest.mark.parametrize(("source", "seed"), recordings.recorded_sets())
def test_the_planted_shortcut_is_the_first_thing_that_a_real_critic_names(source, seed):
    recording = recordings.find(source, seed)
    found = found_in(recording)
    assert found.things[0].name == PLANTED[source]
    # The words for skin name only what counts; the others dismiss the shortcut by name.
    assert (found.things[0] in found.candidates) == source.startswith("skin")


def test_where_the_words_name_only_what_counts_the_planted_shortcut_is_proposed_first():
    untold = [
        recordings.find(*one, home)
        for home in (recordings.CORE_WORDS, recordings.RECORDED)
        for one in recordings.recorded_sets(home)
        if home is recordings.CORE_WORDS or one[0].startswith("skin")
    ]
    assert {recording.source for recording in untold} == PLANTED.keys()
    for recording in untold:
        assert not names_it(THINGS[PLANTED[recording.source]], recording.description), recording.name
        first = found_in(recording).candidates[0]
        assert first.name == PLANTED[recording.source], recording.name
        # It goes with the first class, where it goes with one.
        if recording.source != "decoy-mnist":
            assert list(first.cases) == ["0"], recording.name


def test_shares_of_kinds_and_things_by_hand():
    cases = [
        JudgedCase(
            "a-0", "cat", ("spurious", "relevant"), (3.0, 1.0), "A covers the letter R. B is the cat."
        ),
        JudgedCase("a-1", "cat", ("spurious", "background"), (0.05, 0.95), "A is ink. B is ground."),
        JudgedCase("a-2", "dog", ("undecided", "relevant"), (0.0, 0.0), "A is hard to tell. B is the dog."),
    ]
    found = leaning(cases, "Letters mean nothing.", ("bird", "cat", "dog"))
    assert list(found.by_class.index) == ["cat", "dog"]
    assert found.n_cases == {"cat": 2, "dog": 1}
    assert found.by_class.loc["cat"].tolist() == pytest.approx([0.125, 0.4, 0.475, 0.0, 0.5])
    assert found.by_class.loc["dog"].tolist() == [0, 0, 0, 0, 0]
    assert found.total["spurious"] == pytest.approx(0.8 / 3)
    letter, ink = found.things
    assert (letter.name, letter.in_words, letter.cases) == ("letter or marker", True, {"cat": ("a-0",)})
    assert letter.share == pytest.approx(0.75 / 3)
    # Less than MUCH of the evidence: it is there, and no case leans on it.
    assert (ink.name, ink.in_words, ink.cases, ink.segments) == ("ink", False, {}, {"a-1": (0,)})
    assert letter.by_class == pytest.approx({"cat": 0.375, "dog": 0})
    (ground,) = found.surroundings
    assert (ground.key, ground.cases, ground.share) == (("background", BARE), {"cat": ("a-1",)}, 0.95 / 3)
    assert found.candidates == (ground,)
    assert leaning(cases, "Letters and the background mean nothing.", ("cat", "dog")).candidates == ()


def test_what_is_named_in_the_background_is_proposed_after_what_does_not_belong():
    texts = (
        "A is the grey square in the corner. B is the stroke.",
        "A is skin with hairs. B is the lesion.",
        "A is skin, beside the sticker, without a ruler. B is the lesion.",
        "A is bare. B is ink.",
    )
    kinds = [("background", "relevant")] * 3 + [("background", "spurious")]
    cases = [
        JudgedCase(f"a-{i}", "x", of, (3.0, 1.0), text)
        for i, (of, text) in enumerate(zip(kinds, texts, strict=True))
    ]
    found = leaning(cases, "The stroke counts.", ("x",))
    assert [(thing.kind, thing.name, thing.n_cases) for thing in found.candidates] == [
        ("spurious", "ink", 1), ("background", BARE, 2), ("background", "hair", 1),
        ("background", "square or block", 1),
    ]  # fmt: skip
    _, ground, _, square = found.candidates
    assert square.cases == {"x": ("a-0",)}
    assert square.segments == {"a-0": (0,)}
    assert ground.share == pytest.approx(2 * 0.75 / 4)
    # A thing that is called both is proposed once.
    again = leaning([*cases, dataclasses.replace(cases[0], case_id="b", kinds=("spurious", "relevant"))],
                    "The stroke counts.", ("x",))  # fmt: skip
    assert [thing.kind for thing in again.candidates if thing.name == "square or block"] == ["spurious"]


def test_a_thing_called_spurious_here_and_relevant_there_is_at_odds():
    text = "A covers the letter. B covers the joint, beside the letter."
    kinds = ("spurious", "relevant"), ("relevant", "relevant"), ("spurious", "undecided")
    cases = [JudgedCase(f"a-{i}", "x", of, (1.0, 1.0), text) for i, of in enumerate(kinds)]
    (letter,) = leaning(cases, "words", ("x",)).at_odds
    assert (letter.name, tuple(letter.segments), letter.relevant) == (
        "letter or marker", ("a-0", "a-2"), ("a-1",)
    )  # fmt: skip
    assert leaning(cases[::2], "words", ("x",)).at_odds == ()


def test_a_run_says_in_a_line_where_its_critic_contradicts_itself():
    text = "A covers the letter. B covers ink."
    kinds = ("spurious", "relevant"), ("relevant", "spurious"), ("spurious", "undecided")

    def told(n):
        return at_odds(
            SimpleNamespace(
                critiques=[Critique(f"a-{i}", "c", text) for i in range(n)],
                verdicts=[Verdict(f"a-{i}", "j", of) for i, of in enumerate(kinds[:n])],
                class_names=("x",), case_labels=torch.zeros(n, dtype=torch.int64),
                segments=SimpleNamespace(shares=torch.full((n, 2), 0.5)),
                config=SimpleNamespace(description="words"),
            )
        )  # fmt: skip

    assert told(0) == told(1) == ""
    assert told(3) == (
        "letter or marker, spurious in 2 images, named in what is called relevant in 1; "
        "ink, spurious in 1 images, named in what is called relevant in 1"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rest on ground without ink .", None),
        ("there is neither ink nor square .", None),
        ("skin between lesion and sticker", None),
        ("bright patches in the bone", None),
        ("off the lesion , on a ruler", "ruler or scale"),
        ("covers skin with hairs", "hair"),
    ],
)
def test_what_is_not_there_is_not_named(text, name):
    assert named_thing(without_mentions(text)) == name


def test_a_thing_that_no_list_knows_is_called_by_the_critics_own_word():
    cases = [
        JudgedCase(f"a-{i}", "x", ("spurious", "relevant"), (1, 1), "A is a barnacle. B is the hull.")
        for i in range(4)
    ]
    assert [thing.name for thing in leaning(cases, "The hull counts.", ("x",)).things] == ["barnacle"]
    assert telling_words(["a barnacle sits"] * 4, ["the hull sits"] * 4) == ["barnacle"]
    assert telling_words([], ["hull"]) == []
    # The lexicon's own words name nothing.
    put_in = "covers mostly a thing that is none of those that the expert says count"
    assert telling_words([put_in] * 4, ["covers mostly parts that the expert does not mention"] * 4) == []


def test_a_class_may_be_called_all():
    cases = [
        JudgedCase(f"a-{i}", name, ("spurious", "relevant"), (i, 1 - i), "")
        for i, name in enumerate(("all", "x"))
    ]
    found = leaning(cases, "words", ("all", "x"))
    assert found.by_class["spurious"].tolist() == [0, 1]
    assert found.total["spurious"] == 0.5


def test_a_thing_without_a_name_is_no_candidate():
    found = leaning([JudgedCase("a-0", "x", ("spurious", "relevant"), (1, 1), "")], "words", ("x",))
    assert [thing.n_cases for thing in found.things] == [1]
    assert found.candidates == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("covers the stickers", "sticker, patch or plaster"),
        ("the unstickerlike skin", None),
        ("ink beside ink, on a ruler", "ink"),
        ("tick marks of a scale", "ruler or scale"),
        ("the left hand column of the hairline", None),
        ("", None),
    ],
)
def test_things_are_named_by_whole_words(text, name):
    assert named_thing(text) == name


def test_quotations_of_the_expert_count_as_what_the_critic_names():
    text = 'Segment A covers what the expert dismisses: "The grey square means nothing". Segment A is spurious.'
    assert named_thing(segment_texts(text, ("A", "B"))["A"]) == "square or block"


@pytest.mark.parametrize(
    ("cases", "message"),
    [([], "no judged case"), ([JudgedCase("a-0", "x", ("spurious",), (1, 2), "")], "1 kinds and 2 shares")],
)
def test_cases_that_cannot_be_gathered(cases, message):
    with pytest.raises(ValueError, match=message):
        leaning(cases, "words", ("x",))


class Corner(nn.Module):
    """Class 1 by as much as the upper left pixel is bright."""

    def forward(self, images):
        bright = images[:, 0, 0, 0] - 0.5
        return torch.stack([-bright, bright], 1)


def test_filling_a_thing_asks_what_the_answer_would_be_without_it():
    images = torch.zeros(3, 1, 4, 4)
    images[:, 0, 0, 0] = 1.0
    labels = torch.full((3, 4, 4), -1)
    labels[:, 0, 0], labels[:, 3, 3] = 0, 1
    data = ShortcutDataset(images, torch.ones(3, dtype=torch.int64), class_names=("dark", "bright"))
    cases = [JudgedCase(f"images-{i}", "bright", ("spurious", "relevant"), (1, 1), "") for i in range(3)]
    run = SimpleNamespace(train=data, indices=torch.arange(3), segment_labels=labels, cases=cases)
    corner, far = (Thing("x", 1.0, {}, False, {"images-0": (j,), "images-2": (j,)}) for j in (0, 1))
    change = without(run, Corner(), corner)
    assert (change.n, change.n_changed) == (2, 2)
    # The corner is 0 once filled: sigmoid(-1) in place of sigmoid(1).
    assert change.drop == pytest.approx(
        torch.sigmoid(torch.tensor(-1.0)) - torch.sigmoid(torch.tensor(1.0))
    )
    assert without(run, Corner(), far).n_changed == 0


class Page(HTMLParser):
    """What an HTML page asks for, and the text of its cells."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.images, self.headings, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.fetched += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run that aligns and one that only looks, on few decoys; two of ten words are markup."""
    folder = tmp_path_factory.mktemp("runs")
    words = "The pen stroke & <b> matter. The grey square in a corner means nothing."
    with pytest.MonkeyPatch.context() as patch:
        take_few(patch.setattr)
        steps, sentence = ["--align-epochs", "1"], ["--description", words]
        for method, own in {"lvlm-va": steps + sentence, "look": sentence, "finetune": steps}.items():
            patch.setattr(
                "sys.argv",
                ["lvlmva", "run", "decoy-mnist", "--method", method, "--n-align", "40", "--train-epochs", "2",
                 "--quiet", "--out", str(folder / method), *own],
            )  # fmt: skip
            with pytest.raises(SystemExit) as done:
                main()
            assert not done.value.code
        yield folder


def test_a_page_that_needs_nothing_else(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lvlmva", "report", str(runs / "lvlm-va"), "--examples", "3"])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    assert "square or block" in capsys.readouterr().out
    text = (runs / "lvlm-va/report.html").read_text()
    page = Page(text)
    assert not page.open
    assert all(one.startswith("data:image/png;base64,") for one in page.fetched)
    assert len(page.images) == 3
    assert all(len(image["alt"]) > 20 for image in page.images)
    assert page.headings[0] == "h1"
    assert set(page.headings[1:]) == {"h2"}  # no verdicts at odds
    assert "The pen stroke &amp; &lt;b&gt; matter." in text
    # The same rows in Markdown, each as wide as its table's head.
    tables = re.findall(r"(?:^\|.*\n)+", (runs / "lvlm-va/report.md").read_text(), re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_numbers_of_the_report_are_those_of_the_run(runs):
    run = read_run(runs / "lvlm-va")
    report = make_report(run, n_examples=0)
    assert sum(report.leaning.n_cases.values()) == run.results["n_cases"] == 40
    assert (
        report.leaning.by_class[["relevant", "spurious", "background", "undecided"]]
        .sum(1)
        .round(6)
        .eq(1)
        .all()
    )
    judged = [case for case in run.cases if "spurious" in case.kinds]
    assert set(report.leaning.things[0].segments) == {case.case_id for case in judged}
    assert report.leaning.total["leans on spurious"] <= len(judged) / 40
    assert f"{MUCH:.0%}" in report.summary
    before, after = (run.network(when) for when in ("before", "after"))
    assert not all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_a_refused_alignment_is_reported_by_the_model_before(runs, tmp_path):
    shutil.copytree(runs / "lvlm-va", tmp_path / "refused")
    (tmp_path / "refused/aligned.safetensors").unlink()
    file = tmp_path / "refused/results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"refused": True, "groups": {}}))
    report = make_report(read_run(tmp_path / "refused"), n_examples=2)
    assert all("spurious" in {kind for _, kind, _ in example.said} for example in report.examples)
    assert '<th scope="col">after' not in report.html()
    assert '<tr><th scope="row">7</th>' in report.html().split("How well it does")[1]
    assert "alignment was refused" in report.markdown()


def test_nothing_named_is_not_said_to_be_dismissed(runs):
    run = read_run(runs / "look")
    bare = dataclasses.replace(
        run, cases=[dataclasses.replace(one, kinds=("undecided",) * len(one.kinds)) for one in run.cases]
    )
    assert "the critic named no thing" in make_report(bare, n_examples=0).html()


def test_images_in_files_are_called_by_their_files(runs):
    run = read_run(runs / "look")
    fields = {one.name: getattr(run.train, one.name) for one in dataclasses.fields(run.train)}
    names = tuple(f"train/{i}.png" for i in range(len(run.train)))
    given = {"name": "belt", "names": names, "spurious_masks": None}
    own = dataclasses.replace(run, train=ImageFileDataset(**fields | given))
    report = make_report(own, n_examples=1)
    page = report.html()
    assert "What the model goes by: belt" in page
    first = report.examples[0].case_id
    file = f"train/{first.removeprefix('decoy-mnist-')}.png"
    assert f"<strong>{first}</strong>, {report.examples[0].class_name}, {file}." in page
    assert page.count(".png</li>") == len(run.cases)
    assert not make_report(run, n_examples=0).files
    assert ".png" not in report.markdown()  # which --summary sends


def test_a_critic_that_recognised_nothing_is_told(runs):
    run = read_run(runs / "look")
    told = "The critic recognised hardly anything"
    assert told not in make_report(run, n_examples=0).html()
    blind = dataclasses.replace(
        run, cases=[dataclasses.replace(one, kinds=("background",) * len(one.kinds)) for one in run.cases]
    )
    report = make_report(blind, n_examples=0)
    assert told in report.html()
    assert told in report.markdown()


def test_classes_stand_in_their_order_whoever_leans_most():
    shares = {"b": (1.0, 9.0), "a": (9.0, 1.0)}
    cases = [JudgedCase(name, name, ("spurious", "relevant"), shares[name], "A is ink.") for name in shares]
    (ink,) = leaning(cases, "words", ("b", "a")).things
    assert list(ink.cases) == ["b", "a"]


def test_sentences_that_the_lexicon_cannot_read_are_told():
    square, ink, ground = (Thing(name, 1.0, {}, False, {}) for name in ("square or block", "ink", BARE))
    assert unread([square, ink, ground]) == ["ink"]


def report_of(run, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["lvlmva", "report", str(run), "--examples", "0", *words])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code or 0


def test_what_is_refused_is_not_proposed_again_and_what_is_accepted_stays(
    runs, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    shutil.copytree(runs / "look", run)
    file = run / "critiques.jsonl"
    # A critic that says in its own prose what nobody named.
    told = [json.loads(line) for line in file.read_text().splitlines()]
    for one in told:
        one["text"] = re.sub(r"parts that the expert does not mention", "ink and a hair", one["text"])
    file.write_text("".join(json.dumps(one) + "\n" for one in told))
    words = "The pen stroke & <b> matter. The grey square in a corner means nothing."

    assert report_of(run, monkeypatch) == 0
    names = re.findall(r"^not in your words: ([^,]+), called background", capsys.readouterr().out, re.M)
    assert names == ["ink"]
    assert not (run / "words.txt").exists()

    assert report_of(run, monkeypatch, "--refuse", "ink") == 0
    assert report_of(run, monkeypatch) == 0  # remembered
    said = capsys.readouterr().out
    assert "not in your words" not in said
    assert said.count("refused, not proposed: ink") == 2
    page = (run / "report.html").read_text()
    assert "you have ruled on each thing" in page
    assert "Refused, and not proposed again: ink." in page

    assert report_of(run, monkeypatch, "--accept", "ink") == 0  # taken back
    told = capsys.readouterr()
    assert "the lexicon cannot read what you accepted of ink; ask --critic openai" in told.err
    accepted = (run / "words.txt").read_text()
    assert accepted.startswith(f"{words} Any ink in the image")
    assert report_of(run, monkeypatch) == 0
    assert (run / "words.txt").read_text() == accepted
    assert report_of(run, monkeypatch, "--refuse", "ink") == 0
    assert not (run / "words.txt").exists()
    assert report_of(run, monkeypatch, "--refuse", "ink", "--accept", "ink") == 2
    assert "'ink' is accepted and refused; say one of the two" in capsys.readouterr().err


def test_verdicts_at_odds_are_told(runs, monkeypatch, capsys, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "look", run)
    file = run / "verdicts.jsonl"
    verdicts = [json.loads(line) for line in file.read_text().splitlines()]
    spurious = [one for one in verdicts if "spurious" in one["kinds"]]
    turned = spurious[:3]
    for one in turned:
        one["kinds"] = ["relevant" if kind == "spurious" else kind for kind in one["kinds"]]
    file.write_text("".join(json.dumps(one) + "\n" for one in verdicts))
    assert report_of(run, monkeypatch) == 0
    ids = ", ".join(one["case_id"] for one in turned)
    n = len(spurious) - 3
    line = (
        f"at odds: square or block, spurious in {n} images, named in what is called relevant in 3 ({ids})"
    )
    assert line in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert f"named in what is called relevant in 3 ({ids})" in page
    assert f"relevant in 3 ({ids})" in (run / "report.md").read_text()


def test_files_are_kept_by_their_full_path(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "net.py").touch()
    monkeypatch.chdir(tmp_path)
    given = {"data": "parts", "model": "net.py:Net", "weights": "imagenet", "groups": None}
    full = {
        "data": str(tmp_path / "parts"),
        "model": f"{tmp_path}/net.py:Net",
        "weights": "imagenet",
        "groups": None,
    }
    assert in_full(given) == full
    assert in_full({"model": "parts"}) == {"model": "parts"}


def test_a_model_that_is_only_looked_at_stays_as_it_was(runs):
    run = read_run(runs / "look")
    before, after = (run.network(when).state_dict() for when in ("before", "after"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    report = make_report(run, n_examples=1)
    assert not report.run.aligned
    assert '<th scope="col">after' not in report.html()
    assert '<th scope="col">as it is' in report.html()


def test_what_cannot_be_reported_is_refused_in_a_line(runs, tmp_path):
    with pytest.raises(ConfigError, match="holds no finished run"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="asked no critic"):
        read_run(runs / "finetune")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run(tmp_path)


def test_a_run_from_before_verdicts_had_kinds_is_refused_in_a_line(runs, monkeypatch, capsys, tmp_path):
    """Its lines are {"case_id": ..., "spurious": [true, false, ...]}."""
    run = tmp_path / "run"
    shutil.copytree(runs / "look", run)
    file = run / "verdicts.jsonl"
    verdicts = [json.loads(line) for line in file.read_text().splitlines()]
    for one in verdicts:
        one["spurious"] = [kind == "spurious" for kind in one.pop("kinds")]
    file.write_text("".join(json.dumps(one) + "\n" for one in verdicts))
    with pytest.raises(
        ConfigError, match=r"verdicts\.jsonl is of another version of this package"
    ) as refused:
        read_run(run)
    assert "\n" not in str(refused.value)
    assert report_of(run, monkeypatch) == 2
    assert "run it anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"), [("square", "no candidate 'square' to accept"), (" ", "needs the name of a thing")]
)
def test_a_name_that_nobody_proposed_is_told_before_the_long_work(runs, monkeypatch, capsys, name, message):
    def long_work(*_):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(page, "without", long_work)
    monkeypatch.setattr("sys.argv", ["lvlmva", "report", str(runs / "look"), "--accept", name])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert message in capsys.readouterr().err


FACTS = "In 19 of 50 images the evidence, 38%, lies on ink; 7.5 % more on skin. Cases: x-12, x-3."


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("In 19 of 50 images [x-12] 38 % lies on ink, 7.5 % on skin [x-3, x-12].", []),
        ("In 50 images, x-3 among them, all is well [x-3].", []),
        ("All is well.", ["it cites no case"]),
        ("All is well [x-4].", ["it cites 'x-4', which is no case of the report"]),
        ("All is well [x-1].", ["it cites 'x-1', which is no case of the report"]),
        ("In 20 images [x-3].", ["the number 20 does not stand in the report"]),
        ("In 19 % of the images [x-3].", ["the number 19 % does not stand in the report"]),
        ("In 38 images [x-3].", ["the number 38 does not stand in the report"]),
        ("In 12 images [x-3].", ["the number 12 does not stand in the report"]),  # of a case's name
        ("In 7.4 percent [x-3].", ["the number 7.4 % does not stand in the report"]),
        ("Half of it, twice [x-3].", ["'Half' is a number in words", "'twice' is a number in words"]),
        ("Cases [x-3] and [12]: 19.", ["it cites '12', which is no case of the report"]),
    ],
)
def test_numbers_that_the_report_does_not_hold_are_refused(text, faults):
    assert summary_faults(text, FACTS, ["x-12", "x-3"]) == faults


def ask_for_summary(runs, monkeypatch, server, *words):
    base = ["lvlmva", "report", str(runs / "look"), "--examples", "1", "--summary", "--critic-model", "m"]
    monkeypatch.setattr("sys.argv", [*base, "--base-url", server.url, "--no-cost", *words])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code or 0


def test_a_models_summary_is_asked_for_again_and_shown_once_its_numbers_stand(
    runs, tmp_path, monkeypatch, capsys
):
    case_id = read_run(runs / "look").cases[0].case_id

    def reply(body):
        assert all(isinstance(message["content"], str) for message in body["messages"])  # no image is sent
        right = f"Of 40 images <all> were seen [{case_id}]."
        return right if "cannot be used" in body["messages"][-1]["content"] else "Of 41 images, some."

    with AnsweringServer(reply) as server:
        assert ask_for_summary(runs, monkeypatch, server, "--store", str(tmp_path / "a")) == 0
    assert len(server.bodies) == 2
    complaint = server.bodies[1]["messages"][-1]["content"]
    assert "it cites no case; the number 41 does not stand in the report" in complaint
    assert "Of 40 images" in capsys.readouterr().out
    page = (runs / "look/report.html").read_text()
    assert "Of 40 images &lt;all&gt; were seen" in page
    assert "Written by m" in page


def test_a_summary_that_stays_wrong_costs_no_report(runs, tmp_path, monkeypatch, capsys):
    (runs / "look/report.html").unlink(missing_ok=True)
    with AnsweringServer(lambda body: "Of 41 images, some.") as server:
        assert ask_for_summary(runs, monkeypatch, server, "--store", str(tmp_path / "a")) == 1
    assert "was refused twice: it cites no case; the number 41" in capsys.readouterr().err
    assert "In a model’s words" not in (runs / "look/report.html").read_text()


def test_settings_of_a_model_that_is_not_asked_are_told(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lvlmva", "report", str(runs / "look"), "--critic-model", "m"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "--critic-model is for --summary" in capsys.readouterr().err


def test_accepting_a_candidate_adds_one_sentence():
    recording = recordings.find("skin-phantom", 0)
    found = leaning(judged(recording), recording.description, ("0", "1"))
    thing = found.candidates[0]
    again = leaning(judged(recording), f"{recording.description} {thing.sentence}", ("0", "1"))
    assert thing.name not in [one.name for one in again.candidates]
