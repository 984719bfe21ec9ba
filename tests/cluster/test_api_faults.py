"""The API layer against a real API server, through a proxy that does wrong: each fault, and what the call becomes."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.facts import Cluster
from tests.cluster.fault_proxy import FaultProxy
from tests.cluster.faults import (
    Answer,
    CutAfterWrite,
    CutBeforeForward,
    CutStream,
    GoneInStream,
    Rule,
    SilentStream,
    Slow,
)
from tests.conftest import eventually
from trigger.kubernetes_engine.api import Api, CallLimits, Kind, WatchEvent
from trigger.kubernetes_engine.credentials import ClusterAccess
from trigger.kubernetes_engine.failures import ApiFailure, is_already_there
from trigger.kubernetes_engine.retries import Patience

pytestmark = pytest.mark.cluster

LONG = CallLimits(patience=Patience(bound_seconds=60.0, first_pause_seconds=0.02), page_objects=2)
"""Trouble that passes has passed by then, however busy the machine is."""
SHORT = replace(LONG, patience=Patience(bound_seconds=3.0, first_pause_seconds=0.02))
"""For trouble that stays."""


@pytest.fixture
async def proxy(cluster: Cluster, tmp_path: Path, module_namespace: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(cluster.kubeconfig, tmp_path / "proxy", namespace=module_namespace) as running:
        yield running
    await asyncio.to_thread(cluster.kubectl, "delete", "jobs", "--all", "-n", module_namespace)


@pytest.fixture
def attempts() -> Counter[tuple[str, int]]:
    """What the Api told of its attempts."""
    return Counter()


@pytest.fixture
async def api(proxy: FaultProxy, attempts: Counter[tuple[str, int]]) -> AsyncIterator[Api]:
    access = ClusterAccess(kubeconfig=proxy.kubeconfig, look_again_seconds=3600)
    async with Api(access, limits=LONG, on_request=lambda *told: attempts.update([told])) as opened:
        yield opened


@pytest.fixture
async def impatient(proxy: FaultProxy) -> AsyncIterator[Api]:
    async with Api(ClusterAccess(kubeconfig=proxy.kubeconfig, look_again_seconds=3600), limits=SHORT) as opened:
        yield opened


def job(name: str = "", **metadata: object) -> bytes:
    """A Job that starts nothing, and that nobody changes but we: no controller looks after it."""
    container = {"name": "function", "image": "localhost/busybox:1"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    document = {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name or f"job-{secrets.token_hex(4)}", "labels": {"test": "faults"}} | metadata,
        "spec": {"suspend": True, "managedBy": "invoker.dev/nobody", "template": template},
    }  # fmt: skip
    return json.dumps(document).encode()


def name_of(body: bytes) -> str:
    return str(json.loads(body)["metadata"]["name"])


async def names(api: Api) -> list[str]:
    return sorted([item["metadata"]["name"] async for item in api.list(Kind.JOB, "test=faults")])


async def position(api: Api) -> str:
    """Where a watch begins that sees everything from now on."""
    listing = api.list(Kind.JOB, "test=faults")
    async for _ in listing:
        pass
    return listing.resource_version


async def events(api: Api, resource_version: str, count: int) -> list[WatchEvent]:
    """That many changes, bookmarks left out."""
    found: list[WatchEvent] = []
    async with aclosing(api.watch(Kind.JOB, "test=faults", resource_version)) as stream:
        async for event in stream:
            if event.type != "BOOKMARK":
                found.append(event)
            if len(found) == count:
                break
    return found


async def watch_into(seen: list[WatchEvent], api: Api, resource_version: str) -> None:
    async for event in api.watch(Kind.JOB, "test=faults", resource_version):
        seen.append(event)


async def streams_are(proxy: FaultProxy, count: int) -> bool:
    return proxy.streams == count


async def have_failed(attempts: Counter[tuple[str, int]]) -> bool:
    """Whether a creation had no answer."""
    return attempts["create", 0] > 0


# Answers


async def test_a_429_is_repeated_after_the_pause_that_it_asks_for(proxy: FaultProxy, api: Api) -> None:
    rule = proxy.inject(Rule(Answer(429, headers={"Retry-After": "1"}), verb="create"))
    began = time.monotonic()
    await api.create_job(job())
    assert rule.hits == 1
    assert time.monotonic() - began >= 1.0


async def test_a_pause_beyond_the_bound_is_the_callers_to_wait(proxy: FaultProxy, api: Api) -> None:
    proxy.inject(Rule(Answer(429, headers={"Retry-After": "3600"}), verb="create"))
    with pytest.raises(ApiFailure) as failure:  # at once, or this test would not end in time
        await api.create_job(job())
    assert (failure.value.status, failure.value.retry_after_seconds) == (429, 3600.0)
    assert proxy.requests["create", "jobs"] == 1


@pytest.mark.parametrize("status", [500, 503, 504, 409])
async def test_trouble_that_passes_is_not_seen(
    proxy: FaultProxy, api: Api, attempts: Counter[tuple[str, int]], status: int
) -> None:
    proxy.inject(Rule(Answer(status), verb="create", times=3))
    body = job()
    created = await api.create_job(body)
    assert created["metadata"]["name"] == name_of(body)
    assert attempts == {("create", status): 3, ("create", 201): 1}


async def test_trouble_that_stays_is_told_after_the_bound(proxy: FaultProxy, impatient: Api) -> None:
    proxy.inject(Rule(Answer(503), verb="create", times=None))
    began = time.monotonic()
    with pytest.raises(ApiFailure) as failure:
        await impatient.create_job(job())
    assert failure.value.status == 503
    assert 1.0 <= time.monotonic() - began <= 60


async def test_a_refusal_is_told_at_once(proxy: FaultProxy, api: Api) -> None:
    proxy.inject(Rule(Answer(403), verb="create", times=None))
    with pytest.raises(ApiFailure) as failure:
        await api.create_job(job())
    assert (failure.value.status, failure.value.reason) == (403, "Forbidden")
    assert proxy.requests["create", "jobs"] == 1


async def test_a_page_of_some_other_proxy_is_told_in_its_first_words(proxy: FaultProxy, api: Api) -> None:
    proxy.inject(Rule(Answer(403, body=b"<html><h1>Forbidden</h1>" + b"x" * 10_000)))
    with pytest.raises(ApiFailure) as failure:
        await api.get_job("any")
    assert len(failure.value.message) <= 200
    assert failure.value.message.startswith("<html>")


async def test_an_answer_that_is_no_json_is_not_believed(proxy: FaultProxy, api: Api) -> None:
    rule = proxy.inject(Rule(Answer(200, body=b"<html>welcome</html>"), verb="get"))
    with pytest.raises(ApiFailure) as failure:
        await api.get_job("any")
    assert (failure.value.status, rule.hits) == (0, 1)


# Connections


async def test_cut_before_the_write_makes_one_job(proxy: FaultProxy, api: Api) -> None:
    rule = proxy.inject(Rule(CutBeforeForward(), verb="create", times=2))
    body = job()
    await api.create_job(body)
    assert rule.hits == 2
    assert await names(api) == [name_of(body)]


async def test_cut_after_the_write_tells_that_the_job_is_there(proxy: FaultProxy, api: Api) -> None:
    rule = proxy.inject(Rule(CutAfterWrite(), verb="create"))
    body = job()
    with pytest.raises(ApiFailure) as failure:
        await api.create_job(body)
    assert is_already_there(failure.value)
    assert rule.hits == 1
    assert await names(api) == [name_of(body)]


async def test_patches_and_deletes_survive_a_lost_answer(proxy: FaultProxy, api: Api) -> None:
    created = await api.create_job(job(finalizers=["invoker.dev/result"]))
    name = created["metadata"]["name"]
    proxy.inject(Rule(CutAfterWrite(), verb="patch"))
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["invoker.dev/result"], "annotations": {"a": "b"}}}
    patched = await api.patch_job(name, json.dumps(patch).encode())
    assert patched is not None
    assert patched["metadata"].get("finalizers") is None
    assert patched["metadata"]["annotations"]["a"] == "b"
    proxy.inject(Rule(CutAfterWrite(), verb="delete"))
    await api.delete_job(name)  # what it says is of the second delete
    assert await names(api) == []


async def test_a_slow_answer_is_waited_for_not_repeated(proxy: FaultProxy, api: Api) -> None:
    proxy.inject(Rule(Slow(10), verb="create"))
    await api.create_job(job())
    assert proxy.requests["create", "jobs"] == 1


async def test_an_answer_that_never_comes_is_asked_for_again(proxy: FaultProxy) -> None:
    proxy.inject(Rule(Slow(3600), verb="create"))
    limits = replace(LONG, answer_seconds=10.0)
    async with Api(ClusterAccess(kubeconfig=proxy.kubeconfig), limits=limits) as api:
        await api.create_job(job())
    assert proxy.requests["create", "jobs"] == 2


async def test_an_api_server_that_was_away_is_found_again(
    proxy: FaultProxy, api: Api, attempts: Counter[tuple[str, int]]
) -> None:
    await api.create_job(job())
    await proxy.down()
    creating = asyncio.ensure_future(api.create_job(job()))
    await eventually(lambda: have_failed(attempts), what="an attempt that nobody answers")
    await proxy.up()
    await creating
    assert len(await names(api)) == 2


async def test_an_api_server_that_stays_away_is_told_without_a_status(proxy: FaultProxy, impatient: Api) -> None:
    await proxy.down()
    with pytest.raises(ApiFailure) as failure:
        await impatient.get_job("any")
    assert failure.value.status == 0
    assert failure.value.message


# Who we are


async def test_an_expired_token_is_renewed_at_once(
    proxy: FaultProxy, api: Api, attempts: Counter[tuple[str, int]]
) -> None:
    await api.create_job(job())
    proxy.expire_token()
    proxy.renew_token()
    await asyncio.gather(*(api.create_job(job()) for _ in range(21)))
    assert len(await names(api)) == 22
    assert attempts["create", 201] == 22
    assert attempts["create", 401] <= 21


async def test_a_token_that_is_refused_for_good_is_told_after_one_repetition(
    proxy: FaultProxy, api: Api, attempts: Counter[tuple[str, int]]
) -> None:
    proxy.expire_token()
    with pytest.raises(ApiFailure) as failure:
        await api.create_job(job())
    assert failure.value.status == 401
    assert attempts == {("create", 401): 2}


async def test_a_token_that_rotates_before_its_end_is_never_refused(
    proxy: FaultProxy, attempts: Counter[tuple[str, int]]
) -> None:
    access = ClusterAccess(kubeconfig=proxy.kubeconfig, look_again_seconds=0.0)
    async with Api(access, limits=LONG, on_request=lambda *told: attempts.update([told])) as api:
        await api.create_job(job())
        proxy.renew_token()
        proxy.expire_older_tokens()
        await api.create_job(job())
    assert attempts == {("create", 201): 2}


async def test_another_authority_in_the_file_makes_a_new_session(proxy: FaultProxy, api: Api) -> None:
    await api.create_job(job())
    await proxy.change_certificate()
    await api.create_job(job())
    assert len(await names(api)) == 2


async def test_an_authority_that_is_not_ours_is_not_spoken_to(
    proxy: FaultProxy, api: Api, impatient: Api, attempts: Counter[tuple[str, int]]
) -> None:
    await proxy.change_certificate(publish=False)
    with pytest.raises(ApiFailure) as failure:
        await impatient.create_job(job())
    assert failure.value.status == 0
    assert "certificate" in failure.value.message.lower()
    creating = asyncio.ensure_future(api.create_job(job()))
    await eventually(lambda: have_failed(attempts), what="an attempt that is not spoken to")
    assert proxy.requests["create", "jobs"] == 0
    proxy.publish_ca()
    await creating


async def test_a_watch_goes_on_while_the_token_is_renewed(proxy: FaultProxy, api: Api) -> None:
    watching = asyncio.ensure_future(events(api, await position(api), 2))
    await eventually(lambda: streams_are(proxy, 1), what="the watch")
    await api.create_job(job())
    proxy.expire_token()
    proxy.renew_token()
    await api.create_job(job())
    assert [one.type for one in await watching] == ["ADDED", "ADDED"]


# Lists


async def test_lists_come_in_pages(proxy: FaultProxy, api: Api) -> None:
    bodies = [job() for _ in range(5)]
    for body in bodies:
        await api.create_job(body)
    assert await names(api) == sorted(name_of(body) for body in bodies)
    assert proxy.requests["list", "jobs"] == 3


async def test_a_list_whose_pages_are_too_old_begins_again(proxy: FaultProxy, api: Api) -> None:
    for _ in range(3):
        await api.create_job(job())
    proxy.inject(Rule(Answer(410), verb="list", path="continue="))
    listing = api.list(Kind.JOB, "test=faults")
    found = [item["metadata"]["name"] async for item in listing]
    assert (len(found), len(set(found)), listing.rounds) == (5, 3, 2)
    assert listing.resource_version


async def test_a_list_that_is_always_too_old_is_told(proxy: FaultProxy, api: Api) -> None:
    for _ in range(3):
        await api.create_job(job())
    proxy.inject(Rule(Answer(410), verb="list", path="continue=", times=None))
    with pytest.raises(ApiFailure) as failure:
        await names(api)
    assert failure.value.status == 410


# Watches


async def test_a_watch_tells_what_happens(api: Api) -> None:
    start = await position(api)
    body = job()
    await api.create_job(body)
    await api.patch_job(name_of(body), b'{"metadata":{"annotations":{"a":"b"}}}')
    await api.delete_job(name_of(body))
    found = await events(api, start, 3)
    assert [one.type for one in found] == ["ADDED", "MODIFIED", "DELETED"]
    assert {one.object["metadata"]["name"] for one in found} == {name_of(body)}


@pytest.mark.parametrize(("within_line", "politely"), [(False, False), (True, False), (True, True)])
async def test_a_watch_that_is_cut_says_so_and_can_go_on(
    proxy: FaultProxy, api: Api, within_line: bool, politely: bool
) -> None:
    start = await position(api)
    for _ in range(4):
        await api.create_job(job())
    proxy.inject(Rule(CutStream(after_events=2, within_line=within_line, politely=politely), verb="watch"))
    seen: list[WatchEvent] = []
    with pytest.raises(ApiFailure) as failure:
        await watch_into(seen, api, start)
    assert failure.value.status == 0
    assert len(seen) == 2
    rest = await events(api, seen[-1].object["metadata"]["resourceVersion"], 2)
    assert len({one.object["metadata"]["name"] for one in [*seen, *rest]}) == 4


async def test_a_watch_that_is_silent_counts_as_cut(proxy: FaultProxy, api: Api) -> None:
    limits = replace(LONG, silent_watch_seconds=10.0)
    start = await position(api)
    for _ in range(2):
        await api.create_job(job())
    proxy.inject(Rule(SilentStream(after_events=1), verb="watch", times=None))
    seen: list[WatchEvent] = []
    began = time.monotonic()
    async with Api(ClusterAccess(kubeconfig=proxy.kubeconfig), limits=limits) as impatient:
        with pytest.raises(ApiFailure) as failure:
            await watch_into(seen, impatient, start)
    assert (failure.value.status, len(seen)) == (0, 1)
    assert 10 <= time.monotonic() - began < 75


async def test_a_version_that_is_gone_is_told_as_410(proxy: FaultProxy, api: Api) -> None:
    start = await position(api)
    await api.create_job(job())
    for fault in (GoneInStream(after_events=1), Answer(410)):
        proxy.inject(Rule(fault, verb="watch"))
        with pytest.raises(ApiFailure) as failure:
            async for _ in api.watch(Kind.JOB, "test=faults", start):
                pass
        assert failure.value.status == 410


async def test_a_watch_that_cannot_begin_is_repeated(proxy: FaultProxy, api: Api) -> None:
    start = await position(api)
    await api.create_job(job())
    rule = proxy.inject(Rule(Answer(503), verb="watch", times=2))
    assert len(await events(api, start, 1)) == 1
    assert rule.hits == 2


async def test_a_cut_of_all_streams_ends_every_watch(proxy: FaultProxy, api: Api) -> None:
    start = await position(api)
    watching = [asyncio.ensure_future(events(api, start, 1)) for _ in range(3)]
    await eventually(lambda: streams_are(proxy, 3), what="three watches")
    assert proxy.cut_streams() == 3
    done, _ = await asyncio.wait(watching, return_when=asyncio.ALL_COMPLETED, timeout=60)
    failures = [one.exception() for one in done]
    assert all(isinstance(one, ApiFailure) and one.status == 0 for one in failures)
    assert len(failures) == 3


async def test_an_event_as_large_as_annotations_may_be_comes_whole(api: Api) -> None:
    start = await position(api)
    await api.create_job(job(annotations={"large": "x" * 260_000}))
    [event] = await events(api, start, 1)
    assert len(event.object["metadata"]["annotations"]["large"]) == 260_000


async def test_streams_leave_the_calls_their_connections(proxy: FaultProxy) -> None:
    access = ClusterAccess(kubeconfig=proxy.kubeconfig, connections=1)
    async with Api(access, limits=LONG) as api:
        start = await position(api)
        watching = [asyncio.ensure_future(events(api, start, 1)) for _ in range(5)]
        await eventually(lambda: streams_are(proxy, 5), what="five watches")
        await asyncio.wait_for(api.create_job(job()), 60)
        assert [len(found) for found in await asyncio.gather(*watching)] == [1] * 5


# One object


async def test_what_is_not_there_is_none(api: Api) -> None:
    assert await api.get_job("no") is None
    assert await api.get_pod("no") is None
    assert await api.patch_job("no", b"{}") is None
    assert await api.delete_pod("no", grace_seconds=0) is False
    assert await api.delete_config_map("no") is False


async def test_a_delete_by_uid_leaves_another_of_that_name(proxy: FaultProxy, api: Api) -> None:
    created = await api.create_job(job())
    name, uid = created["metadata"]["name"], created["metadata"]["uid"]
    assert await api.delete_job(name, uid="00000000-0000-0000-0000-000000000000") is False
    assert await names(api) == [name]
    assert await api.delete_job(name, uid=uid) is True
    assert proxy.requests["delete", "jobs"] == 2


async def test_a_config_map_is_made_once(api: Api) -> None:
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"a": "b"}})
    assert await api.create_config_map(body.encode()) is True
    assert await api.create_config_map(body.encode()) is False
    assert [one["data"] async for one in api.list(Kind.CONFIG_MAP, "") if one["metadata"]["name"] == "code"]
    assert await api.delete_config_map("code") is True


async def test_unknown_fields_are_refused_not_dropped(api: Api) -> None:
    body = job().replace(b'"suspend"', b'"suspendd"')
    with pytest.raises(ApiFailure) as failure:
        await api.create_job(body)
    assert (failure.value.status, failure.value.reason) == (400, "BadRequest")


async def test_a_dry_run_makes_nothing(api: Api) -> None:
    shown = await api.dry_run_job(job())
    assert shown["spec"]["backoffLimit"] == 6
    assert await names(api) == []


async def test_a_name_cannot_leave_its_place_in_the_path(api: Api) -> None:
    assert await api.get_job("../../../../api/v1/nodes?x=") is None
