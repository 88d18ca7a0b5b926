"""Models in memory and heads of examples: what is kept, shared and let go."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.fewshot import FewShot
from serving.loaded import LoadedModels


def engine(nbytes: int) -> Any:
    return SimpleNamespace(nbytes=nbytes)


def test_the_least_recently_used_go_first() -> None:
    async def story() -> list[str]:
        loads: list[str] = []
        loaded = LoadedModels(25)

        async def use(key: str) -> None:
            await loaded.get(key, lambda: (loads.append(key), engine(10))[1])

        for key in ("a", "b", "a", "c", "a", "b", "a"):  # c drives b out, b drives c out
            await use(key)
        await loaded.get("huge", lambda: engine(1000))  # held alone, not refused
        await use("a")
        loaded.close()
        return loads

    assert asyncio.run(story()) == ["a", "b", "c", "b", "a"]


def test_one_load_serves_all_who_wait_and_failures_are_not_kept() -> None:
    async def story() -> None:
        loads = 0
        gate = threading.Event()

        def load() -> Any:
            nonlocal loads
            loads += 1
            assert gate.wait(10)
            if loads == 1:
                raise OSError("no")
            return engine(1)

        loaded = LoadedModels(100)
        tasks = [asyncio.create_task(loaded.get("a", load)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # one that gives up does not fail the others
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, *[OSError] * 4]
        first, second = await asyncio.gather(loaded.get("a", load), loaded.get("a", load))
        assert first is second and loads == 2
        loaded.keep(lambda key: key != "a")
        assert await loaded.get("a", load) is not first
        loaded.close()

    asyncio.run(story())


def test_heads_are_shared_remembered_and_forgotten() -> None:
    examples = [("red", "warm"), ("orange", "warm"), ("blue", "cold"), ("cyan", "cold")]

    async def story() -> None:
        embedded: list[int] = []

        async def embed(texts: Any) -> Any:
            await asyncio.sleep(0)
            embedded.append(len(texts))
            if texts[0] == "bad":
                raise OSError("no")
            return np.array([[float(text in ("red", "orange")), 1.0] for text in texts], np.float32)

        few_shot = FewShot(embed, remembered=2)
        heads = await asyncio.gather(*(few_shot.head(order) for order in (examples, examples[::-1])))
        assert heads[0] is heads[1] and embedded == [4] and heads[0].labels == ("cold", "warm")
        warm = heads[0].probabilities(np.array([[1.0, 1.0], [0.0, 1.0]], np.float32))[:, 1]
        assert warm[0] > 0.5 > warm[1]
        for extra in ("p", "q"):
            await few_shot.head([*examples, (extra, "cold")])
        await few_shot.head(examples)
        assert embedded == [4, 5, 5, 4]
        for _ in range(2):  # a failure is tried again
            with pytest.raises(OSError, match="no"):
                await few_shot.head([("bad", "a"), ("bad", "b")])
        assert embedded[-2:] == [2, 2]
        few_shot.close()

    asyncio.run(story())
