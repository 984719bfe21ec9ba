"""Dashboard and alerts: every query asks for what there is, every alert fires when it should and only then."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker.gateway.metrics import GatewayMetrics
from scripts import dashboard
from tests.docs.promql import Asked, Selector, read
from tests.docs.transcript import ROOT
from tests.promtool import promtool
from trigger.engines import request_reasons
from trigger.metrics import Metrics

FILES = ROOT / "charts" / "invoker" / "files"
PLACE = {"namespace", "invoker_dev_installation"}
"""What tells installations apart: the Prometheus operator adds the one, the chart's ServiceMonitor the other."""
TARGET = PLACE | {"job", "instance"}
"""What Prometheus adds to every series by itself, or is told to add."""
FOREIGN = {"up": TARGET}
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
BY_NAME = {rule["alert"]: rule for rule in RULES}


def known_series() -> dict[str, list[dict[str, str]]]:
    """Every series of a controller and a gateway with one function and one route, by the name a query uses."""
    controller, kubernetes, gateway = Metrics(), Metrics("kubernetes"), GatewayMetrics()
    for metrics in (controller, kubernetes):
        metrics.of("resize")
        metrics.expect_requests(request_reasons(metrics.engine))
    gateway.expect_calls([("/v1/topics/{topic}", ["POST"])])
    gateway.told_store("redis", up=True, behind=0)
    found: dict[str, list[dict[str, str]]] = {}
    for each in (controller, kubernetes, gateway):
        for family in each.registry.collect():
            for sample in family.samples:
                found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


SERIES = known_series()


def dashboard_queries() -> list[str]:
    text = json.loads((FILES / "dashboard.json").read_text())
    return [target["expr"] for panel in text["panels"] for target in panel.get("targets", ())]


def variable_queries() -> list[str]:
    """What the dashboard's variables ask for, as the selectors in `label_values(…, label)`."""
    return [one["definition"] for one in dashboard.VARIABLES if one["type"] == "query"]


QUERIES = [*dashboard_queries(), *(rule["expr"] for rule in RULES)]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_series_and_labels_that_exist(query: str) -> None:
    asked = read(query)
    assert asked.selectors
    known = {label for selector in asked.selectors for label in labels_of(selector)}
    assert asked.grouped_by <= known, "grouped by a label that none of its series has"
    for selector in asked.selectors:
        assert {label for label, _, _ in selector.matchers} <= labels_of(selector), selector
        for label, operator, value in selector.matchers:
            if label not in TARGET and "$" not in value:
                assert_matches_something(selector.name, label, operator, value)


def labels_of(selector: Selector) -> set[str]:
    if selector.name in FOREIGN:
        return FOREIGN[selector.name]
    assert selector.name in SERIES, f"there is no metric {selector.name}"
    return TARGET | {label for labels in SERIES[selector.name] for label in labels}


def assert_matches_something(name: str, label: str, operator: str, value: str) -> None:
    """The value is one that occurs: a misspelled reason would never match."""
    values = {labels.get(label, "") for labels in SERIES[name]}
    pattern = value if operator in ("=~", "!~") else re.escape(value)
    assert any(re.fullmatch(pattern, one) for one in values), f"{name}: no {label} is {value}; there are {values}"
    if operator == "=~":
        for part in re.sub(r"^.*\((.*)\)$", r"\1", pattern).split("|"):
            ends = [one for one in values if re.search(f"(?:^|[ _]){part}$", one) or re.fullmatch(part, one)]
            assert ends, f"{name}: no {label} fits the part {part}"


@pytest.mark.parametrize("query", variable_queries())
def test_a_variable_lists_a_label_that_exists(query: str) -> None:
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()  # type: ignore[union-attr]
    assert label in labels_of(read(selector).selectors[0])


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("sum(a) / on (x) b", Asked((Selector("a"), Selector("b")), frozenset("x"))),
        ("sum by (x, y) (rate(a[5m]))", Asked((Selector("a"),), frozenset("xy"))),
        (
            'a{x="1",y!~"(2|3)"} > 0 or up',
            Asked((Selector("a", (("x", "=", "1"), ("y", "!~", "(2|3)"))), Selector("up")), frozenset()),
        ),
    ],
)
def test_queries_are_read(query: str, asked: Asked) -> None:
    assert read(query) == asked


def test_every_metric_is_on_the_dashboard() -> None:
    """What is measured and never shown is not looked at, and what is wrong with it nobody sees."""
    shown = {selector.name for query in dashboard_queries() for selector in read(query).selectors}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in SERIES if name.startswith("invoker_")}
    assert ours - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == set()


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert (FILES / "dashboard.json").read_text() == json.dumps(dashboard.dashboard(), indent=1) + "\n", (
        "behind its script; run: make docs"
    )


