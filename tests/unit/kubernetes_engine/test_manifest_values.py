"""A plan as its Job: no value of a request leaves its place, and none is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import InvokerError, SchemaViolationError, StartRefusedError
from invoker.request import Content, RequestRecord
from tests.unit.kubernetes_engine.planned_jobs import NOW, POLICY, RUN_ID, env, made, plan
from tests.unit.test_function_file import read
from trigger.function import Function
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.manifest import escaped
from trigger.kubernetes_engine.policy import MAX_JOB_BYTES, refusals
from trigger.plan import Code, RunPlan
from trigger.planning import plan_run

# what the kubelet makes of a text

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\)?)", re.DOTALL)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """The text as a container gets it (Kubernetes, dependent environment variables): `$$` is `$`, `$(NAME)` is the
    variable where there is one."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0]) if match[0].endswith(")") else match[0]

    return _REFERENCE.sub(one, text)


# no value leaves its place

TOKEN, TOPIC = "harmless-text", "harmless-topic"
CASES: dict[str, dict[str, Any]] = {
    "settings": {
        "image": "image:1",
        "command": ["tool", "{{params.text}}"],
        "args": ["--x={{params.text}}", "$(HOME)"],
        "pod": {
            "annotations": {"note": "by {{params.text}} in {{topic}}"},
            "initContainers": [
                {
                    "name": "prepare",
                    "image": "i:1",
                    "command": ["tool", "{{params.text}}"],
                    "env": [{"name": "A", "value": "{{params.text}}"}],
                }
            ],
        },
    },
    "job": {
        "job": {
            "template": {
                "metadata": {"annotations": {"note": "{{params.text}}"}},
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": "own:1",
                            "command": ["tool"],
                            "args": ["{{params.text}}", "a{{request.id}}"],
                            "env": [{"name": "B", "value": "{{params.text}}{{topic}}"}],
                        }
                    ]
                },
            }
        },
    },
}
COMMON: dict[str, Any] = {
    "parameters": [{"name": "text", "schema": {"type": "string"}}],
    "input": {"as": "file"},
    "env": [
        {"name": "TEXT", "value": "{{params.text}}"},
        {"name": "BOTH", "value": "<{{params.text}}|{{topic}}>"},
        {"name": "PLAIN", "value": "$(HOME) $$ costs"},
    ],
}


@cache
def function(case: str) -> Function:
    """The function as it is read from its file, with a request's values wherever they may stand."""
    return read("".join(f"  {key}: {json.dumps(value)}\n" for key, value in (COMMON | CASES[case]).items()))


