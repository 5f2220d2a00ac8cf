"""Time limits."""

import asyncio

import pytest

from poolgrad_service.patience import within


async def work(*steps):
    """Wait, or raise, step by step."""
    for step in steps:
        if isinstance(step, Exception):
            raise step
        await asyncio.sleep(step)
    return len(steps)


@pytest.mark.parametrize("steps", [(), (0,), (0, 0, 0.001)])
def test_what_ends_in_time_is_returned(steps):
    assert asyncio.run(within(5, work(*steps))) == len(steps)


@pytest.mark.parametrize("before", [(), (0,), (0.001, 0)])
def test_errors_pass(before):
    with pytest.raises(KeyError):
        asyncio.run(within(5, work(*before, KeyError())))


def test_what_takes_longer_ends():
    async def waits():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    ended = []
    with pytest.raises(TimeoutError):
        asyncio.run(within(0.01, waits()))
    assert ended


def test_what_waits_can_be_cancelled():
    async def main():
        task = asyncio.create_task(within(60, work(0, 60)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_no_timer_is_set_for_what_is_there(monkeypatch):
    async def there():
        return 1

    monkeypatch.delattr(asyncio, "timeout")
    assert asyncio.run(within(0, there())) == 1
