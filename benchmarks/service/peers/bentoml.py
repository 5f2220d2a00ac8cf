"""BentoML: a service that takes and returns arrays of NumPy, as nested lists.

Its own command serves it.
"""

import bentoml
import numpy as np

import poolgrad


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 120})
class Pool:
    """A service that pools arrays."""

    @bentoml.api
    def pool(self, x: np.ndarray, kernel_size: int) -> np.ndarray:
        """Pool an array."""
        return poolgrad.max_pool(x.astype(np.float32, copy=False), kernel_size)
