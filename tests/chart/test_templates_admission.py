"""What the chart renders, without a cluster: the admission policy, and which Secrets functions may read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.chart.rendering import NAME, NAMESPACE, Document, Rendering, named, of_kind, pods, references, the, variables
from tests.chart.values_cases import EXTERNAL
from tests.chart.whole_values import CONTROLLER


def test_the_admission_policy_says_what_the_settings_say(render: Rendering) -> None:
    values = {
        "admissionPolicy": {"enabled": True, "images": ["^images[.]test/"]},
        "controller": {
            "settings": {"allowedSecrets": ["fn-*", "a.b"], "allowedServiceAccounts": ["fn"], "allowedVolumeClaims": []}
        },
    }
    policy = the(render(values), "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    text = json.dumps([one["expression"] for one in policy["spec"]["validations"]])
    assert "^(fn-.*|a[.]b)$" in text
    assert "^images[.]test/" in text
    assert "^$a" in text, "nothing fits: no volume claim is allowed"
    (condition,) = policy["spec"]["matchConditions"]
    assert f"'system:serviceaccount:{NAMESPACE}:{NAME}-controller'" in condition["expression"]
    assert "quantity" not in text, "no bound on volumes unless one is set"
    for what in ("jobs", "code"):
        name = f"{NAMESPACE}-{NAME}-{what}"
        assert the(render(values), "ValidatingAdmissionPolicy", name)["spec"]["matchConditions"] == [condition]
        binding = the(render(values), "ValidatingAdmissionPolicyBinding", name)
        assert binding["spec"] == {"policyName": name, "validationActions": ["Deny"]}


def test_the_admission_policy_has_the_bound_of_volumes_as_a_whole_number(render: Rendering) -> None:
    """Values pass through JSON, where a large number is written with an exponent."""
    bound = 2**40
    values = {"admissionPolicy": {"enabled": True}, "controller": {"settings": {"maxVolumeBytes": bound}}}
    policy = the(render(values), "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    assert f'quantity("{bound}")' in json.dumps(policy).replace('\\"', '"')


LISTS = ("allowedSecrets", "allowedVolumeClaims", "allowedStorageClasses", "allowedPriorityClasses")


@pytest.mark.parametrize("settings", [None, dict.fromkeys((*LISTS, "allowedServiceAccounts"))], ids=["all", "each"])
def test_the_admission_policy_takes_null_for_the_programs_default(settings: Any, render: Rendering) -> None:
    by_default, nulls = (
        of_kind(render({"admissionPolicy": {"enabled": True}} | more), "ValidatingAdmissionPolicy")
        for more in ({}, {"controller": {"settings": settings}})
    )
    assert nulls == by_default


@pytest.mark.parametrize("values", [{}, EXTERNAL | {"redis": {"enabled": True, "existingSecret": "my-redis"}}])
def test_functions_beside_the_release_may_read_none_of_its_secrets(values: Document, render: Rendering) -> None:
    """Neither what is made nor what pods of the release use, nor what Helm keeps; and all others stay allowed."""
    documents = render(values | {"admissionPolicy": {"enabled": True}})
    forbidden = variables(the(documents, *CONTROLLER)["spec"]["template"])["INVOKER_FORBIDDEN_SECRETS"].split(",")
    used = {name for _, pod in pods(documents) for kind, name in references(pod) if kind == "Secret"}
    assert used | named(documents, "Secret") <= set(forbidden)
    assert set(forbidden) - used - named(documents, "Secret") == {"sh.helm.release.v1.*"}
    policy = the(documents, "ValidatingAdmissionPolicy", f"{NAMESPACE}-{NAME}-jobs")
    (rule,) = [one for one in policy["spec"]["validations"] if one["message"] == "a Secret of Invoker itself"]
    (pattern,) = re.findall(r"matches\('(.*?)'\)", rule["expression"])
    assert all(re.match(pattern, name) for name in (*used, "sh.helm.release.v1.rel.v1"))
    assert not re.match(pattern, "of-a-function")


def test_functions_in_a_namespace_of_their_own_may_read_its_secrets(render: Rendering) -> None:
    documents = render({"jobs": {"namespace": "work"}, "admissionPolicy": {"enabled": True}})
    assert "INVOKER_FORBIDDEN_SECRETS" not in variables(the(documents, *CONTROLLER)["spec"]["template"])
