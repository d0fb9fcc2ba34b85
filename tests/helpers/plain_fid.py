"""FID, stated a second time."""

import numpy as np
import scipy.linalg


def plain_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """FID with scipy's matrix square root.

    :param real: features, ``(N, D)``.
    :param generated: features, ``(M, D)``.
    """
    mean = real.mean(0) - generated.mean(0)
    s, s_g = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = scipy.linalg.sqrtm(s @ s_g).real
    return mean @ mean + np.trace(s + s_g - 2 * root)
