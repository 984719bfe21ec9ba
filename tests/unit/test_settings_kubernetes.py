"""The operator's settings for a cluster: what goes together, what each refusal says, and what the engine is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import SettingsError
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.options import access_of, engine_options, policy_of
from trigger.kubernetes_engine.policy import Policy
from trigger.kubernetes_settings import KubernetesSettings, split
from trigger.settings import ControllerSettings, load_settings

NEEDED = {
    "INVOKER_ENGINE": "kubernetes",
    "INVOKER_RUN_API_URL": "http://10.0.0.5:7222",
    "INVOKER_RUN_TOKEN_KEY": "k",
}


def loaded(**environ: str) -> ControllerSettings:
    return load_settings(NEEDED | {f"INVOKER_{name}": value for name, value in environ.items()})


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(**environ)
    assert refused.value.exit_code == 2
    return refused.value.message


def without(name: str, **environ: str) -> dict[str, str]:
    return {key: value for key, value in NEEDED.items() if key != name} | environ


def test_what_a_cluster_needs_and_what_it_changes() -> None:
    settings = loaded()
    assert settings.max_running == 10_000
    assert load_settings({}).max_running < 10_000, "child processes are fewer"
    assert settings.cluster_instance == "invoker"
    assert settings.kubernetes == KubernetesSettings()
    assert load_settings({"INVOKER_ENGINE": "local"}).run_api_url is None, "the local engine needs none of it"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost", "LocalHost", "127.0.0.2", ""])
def test_an_address_that_no_pod_reaches(host: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(without("INVOKER_RUN_API_URL", INVOKER_HTTP_HOST=host))
    assert refused.value.message.startswith("INVOKER_RUN_API_URL is missing: no pod reaches the run API at ")
    assert (host or "no address") in refused.value.message
    assert loaded(HTTP_HOST=host).run_api_url == "http://10.0.0.5:7222", "the address for pods is another one"


def test_an_address_that_pods_reach_needs_no_url() -> None:
    for host in ("10.0.0.5", "controller", "fd00::5"):
        assert load_settings(without("INVOKER_RUN_API_URL", INVOKER_HTTP_HOST=host)).run_api_url is None


@pytest.mark.parametrize(
    "url",
    [
        "", "10.0.0.5:7222", "//10.0.0.5", "ftp://10.0.0.5", "http://", "http://:7222", "http://[::1", "http:10.0.0.5",
        "http://10.0.0.5:99999", "http://10.0.0.5:x", "http://10.0.0.5:0", "http://10.0.0.5/?a=b", "http://10.0.0.5/#a",
        "http://10.0.0.5:7222\n", " http://10.0.0.5", "http://10.0.0.5/a b", "http://10.0.0.5\x00",
    ],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    assert refusal(RUN_API_URL=url) == (
        f"INVOKER_RUN_API_URL: {url!r} is no address; it looks like http://10.0.0.5:7222"
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "[::1]", "[::]", "[0:0::1]", "127.1.2.3"]
)
def test_a_url_that_leads_back_into_the_pod(host: str) -> None:
    url = f"http://{host}:7222"
    assert refusal(RUN_API_URL=url) == f"INVOKER_RUN_API_URL: {url!r} is each pod itself, not this machine"


@pytest.mark.parametrize(
    "url", ["https://gateway.example.com", "http://controller.ns.svc:7222/", "http://[fd00::5]:7222/below/"]
)
def test_urls(url: str) -> None:
    assert loaded(RUN_API_URL=url).run_api_url == url


@settings(deadline=None)
@given(st.text(max_size=30))
def test_whatever_stands_there_is_an_address_or_refused_in_words(text: str) -> None:
    for url in (text, f"http://{text}"):
        try:
            settings = load_settings({**NEEDED, "INVOKER_RUN_API_URL": url})
        except SettingsError:
            assert refusal(RUN_API_URL=url).startswith("INVOKER_RUN_API_URL: ")
        else:
            assert settings.run_api_url == url
            assert url.isprintable()


def test_tokens_outlive_a_controller() -> None:
    with pytest.raises(SettingsError, match="INVOKER_RUN_TOKEN_KEY is missing: Jobs outlive a controller"):
        load_settings(without("INVOKER_RUN_TOKEN_KEY"))
    assert loaded().token_key() == loaded().token_key() == b"k"


LONGEST = "a" * 31


@pytest.mark.parametrize("name", ["a", "invoker", "a-1", "a--b", LONGEST])
def test_names_of_installations(name: str) -> None:
    assert loaded(INSTANCE=name).cluster_instance == name
    assert loaded(KUBE_INSTANCE=name).cluster_instance == name
    assert loaded(KUBE_INSTANCE=name).names.instance == "invoker", "the streams keep their name"


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a.b", "a_b", "a b", "ä", "a\n", "a" * 32, "a;b", "{{topic}}", "ﬀ"]
)
def test_what_is_no_name_of_an_installation(name: str) -> None:
    assert refusal(KUBE_INSTANCE=name).startswith("INVOKER_KUBE_INSTANCE: ")
    message = refusal(INSTANCE=name)
    assert message == f"instance name {name!r} must match [a-z][a-z0-9-]{{0,30}}"


def test_a_name_that_streams_may_have_and_a_label_not() -> None:
    assert refusal(INSTANCE="a-") == "INVOKER_KUBE_INSTANCE is missing: 'a-' is no label; set one without '-' last"
    assert loaded(INSTANCE="a-", KUBE_INSTANCE="a").cluster_instance == "a"
    assert refusal(KUBE_INSTANCE="a-").startswith("INVOKER_KUBE_INSTANCE: ")
    assert load_settings({"INVOKER_INSTANCE": "a-"}).instance == "a-", "without a cluster it is one"


@settings(deadline=None)
@given(st.text(st.sampled_from("ab1-._A "), max_size=34))
def test_every_accepted_name_makes_legal_names_in_the_cluster(name: str) -> None:
    """The longest Job, ConfigMap and label still fit: names are checked once, at the start."""
    try:
        settings = loaded(KUBE_INSTANCE=name)
    except SettingsError:
        return
    run_id = wire.run_id_of("request", "function")
    assert names.is_label_value(settings.cluster_instance)
    assert len(names.job_name(settings.cluster_instance, run_id)) <= names.MAX_NAME - len("-12345")
    assert len(names.code_name(settings.cluster_instance, "x" * 26)) <= names.MAX_NAME


# lists and pairs


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("python=a:1", {"python": "a:1"}),
        (" python = a:1 , command=b@sha256:c ,", {"python": "a:1", "command": "b@sha256:c"}),
        ("python=a=b", {"python": "a=b"}),
        ("", {}),
    ],
)
def test_images_of_runtimes(text: str, images: dict[str, str]) -> None:
    assert loaded(RUNTIME_IMAGES=text).runtime_images == images


@pytest.mark.parametrize("text", ["python", "=a", "python=", "python=a,b", "python= "])
def test_images_of_runtimes_that_are_no_pairs(text: str) -> None:
    message = refusal(RUNTIME_IMAGES=text)
    assert message.startswith("INVOKER_RUNTIME_IMAGES: must be pairs such as python=")
    assert repr(text) in message


def test_a_file_has_lists_and_tables(tmp_path: Path) -> None:
    file = tmp_path / "invoker.toml"
    file.write_text('allowed_images = ["a/*", "b"]\nruntime_images = {python = "a:1"}\nmax_volume_bytes = 5\n')
    settings = loaded(CONFIG=str(file))
    assert settings.allowed_images == ("a/*", "b")
    assert settings.runtime_images == {"python": "a:1"}
    assert settings.kubernetes.max_volume_bytes == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KUBE_CONNECTIONS", "0"),
        ("KUBE_CONNECTIONS", "1001"),
        ("IMAGE_PULL_POLICY", "Sometimes"),
        ("MAX_VOLUME_BYTES", "0"),
        ("MAX_VOLUME_BYTES", "1Gi"),
        ("POD_USER", "0"),
        ("POD_USER", "root"),
        ("IN_CLUSTER", "perhaps"),
        ("ALLOWED_IMAGES", "*.example.com/x"),
        ("ALLOWED_IMAGES", "a/*, b:1:2"),
        ("KUBE_NAMESPACE", "Two Words"),
        ("KUBE_NAMESPACE", "a.b"),
    ],
)
def test_a_refusal_begins_with_the_settings_name(name: str, value: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"INVOKER_{name}: ")
    assert repr(value) in message
    assert "INVOKER_MAX_RUNNING" not in message, "a default that depends on the others is no trouble of its own"


LISTS = (
    "allowed_images", "allowed_service_accounts", "allowed_priority_classes", "allowed_secrets",
    "forbidden_secrets", "allowed_volume_claims", "allowed_storage_classes",
)  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_every_list_reaches_the_policy_as_it_was_written(name: str) -> None:
    settings = loaded(**{name.upper(): "a/*, b ,"})
    policy = policy_of("space", settings.kubernetes)
    assert (policy.namespace, getattr(policy, name)) == ("space", ("a/*", "b"))
    others = {other: getattr(policy, other) for other in LISTS if other != name}
    assert others == {other: getattr(Policy("space"), other) for other in others}, "and nothing else changes"
    assert getattr(policy_of("space", loaded(**{name.upper(): ""}).kubernetes), name) == (), "empty allows nothing"


def test_everything_else_reaches_its_part() -> None:
    settings = loaded(
        KUBECONFIG="/k", KUBE_CONTEXT="c", IN_CLUSTER="false", KUBE_NAMESPACE="n", KUBE_CONNECTIONS="7",
        RUNTIME_IMAGES="python=a", IMAGE_PULL_POLICY="Never", MAX_VOLUME_BYTES="9", KUBE_INSTANCE="mine",
    )  # fmt: skip
    access = access_of(settings.kubernetes)
    assert (access.kubeconfig, access.context, access.in_cluster) == (Path("/k"), "c", False)
    assert (access.namespace, access.connections) == ("n", 7)
    options = engine_options(settings.cluster_instance, settings.kubernetes)
    assert (options.manifest.instance, options.manifest.runtime_images) == ("mine", {"python": "a"})
    assert options.manifest.image_pull_policy == "Never"
    assert options.policy("n").max_volume_bytes == 9
    assert options.manifest.user_id == 10001


@pytest.mark.parametrize(("given", "user"), [("none", None), (" none ", None), ("1000690000", 1000690000)])
def test_the_user_of_pods(given: str, user: int | None) -> None:
    settings = loaded(POD_USER=given)
    assert engine_options("invoker", settings.kubernetes).manifest.user_id == user


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), max_size=5), max_size=5))
def test_lists_are_split_and_nothing_is_lost(words: list[str]) -> None:
    found = split(",".join(words))
    assert found == tuple(word.strip() for word in words if word.strip())
    assert split(found) is found


def test_an_unknown_setting_is_refused_by_its_name() -> None:
    with pytest.raises(SettingsError, match="INVOKER_KUBE_NAMESPACES: "):
        load_settings(NEEDED, kube_namespaces="x")
