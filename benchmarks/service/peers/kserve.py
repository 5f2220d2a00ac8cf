"""KServe: a model of the Open Inference Protocol, with JSON and with binary tensors."""

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

import poolgrad


class Pool(Model):
    """A model that pools its one input."""

    def load(self) -> bool:
        """Be ready at once."""
        self.ready = True
        return True

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """Pool a tensor."""
        y = poolgrad.max_pool(payload.inputs[0].as_numpy(), payload.parameters["kernel_size"])
        output = InferOutput("y", list(y.shape), "FP32")
        binary = bool(payload.request_outputs)
        output.set_data_from_numpy(y, binary_data=binary)
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=binary)


if __name__ == "__main__":
    model = Pool("max_pool")
    model.load()
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False).start([model])
