"""The controller's settings: where they come from, what is refused, and that every refusal names its setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from invoker import wire
from invoker.errors import SettingsError
from trigger.settings import ControllerSettings, load_settings, nats_options


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ)
    assert refused.value.exit_code == 2
    return refused.value.message


def test_the_defaults() -> None:
    settings = load_settings({})
    assert settings == ControllerSettings()
    assert settings.names == wire.Names()
    assert settings.stream_limits.retention_seconds == 172_800
    assert (settings.ack_wait_seconds, settings.heartbeat_seconds) == (10, 3)
    assert settings.reply_subjects == wire.DEFAULT_REPLY_SUBJECTS


def test_environment_over_file_over_defaults_and_given_over_all(tmp_path: Path) -> None:
    file = tmp_path / "invoker.toml"
    file.write_text("max_running = 5\naudit_seconds = 5\nhttp_port = 5\n")
    environ = {"INVOKER_CONFIG": str(file), "INVOKER_AUDIT_SECONDS": "6", "INVOKER_HTTP_PORT": "6", "OTHER": "x"}
    settings = load_settings(environ, http_port=7)
    assert (settings.max_running, settings.audit_seconds, settings.http_port) == (5, 6, 7)


def test_a_value_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret\n")
    settings = load_settings({"INVOKER_RUN_TOKEN_KEY_FILE": str(secret)})
    assert settings.token_key() == b"s3cret"


def test_lists_are_separated_by_commas() -> None:
    settings = load_settings({"INVOKER_REPLY_SUBJECTS": "_INBOX.>, answers.* ,"})
    assert settings.reply_subjects == ("_INBOX.>", "answers.*")


def test_a_number_of_copies_comes_as_text() -> None:
    assert load_settings({"INVOKER_REPLICAS": "3"}).stream_limits.replicas == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETENTION_SECONDS", "abc"),
        ("RETENTION_SECONDS", "0"),
        ("HTTP_PORT", "70000"),
        ("MAX_RUNNING", "0"),
        ("REPLICAS", "2"),
        ("ENGINE", "docker"),
        ("LOG_LEVEL", "loud"),
        ("SOLE_CONTROLLER", "perhaps"),
        ("AUDIT_SECONDS", "-1"),
        ("TEST_CRASH_AT", "nowhere"),
    ],
)
def test_a_refusal_begins_with_the_settings_name(name: str, value: str) -> None:
    message = refusal(**{f"INVOKER_{name}": value})
    assert message.startswith(f"INVOKER_{name}: ")
    assert repr(value) in message


@pytest.mark.parametrize("value", [">", "*", "*.x", "$JS.>", "$SYS.x", "a..b", "a.>.b", "with space"])
def test_reply_subjects_that_would_be_weapons(value: str) -> None:
    assert "INVOKER_REPLY_SUBJECTS" in refusal(INVOKER_REPLY_SUBJECTS=value)


@pytest.mark.parametrize(
    "environ",
    [
        {"INVOKER_REPLY_SUBJECTS": "events.>"},
        {"INVOKER_REPLY_SUBJECTS": "invoker.result.>"},
        {"INVOKER_REPLY_SUBJECTS": "others.x", "INVOKER_TOPIC_PREFIX": "others.deep"},
        {"INVOKER_REPLY_SUBJECTS": "mine.x", "INVOKER_INSTANCE": "mine"},
    ],
)
def test_replies_may_not_become_events_or_results(environ: dict[str, str]) -> None:
    assert "INVOKER_REPLY_SUBJECTS" in refusal(**environ)


def test_settings_that_do_not_fit_together_name_both() -> None:
    message = refusal(INVOKER_ACK_WAIT_SECONDS="5")
    assert "INVOKER_HEARTBEAT_SECONDS (3)" in message
    assert "INVOKER_ACK_WAIT_SECONDS (5)" in message
    assert load_settings({"INVOKER_ACK_WAIT_SECONDS": "6"}).ack_wait_seconds == 6


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"INVOKER_INSTANCE": "Big"}, "instance name 'Big'"),
        ({"INVOKER_TOPIC_PREFIX": "a..b"}, "empty token"),
        ({"INVOKER_TOPIC_PREFIX": "invoker.x"}, "instance's own name"),
    ],
)
def test_names_that_are_no_names(environ: dict[str, str], words: str) -> None:
    assert words in refusal(**environ)


def test_several_refusals_are_told_at_once() -> None:
    message = refusal(INVOKER_RETENTION_SECONDS="abc", INVOKER_MAX_RUNNING="x")
    assert "INVOKER_RETENTION_SECONDS: " in message
    assert "INVOKER_MAX_RUNNING: " in message


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    settings = load_settings({"INVOKER_RUN_TOKEN_KEY": "s3cret"})
    assert "s3cret" not in repr(settings)
    options = nats_options({"NATS_URL": "nats://user:s3cret@host:4222", "NATS_TOKEN": "t0ken"})
    assert "s3cret" not in options.shown
    assert "t0ken" not in repr(options)
    with pytest.raises(SettingsError) as refused:
        load_settings({}, run_token_key=["s3cret"])
    assert "s3cret" not in refused.value.message
    assert "INVOKER_RUN_TOKEN_KEY" in refused.value.message


@pytest.mark.parametrize(
    ("text", "words"), [("max_runing = 5", "unknown setting max_runing"), ("[", "is not TOML"), ("a = ", "is not TOML")]
)
def test_a_settings_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "invoker.toml"
    file.write_text(text)
    message = refusal(INVOKER_CONFIG=str(file))
    assert message.startswith(f"INVOKER_CONFIG: {file}")
    assert words in message


def test_files_that_are_not_there() -> None:
    assert "INVOKER_CONFIG: /nowhere cannot be read" in refusal(INVOKER_CONFIG="/nowhere")
    assert "INVOKER_RUN_TOKEN_KEY_FILE: /nowhere" in refusal(INVOKER_RUN_TOKEN_KEY_FILE="/nowhere")


def test_without_a_key_every_process_has_its_own() -> None:
    assert load_settings({}).token_key() != load_settings({}).token_key()
