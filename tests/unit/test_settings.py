"""Where a client finds its NATS: the order of the sources, and sentences that name what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from invoker.connection import ConnectionOptions
from invoker.errors import ServerUnreachableError, SettingsError
from invoker.settings import client_options, connection_options, default_state_dir, instance_names

WriteContext = Callable[..., None]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is set up, and nothing of the machine's own is found."""
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def context(tmp_path: Path) -> WriteContext:
    """Writes a context of the `nats` command, and selects it when asked to."""

    def write(name: str, *, select: bool = False, **values: Any) -> None:
        folder = tmp_path / "config" / "nats" / "context"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"description": "", "user": "", **values}))
        if select:
            (folder.parent / "context.txt").write_text(f"{name}\n")

    return write


@pytest.fixture
def dev(tmp_path: Path) -> Callable[[int], Path]:
    """The state folder of an `invoker dev` with that process id."""

    def write(pid: int) -> Path:
        folder = tmp_path / "dev"
        folder.mkdir(exist_ok=True)
        (folder / "dev.json").write_text(json.dumps({"nats_url": "nats://127.0.0.1:5001", "http_url": "", "pid": pid}))
        return folder

    return write


def ended_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_nothing_set_up_gives_the_default(environ: dict[str, str]) -> None:
    options = connection_options(environ=environ)
    assert options == ConnectionOptions(url="nats://127.0.0.1:4222")
    assert options.origin == "the default"


def test_every_source_gives_way_to_the_one_before(
    environ: dict[str, str], context: WriteContext, dev: Callable[[int], Path]
) -> None:
    context("here", select=True, url="nats://context:1")
    seen = [connection_options(environ=environ).url]
    state = dev(os.getpid())
    seen.append(connection_options(environ=environ, state_dir=state).url)
    environ["NATS_URL"] = "nats://nats:1"
    seen.append(connection_options(environ=environ, state_dir=state).url)
    environ["INVOKER_NATS_URL"] = "nats://invoker:1"
    seen.append(connection_options(environ=environ, state_dir=state).url)
    seen.append(connection_options(server="nats://argument:1", environ=environ, state_dir=state).url)
    hosts = ["context:1", "127.0.0.1:5001", "nats:1", "invoker:1", "argument:1"]
    assert seen == [f"nats://{host}" for host in hosts]


@pytest.mark.parametrize(
    ("variable", "value", "origin"),
    [("NATS_URL", "nats://a:1", "NATS_URL"), ("INVOKER_NATS_URL", "nats://a:1", "INVOKER_NATS_URL")],
)
def test_the_origin_names_the_variable(environ: dict[str, str], variable: str, value: str, origin: str) -> None:
    assert connection_options(environ=environ | {variable: value}).origin == origin


def test_the_origin_names_the_file(environ: dict[str, str], context: WriteContext, dev: Callable[[int], Path]) -> None:
    context("here", select=True, url="nats://a:1")
    assert "here.json" in connection_options(environ=environ).origin
    assert "dev.json" in connection_options(environ=environ, state_dir=dev(os.getpid())).origin


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"nats_url": "nats://a:1"}', '{"nats_url": "nats://a:1", "pid": "x"}']
)
def test_an_unusable_dev_state_is_passed_over(environ: dict[str, str], tmp_path: Path, content: str) -> None:
    (tmp_path / "dev.json").write_text(content)
    assert connection_options(environ=environ, state_dir=tmp_path).origin == "the default"


def test_a_dev_that_has_ended_is_passed_over(environ: dict[str, str], dev: Callable[[int], Path]) -> None:
    assert connection_options(environ=environ, state_dir=dev(ended_pid())).origin == "the default"
    assert connection_options(environ=environ, state_dir=dev(-1)).origin == "the default"


