"""What answers of an API server mean, on answers that one gave (`recorded/`, Kubernetes 1.36.3)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trigger.kubernetes_engine.failures import (
    MAX_SENTENCE,
    ApiFailure,
    LogTrouble,
    failure_of,
    is_already_there,
    is_gone,
    is_namespace_terminating,
    is_quota,
    is_transient,
    log_trouble,
    no_answer,
    refused_for_good,
    sentence,
)

RECORDED = Path(__file__).parent / "recorded"
NAMES = sorted(file.stem for file in RECORDED.glob("[0-9]*.json") if file.stem != "410_watch_event")


def recorded(name: str, retry_after: str | None = None) -> ApiFailure:
    return failure_of(int(name[:3]), (RECORDED / f"{name}.json").read_bytes(), retry_after)


TRANSIENT = {"401", "409_conflict", "500_webhook", "500_log_dead_node"}


@pytest.mark.parametrize("name", NAMES)
def test_which_answers_may_change_by_themselves(name: str) -> None:
    assert is_transient(recorded(name)) == (name in TRANSIENT)


@pytest.mark.parametrize(
    ("status", "transient"),
    [(0, True), (408, True), (429, True), (502, True), (400, False), (404, False), (413, False)],
)
def test_which_other_statuses_may_change_by_themselves(status: int, transient: bool) -> None:
    assert is_transient(ApiFailure(status)) == transient


@pytest.mark.parametrize("name", NAMES)
def test_each_question_is_true_of_its_own_answers_only(name: str) -> None:
    failure = recorded(name)
    assert is_already_there(failure) == (name == "409_already_exists")
    assert is_quota(failure) == (name == "403_quota")
    assert is_namespace_terminating(failure) == (name == "403_namespace_terminating")
    assert is_gone(failure) == (name == "410_continue")


SENTENCES = {
    "400_strict_decoding": 'the Job of f: Kubernetes does not know it so: unknown field "spec.template.spec.'
    'containers[0].imagge"',
    "401": "the Job of f: the API server does not accept Invoker's credentials; renew its kubeconfig or "
    "service account token",
    "403_namespace_terminating": "the Job of f: the namespace tt is being deleted",
    "403_quota": "the Job of f: the namespace's quota 'few' is used up: it needs count/jobs.batch=1, "
    "count/jobs.batch=0 of count/jobs.batch=0 is in use",
    "403_rbac": "the Job of f: system:serviceaccount:t1:nobody may not create jobs in namespace t1; its Role "
    "lacks that right",
    "404_namespace": 'the Job of f: Kubernetes refused it with 404: namespaces "notthere" not found',
    "409_already_exists": "the Job of f: an object of that name exists",
    "422_admission_policy": "the Job of f: the cluster's policy 'no-latest' refused it: images must come from "
    "registry.corp.example",
    "422_invalid": 'the Job of f: Kubernetes refused it: metadata.name: Invalid value: "J_2": a lowercase '
    "RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'example.com'); spec.template.spec.containers[0].image: Required value; "
    'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
    "500_webhook": "the Job of f: the cluster's admission webhook gate.corp.example does not work (failed to "
    'call webhook: Post "https://127.0.0.1:1/x?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused)',
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_refusal_is_told_in_words(name: str) -> None:
    assert sentence(recorded(name), "the Job of f") == SENTENCES[name]


def test_pod_security_says_what_to_set() -> None:
    text = sentence(recorded("403_pod_security"), "the pod")
    assert text.startswith("the pod: the namespace's Pod Security level restricted:latest forbids it: ")
    assert "securityContext.allowPrivilegeEscalation=false" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_is_one_line_of_bounded_length(name: str) -> None:
    text = sentence(recorded(name), "the Job of f")
    assert len(text) <= MAX_SENTENCE
    assert "\n" not in text
    assert "{" not in text


def test_a_long_one_is_cut() -> None:
    text = sentence(ApiFailure(422, "Invalid", "x" * 5000), "the Job of f")
    assert len(text) <= MAX_SENTENCE
    assert text.endswith("…")


def test_a_webhook_that_denies_is_named() -> None:
    denied = ApiFailure(403, "Forbidden", 'admission webhook "v.kyverno.example" denied the request: no :latest tags')
    assert sentence(denied, "the Job of f") == (
        "the Job of f: the cluster's admission webhook v.kyverno.example refused it: no :latest tags"
    )
    wordless = ApiFailure(400, "", 'admission webhook "v.example" denied the request without explanation')
    assert "refused it: no reason given" in sentence(wordless, "the Job of f")


def test_no_answer_is_no_refusal() -> None:
    assert sentence(no_answer("no answer in time"), "watching jobs") == (
        "watching jobs: the API server does not answer (no answer in time)"
    )


def test_a_busy_server_is_told_with_its_pause() -> None:
    body = (RECORDED / "429.txt").read_bytes()  # plain text: it has no time for more
    busy = failure_of(429, body, "1")
    assert (busy.status, busy.reason, busy.retry_after_seconds) == (429, "", 1.0)
    assert busy.message == "Too many requests, please try again later."
    assert "asks for a pause of 1 s" in sentence(busy, "the Job of f")


@pytest.mark.parametrize("value", [None, "", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "0", "nan", "1e9", "inf"])
def test_a_pause_that_is_no_number_of_seconds_is_none(value: str | None) -> None:
    assert failure_of(503, b"", value).retry_after_seconds is None


def test_a_pause_may_stand_in_the_answer() -> None:
    body = json.dumps({"kind": "Status", "details": {"retryAfterSeconds": 7}, "message": "m"}).encode()
    assert failure_of(503, body).retry_after_seconds == 7.0


def test_causes_name_their_fields() -> None:
    assert recorded("422_invalid").causes[1:] == (
        "spec.template.spec.containers[0].image: Required value",
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
    )


@pytest.mark.parametrize(
    "body", [b"", b"<html>\n  <h1>Bad Gateway</h1>", b"\xff\xfe", b"[]", b'{"kind":"Pod"}', b"null"]
)
def test_an_answer_of_somebody_else_is_told_in_its_first_words(body: bytes) -> None:
    failure = failure_of(502, body)
    assert (failure.status, failure.reason) == (502, "")
    assert "\n" not in sentence(failure, "the Job of f")


LOGS = {
    "400_log_waiting_image": LogTrouble.NOT_YET,
    "400_log_waiting_config": LogTrouble.NOT_YET,
    "400_log_wrong_container": LogTrouble.GONE,
    "404_log": LogTrouble.GONE,
    "404_log_node_removed": LogTrouble.GONE,
    "500_log_dead_node": LogTrouble.NODE,
    "500_webhook": LogTrouble.OTHER,
    "403_rbac": LogTrouble.OTHER,
    "401": LogTrouble.OTHER,
}


@pytest.mark.parametrize("name", LOGS)
def test_why_a_log_cannot_be_read(name: str) -> None:
    assert log_trouble(recorded(name)) is LOGS[name]


def test_a_log_whose_file_is_gone() -> None:
    text = "unable to retrieve container logs for containerd://0a1b"
    assert log_trouble(ApiFailure(400, "BadRequest", text)) is LogTrouble.GONE


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "a-1" is forbidden: no PriorityClass with name nope was found',
        'Error creating: pods "a-1" is forbidden: error looking up service account ns/x: serviceaccount "x" not found',
        'Error creating: pods "a-1" is forbidden: violates PodSecurity "restricted:latest": privileged',
        'Error creating: admission webhook "policy.example" denied the request: no',
        'Error creating: Pod "a-1" is invalid: spec.containers[0].image: Required value',
    ],
)
def test_a_pod_that_is_never_made(message: str) -> None:
    assert refused_for_good(message) is not None


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
        'Error creating: Internal error occurred: failed calling webhook "x": no endpoints, denied the request',
        'pods "a" is forbidden: unable to create new content in namespace ns because it is being terminated',
        "Error creating: etcdserver: request timed out",
        "",
    ],
)
def test_a_pod_that_may_be_made_later(message: str) -> None:
    assert refused_for_good(message) is None
