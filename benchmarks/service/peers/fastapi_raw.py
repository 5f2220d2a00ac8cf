"""FastAPI with the array's bytes as the body and nothing checked: the most this stack can do."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

import poolgrad

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, bool]:
    """Tell that it runs."""
    return {"live": True}


@app.post("/empty")
async def empty() -> dict[str, bool]:
    """Do nothing."""
    return {"done": True}


@app.post("/pool")
async def pool(request: Request) -> Response:
    """Pool bytes whose shape is in a header."""
    shape = [int(n) for n in request.headers["x-shape"].split(",")]
    x = np.frombuffer(await request.body(), np.float32).reshape(shape)
    y = poolgrad.max_pool(x, 2)
    headers = {"x-shape": ",".join(map(str, y.shape))}
    return Response(y.tobytes(), headers=headers, media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
