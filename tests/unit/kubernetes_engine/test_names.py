"""Names and labels in a cluster: legal for every accepted instance, function and request, and found again."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import TopicError
from tests.unit.kubernetes_engine.objects import JOBS, recorded_job, recorded_pod
from tests.unit.test_function_file import folder as no_folder
from tests.unit.test_function_file import read_functions
from trigger.kubernetes_engine import names
from trigger.pod_names import DNS_LABEL, LABEL_VALUE

LONGEST_INSTANCE = "i" * 31
LONGEST_FUNCTION = "f" * 63
RUN_ID = wire.run_id_of("request", "function")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
"""A label's value as Kubernetes writes it down, besides its 63 characters."""


def is_legal_label(text: str) -> bool:
    return len(text) <= 63 and LABEL.fullmatch(text) is not None


# names of objects


def test_the_longest_names_fit() -> None:
    """Pods carry their Job's name as a label, and are named after it: Kubernetes keeps 58 characters and adds 5."""
    job = names.job_name(LONGEST_INSTANCE, RUN_ID)
    assert (len(job), len(RUN_ID)) == (58, 26)
    assert len(names.code_name(LONGEST_INSTANCE, "h" * 26)) == 63
    for name in (job, names.code_name(LONGEST_INSTANCE, "h" * 26)):
        assert DNS_LABEL.fullmatch(name)


@settings(deadline=None)
@given(st.from_regex(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True), st.text(), st.text())
def test_every_jobs_name_is_legal_and_its_own(instance: str, request_id: str, function: str) -> None:
    run_id = wire.run_id_of(*(text.encode("utf-8", "replace").decode() for text in (request_id, function)))
    name = names.job_name(instance, run_id)
    assert DNS_LABEL.fullmatch(name)
    assert name == f"{instance}-{run_id}"
    assert name.rpartition("-")[2] == run_id, "the run is read off its Job"


def test_no_job_has_the_name_of_anothers() -> None:
    """Not even with an instance whose name begins as another's does: a run id has no '-'."""
    instances = ["a", "a-b", "a-code", "ab"]
    runs = [wire.run_id_of(str(number), "f") for number in range(20)]
    made = [names.job_name(instance, run) for instance in instances for run in runs]
    made += [names.code_name(instance, run) for instance in instances for run in runs]
    assert len(set(made)) == len(made) - len(runs), "of another kind only: code of `a` and Jobs of `a-code`"


# labels


@settings(deadline=None)
@given(
    st.text()
    | st.text(st.sampled_from("aA0-_. \n/é"), max_size=66)
    | st.from_regex(r"[-A-Za-z0-9_.]{60,66}", fullmatch=True)
)
@example("")
@example("a" * 63)
@example("a" * 64)
@example("a\n")
@example("²")
@example("٣")
@example("-a")
@example("a.")
def test_what_is_a_label_value(text: str) -> None:
    assert names.is_label_value(text) == (text != "" and is_legal_label(text))
    assert names.is_label_value(text) == (text != "" and LABEL_VALUE.fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("request_id", "is_label"),
    [
        ("request-1", True), ("0", True), ("A" * 63, True), ("a_b-c", True), ("A" * 64, False), ("-a", False),
        ("a-", False), ("_a", False), ("", False),
    ],
)  # fmt: skip
def test_a_request_id_is_a_label_where_it_may_be(request_id: str, is_label: bool) -> None:
    found = names.labels("mine", "convert", RUN_ID, request_id)
    expected = {
        "app.kubernetes.io/managed-by": "invoker",
        "invoker.dev/instance": "mine",
        "invoker.dev/function": "convert",
        "invoker.dev/run": RUN_ID,
    }
    assert found == expected | ({"invoker.dev/request": request_id} if is_label else {})


