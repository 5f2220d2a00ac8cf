"""MLServer: a runtime of its own with NumPy's codec. It has JSON only."""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop

import poolgrad


class Pool(MLModel):
    """A model that pools its one input."""

    async def load(self) -> bool:
        """Be ready at once."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Pool a tensor."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = poolgrad.max_pool(x, payload.parameters.kernel_size)
        outputs = [NumpyCodec.encode_output("y", y)]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)


async def serve(http: int, grpc: int, metrics: int) -> None:
    """Serve until told to stop."""
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    model = ModelSettings(name="max_pool", implementation="benchmarks.service.peers.mlserver.Pool")
    await MLServer(settings).start([model])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(serve(*map(int, sys.argv[1:])))
