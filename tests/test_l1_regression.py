"""With whatever scikit-learn is installed; ``test_colab.py`` runs it with Colab's."""

import numpy as np
import pytest

from lvlmva_lite.methods.dfr import l1_regression


@pytest.mark.parametrize("C", [0.05, 0.3])
def test_the_penalty_is_l1(C):
    """At the least of C * loss + |w|_1 the loss's slope is -sign(w) / C where w is not 0, and flatter elsewhere."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 6))
    sign = np.where(x[:, 0] + 0.3 * x[:, 1] + generator.normal(size=200) > 0, 1, -1)
    regression = l1_regression(C, 0).set_params(tol=1e-8).fit(x, sign)
    w, b = regression.coef_[0], regression.intercept_[0]
    slope = -(sign / (1 + np.exp(sign * (x @ w + b)))) @ x
    used = w != 0
    assert 0 < used.sum() < 6
    np.testing.assert_allclose(C * slope[used], -np.sign(w[used]), atol=1e-3)
    assert (abs(C * slope[~used]) < 1).all()
