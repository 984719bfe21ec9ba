"""A method that a path does not take: status, problem and `Allow` say the same."""

from __future__ import annotations

import aiohttp


async def test_a_method_that_a_path_does_not_take_is_405_everywhere(http: aiohttp.ClientSession) -> None:
    async with http.delete("/v1/topics/hello") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        told = await answer.json()
    assert (told["status"], told["code"], told["allow"]) == (405, "method-not-allowed", "POST")
    async with http.get("/v1/nothing") as answer:
        assert answer.status == 404
        told = await answer.json()
    assert (told["status"], told["code"]) == (404, "no-such-path")
