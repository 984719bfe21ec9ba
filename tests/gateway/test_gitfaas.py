"""gitfaas' paths: its shapes and statuses, and that what was made for it runs unchanged."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from structlog.testing import capture_logs
from yarl import URL

from invoker.gateway.request_target import path_of
from tests.conftest import eventually
from tests.custody.workload import function
from tests.gateway.access_world import add_key, bearer
from tests.gateway.documented import GITFAAS_PAGE, examples
from tests.gateway.stack import RUN_TOKEN_KEY, Stack, running_gateway, running_stack, session
from tests.ports import lasting_port

DEMO = {"source": "I like bananas", "str-to-replace": "bananas", "replace-with": "apples"}
PATIENT = 'printf %s "$FUNCTION_UID" > "$UIDS/$TOPIC"; while [ ! -e "$UIDS/end-$TOPIC" ]; do sleep 0.02; done'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gitfaas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An installation whose gateway serves gitfaas' paths, with the page's example among its functions."""
    folder, port = tmp_path_factory.mktemp("gitfaas"), lasting_port()
    uids = folder / "gates"
    (example,) = (yaml.safe_load(text) for text in examples(GITFAAS_PAGE, "yaml"))
    (variable,) = example["spec"]["env"]
    assert variable["name"] == "http_proxy"
    variable["value"] = f"http://127.0.0.1:{port}"
    functions = [
        example,
        function(
            "patient", "patient.*", PATIENT, input={"as": "env"}, env=[{"name": "UIDS", "value": str(uids)}],
        ),
        function("one", "two", 'printf "%s" "$PAYLOAD" | base64 -d', input={"as": "env"}, output={"from": "stdout"}),
        function("other", "two", "exit 3", input={"as": "env"}),
        function(
            "level", "level", 'printf %s "$LEVEL"', output={"from": "stdout"},
            env=[{"name": "LEVEL", "value": "{{params.level}}"}],
            parameters=[{"name": "level", "schema": {"type": "integer"}, "default": 6}],
        ),
    ]  # fmt: skip
    (folder / "catalog" / "replace-word").mkdir(parents=True)
    program = folder / "catalog" / "replace-word" / "main.py"
    program.write_text(*examples(GITFAAS_PAGE, "python"))
    program.chmod(0o755)
    async with running_stack(folder, functions=functions, gateway_gitfaas=True, gateway_port=port) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(gitfaas: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with session(gitfaas.url) as client:
        yield client


async def told(answer: Any) -> tuple[int, dict[str, Any]]:
    async with answer as response:
        return response.status, await response.json()


async def published(http: aiohttp.ClientSession, topic: str, **given: Any) -> dict[str, Any]:
    status, report = await told(http.post(f"/publish/{topic}", **given))
    assert status == 202, report
    return report


async def poll(http: aiohttp.ClientSession, uid: str) -> dict[str, Any]:
    status, answer = await told(http.get(f"/response/{uid}"))
    assert status == 200, answer
    return answer


async def finished(http: aiohttp.ClientSession, uid: str) -> dict[str, Any]:
    """The answer of a poll once all of the request's runs have ended."""

    async def asked() -> dict[str, Any] | None:
        answer = await poll(http, uid)
        return answer if answer["state"] == "finished" else None

    return await eventually(asked, what=f"the end of {uid}")


async def events(stack: Stack) -> int:
    """How many events were ever stored."""
    reader, names = stack.client.custody.reader, stack.client.names
    return int((await reader.state(names.events_stream)).state.last_seq)


async def uid_of(stack: Stack, topic: str) -> str:
    """The FUNCTION_UID that `patient` was given for an event of that topic."""

    async def there() -> str | None:
        file = stack.gates / topic
        return file.read_text() if file.exists() else None

    return await eventually(there, what="a started function")


async def test_the_documented_example_runs_unchanged(gitfaas: Stack, http: aiohttp.ClientSession) -> None:
    report = await published(http, "replace", json=DEMO)
    assert report["applies"] == [{"error": False, "path": "replace-word", "message": "accepted"}]
    assert report["error"] is False
    answer = await finished(http, report["requestUid"])
    result = (await gitfaas.client.run(report["requestUid"])).result
    assert answer["responses"] == [base64.b64encode(b"I like apples").decode()], result


async def test_responses_come_in_order_and_a_failure_is_told(http: aiohttp.ClientSession) -> None:
    report = await published(http, "two", data='it\'s "größe"\n')
    assert [one["path"] for one in report["applies"]] == ["one", "other"]
    answer = await finished(http, report["requestUid"])
    assert answer["error"] is False
    assert base64.b64decode(answer["responses"][0]).decode() == 'it\'s "größe"\n'
    assert answer["responses"][1] is None
    assert [(run["state"], run["reason"]) for run in answer["runs"]] == [
        ("succeeded", "completed"),
        ("failed", "error"),
    ]


async def test_null_is_not_yet_and_an_answer_is_taken_once(gitfaas: Stack, http: aiohttp.ClientSession) -> None:
    report = await published(http, "patient.a", data="x")
    uid = await uid_of(gitfaas, "patient.a")
    assert (await poll(http, report["requestUid"]))["responses"] == [None]
    path = f"/response/{uid}"
    with capture_logs() as lines:
        assert (await told(http.post(path, data=b"\x00\xff first")))[1]["error"] is False
    assert uid.partition(".")[2] not in str(lines), "whoever reads logs cannot answer for a run"
    assert [line["route"] for line in lines if line["event"] == "call"] == ["/response/{function_uid}"]
    assert (await told(http.post(path, data=b"\x00\xff first")))[1]["error"] is False, "the same answer again"
    status, second = await told(http.post(path, data=b"second"))
    assert (status, second["error"]) == (200, True)
    answer = await poll(http, report["requestUid"])
    assert base64.b64decode(answer["responses"][0]) == b"\x00\xff first"
    (gitfaas.gates / "end-patient.a").touch()


async def test_a_large_answer_is_streamed_and_an_empty_one_is_one(gitfaas: Stack, http: aiohttp.ClientSession) -> None:
    large = bytes(range(251)) * 20_000
    for topic, data in (("patient.large", large), ("patient.empty", b"")):
        report = await published(http, topic, data="x")
        assert (await told(http.post(f"/response/{await uid_of(gitfaas, topic)}", data=BytesIO(data))))[1][
            "error"
        ] is False
        answer = await poll(http, report["requestUid"])
        assert base64.b64decode(answer["responses"][0]) == data
        (gitfaas.gates / f"end-{topic}").touch()


async def test_nobody_answers_for_another(gitfaas: Stack, http: aiohttp.ClientSession) -> None:
    reports = [await published(http, f"patient.{name}", data="x") for name in ("b", "c")]
    address, _, token = (await uid_of(gitfaas, "patient.b")).partition(".")
    foreign, _, _ = (await uid_of(gitfaas, "patient.c")).partition(".")
    invented = (
        f"{foreign}.{token}",
        f"{address}.{'a' * 52}",
        f"{address}.",
        f".{token}",
        "f-1.2",
        "%00.x",
        f"{address}x.{token}",
    )
    for uid in invented:
        status, answer = await told(http.post(f"/response/{uid}", data=b"forged"))
        assert (status, answer) == (200, {"error": True, "message": "the function uid is not valid"}), uid
    assert [(await poll(http, report["requestUid"]))["responses"] for report in reports] == [[None], [None]]
    assert gitfaas.gateway.metrics.answers_refused._value.get() >= len(invented)
    for name in ("b", "c"):
        (gitfaas.gates / f"end-patient.{name}").touch()


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("two", b"x", "application/x-www-form-urlencoded", 406),
        ("two", b"x", "application/text", 406),
        ("two", b'{"a":', "application/json", 400),
        ("two", b"[" * 100_000, "application/json", 400),
        ("two", b"\xff", "application/json", 400),
        ("a..b", b"x", "text/plain", 400),
        ("a*", b"x", "text/plain", 400),
        ("invoker.call.one", b"x", "text/plain", 400),
        ("invoker", b"x", "text/plain", 400),
        ("two?PAYLOAD=x", b"x", "text/plain", 400),
        ("two?FUNCTION_UID=x", b"x", "text/plain", 400),
        ("two?a%0d%0ab=x", b"x", "text/plain", 400),
        ("two?a=x%0d%0aNats-Msg-Id:%201", b"x", "text/plain", 400),
    ],
)
async def test_what_is_refused_before_anything_is_stored(
    gitfaas: Stack, http: aiohttp.ClientSession, path: str, body: bytes, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    before = await events(gitfaas)
    got, answer = await told(http.post(URL(f"{gitfaas.url}/publish/{path}", encoded=True), data=body, headers=headers))
    assert (got, answer["error"]) == (status, True), answer
    assert isinstance(answer["message"], str)
    assert before == await events(gitfaas)


async def test_bytes_and_parameters_pass_as_they_are(http: aiohttp.ClientSession) -> None:
    odd = b'{"b": 1,\n "a":   2, "a": 3}'
    report = await published(http, "two", data=odd, headers={"Content-Type": "application/json; charset=utf-8"})
    assert base64.b64decode((await finished(http, report["requestUid"]))["responses"][0]) == odd
    report = await published(http, "level?level=9&level=1", data="x")
    assert base64.b64decode((await finished(http, report["requestUid"]))["responses"][0]) == b"9"
    report = await published(http, "level?level=high", data="x")
    (run,) = (await finished(http, report["requestUid"]))["runs"]
    assert (run["state"], run["reason"]) == ("failed", "invalid-input")


async def test_unknown_malformed_and_unmatched(gitfaas: Stack, http: aiohttp.ClientSession) -> None:
    unknown = await poll(http, gitfaas.client.new_request_id())
    assert (unknown["error"], unknown["responses"], unknown["state"]) == (False, [], "unknown")
    expired = await poll(http, "01" + "0" * 24)
    assert (expired["error"], expired["responses"], expired["state"]) == (False, [], "expired")
    malformed = await poll(http, "r- not one")
    assert (malformed["error"], malformed["responses"]) == (True, [])
    report = await published(http, "nobody.listens", data="x")
    assert (report["applies"], report["error"]) == ([], False)
    assert "nobody.listens" in report["message"]
    assert (await poll(http, report["requestUid"]))["state"] == "no-match"


async def test_refresh_reads_the_catalog_again(http: aiohttp.ClientSession) -> None:
    with capture_logs() as lines:
        assert await told(http.get("/refresh")) == (200, {"error": False, "message": "functions: 5"})
    assert [(line["route"], line["status"]) for line in lines if line["event"] == "call"] == [("/refresh", 200)]


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_no_page_of_others_refreshes(http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    status, answer = await told(http.get("/refresh", headers=headers))
    assert (status, answer["code"]) == (403, "forbidden")


async def test_it_is_off_unless_switched_on_and_asks_for_keys(gitfaas: Stack) -> None:
    async with running_gateway(gitfaas.server.url) as off, session(off.url) as http:
        for method, path in (
            ("POST", "/publish/two"),
            ("GET", "/response/x"),
            ("POST", "/response/x.y"),
            ("GET", "/refresh"),
        ):
            async with http.request(method, path) as answer:
                assert answer.status == 404, path
    closed = {"gateway_gitfaas": True, "gateway_anonymous": ("publish",), "run_token_key": RUN_TOKEN_KEY}
    async with running_gateway(gitfaas.server.url, **closed) as locked, session(locked.url) as http:
        report = await published(http, "patient.d", data="x")
        async with http.get("/refresh") as answer:
            assert answer.status == 403
        unseen = await poll(http, report["requestUid"])
        assert (unseen["responses"], unseen["state"]) == ([], "unknown"), "who may not read is told nothing"
        uid = await uid_of(gitfaas, "patient.d")
        assert (await told(http.post(f"/response/{uid}", data=b"mine")))[1]["error"] is False
        (gitfaas.gates / "end-patient.d").touch()


async def test_topic_and_function_of_a_poll_are_of_one_grant(gitfaas: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    split = add_key(file, "split", "publish,read two nobody", "read elsewhere one")
    half = add_key(file, "half", "read two one")
    async with (
        running_gateway(gitfaas.server.url, gateway_gitfaas=True, gateway_anonymous=(), gateway_keys=file) as locked,
        session(locked.url, headers=bearer(split)) as of_split,
        session(locked.url, headers=bearer(half)) as of_half,
    ):
        uid = (await published(of_split, "two", data="secret"))["requestUid"]
        assert [run["function"] for run in (await finished(of_half, uid))["runs"]] == ["one"]
        never = gitfaas.client.new_request_id()
        assert await poll(of_split, uid) == {
            name: value.replace(never, uid) if isinstance(value, str) else value
            for name, value in (await poll(of_split, never)).items()
        }


async def test_no_login_no_publish(gitfaas: Stack) -> None:
    async with (
        running_gateway(gitfaas.server.url, gateway_gitfaas=True, gateway_anonymous=()) as locked,
        session(locked.url) as http,
    ):
        for method, path in (
            ("POST", "/publish/two"),
            ("GET", "/response/x"),
            ("GET", "/response/x.y"),
            ("GET", "/refresh"),
        ):
            async with http.request(method, path) as answer:
                assert answer.status == 401, path


def test_targets_of_any_form() -> None:
    assert path_of("/v1/x") == "/v1/x"
    assert path_of("http://gitfaas:5000/response/a.b") == "/response/a.b"
    assert path_of("HTTP://[::1]:80/a//b") == "/a//b"
    assert path_of("https://host") == "/"
    assert path_of("ftp://host/x") == "ftp://host/x"
    assert path_of("*") == "*"
