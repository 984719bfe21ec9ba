"""Rates of keys and addresses: buckets, headers, and whose address it is behind proxies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from invoker.errors import SettingsError
from invoker.gateway.access.limits import BURST_SECONDS, Buckets, bucket_of, origin_address
from invoker.gateway.access.limits import ip_network as network
from invoker.gateway.settings import load_gateway_settings
from tests.gateway.access_world import add_key, bearer, guarded_gateway
from tests.gateway.stack import Stack, session


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_ten_seconds_and_fills_at_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    assert [buckets.take("a", 2.0).taken for _ in range(21)] == [True] * 20 + [False]
    assert buckets.take("b", 2.0).taken, "others have their own"
    level = buckets.take("a", 2.0)
    assert (level.quota, level.left, level.next_seconds, level.full_seconds) == (20, 0, 0.5, 10.0)
    clock.now += 0.5
    assert [buckets.take("a", 2.0).taken for _ in range(2)] == [True, False]
    clock.now += 3600
    assert buckets.take("a", 2.0).left == 19, "it holds no more than that"


def test_a_rate_below_one_in_ten_seconds_still_lets_one_through() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    assert [buckets.take("a", 0.01).taken for _ in range(2)] == [True, False]
    clock.now += 100
    assert buckets.take("a", 0.01).taken


def test_what_is_owed_is_waited_for() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    assert [buckets.take("a", 1.0).taken for _ in range(11)] == [True] * 10 + [False]
    level = buckets.take("a", 1.0, owed=20)
    assert (level.taken, level.left, level.next_seconds) == (True, 0, 21.0)
    clock.now += 20.5
    assert not buckets.take("a", 1.0).taken
    clock.now += 0.5
    assert buckets.take("a", 1.0).taken


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=80), st.floats(0.5, 20))
def test_nobody_ever_gets_more_than_burst_and_rate(calls: list[tuple[str, float]], rate: float) -> None:
    clock = Clock()
    buckets, began = Buckets(clock), clock.now
    taken = dict.fromkeys("abc", 0)
    for name, pause in calls:
        clock.now += pause
        level = buckets.take(name, rate)
        taken[name] += level.taken
        assert taken[name] <= max(1.0, rate * BURST_SECONDS) + (clock.now - began) * rate + 1e-6
        assert level.taken or level.next_seconds > 0


def test_buckets_are_bounded_and_the_newest_stay() -> None:
    buckets = Buckets(Clock(), limit=100)
    for number in range(10_000):
        buckets.take(str(number), 1.0)
    assert len(buckets) == 100
    assert buckets.take("9999", 1.0).left == 8, "it was there already"
    assert buckets.take("0", 1.0).left == 9, "forgotten, so full again"


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    assert bucket_of("2001:db8::1") == bucket_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert bucket_of("2001:db8:0:1::1") != bucket_of("2001:db8::1")
    assert bucket_of("192.0.2.1") != bucket_of("192.0.2.2")
    assert bucket_of("-") == "-"


PROXIES = (network("10.0.0.0/8"), network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "origin"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # no proxy of ours: it may write what it likes
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the left one is the caller's own word
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, evil'--", "10.0.0.1"),
        ("10.0.0.1", ",,, ,", "10.0.0.1"),
        ("10.0.0.1", ", ".join(["10.0.0.9"] * 10_000), "10.0.0.9"),
        ("-", "203.0.113.9", "-"),
    ],
)
def test_only_trusted_proxies_say_whose_call_it_is(peer: str, forwarded: str, origin: str) -> None:
    assert origin_address(peer, forwarded, PROXIES) == origin


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"INVOKER_GATEWAY_TRUSTED_PROXIES.*proxy\.local"):
        load_gateway_settings({"INVOKER_GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,proxy.local"})


# At a gateway


@pytest_asyncio.fixture(loop_scope="module")
async def limited(stack: Stack, tmp_path: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, dict[str, str]]]:
    """A gateway with one call a minute for a key and two a second for an address, and its keys. However slow the calls
    of a test are, nothing comes back into a bucket that fills in a minute."""
    file = tmp_path / "keys.json"
    texts = {name: add_key(file, name, "publish") for name in ("ann", "bob")}
    texts["quick"] = add_key(file, "quick", "publish", calls_per_second=1000.0)
    given = {
        "gateway_keys": file,
        "gateway_key_calls_per_second": 1 / 60,
        "gateway_address_calls_per_second": 2.0,
        "gateway_trusted_proxies": ("127.0.0.1",),
    }
    async with guarded_gateway(stack.server.url, **given) as running, session(running.url) as http:
        yield http, texts


async def call(http: aiohttp.ClientSession, headers: dict[str, str], origin: str) -> aiohttp.ClientResponse:
    async with http.post("/v1/topics/echo.a", data=b"x", headers=headers | {"X-Forwarded-For": origin}) as answer:
        await answer.read()
        return answer


async def test_a_key_has_its_rate_wherever_it_is_used(
    limited: tuple[aiohttp.ClientSession, dict[str, str]],
) -> None:
    http, texts = limited
    answers = await asyncio.gather(*(call(http, bearer(texts["ann"]), f"203.0.113.{n}") for n in range(3)))
    assert sorted(answer.status for answer in answers) == [202, 429, 429]
    assert answers[0].headers.getall("RateLimit-Policy") == ['"address";q=20;w=10', '"key";q=1;w=10']
    for answer in answers:
        assert re.fullmatch(r'"key";r=0;t=\d\d', answer.headers.getall("RateLimit")[1])
    last = next(answer for answer in answers if answer.status == 429)
    assert 1 <= int(last.headers["Retry-After"]) <= 60
    assert last.content_type == "application/problem+json"
    assert (await call(http, bearer(texts["bob"]), "203.0.113.9")).status == 202
    assert {(await call(http, bearer(texts["quick"]), f"203.0.114.{n}")).status for n in range(8)} == {202}


async def test_guessing_keys_is_counted_by_address(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    known, guess = bearer(add_key(file, "known", "publish")), bearer("inv_aaaaaaaaaa_" + "a" * 52)
    given = {"gateway_keys": file, "gateway_trusted_proxies": ("127.0.0.1",)}
    # A minute until there may be another call: however slow this is, none is given meanwhile.
    async with (
        guarded_gateway(stack.server.url, gateway_address_calls_per_second=1 / 60, **given) as up,
        session(up.url) as http,
    ):
        assert [(await call(http, guess, "198.51.100.1")).status for _ in range(4)] == [401, 429, 429, 429]
        assert (await call(http, known, "198.51.100.1")).status == 429, "and so is all else from there"
        assert (await call(http, known, "198.51.100.2")).status == 202


async def test_unless_set_nothing_is_counted(stack: Stack, http: aiohttp.ClientSession) -> None:
    async def one() -> aiohttp.ClientResponse:
        return await call(http, {}, "192.0.2.1")

    answers = await asyncio.gather(*(one() for _ in range(50)))
    assert {answer.status for answer in answers} == {202}
    assert "RateLimit" not in answers[0].headers


async def test_a_batch_counts_as_many_calls_as_it_has_events(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "batches", "publish", calls_per_second=1.0)
    events = [
        {"specversion": "1.0", "id": str(number), "source": "/b", "type": "nobody.listens"} for number in range(40)
    ]
    kind = bearer(key) | {"Content-Type": "application/cloudevents-batch+json"}
    async with guarded_gateway(stack.server.url, gateway_keys=file) as up, session(up.url) as http:
        began = time.monotonic()
        async with http.post("/v1/events", json=events[:3], headers=kind) as answer:
            assert answer.status == 202
            (told,) = answer.headers.getall("RateLimit")
            left = re.fullmatch(r'"key";r=(\d+);t=\d', told)
            assert left is not None, told
            # What comes back while the three are stored counts as well: one a second.
            assert 7 <= int(left[1]) <= 7 + time.monotonic() - began
        began = time.monotonic()
        async with http.post("/v1/events", json=events, headers=kind) as answer:
            assert (answer.status, len((await answer.json())["items"])) == (202, 40), "it is done as a whole"
            assert answer.headers["RateLimit"].startswith('"key";r=0;')
        async with http.post("/v1/topics/nobody.listens", data=b"x", headers=bearer(key)) as answer:
            assert answer.status == 429
            took = time.monotonic() - began
            assert 30 - took <= int(answer.headers["Retry-After"]) <= 34
