"""Each value of the chart has an effect, each refusal its words, and the schema is the whole truth about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from scripts import chart_readme
from tests.chart import test_safety, test_templates_admission, test_templates_nats, test_templates_settings
from tests.chart.helm import CHART
from tests.chart.rendering import NAME, Rendering, the
from tests.chart.value_places import ABSENT, look
from tests.chart.values_cases import CASES, EXTERNAL, SECRET, SHOWN_ELSEWHERE, Case
from tests.chart.whole_values import merged
from tests.docs.transcript import ROOT

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
TENANTS = "tenants"


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every value that has no values of its own, with its part of the schema."""
    for name, part in schema["properties"].items():
        place = f"{path}.{name}" if path else name
        if "properties" in part:
            yield from leaves(part, place)
        else:
            yield place, part


def objects(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object of the schema that lists its keys, also within lists and maps."""
    if "properties" in schema:
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from objects(part, f"{path}.{name}" if path else name)
    for kind in ("items", "additionalProperties"):
        if isinstance(schema.get(kind), Mapping):
            yield from objects(schema[kind], f"{path}[]")


PATHS = [path for path, _ in leaves(SCHEMA) if path != "global"]


def in_values(path: str) -> Any:
    found = VALUES
    for part in path.split("."):
        found = found[part]
    return found


def filled(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of what stands in the file of values, as deep as the schema lists keys."""
    for name, value in values.items():
        place = f"{path}.{name}" if path else name
        if "properties" in schema["properties"].get(name, {}):
            yield from filled(value, schema["properties"][name], place)
        else:
            yield place


def test_file_and_schema_have_the_same_values() -> None:
    assert sorted(filled(VALUES, SCHEMA)) == sorted(PATHS)


def test_every_value_has_a_test() -> None:
    assert sorted([*(case.path for case in CASES), *SHOWN_ELSEWHERE]) == sorted(PATHS)
    files = (test_safety, test_templates_admission, test_templates_nats, test_templates_settings)
    assert all(any(name in vars(file) for file in files) for name in SHOWN_ELSEWHERE.values())


def groups() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for case in CASES:
        found.setdefault(case.group, []).append(case)
    return found


GROUPS = groups()


def with_group(case: Case) -> dict[str, Any]:
    """The values of the case's group, over those that make them possible."""
    values = merged(GROUPS[case.group])
    if case.group == "external-no-ca":
        values["nats"] |= EXTERNAL["nats"] | {"tls": {"existingSecret": SECRET, "ca": False}}
    if case.group == "controller-no-account":
        values["controller"]["serviceAccount"]["name"] = "mine"
    return values


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_the_value_is_seen(case: Case, render: Rendering) -> None:
    base = {"nats": EXTERNAL["nats"] | {"tls": {"existingSecret": SECRET}}} if case.group == "external-no-ca" else {}
    assert look(render(with_group(case)), case.place) == case.shown
    assert look(render(base), case.place) != case.shown, "that is so by default as well"


def test_every_object_of_the_schema_is_closed_and_every_value_described() -> None:
    assert [path for path, part in objects(SCHEMA) if part.get("additionalProperties") is not False] == []
    described = [*leaves(SCHEMA), *objects(SCHEMA)]
    assert [path for path, part in described if path and not part.get("description", "").endswith(".")] == []


def test_the_readme_has_every_value() -> None:
    text = (CHART / "README.md").read_text()
    assert chart_readme.written(text) == text, "behind the schema; run: make docs"
    assert set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)) == set(PATHS)


UNKNOWN = [path for path, _ in objects(SCHEMA) if "[]" not in path]


def test_unknown_values_are_refused_with_their_path(render: Rendering) -> None:
    """One call with a misspelt key in every object: each is named with the way to it."""
    values: dict[str, Any] = {}
    for path in UNKNOWN:
        at = values
        for part in path.split(".") if path else []:
            at = at.setdefault(part, {})
        at["misspelt"] = 1
    words = render.refusal(values)
    for path in UNKNOWN:
        where = f"/{path.replace('.', '/')}" if path else ""
        assert f"at '{where}': additional properties 'misspelt' not allowed" in words


def test_values_of_another_type_are_refused_with_their_path(render: Rendering) -> None:
    """The same with a wrong type in every leaf."""
    values: dict[str, Any] = {}
    for path in PATHS:
        *above, last = path.split(".")
        at = values
        for part in above:
            at = at.setdefault(part, {})
        at[last] = 3 if isinstance(in_values(path), (dict, list)) else {"not": "this"}
    words = render.refusal(values)
    assert [path for path in PATHS if f"at '/{path.replace('.', '/')}'" not in words] == []


KEY = {"id": "a" * 10, "sha256": "0" * 64, "name": "one", "scopes": [{"actions": ["read"]}]}
WORK: dict[str, Any] = {"jobs": {"namespace": "work"}}
ONE: dict[str, Any] = {TENANTS: {"a": {"jobs": {"namespace": "x"}}}}


