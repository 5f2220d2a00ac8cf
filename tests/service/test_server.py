"""What the server does to a connection, beside what Uvicorn does."""

from types import SimpleNamespace
from typing import Any

import pytest

from poolgrad_service.answers import SMALL
from poolgrad_service.server import _Joined

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Connection:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def reply(connection: Connection) -> Any:
    """Return what a reply writes to, whose head has been written."""
    cycle = SimpleNamespace(response_started=True)
    joined: Any = _Joined(connection, cycle)  # type: ignore[arg-type]
    joined.write(HEAD)
    return joined


def test_a_short_body_goes_out_with_its_head(connection: Connection, reply: Any) -> None:
    assert connection.written == []
    reply.write(b"body")
    reply.write(b"more")
    assert connection.written == [HEAD + b"body", b"more"]


@pytest.mark.parametrize("body", [b"", memoryview(b"body")])
def test_a_body_may_be_empty_or_a_view(connection: Connection, reply: Any, body: Any) -> None:
    reply.write(body)
    assert connection.written == [HEAD + bytes(body)]


def test_a_long_body_is_not_copied(connection: Connection, reply: Any) -> None:
    body = memoryview(bytes(SMALL + 1))
    reply.write(body)
    assert connection.written[0] == HEAD
    assert connection.written[1] is body


def test_a_head_without_a_body_goes_out_before_the_end(connection: Connection, reply: Any) -> None:
    reply.close()
    assert connection.written == [HEAD]
    assert connection.closed
    assert reply.is_closing()


def test_what_comes_before_the_head_does_not_wait(connection: Connection) -> None:
    cycle = SimpleNamespace(response_started=False)
    reply: Any = _Joined(connection, cycle)  # type: ignore[arg-type]
    reply.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert connection.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    cycle.response_started = True
    reply.write(HEAD)
    reply.write(b"body")
    assert connection.written[1:] == [HEAD + b"body"]
