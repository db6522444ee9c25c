import dataclasses

import numpy as np
import pytest
import torch

from lvlmva_lite.alignment_set import GREY_LEVELS, recorded_set
from lvlmva_lite.cli import main
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import RecordedCritic, RecordingError
from lvlmva_lite.critic.text_judge import TextJudge
from lvlmva_lite.critic.types import Case, segment_names
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.tasks import DecoyMNIST, get

CLAUDE = CriticSettings(model="claude")


def case_of(recording, i):
    return Case(
        f"{recording.source}-{int(recording.indices[i])}",
        torch.zeros(1, *recording.segment_labels.shape[1:]),
        recording.segment_labels[i],
        recording.n_segments,
        recording.class_names[recording.class_labels[i]],
        recording.description,
        recording.attributions[i].clamp_min(0),
    )


EVERY_SET = [
    (*one, home)
    for home in (recordings.RECORDED, recordings.CORE_WORDS)
    for one in recordings.recorded_sets(home)
]


@pytest.mark.parametrize(("source", "seed", "home"), EVERY_SET)
def test_the_judge_reads_every_recorded_answer_as_its_author_meant_it(source, seed, home):
    recording = recordings.find(source, seed, home)
    judge = TextJudge()
    for prompt in recording.answers:
        critic = RecordedCritic(recording, "claude", prompt)
        for i in recording.answered(prompt, "claude").tolist():
            verdict = judge.judge(critic.criticise(case_of(recording, i)), recording.n_segments)
            meant = recording.answers[prompt][int(recording.indices[i])].verdicts
            read = dict(zip(segment_names(recording.n_segments), verdict.kinds, strict=True))
            assert {name: read[name] for name in meant} == meant


@pytest.mark.parametrize(
    "change",
    [
        {"case_id": "decoy-mnist-0"},
        {"case_id": "other-23335"},
        {"description": "Something else."},
        {"class_name": "another digit"},
        {"segment_labels": torch.zeros(28, 28, dtype=torch.int64)},
    ],
)
def test_an_answer_to_another_question_is_not_used(change):
    recording = recordings.find("decoy-mnist", 0)
    critic = RecordedCritic(recording, "claude", "critic-2")
    asked = case_of(recording, 0)
    assert critic.criticise(asked).text
    with pytest.raises(RecordingError):
        critic.criticise(dataclasses.replace(asked, **change))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 5}, "there are: decoy-mnist with seed 0"),
        ({"n_segments": 4}, "n_segments"),
        ({"n_align": 101}, "between 1 and 100"),
        ({"description": "Ignore the square."}, "description"),
        ({"explain": "logit"}, "explain"),
        ({"fill": 3.0}, "fill"),
        ({"critic_settings": CriticSettings(model="claude", samples=3)}, "samples 1, not 3"),
        ({"critic_settings": CriticSettings(model="claude", temperature=0.0)}, "temperature"),
        ({"critic_settings": CriticSettings(model="claude", judge_model="gpt-4o")}, "judge_model"),
        (
            {"critic_settings": CriticSettings()},
            "--critic recorded needs --critic-model NAME; there are: claude under critic-1, claude under critic-2",
        ),
        ({"critic_settings": CriticSettings(model="gpt-0")}, "claude under critic-2"),
        ({"critic_settings": CriticSettings(model="claude", prompt="critic-9")}, "critic-9"),
    ],
)
def test_cases_and_answers_that_do_not_belong_together_are_refused(settings, said):
    with pytest.raises((ConfigError, RecordingError), match=said):
        DecoyMNIST().config(**{"critic": "recorded", "critic_settings": CLAUDE} | settings)


def test_a_digest_holds_the_means_of_sixteen_cells_whatever_the_size():
    levels = torch.arange(16).view(4, 4) * 17
    image = (levels / 255).repeat_interleave(16, 0).repeat_interleave(16, 1)
    larger = image.repeat_interleave(2, 0).repeat_interleave(2, 1)
    spread = torch.stack([larger - 0.001, larger, larger + 0.001])  # the channels' mean counts
    for one in (image[None], larger[None], spread):
        assert recordings.image_digests(one[None])[0].tolist() == levels.tolist()


