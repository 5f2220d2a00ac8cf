"""FastAPI as those write it who care: the body's bytes, and orjson both ways."""

import sys
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

import poolgrad

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, bool]:
    """Tell that it runs."""
    return {"live": True}


@app.post("/pool")
async def pool(request: Request) -> Response:
    """Pool a flat list with a shape, or lists in lists."""
    body = orjson.loads(await request.body())
    x = body["x"]
    if isinstance(x, list):
        y = poolgrad.max_pool(np.array(x, np.float32), body["kernel_size"])
        reply: dict[str, Any] = {"y": y}
    else:
        data = np.array(x["data"], np.float32).reshape(x["shape"])
        y = poolgrad.max_pool(data, body["kernel_size"])
        reply = {"y": {"shape": y.shape, "data": y.ravel()}}
    content = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