def planned(case: str, text: str, topic: str = TOPIC, request_id: str = "request-1") -> RunPlan:
    record = RequestRecord(
        request_id=request_id,
        topic=topic,
        received_at=NOW,
        accepted_at=NOW,
        sha256="0" * 64,
        catalog="ca" * 16,
        root_request_id=request_id,
        params={"text": text},
        headers={"X-Any": "any"},
        body=Content.inline(b"any"),
    )
    return plan_run(
        function(case),
        record,
        run_id=RUN_ID,
        body=None,
        run_url="http://10.0.0.5/run",
        run_token="secret",
        catalog="ca" * 16,
        deadline_at=NOW + timedelta(days=1),
        output_limit_bytes=5,
    )


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of the object with its place; empty containers are leaves too."""
    if tree and isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif tree and isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree


def is_expanded(path: tuple[Any, ...]) -> bool:
    return any(part in ("containers", "initContainers") for part in path)


def assert_only_that_text_differs(case: str, text: str, topic: str) -> None:
    """The Job of a request with these values is the Job of a harmless one, with the values in the harmless ones' place;
    what the kubelet makes of them is what was given."""
    harmless = dict(leaves(made(planned(case, TOKEN, TOPIC))))
    found = dict(leaves(made(planned(case, text, topic))))
    assert list(found) == list(harmless), "the same tree"
    places, parts = 0, {TOKEN: text, TOPIC: topic}
    for path, before in harmless.items():
        if not isinstance(before, str) or (TOKEN not in before and TOPIC not in before):
            assert found[path] == before
            continue
        places += 1
        here = found[path]
        if is_expanded(path):
            here, before = (expanded(one, {"HOME": "/home", "A": "leaked"}) for one in (here, before))
        if before == f'{{"text":"{TOKEN}"}}':
            assert json.loads(here) == {"text": text}
        else:
            assert here == "".join(parts.get(part, part) for part in re.split(f"({TOKEN}|{TOPIC})", before))
    assert places >= 8


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NASTY = [
    "", " ", "'", '"', "\\", "a\nb", "\r\n", "\t", "\x01\x1b[31m", "\x7f", "\u2028\u2029\u0085", "\ufeff", "\U0001f600",
    "}}", "{{topic}}", "{{params.text}}", "{{", "$(INVOKER_RUN_TOKEN)", "$$(HOME)", "$(A)", "$", "$$$", "$(", "$()",
    "- a: b\n  c: &x *x", "--- !!python/object:os.system\n...", "null", "true", "1", "~", "key: value", "# no",
    "| \n x",
    '"}],"hostNetwork":true,"x":[{"y":"', "'; rm -rf / #", "`id`", "\\u0000", "\\ud800", "%s%n", "‮abc", "e\u0301",
]  # fmt: skip
TOPICS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=60).filter(
    lambda text: _is_topic(text)
)


def _is_topic(text: str) -> bool:
    try:
        wire.check_topic(text)
    except InvokerError:
        return False
    return True


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", NASTY)
def test_nasty_values_stay_in_their_place(case: str, text: str) -> None:
    assert_only_that_text_differs(case, text, "a.b")


@settings(deadline=None)
@given(st.sampled_from(sorted(CASES)), TEXTS | st.sampled_from(NASTY), TOPICS)
@example("settings", "x", "{{params.text}}")
@example("job", "{{topic}}", "$(A).'\"{}[]&*!|")
def test_any_value_stays_in_its_place(case: str, text: str, topic: str) -> None:
    if _is_topic(topic):
        assert_only_that_text_differs(case, text, topic)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["team", "a/b", "note"]), TEXTS | st.sampled_from(NASTY)), TEXTS)
def test_environment_and_labels_of_a_plan_stay_in_their_place(labels: dict[str, str], value: str) -> None:
    """Whatever a plan holds: its labels and variables are leaves, and a label that is none is refused."""
    before = made(plan(labels=dict.fromkeys(labels, "x"), env={"A": "x"}))
    found = made(plan(labels=labels, env={"A": value}))
    assert [path for path, _ in leaves(found)] == [path for path, _ in leaves(before)]
    assert env(found)["A"] == escaped(value)
    assert labels.items() <= found["metadata"]["labels"].items()
    legal = all(label == "" or names.is_label_value(label) for label in labels.values())
    assert (refusals(found, POLICY) == []) == legal


@settings(deadline=None)
@given(st.text() | st.sampled_from(NASTY))
def test_every_text_arrives_as_it_was(text: str) -> None:
    assert expanded(escaped(text), {"HOME": "leaked", "A": "leaked", "": "leaked"}) == text


SURROGATES = ["\ud800", "a\udfffb", "\udc80"]


@pytest.mark.parametrize("text", SURROGATES)
def test_half_a_character_is_refused_in_words(text: str) -> None:
    for of in (
        plan(env={"A": text}),
        plan(code=Code(image="i", command=("a", text))),
        plan(pod={"settings": {"annotations": {"note": text}}}),
        plan(topic=text),
    ):
        with pytest.raises(StartRefusedError, match="not valid Unicode") as refused:
            made(of)
        assert refused.value.fields["reason"] == "config"
        assert refused.value.message.isprintable()
    with pytest.raises(SchemaViolationError, match="surrogates not allowed"):
        planned("settings", text)


def test_a_nul_is_refused_in_words() -> None:
    with pytest.raises(InvokerError, match="NUL"):
        planned("settings", "a\0b")
    [found] = refusals(made(plan(env={"A": "a\0b"})), POLICY)
    assert found.endswith("value: has a NUL character")


def test_a_megabyte_is_refused_in_words() -> None:
    assert "is longer than 262144 characters" in refusals(made(plan(env={"A": "x" * 300_000})), POLICY)[0]
    for of in (plan(env={"A": "x" * MAX_JOB_BYTES}), plan(env={str(n): "é" * 100_000 for n in range(6)})):
        with pytest.raises(
            StartRefusedError, match=r"the Job of function convert has 1\d+ bytes; at most 1048576 "
        ) as no:
            made(of)
        assert no.value.fields["reason"] == "refused"
    empty = len(json.dumps(made(plan(env={"A": ""})), separators=(",", ":")))
    assert made(plan(env={"A": "x" * (MAX_JOB_BYTES - empty)}))
    with pytest.raises(StartRefusedError):
        made(plan(env={"A": "x" * (MAX_JOB_BYTES - empty + 1)}))
