"""The list of images: what a reference means, what a pattern fits, and that nothing fits by looking alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trigger.kubernetes_engine.images import Image, ImageError, is_allowed, parse, parse_pattern, refusal

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/tool", "docker.io/team/tool:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/team/tool:1", "docker.io/team/tool:1"),
        ("Registry.Example.COM/a:1", "registry.example.com/a:1"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b/c:1", "localhost:5000/a/b/c:1"),
        ("host:5000/a", "host:5000/a:latest"),
        ("[::1]:5000/a:2", "[::1]:5000/a:2"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}"),
        (f"r.io/a:1@{DIGEST}", f"r.io/a:1@{DIGEST}"),
        ("r.io/a__b-c.d/e:V_1.0-x", "r.io/a__b-c.d/e:V_1.0-x"),
    ],
)
def test_what_a_reference_means(reference: str, whole: str) -> None:
    assert str(parse(reference)) == whole
    assert parse(whole) == parse(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        " ",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "BusyBox",
        "Team/tool",
        "r.io/Team/tool",
        "r.io/",
        "/a",
        "r.io//a",
        "a:",
        "a:-x",
        "a:" + "1" * 129,
        "a@",
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        "a@" + DIGEST.upper(),
        f"a@{DIGEST}@{DIGEST}",
        "https://r.io/a",
        "r.good@evil.com/x",
        "r_x.io/a",
        "-r.io/a",
        "r.io:x/a",
        "r.io:123456/a",
        "a..b",
        "../a",
        "r.io/../a",
        "x" * 300,
        "r.io/" + "a/" * 150 + "a",
        "*",
        "{{params.image}}",
        "$(IMAGE)",
    ],
)
def test_what_is_no_reference_fits_nothing(reference: str) -> None:
    with pytest.raises(ImageError, match="is no image"):
        parse(reference)
    assert not is_allowed(reference, ["*"])


@pytest.mark.parametrize(
    ("pattern", "reference", "fits"),
    [
        ("*", "anything.example/x/y:1", True),
        ("busybox", "busybox", True),
        ("busybox", "docker.io/library/busybox:9", True),
        ("busybox", f"busybox@{DIGEST}", True),
        ("busybox", "quay.io/busybox", False),
        ("busybox", "team/busybox", False),
        ("busybox:1.36", "busybox:1.36", True),
        ("busybox:1.36", "busybox:1.3", False),
        ("busybox:1.36", "busybox:1.36.1", False),
        ("busybox:1.36", "busybox", False),
        ("busybox:1.36", f"busybox:1.36@{DIGEST}", False),
        ("busybox:1.36@*", f"busybox:1.36@{DIGEST}", True),
        ("busybox:1.36@*", "busybox:1.36", False),
        ("busybox:1.36@*", f"busybox:1.35@{DIGEST}", False),
        ("busybox:1.36@*", f"busybox@{DIGEST}", False),
        ("busybox:1.*", "busybox:1.37", True),
        ("busybox:1.*", "busybox:21.7", False),
        ("busybox:1.3?", "busybox:1.36", True),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}", True),
        (f"busybox@{DIGEST}", f"busybox:any@{DIGEST}", True),
        (f"busybox@{DIGEST}", f"busybox@{OTHER}", False),
        (f"busybox@{DIGEST}", f"team/busybox@{DIGEST}", False),
        ("*@sha256:*", f"r.io/x@{DIGEST}", True),
        ("*@sha256:*", "r.io/x:1", False),
        ("*@sha512:*", f"r.io/x@{DIGEST}", False),
        (f"*@{DIGEST}", f"r.io/x@{DIGEST}", True),
        ("registry.good/*", "registry.good/a/b/c:1", True),
        ("registry.good/*", "registry.good.evil.com/a", False),
        ("registry.good/*", "registry.good:5000/a", False),
        ("registry.good/*", "evil.com/registry.good/a", False),
        ("registry.good/*", "xregistry.good/a", False),
        ("registry.good/*", "registryxgood/a", False),
        ("registry.good/*", "REGISTRY.good/a", True),
        ("registry.good/team/*", "registry.good/team/a/b", True),
        ("registry.good/team/*", "registry.good/team", False),
        ("registry.good/team/*", "registry.good/teammate/a", False),
        ("registry.good/team/*", "registry.good/team-evil/a", False),
        ("registry.good/team/*", "registry.good/x/team/a", False),
        ("registry.good/*/app", "registry.good/team/app", True),
        ("registry.good/*/app", "registry.good/a/b/app", False),
        ("registry.good/team/app", "registry.good/team/app/more", False),
        ("docker.io/*", "busybox", True),
        ("team/*", "docker.io/team/x", True),
        ("team/*", "team.evil.com/x", False),
        ("localhost:5000/*", "localhost:5000/x", True),
        ("localhost/*", "localhost:5000/x", False),
    ],
)
def test_what_a_pattern_fits(pattern: str, reference: str, fits: bool) -> None:
    assert is_allowed(reference, [pattern]) is fits


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*.example.com/x",
        "registry*/x",
        "r.io/te*",
        "r.io/**",
        "a@sha256:12",
        "a:",
        "A",
        "a b",
        "r.io/a@latest",
        "*/x.*",
    ],
)
def test_a_pattern_that_is_none_is_an_error_and_never_a_permission(pattern: str) -> None:
    with pytest.raises(ImageError, match="is no image"):
        parse_pattern(pattern)
    with pytest.raises(ImageError):
        is_allowed("busybox", [pattern, "*"])


@pytest.mark.parametrize(
    ("reference", "patterns", "sentence"),
    [
        (
            "evil.io/x",
            ["a.io/*", "busybox:1"],
            "the image evil.io/x:latest is not allowed here; allowed are: a.io/*, busybox:1",
        ),
        ("busybox", [], "the image docker.io/library/busybox:latest is not allowed here; allowed are: none"),
        ("a.io/x:1", ["*@sha256:*"], "it has no digest (name@sha256:…)"),
        ("busybox:2", ["busybox:1"], "its tag is not one of the allowed"),
        (f"busybox:1@{DIGEST}", ["busybox:1"], "with a digest beside it a tag says nothing"),
        ("a.io/X", ["*"], "'X' has upper case letters; repositories are lower case"),
        ("x", [f"h{n}.io/*" for n in range(12)], "h9.io/* and 2 more"),
    ],
)
def test_the_sentence(reference: str, patterns: list[str], sentence: str) -> None:
    assert sentence in (refusal(reference, patterns) or "")


def test_no_sentence_for_what_is_allowed() -> None:
    assert refusal("busybox:1.36", ["a.io/*", "busybox"]) is None


PARTS = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,3})?", fullmatch=True)
HOSTS = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,4}){1,2}(:[0-9]{2,4})?", fullmatch=True)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,8}", fullmatch=True)
IMAGES = st.builds(
    lambda host, parts, tag, digest: Image(host, "/".join(parts), tag, digest),
    HOSTS,
    st.lists(PARTS, min_size=1, max_size=4),
    TAGS,
    st.one_of(st.none(), st.just(DIGEST)),
)


@settings(deadline=None)
@given(IMAGES)
def test_a_reference_reads_back_as_itself_and_fits_its_own_name(image: Image) -> None:
    if image.registry == "docker.io":
        return
    assert parse(str(image)) == image
    name = f"{image.registry}/{image.repository}"
    assert is_allowed(str(image), [name])
    assert is_allowed(str(image), [f"{image.registry}/*"])
    assert is_allowed(str(image), [str(image)])
    assert is_allowed(str(image), ["*@sha256:*"]) is (image.digest is not None)


@settings(deadline=None)
@given(IMAGES, IMAGES)
def test_a_pattern_of_one_place_never_fits_another(one: Image, other: Image) -> None:
    below = "/".join(one.repository.split("/")[:-1])
    if below and (other.registry != one.registry or not other.repository.startswith(f"{below}/")):
        assert not is_allowed(str(other), [f"{one.registry}/{below}/*"])
    if other.registry != one.registry:
        assert not is_allowed(str(other), [f"{one.registry}/*"])


@settings(deadline=None)
@given(HOSTS, st.text(alphabet="abc.:/@-_%\\*?[]", max_size=12), PARTS)
def test_whatever_is_put_after_a_host_it_is_that_host_or_not_allowed(host: str, more: str, name: str) -> None:
    reference = f"{host}{more}/{name}"
    if is_allowed(reference, [f"{host}/*"]):
        assert reference.startswith((f"{host}/", f"{host.lower()}/"))


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_reference_or_refused_in_words(reference: str, pattern: str) -> None:
    try:
        found = refusal(reference, [pattern])
    except ImageError as error:
        found = str(error)
    assert found is None or (found.isprintable() and len(found) < 500)
