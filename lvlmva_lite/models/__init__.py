"""Classifiers, their training and their predictions, and the user's own."""

from lvlmva_lite.models.loading import load_model, load_weights, save_weights
from lvlmva_lite.models.networks import Classifier, mlp, small_resnet
from lvlmva_lite.models.own import NetworkError, OwnNetwork, as_classifier, check_network
from lvlmva_lite.models.pretrained import efficientnet_lite0, resnet50
from lvlmva_lite.models.training import fit, predict, predict_logits, predict_proba

__all__ = [
    "Classifier",
    "NetworkError",
    "OwnNetwork",
    "as_classifier",
    "check_network",
    "efficientnet_lite0",
    "fit",
    "load_model",
    "load_weights",
    "mlp",
    "predict",
    "predict_logits",
    "predict_proba",
    "resnet50",
    "save_weights",
    "small_resnet",
]