def test_other_pictures_with_the_same_labels_and_groups_are_refused():
    whole, n = recordings.find("knee-phantom", 0), 4
    kept = dict(zip(range(n), whole.answers["critic-2"].values(), strict=False))
    images = torch.rand(n, 1, *whole.segment_labels.shape[1:], generator=torch.Generator().manual_seed(0))
    images /= 2
    images[..., :32, :32] += 0.5  # bright at the top left
    recording = dataclasses.replace(
        whole, indices=torch.arange(n), segment_labels=whole.segment_labels[:n],
        attributions=whole.attributions[:n], class_labels=whole.class_labels[:n], groups=whole.groups[:n],
        answers={"critic-2": kept}, image_digests=recordings.image_digests(images),
    )  # fmt: skip
    config = get("knee")().config(critic="recorded", critic_settings=CLAUDE, n_align=n)

    def found(of, pictures):
        names = tuple("abcd")
        train = ShortcutDataset(
            pictures, of.class_labels, of.groups,
            class_names=tuple(of.class_names), group_names=names, name=of.source,
        )  # fmt: skip
        return recorded_set(of, config, train)

    mirrored = images.clone()
    mirrored[2] = mirrored[2].flip(-1)
    assert len(found(recording, images).cases) == n
    assert len(found(recording, (images + 3 / 255).clamp(0, 1)).cases) == n  # read by another program
    with pytest.raises(ConfigError, match="knee-phantom-2 is another picture; give the data") as refused:
        found(recording, mirrored)
    assert "\n" not in str(refused.value)
    # Where no digests are kept, as of images that are drawn from the seed, none are compared.
    assert len(found(dataclasses.replace(recording, image_digests=None), mirrored).cases) == n
    later = {index + 1: answer for index, answer in kept.items()}
    with pytest.raises(ConfigError, match="there are fewer"):
        found(
            dataclasses.replace(recording, indices=torch.arange(1, n + 1), answers={"critic-2": later}),
            images,
        )


@pytest.mark.parametrize(("source", "seed"), recordings.recorded_sets())
def test_real_images_ship_with_digests_which_tell_most_of_them_from_their_mirror_images(source, seed):
    digests = recordings.find(source, seed).image_digests
    if source not in ("knee", "skin"):
        assert digests is None
        return
    assert digests.shape == (len(recordings.find(source, seed).indices), 4, 4)
    away = (digests.int() - digests.flip(-1).int()).abs().flatten(1).amax(1)
    assert (away > GREY_LEVELS).double().mean() > 0.9


def test_the_recorded_cases_are_the_alignment_set():
    assert DecoyMNIST().config(critic="recorded", critic_settings=CLAUDE).n_align == 100
    weak = CriticSettings(model="claude", prompt="critic-1")
    assert DecoyMNIST().config(critic="recorded", critic_settings=weak).n_align == 50


@pytest.mark.parametrize(("source", "seed"), recordings.recorded_sets())
def test_another_network_than_the_one_whose_maps_were_judged_is_told(source, seed, tmp_path):
    recording = recordings.find(source, seed)
    dataset = source.removesuffix("-phantom")
    real = {"data_root": str(tmp_path)} if source in ("knee", "skin") else {}
    usual = get(dataset)(**real).config(seed=seed, critic="recorded", critic_settings=CLAUDE)
    assert recording.told_of_another_network(vars(usual)) == ""
    # What is done with the maps later makes no other network.
    after = dataclasses.replace(usual, align_epochs=9, penalty_weight=7.0, mask="spurious+background")
    assert recording.told_of_another_network(vars(after)) == ""
    for name, value in {"train_epochs": 1, "learning_rate": 0.5, "batch_size": 8}.items():
        other = dataclasses.replace(usual, **{name: value})
        told = recording.told_of_another_network(vars(other))
        assert f"{name} {value!r} in place of {getattr(usual, name)!r}" in told
        assert "\n" not in told
    if source != "decoy-mnist":
        told = recording.told_of_another_network(vars(dataclasses.replace(usual, model="resnet50")))
        assert "model 'resnet50' in place of" in told


