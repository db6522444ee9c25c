import torch

from lvlmva_lite.models import fit, mlp, predict, predict_proba


def test_mlp_has_the_stated_layers():
    sizes = [tuple(layer.weight.shape) for layer in mlp((1, 28, 28), 10) if hasattr(layer, "weight")]
    assert sizes == [(50, 784), (30, 50), (10, 30)]


def test_seed_decides_and_global_state_is_left_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, same = mlp((1, 4, 4), 3, random_state=1), mlp((1, 4, 4), 3, random_state=1)
    assert torch.equal(one[1].weight, same[1].weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_fit_lowers_the_loss_and_repeats(decoys):
    histories = []
    for _ in range(2):
        model = mlp((1, 28, 28), 10)
        histories.append(fit(model, decoys.images, decoys.labels, epochs=3))
    assert histories[0] == histories[1]
    assert histories[0][-1] < histories[0][0]


def test_prediction_is_the_softmax_of_the_logits_whatever_the_batch(decoys, shortcut_model):
    images = decoys.images[:100]
    expected = torch.nn.functional.softmax(shortcut_model(images), 1)
    torch.testing.assert_close(predict_proba(shortcut_model, images, batch_size=7), expected)
    assert torch.equal(predict(shortcut_model, images), expected.argmax(1))