def test_every_field_of_a_context_is_used(environ: dict[str, str], context: WriteContext, tmp_path: Path) -> None:
    home = Path(environ["HOME"])
    home.mkdir()
    for name in ("user.creds", "ca.pem", "cert.pem", "key.pem"):
        (home / name).write_text("")
    files = {"creds": "~/user.creds", "ca": "~/ca.pem", "cert": "~/cert.pem", "key": "~/key.pem"}
    context("full", url="tls://a:1,tls://b:2", inbox_prefix="_INBOX.me", **files)
    options = connection_options(context="full", environ=environ)
    assert options == ConnectionOptions(
        url="tls://a:1,tls://b:2",
        creds_file=home / "user.creds",
        ca_file=home / "ca.pem",
        cert_file=home / "cert.pem",
        key_file=home / "key.pem",
        inbox_prefix="_INBOX.me",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"user": "ann", "password": "p"}, ("ann", "p", None)),
        ({"token": "t"}, (None, None, "t")),
        ({"user": "t"}, (None, None, "t")),
    ],
)
def test_identities_of_a_context(
    environ: dict[str, str], context: WriteContext, given: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    context("who", select=True, url="nats://a:1", **given)
    options = connection_options(environ=environ)
    assert (options.user, options.password, options.token) == expected


def test_an_address_given_by_hand_is_not_sent_the_secrets_of_another_server(
    environ: dict[str, str], context: WriteContext
) -> None:
    context("prod", select=True, url="nats://prod:1", user="ann", password="secret", token="secret")
    for options in (
        connection_options(server="nats://elsewhere:1", environ=environ),
        connection_options(environ=environ | {"NATS_URL": "nats://elsewhere:1"}),
    ):
        assert (options.user, options.password, options.token) == (None, None, None)


def test_an_identity_above_the_address_is_used(environ: dict[str, str], context: WriteContext) -> None:
    context("prod", select=True, url="nats://prod:1", user="ann", password="of the context")
    options = connection_options(environ=environ | {"NATS_USER": "bob", "NATS_PASSWORD": "of the variable"})
    assert (options.url, options.user, options.password) == ("nats://prod:1", "bob", "of the variable")
    options = connection_options(token="t", environ=environ | {"NATS_USER": "bob", "NATS_PASSWORD": "p"})
    assert (options.user, options.token) == (None, "t")


def test_a_context_named_beside_an_address_says_who_we_are(environ: dict[str, str], context: WriteContext) -> None:
    context("prod", url="nats://prod:1", user="ann", password="p")
    named = environ | {"NATS_CONTEXT": "prod"}
    for options in (
        connection_options(server="nats://a:1", context="prod", environ=environ),
        connection_options(environ=named | {"NATS_URL": "nats://a:1"}),
    ):
        assert (options.url, options.user) == ("nats://a:1", "ann")
    assert connection_options(environ=named).url == "nats://prod:1"
    by_hand = connection_options(server="nats://a:1", environ=named)
    assert (by_hand.url, by_hand.user) == ("nats://a:1", None)


@pytest.mark.parametrize("prefix", ["INVOKER_NATS_", "NATS_"])
@pytest.mark.parametrize("name", ["password", "token"])
def test_secrets_may_stand_in_files(environ: dict[str, str], tmp_path: Path, prefix: str, name: str) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    extra = {f"{prefix}{name.upper()}_FILE": str(tmp_path / "secret"), f"{prefix}URL": "nats://a:1"}
    user = {f"{prefix}USER": "ann"} if name == "password" else {}
    assert getattr(connection_options(environ=environ | extra | user), name) == "s3cret"


def test_secrets_are_not_shown(environ: dict[str, str]) -> None:
    given = {"NATS_URL": "nats://a:b@host:1", "NATS_USER": "ann", "NATS_PASSWORD": "hidden"}
    options = connection_options(environ=environ | given)
    assert "hidden" not in repr(options)
    assert options.shown == "nats://host:1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost", "nats://localhost"),
        ("localhost:4222", "nats://localhost:4222"),
        ("nats://a:1, nats://b:2", "nats://a:1,nats://b:2"),
        ("wss://a:443", "wss://a:443"),
        ("[::1]:4222", "nats://[::1]:4222"),
    ],
)
def test_addresses_are_completed(environ: dict[str, str], url: str, expected: str) -> None:
    assert connection_options(server=url, environ=environ).url == expected


