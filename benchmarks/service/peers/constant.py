"""A server that answers without looking: how many requests a second the client could make."""

import asyncio
import sys

import uvloop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Constant(asyncio.Protocol):
    """Answer whatever comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer; each request comes in one piece, as it is small."""
        self.transport.write(REPLY)


async def serve(port: int) -> None:
    """Serve until told to stop."""
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
