"""LitServe: an API with one worker. It has JSON only."""

import sys
from typing import Any

import litserve as ls
import numpy as np

import poolgrad


class Pool(ls.LitAPI):
    """An API that pools a flat list with a shape."""

    def setup(self, device: str) -> None:
        """Be ready at once."""

    def decode_request(self, request: dict[str, Any]) -> tuple[Any, int]:
        """Return an array and the window."""
        x = request["x"]
        return np.array(x["data"], np.float32).reshape(x["shape"]), request["kernel_size"]

    def predict(self, x: tuple[Any, int]) -> Any:
        """Pool it."""
        return poolgrad.max_pool(*x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return a flat list with its shape."""
        return {"y": {"shape": list(output.shape), "data": output.ravel().tolist()}}


if __name__ == "__main__":
    server = ls.LitServer(Pool(), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, access_log=False
    )
