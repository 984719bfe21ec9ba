"""Which API server, and as whom: kubeconfigs, exec plugins, service accounts, and what is said of broken ones."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from invoker.errors import EngineUnavailableError, SettingsError
from tests.cluster.certificates import Identity, make_certificates
from trigger.kubernetes_engine.access import OpenAccess
from trigger.kubernetes_engine.credentials import ClusterAccess, read_credentials, uses_service_account

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubeconfigs") / "authority"
    make_certificates(folder, (Identity("user", "somebody", ("people",)), Identity("other", "somebody-else")))
    return folder


@pytest.fixture
def write(tmp_path: Path, authority: Path) -> Write:
    """Writes a kubeconfig: of one user, with a cluster, as given."""

    def written(user: dict[str, Any], *, cluster: dict[str, Any] | None = None, **context: Any) -> Path:
        known = {"server": "https://127.0.0.1:1/", "certificate-authority": str(authority / "ca.crt")}
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": known | (cluster or {})}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **context}}],
        }  # fmt: skip
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(content))
        return file

    return written


def plugin(folder: Path, script: str) -> dict[str, Any]:
    """A user whose credentials come from a program."""
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program)}}


def credential(**status: str) -> str:
    document = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"echo '{json.dumps(document)}'"


async def test_a_token(write: Write) -> None:
    found = await read_credentials(ClusterAccess(kubeconfig=write({"token": "abc"}, namespace="team")))
    assert (found.server, found.namespace, found.authorization) == ("https://127.0.0.1:1", "team", "Bearer abc")


async def test_a_token_file_is_read_anew(write: Write, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    access = ClusterAccess(kubeconfig=write({"tokenFile": "token"}))  # seen from the kubeconfig
    first = await read_credentials(access)
    (tmp_path / "token").write_text("two\n")
    second = await read_credentials(access)
    assert (first.authorization, second.authorization) == ("Bearer one", "Bearer two")
    assert first.identity == second.identity
    assert tmp_path / "token" in first.files


async def test_a_client_certificate_is_part_of_the_connection(write: Write, authority: Path) -> None:
    mine = {"client-certificate": str(authority / "user.crt"), "client-key": str(authority / "user.key")}
    others = {"client-certificate": str(authority / "other.crt"), "client-key": str(authority / "other.key")}
    first = await read_credentials(ClusterAccess(kubeconfig=write(mine)))
    again = await read_credentials(ClusterAccess(kubeconfig=write(mine)))
    second = await read_credentials(ClusterAccess(kubeconfig=write(others)))
    assert first.identity == again.identity != second.identity
    assert first.authorization is None


async def test_the_namespace_is_the_settings_then_the_contexts_then_default(write: Write) -> None:
    file = write({"token": "t"}, namespace="team")
    assert (await read_credentials(ClusterAccess(kubeconfig=file, namespace="mine"))).namespace == "mine"
    assert (await read_credentials(ClusterAccess(kubeconfig=file))).namespace == "team"
    assert (await read_credentials(ClusterAccess(kubeconfig=write({"token": "t"})))).namespace == "default"


async def test_a_program_gives_a_token_and_its_end(write: Write, tmp_path: Path) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    script = credential(token="from-plugin", expirationTimestamp=end.strftime("%Y-%m-%dT%H:%M:%SZ"))
    found = await read_credentials(ClusterAccess(kubeconfig=write(plugin(tmp_path, script))))
    assert (found.authorization, found.expires_at) == ("Bearer from-plugin", end)


async def refused(access: ClusterAccess) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        await read_credentials(access)
    return error.value


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = await refused(ClusterAccess(kubeconfig=tmp_path / "none"))
    assert error.message == f"INVOKER_KUBECONFIG: there is no file {tmp_path / 'none'}"
    assert error.hint


@pytest.mark.parametrize(
    "text", ["", "just words", "[1, 2]", "a: [", "{}", "clusters: 3", "\x00", "current-context: x"]
)
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    error = await refused(ClusterAccess(kubeconfig=file))
    assert error.message.startswith(f"INVOKER_KUBECONFIG: {file}: ")
    assert "\n" not in error.message


async def test_a_context_that_is_not_there_is_told_with_those_that_are(write: Write) -> None:
    error = await refused(ClusterAccess(kubeconfig=write({"token": "t"}), context="prod"))
    assert "has no context 'prod'" in error.message
    assert error.hint == "set INVOKER_KUBE_CONTEXT; it has: here"


async def test_a_ca_that_is_not_there(write: Write) -> None:
    error = await refused(ClusterAccess(kubeconfig=write({"token": "t"}, cluster={"certificate-authority": "/no/ca"})))
    assert "/no/ca" in error.message


async def test_a_ca_that_is_no_certificate(write: Write, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    error = await refused(ClusterAccess(kubeconfig=write({"token": "t"}, cluster={"certificate-authority": "ca"})))
    assert "certificates cannot be used" in error.message


async def test_a_program_that_is_not_there(write: Write) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login"}}
    error = await refused(ClusterAccess(kubeconfig=write(user)))
    assert "the program 'no-such-login'" in error.message.replace("come from ", "")
    assert "cannot be started" in error.message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'session expired, log in' >&2; exit 1", "session expired"),
        ("echo nothing", "failed to decode"),
        (credential(), "neither a token nor a certificate"),
    ],
)
async def test_a_program_that_gives_nothing_may_do_so_later(
    write: Write, tmp_path: Path, script: str, words: str
) -> None:
    with pytest.raises(EngineUnavailableError) as error:
        await read_credentials(ClusterAccess(kubeconfig=write(plugin(tmp_path, script))))
    assert words in error.value.message


def test_a_named_kubeconfig_wins_over_a_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    assert uses_service_account(ClusterAccess(service_account=tmp_path))
    assert not uses_service_account(ClusterAccess(service_account=tmp_path, kubeconfig=tmp_path / "k"))
    assert not uses_service_account(ClusterAccess(service_account=tmp_path, context="c"))
    assert not uses_service_account(ClusterAccess(service_account=tmp_path, in_cluster=False))
    assert not uses_service_account(ClusterAccess(service_account=tmp_path / "none"))
    assert uses_service_account(ClusterAccess(kubeconfig=tmp_path / "k", in_cluster=True))


async def test_a_service_account(tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "namespace").write_text("team\n")
    (tmp_path / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    found = await read_credentials(ClusterAccess(service_account=tmp_path))
    assert (found.server, found.namespace) == ("https://[fd00::1]:6443", "team")
    assert found.authorization is not None
    assert found.authorization.lower() == "bearer t"


async def test_no_service_account_where_one_is_wanted(tmp_path: Path) -> None:
    error = await refused(ClusterAccess(in_cluster=True, service_account=tmp_path))
    assert error.message.startswith("INVOKER_IN_CLUSTER: the service account in ")
    assert "INVOKER_KUBECONFIG" in (error.hint or "")


async def test_a_program_is_asked_again_only_near_the_end(write: Write, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; " + credential(token="t", expirationTimestamp="2999-01-01T00:00:00Z")
    access = ClusterAccess(kubeconfig=write(plugin(tmp_path, script)), look_again_seconds=0.0)
    async with OpenAccess(access, "test") as opened:
        for _ in range(3):
            await opened.leave(await opened.enter())
        assert count.read_text() == "x\n"
        assert await opened.renew(opened.generation) is False  # refused, and the program says the same again
        assert await opened.renew(opened.generation) is False  # asked a moment ago
        assert count.read_text() == "x\nx\n"


async def test_a_broken_file_leaves_the_old_credentials_in_use(write: Write, tmp_path: Path) -> None:
    file = write({"token": "good"})
    async with OpenAccess(ClusterAccess(kubeconfig=file, look_again_seconds=0.0), "test") as opened:
        file.write_text("{half")
        await opened.leave(await opened.enter())
        assert opened.authorization == {"Authorization": "Bearer good"}
        write({"token": "better"})
        await opened.leave(await opened.enter())
        assert opened.authorization == {"Authorization": "Bearer better"}


async def test_a_session_is_closed_when_its_last_call_has_ended(write: Write, authority: Path) -> None:
    file = write({"token": "t"})
    async with OpenAccess(ClusterAccess(kubeconfig=file, look_again_seconds=0.0), "test") as opened:
        old = await opened.enter()
        write({"token": "t"}, cluster={"tls-server-name": "api.example"})
        new = await opened.enter()
        assert new is not old
        assert new.options["server_hostname"] == "api.example"
        assert not old.calls.closed
        await opened.leave(old)
        assert old.calls.closed
        await opened.leave(new)
        assert not new.calls.closed


def test_nothing_of_the_library_is_loaded_before_it_is_needed() -> None:
    code = (
        "import trigger.kubernetes_engine.api, sys; print([m for m in sys.modules if m.split('.')[0] == 'kubernetes'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_models_are_loaded_at_all(write: Write) -> None:
    file = write({"token": "t"})
    code = f"""
import asyncio, sys
from pathlib import Path
from trigger.kubernetes_engine.credentials import ClusterAccess, read_credentials
asyncio.run(read_credentials(ClusterAccess(kubeconfig=Path({str(file)!r}))))
print([m for m in sys.modules if m.startswith('kubernetes') and '.models.' in m])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