def url(address: str) -> dict[str, Any]:
    return {"nats": EXTERNAL["nats"] | {"url": address}}


CONFLICTS: list[tuple[dict[str, Any], str]] = [
    (
        {"nats": {"url": "nats://mine:4222"}},
        "nats.url names a NATS of yours and nats.evaluation.enabled starts another",
    ),
    ({"nats": {"evaluation": {"enabled": False}}}, "there is no NATS: set nats.url"),
    ({"nats": {"tls": {"existingSecret": SECRET}}}, "the evaluation server has no TLS"),
    (
        EXTERNAL | {"nats": EXTERNAL["nats"] | {"tls": {"clientCertificate": True}}},
        "nats.tls.clientCertificate needs nats.tls.exi",
    ),
    (
        {"nats": {"controller": {"method": "creds", "existingSecret": SECRET}}},
        "nats.controller.method is for the NATS of nats.url",
    ),
    ({"nats": EXTERNAL["nats"] | {"gateway": {"method": "nkey"}}}, "nats.gateway.existingSecret must name the Secret"),
    (
        {"nats": EXTERNAL["nats"] | {"gateway": {"existingSecret": SECRET}}},
        "nats.gateway.method must say what is in it",
    ),
    ({"gateway": {"podDisruptionBudget": {"minAvailable": 1}}}, "minAvailable and maxUnavailable are both set"),
    ({"gateway": {"podDisruptionBudget": {"maxUnavailable": ""}}}, "set minAvailable or maxUnavailable"),
    ({"catalog": {"volume": {"emptyDir": {}}, "configMaps": [{"name": "a"}]}}, "catalog.volume is the whole catalog"),
    (
        {"gateway": {"keys": {"existingSecret": SECRET, "more": [KEY]}}},
        "with gateway.keys.existingSecret all keys are in that Secret",
    ),
    (
        {"controller": {"terminationGracePeriodSeconds": 12}},
        "controller.terminationGracePeriodSeconds is 12: a drain needs ten seconds after the 3 of preStopSeconds",
    ),
    ({"redis": {"enabled": True}}, "redis.enabled needs redis.existingSecret"),
    ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.enabled needs gateway.ingress.hosts"),
    (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "minReplicas 9 is above maxReplicas 3",
    ),
    ({"gateway": {"jwt": {"existingConfigMap": "jwks", "issuer": "me"}}}, "gateway.jwt needs issuer and audience"),
    (WORK | {TENANTS: {"a": {"controller": {"replicas": 1}}}}, "tenants.a: jobs.namespace is missing"),
    (
        WORK | {TENANTS: {"a": {"jobs": {"namespace": "x"}}, "b": {"jobs": {"namespace": "x"}}}},
        "x is that of tenant a already",
    ),
    (WORK | {TENANTS: {"a": {"jobs": {"namespace": "work"}}}}, "work is that of the release already"),
    ({TENANTS: {"a": {"jobs": {"namespace": "x"}}}}, "jobs.namespace must name another namespace than the release's"),
    (WORK | {TENANTS: {"a": {"jobs": {"namespace": "apps"}}}}, "tenants.a: jobs.namespace apps is the release's own"),
    (WORK | EXTERNAL | ONE, "it would work on the release's own streams"),
    (
        WORK | {TENANTS: {"a": {"jobs": {"namespace": "x"}, "redis": {"enabled": True}}}},
        "tenants.a: redis.enabled needs",
    ),
    (
        WORK | ONE | {"controller": {"serviceAccount": {"name": "one"}}},
        "tenants.a: controller.serviceAccount.name one is that of the release already",
    ),
    (
        WORK | ONE | {"controller": {"serviceAccount": {"name": "one", "create": False}}},
        "tenants.a: controller.serviceAccount.name one is that of the release already",
    ),
    (
        WORK | ONE | {"gateway": {"serviceAccount": {"name": "one"}}},
        "tenants.a: gateway.serviceAccount.name one is that of the release already",
    ),
    (
        WORK | ONE | {"runToken": {"existingSecret": SECRET}},
        f"tenants.a: runToken.existingSecret {SECRET} is that of the release already",
    ),
    (
        WORK | ONE | {"gateway": {"keys": {"existingSecret": SECRET}}},
        f"tenants.a: gateway.keys.existingSecret {SECRET} is that of the release already",
    ),
    ({"controller": {"serviceAccount": {"create": False}}}, "controller.serviceAccount.name must name an account"),
    (
        {"controller": {"serviceAccount": {"create": False, "name": "default"}}},
        "controller.serviceAccount.name must name an account",
    ),
    (
        {"controller": {"serviceAccount": {"name": "a"}}, "gateway": {"serviceAccount": {"name": "a"}}},
        "are one account, a: gateways would have the rights of controllers",
    ),
    ({"catalog": {"functions": {"Hello": {"function.yaml": ""}}}}, "invalid propertyName 'Hello'"),
    ({"catalog": {"functions": {"hello": {"main.py": ""}}}}, "missing property 'function.yaml'"),
    (
        {"catalog": {"functions": {"f": {"function.yaml": "", "a/b.py": "1", "a.b.py": "2"}}}},
        "catalog.functions.f: a.b.py and a/b.py would have one key in the ConfigMap, f.a.b.py",
    ),
    (
        {"catalog": {"functions": {"chart-test": {"function.yaml": ""}}}},
        "catalog.functions.chart-test: the function of `helm test` has that name",
    ),
    (
        {"catalog": {"configMaps": [{"name": "a.b"}, {"name": "a-b"}]}},
        "catalog.configMaps: a.b and a-b would have one volume, catalog-a-b",
    ),
    ({"catalog": {"configMaps": [{"name": "a"}, {"name": "a"}]}}, "a and a would have one volume"),
    *[
        (
            values,
            f"at '{path}/{key.replace('/', '~1')}'" if "/" in key else f"at '{path}': additional properties '{key}'",
        )
        for key in ("app.kubernetes.io/name", "helm.sh/chart", "invoker.dev/installation", "a b", "-a")
        for path, values in (
            ("/commonLabels", {"commonLabels": {key: "x"}}),
            ("/controller/podLabels", {"controller": {"podLabels": {key: "x"}}}),
            ("/gateway/podLabels", {"gateway": {"podLabels": {key: "x"}}}),
            ("/metrics/serviceMonitor/labels", {"metrics": {"serviceMonitor": {"labels": {key: "x"}}}}),
        )
    ],
    ({"commonLabels": {"team": "a b"}}, "at '/commonLabels/team'"),
    (url("nats://me:secret@host:4222"), "nats.url holds a user or a password"),
    (url("nats://a:4222,nats://me@host:4222"), "nats.url holds a user or a password"),
    (url("garbage"), 'nats.url: "garbage" is no address such as nats://'),
    ({"settings": {"topicPrefix": "a b"}}, "at '/settings/topicPrefix'"),
    ({"settings": {"topicPrefix": "invoker.in"}}, "settings.topicPrefix invoker.in may not begin with settings.insta"),
    ({"image": {"repository": "x:1.2"}}, "at '/image/repository'"),
    ({"image": {"repository": "a b"}}, "at '/image/repository'"),
    ({"image": {"tag": "a b"}}, "at '/image/tag'"),
    ({"runtimeImages": {"python": {"repository": "x@y"}}}, "at '/runtimeImages/python/repository'"),
    ({"nats": {"evaluation": {"image": {"tag": ""}}}}, "at '/nats/evaluation/image/tag'"),
    ({"controller": {"settings": {"ackWaitSeconds": 1}}}, "heartbeatSeconds (3) must be at most half of ackWait"),
    (
        {"controller": {"settings": {"ackWaitSeconds": 1, "heartbeatSeconds": 5}}},
        "controller.settings.heartbeatSeconds (5) must be at most half of ackWaitSeconds (1)",
    ),
    ({"controller": {"settings": {"replySubjects": ["a b"]}}}, "at '/controller/settings/replySubjects/0'"),
    ({"gateway": {"podDisruptionBudget": {"minAvailable": "150%"}}}, "at '/gateway/podDisruptionBudget/minAvailable'"),
    (
        {"gateway": {"keys": {"more": [KEY | {"scopes": [{"actions": ["fly"]}]}]}}},
        "at '/gateway/keys/more/0/scopes/0/actions/0'",
    ),
    ({"podSecurityContext": {"runAsUser": 0}}, "podSecurityContext.runAsUser is 0"),
    ({"securityContext": {"privileged": True}}, "securityContext.privileged: no pod of this chart has privileges"),
    ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
]


@pytest.mark.parametrize(("values", "words"), CONFLICTS, ids=[words[:40] for _, words in CONFLICTS])
def test_what_contradicts_itself_is_refused_in_words(values: dict[str, Any], words: str, render: Rendering) -> None:
    assert words in render.refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"repository": "images.example.org:5000/team/invoker"}},
        {"nats": EXTERNAL["nats"] | {"url": "tls://{{ .Release.Name }}-1:4222, wss://[::1]:443"}},
        {"settings": {"topicPrefix": "acme.in"}},
        {"controller": {"settings": {"ackWaitSeconds": 60}}},
    ],
)
def test_what_is_right_is_not_refused(values: dict[str, Any], render: Rendering) -> None:
    assert render(values)


def test_a_default_of_null_leaves_the_programs_own(render: Rendering) -> None:
    container = the(render(), "Deployment", f"{NAME}-controller")["spec"]["template"]["spec"]["containers"][0]
    assert "INVOKER_RETENTION_SECONDS" not in [one["name"] for one in container["env"]]
    assert look(render(), ("Service", f"{NAME}-none", ())) is ABSENT


def test_the_chart_is_of_this_version() -> None:
    from invoker.version import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert (ROOT / "charts/invoker/README.md").is_file()
