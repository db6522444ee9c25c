"""Classifiers, their training and their predictions."""

from lvlmva_lite.models.networks import Classifier, mlp, small_resnet
from lvlmva_lite.models.pretrained import efficientnet_lite0, resnet50
from lvlmva_lite.models.training import fit, predict, predict_proba

__all__ = [
    "Classifier",
    "efficientnet_lite0",
    "fit",
    "mlp",
    "predict",
    "predict_proba",
    "resnet50",
    "small_resnet",
]
