"""FastAPI as most write it: lists that pydantic checks, and ``tolist``."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

import poolgrad

app = FastAPI()

Lists = list[list[list[list[float]]]]


class Request(BaseModel):
    """An image of each batch, as lists in lists."""

    x: Lists
    kernel_size: int


class Reply(BaseModel):
    """What came of it."""

    y: Lists


@app.get("/health")
def health() -> dict[str, bool]:
    """Tell that it runs."""
    return {"live": True}


@app.post("/pool")
def pool(request: Request) -> Reply:
    """Pool lists."""
    y = poolgrad.max_pool(np.array(request.x, np.float32), request.kernel_size)
    return Reply(y=y.tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