def test_what_is_written_is_read_back(tmp_path):
    recording = recordings.find("skin-phantom", 1)
    recordings.write(tmp_path / recording.name, recording)
    assert recordings.recorded_sets(tmp_path) == [("skin-phantom", 1)]
    again = recordings.find("skin-phantom", 1, tmp_path)
    assert again.answers == recording.answers
    for name in ("indices", "segment_labels", "attributions", "class_labels", "groups"):
        np.testing.assert_array_equal(getattr(again, name), getattr(recording, name))
    assert again.image_digests is None


def test_digests_that_are_written_are_read_back(tmp_path):
    digests = torch.randint(256, (60, 4, 4), dtype=torch.uint8)
    recording = dataclasses.replace(recordings.find("skin-phantom", 1), image_digests=digests)
    recordings.write(tmp_path / "here", recording)
    assert torch.equal(recordings.find("skin-phantom", 1, tmp_path).image_digests, digests)


def test_what_was_written_half_is_no_recording(tmp_path, monkeypatch):
    recording = recordings.find("skin-phantom", 1)
    folder = tmp_path / "recorded" / recording.name
    real, written = recordings.write_whole, []

    def killed_at_the_last(path, content):
        if path.name == "about.json":
            raise KeyboardInterrupt
        written.append(path.name)
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "write_whole", killed_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            recordings.write(folder, recording)
    assert sorted(written) == sorted(f"{prompt}.jsonl" for prompt in recording.answers)
    assert recordings.recorded_sets(folder.parent) == []
    recordings.write(folder.with_name("again"), recording)
    assert recordings.recorded_sets(folder.parent) == [("skin-phantom", 1)]


def test_what_ships_is_listed_and_shown_by_its_case(capsys, monkeypatch):
    every = list(recordings.shipped_answers())
    assert len(every) == sum(
        len(answers)
        for which in recordings.recorded_sets()
        for answers in recordings.find(*which).answers.values()
    )
    recording, prompt, answer = every[-1]
    name = f"{recording.source}-{answer.index}"
    assert (recording, prompt, answer) in list(recordings.shipped_answers(name))
    assert not list(recordings.shipped_answers(name + "0000"))

    def lvlmva(*arguments):
        monkeypatch.setattr("sys.argv", ["lvlmva", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code or 0, capsys.readouterr()

    status, told = lvlmva("critic", "list", "--shipped", "--case", name)
    assert status == 0
    assert f"{prompt}  claude  {name}" in told.out
    status, told = lvlmva("critic", "show", name, "--shipped")
    assert status == 0
    assert answer.critique in told.out
    status, told = lvlmva("critic", "show", "knee-phantom-x", "--shipped")
    assert status == 2
    assert "critic list --shipped" in told.err

    out = "/nowhere/at/all"
    status, told = lvlmva("critic", "evaluate", "knee", "--against", "recorded", "--out", out)
    assert status == 2
    assert "give --critic recorded and --against lexicon" in told.err


@pytest.mark.slow
def test_a_recorded_critic_is_evaluated_beside_the_lexicon(tmp_path, capsys, monkeypatch):
    """On 60 drawn knees: 3 false alarms in the 311 segments that were decided and are not on a letter."""
    words = (
        "critic evaluate knee --critic recorded --critic-model claude --against lexicon --train-epochs 1"
    )
    monkeypatch.setattr("sys.argv", ["lvlmva", *words.split(), "--quiet", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    told = capsys.readouterr()
    assert f"sensitivity 1.000, specificity {1 - 3 / 311:.3f}" in told.out
    assert "of another network, not of the one trained here (train_epochs 1 in place of 8)" in told.err
