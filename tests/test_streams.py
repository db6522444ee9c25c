import itertools

import numpy as np
import pytest
import torch

from lvlmva_lite import methods, streams
from lvlmva_lite.alignment import align
from lvlmva_lite.alignment_set import draw_baselines
from lvlmva_lite.config import Config
from lvlmva_lite.experiments.decoy_arms import one_sided_verdicts
from lvlmva_lite.models import mlp
from lvlmva_lite.sampling import sample_alignment_set
from lvlmva_lite.segmentation import ppeps_wgm


def orders(n, epochs, seed):
    """The order of training in each epoch, which comes from the bare seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator) for _ in range(epochs)]


@pytest.mark.parametrize("seed", [0, 3])
def test_references_are_not_the_head_of_the_first_training_batch(decoys, seed):
    first = orders(len(decoys), 1, seed)[0]
    drawn = draw_baselines(Config(seed=seed), decoys)
    assert drawn.shape == (50, 1, 28, 28)
    assert not torch.equal(drawn, decoys.images[first[:50]])
    assert sum(torch.equal(a, b) for a, b in zip(drawn, decoys.images[first], strict=False)) <= 5


class Watched(torch.Tensor):
    seen: list

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.index_select:
            cls.seen.append(args[2].clone())
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("seed", [0, 3])
def test_alignment_does_not_repeat_the_order_of_training(decoys, seed):
    Watched.seen = []
    images, labels = decoys.images[:100].as_subclass(Watched), decoys.labels[:100]
    masks = torch.zeros(10, 28, 28, dtype=torch.bool)
    align(
        mlp((1, 28, 28), 10), images, labels, decoys.images[:10], labels[:10], masks,
        penalty_weight=0, epochs=2, batch_size=20, random_state=seed,
    )  # fmt: skip
    order = torch.cat(Watched.seen)
    assert len(order) == 200
    for mine, training in itertools.product(order.split(100), orders(100, 3, seed)):
        assert sorted(mine.tolist()) == list(range(100))
        assert (mine == training).sum() < 20


def used(monkeypatch, decoys, seed):
    """Every stream that the package asks for, by name: called one purpose after another."""
    asked = {}
    real = streams._sequence

    def spy(seed, name):
        asked[name] = real(seed, name)
        return asked[name]

    monkeypatch.setattr(streams, "_sequence", spy)
    masks = decoys.spurious_masks[:20]
    verdicts = torch.zeros(20, 2)
    groups = decoys.groups % 2
    halves = type(decoys)(
        decoys.images, decoys.labels, groups, decoys.spurious_masks, decoys.class_names, ("a", "b"), "x"
    )
    model = mlp((1, 28, 28), 10)
    draw_baselines(Config(seed=seed), decoys)
    sample_alignment_set(
        torch.full((2000, 10), 0.1), decoys.labels, 5, strategy="random", random_state=seed
    )
    ppeps_wgm(masks.float(), 2, random_state=seed)
    align(
        model, decoys.images[:40], decoys.labels[:40], decoys.images[:20], decoys.labels[:20], masks,
        penalty_weight=1, epochs=1, batch_size=20, random_state=seed,
    )  # fmt: skip
    methods.placebo_masks(masks, random_state=seed)
    methods.shuffle_verdicts(verdicts, masks.long(), random_state=seed)
    one_sided_verdicts(verdicts.long(), misses=0.5, random_state=seed)
    both = halves.subset(torch.cat([torch.arange(300), (groups == 0).nonzero()[:, 0]]))
    if both.groups.unique().numel() < 2:
        both = type(both)(
            both.images, both.labels, torch.arange(len(both)) % 2, both.spurious_masks,
            both.class_names, ("a", "b"), "x",
        )  # fmt: skip
    methods.balanced_subset(both, random_state=seed)
    methods.dfr(model, both, n_fits=1, Cs=(0.001,), random_state=seed)
    return asked


def test_no_two_purposes_share_a_draw(monkeypatch, decoys):
    asked = []
    for seed in (0, 1):
        with monkeypatch.context() as patch:
            asked.append(used(patch, decoys, seed))
    assert set(asked[0]) == {
        "references", "random samples", "mixture starts", "alignment batches", "placebo masks",
        "shuffled verdicts", "one-sided verdicts", "SUBG's subset", "DFR's halves and subsets",
        "DFR's solver",
    }  # fmt: skip
    words = [sequence.generate_state(4).tolist() for of_seed in asked for sequence in of_seed.values()]
    # The data, the initial weights and the training batches begin from the bare seed.
    words += [np.random.SeedSequence(entropy).generate_state(4).tolist() for entropy in (0, 1, [1, 1])]
    assert len({tuple(four) for four in words}) == len(words) == 23
    heads = [
        torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(four[0])).tolist()
        for four in words
    ]
    heads += [
        torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in (0, 1)
    ]
    numbers = [number for four in heads for number in four]
    assert len(set(numbers)) == len(numbers) == 4 * 25


def test_a_stream_is_the_seeds_and_the_names():
    same, again = (streams.stream(5, "a purpose") for _ in range(2))
    assert torch.equal(torch.rand(9, generator=same), torch.rand(9, generator=again))
    # Where lists of numbers are seeds, zeros at the end are lost.
    assert np.random.default_rng([5, 0]).random() == np.random.default_rng(5).random()
    drawn = {
        streams.numpy_stream(seed, name).random() for seed in range(20) for name in ("", "a", "a0", "b")
    }
    assert len(drawn) == 80


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        streams.stream(-1, "a purpose")