@settings(deadline=None)
@given(st.none() | st.text() | st.from_regex(r"[-A-Za-z0-9_]{1,64}", fullmatch=True))
def test_whatever_id_a_publisher_gives_the_labels_are_legal(message_id: str | None) -> None:
    """An id is plain, or hashed before it comes near a Job: dots, spaces, Unicode and 1 MB are all hashed."""
    given_id = message_id.encode("utf-8", "replace").decode() if message_id else message_id
    stored_at = wire.datetime(2026, 1, 2, tzinfo=wire.UTC)
    request_id = wire.request_id_of(given_id, stream="S", created="c", sequence=1, stored_at=stored_at)
    assert wire.is_plain_id(request_id)
    for function in ("f", LONGEST_FUNCTION):
        found = names.labels(LONGEST_INSTANCE, function, wire.run_id_of(request_id, function), request_id)
        assert all(is_legal_label(value) for value in found.values())


# names of functions

LEGAL_FUNCTIONS = ["a", "0", "a-b", "a--b", "1st", LONGEST_FUNCTION]
ILLEGAL_FUNCTIONS = [
    "", "-a", "a-", "a.b", "a_b", "A", "aB", "a b", "a/b", "ä", "ﬀ", "²", "٣", "a\n", "a\0", "f" * 64, "{{topic}}",
    "../a", "a;b", "\u202ea", "\U0001f600",
]  # fmt: skip


@pytest.mark.parametrize("name", LEGAL_FUNCTIONS)
def test_names_of_functions_are_labels(name: str) -> None:
    assert wire.check_function_name(name) == name
    assert is_legal_label(name)


@pytest.mark.parametrize("name", ILLEGAL_FUNCTIONS)
def test_what_is_no_name_of_a_function_is_refused_in_words(name: str) -> None:
    with pytest.raises(TopicError, match=r"must be 1 to 63 of a-z, 0-9 and inner '-'") as refused:
        wire.check_function_name(name)
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("name", [*LEGAL_FUNCTIONS, *ILLEGAL_FUNCTIONS])
def test_a_functions_file_says_the_same(name: str) -> None:
    text = (
        '{"apiVersion": "invoker.dev/v1alpha1", "kind": "Function", "metadata": {"name": %s}, "spec": {"image": "x"}}'
    )
    written = '"' + "".join(f"\\U{ord(one):08x}" for one in name) + '"'
    found = read_functions((text % written).encode(), "a/function.yaml", no_folder())
    if name in LEGAL_FUNCTIONS:
        assert [one.name for one in found.functions] == [name]
    else:
        [broken] = found.broken
        assert found.functions == ()
        assert "must be 1 to 63 of a-z, 0-9 and inner '-'" in broken.message


@settings(deadline=None)
@given(st.text(max_size=70))
def test_every_accepted_name_is_a_label_and_a_subject(name: str) -> None:
    try:
        wire.check_function_name(name)
    except TopicError:
        return
    assert DNS_LABEL.fullmatch(name)
    wire.check_topic(name)


# selectors


def matches(selector: str, labels: dict[str, str]) -> bool:
    """Kubernetes' equality-based selection."""
    return all(labels.get(key) == value for key, _, value in (one.partition("=") for one in selector.split(",")))


def test_selectors_find_what_is_ours_and_nothing_else() -> None:
    ours = names.labels("mine", "convert", RUN_ID, "request")
    assert matches(names.selector("mine"), ours)
    assert matches(names.selector("mine", RUN_ID), ours)
    others = [
        names.labels("mine2", "convert", RUN_ID, "request"),
        names.labels("min", "convert", RUN_ID, "request"),
        {**ours, names.MANAGED_BY: "Helm"},
        {key: value for key, value in ours.items() if key != names.MANAGED_BY},
        {},
    ]
    assert not any(matches(names.selector("mine"), labels) for labels in others)
    assert not matches(names.selector("mine", wire.run_id_of("another", "convert")), ours)


@pytest.mark.parametrize("name", JOBS)
def test_selectors_find_recorded_objects(name: str) -> None:
    metadata = recorded_job(name)["metadata"]
    run_id = metadata["annotations"][names.RUN]
    assert matches(names.selector("invoker", run_id), metadata["labels"])
    assert metadata["name"] == names.job_name("invoker", run_id)


def test_selectors_find_recorded_pods() -> None:
    metadata = recorded_pod("running")["metadata"]
    assert matches(names.selector("invoker", metadata["labels"][names.RUN]), metadata["labels"])
    assert metadata["name"].startswith(names.job_name("invoker", metadata["labels"][names.RUN]))