@pytest.mark.parametrize(
    "url", ["http://a:1", "nats://", "nats://a:port", "nats://a:1\r\nPUB x", "nats://a:99999", " ", ","]
)
def test_unusable_addresses_are_named(environ: dict[str, str], url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connection_options(environ=environ | {"INVOKER_NATS_URL": url})
    assert caught.value.message.startswith("INVOKER_NATS_URL: ")
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message


def test_an_unusable_address_does_not_show_its_password(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        connection_options(server="http://ann:hidden@a:1", environ=environ)
    assert "hidden" not in caught.value.message
    assert "--server" in caught.value.message


@pytest.mark.parametrize("name", ["CREDS", "NKEY", "CA", "CERT", "KEY"])
def test_a_missing_file_is_named_with_its_variable(environ: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match=f"NATS_{name}: the file /nowhere does not exist"):
        connection_options(environ=environ | {f"NATS_{name}": "/nowhere"})


def test_who_we_are_may_stand_in_files(environ: dict[str, str], tmp_path: Path) -> None:
    for name in ("user", "password"):
        (tmp_path / name).write_text(f"the {name}\n")
    given = {f"INVOKER_NATS_{name.upper()}_FILE": str(tmp_path / name) for name in ("user", "password")}
    options = connection_options(environ=environ | given)
    assert (options.user, options.password) == ("the user", "the password")


def test_a_secret_file_that_cannot_be_read_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    variable = "INVOKER_NATS_PASSWORD_FILE"
    with pytest.raises(SettingsError, match=f"{variable}: .*nowhere"):
        connection_options(environ=environ | {variable: str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    "given",
    [{"context": "absent"}, {"environ": {"NATS_CONTEXT": "absent"}}, {"environ": {"INVOKER_NATS_CONTEXT": "absent"}}],
)
def test_a_context_that_does_not_exist_is_an_error(environ: dict[str, str], given: Mapping[str, Any]) -> None:
    arguments = dict(given)
    extra = arguments.pop("environ", {})
    with pytest.raises(SettingsError, match="no nats context 'absent'"):
        connection_options(environ=environ | extra, **arguments)


@pytest.mark.parametrize("name", ["../secret", "a/b", ".hidden"])
def test_a_context_name_is_no_path(environ: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match="not the name of a nats context"):
        connection_options(context=name, environ=environ)


@pytest.mark.parametrize("content", ["{", "[1]", '{"url": 7}'])
def test_a_context_that_cannot_be_read_is_named(
    environ: dict[str, str], context: WriteContext, tmp_path: Path, content: str
) -> None:
    context("bad")
    (tmp_path / "config" / "nats" / "context" / "bad.json").write_text(content)
    with pytest.raises(SettingsError, match=r"bad\.json"):
        connection_options(context="bad", environ=environ)


def test_where_dev_keeps_its_state() -> None:
    assert default_state_dir({"INVOKER_STATE": "/s"}) == Path("/s")
    assert default_state_dir({"XDG_STATE_HOME": "/x", "HOME": "/h"}) == Path("/x/invoker/dev")
    assert default_state_dir({"HOME": "/h"}) == Path("/h/.local/state/invoker/dev")


def test_a_running_dev_is_found_where_it_keeps_its_state(environ: dict[str, str], dev: Callable[[int], Path]) -> None:
    state = dev(os.getpid())
    assert connection_options(environ=environ | {"INVOKER_STATE": str(state)}).url == "nats://127.0.0.1:5001"


def test_a_state_that_is_named_and_has_no_dev_is_not_passed_over(
    environ: dict[str, str], context: WriteContext, dev: Callable[[int], Path]
) -> None:
    named = environ | {"INVOKER_STATE": str(dev(ended_pid()))}
    with pytest.raises(ServerUnreachableError, match=f"no `invoker dev` runs on .*={named['INVOKER_STATE']}"):
        client_options(environ=named)
    assert client_options(environ=named | {"NATS_URL": "nats://a:1"}).url == "nats://a:1"
    context("here", select=True, url="nats://context:1")
    assert client_options(environ=named).url == "nats://context:1"


def test_instance_names() -> None:
    assert instance_names({}).events_stream == "INVOKER_EVENTS"
    names = instance_names({"INVOKER_INSTANCE": "blue", "INVOKER_TOPIC_PREFIX": "shop.events"})
    assert (names.accepted("x"), names.event("a")) == ("blue.accepted.x", "shop.events.a")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("INVOKER_INSTANCE", "Blue!"), ("INVOKER_TOPIC_PREFIX", "a..b"), ("INVOKER_TOPIC_PREFIX", "invoker.x")],
)
def test_unusable_instance_names_are_settings(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        instance_names({variable: value})
    assert caught.value.message.startswith(f"{variable}: ")