def test_the_panels_of_the_dashboard_fill_their_rows_without_overlap() -> None:
    panels = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < dashboard.COLUMNS
        taken |= cells
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ["Overview", "Functions", "Capacity"]
    names = [one["name"] for one in dashboard.VARIABLES]
    assert names == ["datasource", "namespace", "installation", "instance", "function"]
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {"${datasource}"}


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yaml"])
def test_the_files_hold_nothing_that_a_template_would_take_for_its_own(file: str) -> None:
    assert "{{" not in (FILES / file).read_text()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["description"].endswith(".")
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page == "https://invoker.dev/docs/runbooks.md"
    assert anchor == rule["alert"].lower()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_never_mixes_two_installations(rule: dict[str, Any]) -> None:
    """Tenants share a namespace: whatever is summed, compared or left out is of one installation, or of one target."""
    for kind, inside in re.findall(r"\b(by|on) \(([^)]*)\)", rule["expr"]):
        labels = set(re.findall(r"\w+", inside))
        assert labels >= PLACE or labels >= {"job", "instance"}, f"{kind} ({inside})"
    assert not re.search(r"\b(sum|max|min|count|avg|group) ?\((?! )", rule["expr"]), "aggregates over everything"


def test_levels_on_the_dashboard_are_those_of_one_installation_or_summed_over_them() -> None:
    levels = r"invoker_(?:stream_|catalog_(?:broken_)?functions|function_concurrency)"
    asked = [query for query in dashboard_queries() if re.search(levels, query)]
    assert asked
    for query in asked:
        for before in re.findall(rf"(\S+ ?\([^()]*\)|\w+) ?\({levels}", query):
            assert "namespace, invoker_dev_installation" in before, query


def test_the_runbooks_are_exactly_those_of_the_alerts() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    sections = re.findall(r"^## (Invoker\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == [rule["alert"] for rule in RULES]
    for name, section in sections:
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in section, f"{name}: {part}"


# the rules themselves, by Prometheus' own unit tests


CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())
TARGETS = {
    "$c1": 'namespace="shop",job="controller",instance="c1"',
    "$a": 'namespace="shop",invoker_dev_installation="a",job="controller",instance="c1"',
    "$b": 'namespace="shop",invoker_dev_installation="b",job="controller",instance="c2"',
    "$n": 'namespace="shop"',
}


def test_every_alert_has_a_case() -> None:
    assert {case["alert"] for case in CASES} == set(BY_NAME)


def test_promtool_finds_the_rules_right() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FILES / "alerts.yaml"))


def test_prometheus_takes_the_configuration_of_the_page(tmp_path: Path) -> None:
    shown = (ROOT / "docs" / "metrics.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "alerts.yaml").write_text((FILES / "alerts.yaml").read_text())
    (tmp_path / "prometheus.yml").write_text(shown)
    said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in said


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """All cases in one go: starting promtool costs more than what it does."""
    groups = [group for case in CASES for group in (unit_test(case, firing=True), unit_test(case, firing=False))]
    file = tmp_path / "alerts_test.yaml"
    document = {"rule_files": [str(FILES / "alerts.yaml")], "evaluation_interval": "1m", "tests": groups}
    file.write_text(json.dumps(document))
    promtool("test", "rules", str(file))


def unit_test(case: dict[str, Any], *, firing: bool) -> dict[str, Any]:
    """One case in the form of promtool."""
    rule = BY_NAME[case["alert"]]
    place = {"namespace": "shop"} if case.get("namespace", "shop") else {}
    alert = {"exp_labels": place | case["labels"] | rule["labels"], "exp_annotations": rule["annotations"]}
    return {
        "name": f"{case['alert']} {'fires' if firing else 'is quiet'}",
        "interval": "1m",
        "input_series": [
            {"series": filled_in(name), "values": repeated(str(values))}
            for name, values in case["fires" if firing else "quiet"].items()
        ],
        "alert_rule_test": [
            {
                "eval_time": "105m" if rule.get("for") == "1h" else "40m",
                "alertname": case["alert"],
                "exp_alerts": [alert] if firing else [],
            }
        ],
    }


def filled_in(series: str) -> str:
    for short, labels in TARGETS.items():
        series = series.replace(short, labels)
    return series


def repeated(values: str) -> str:
    """promtool takes no `+Infx40`."""
    return re.sub(r"\+Infx(\d+)", lambda match: " ".join(["+Inf"] * (int(match[1]) + 1)), values)
