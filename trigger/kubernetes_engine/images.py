"""Which container images may run: an operator's allow-list of patterns, compared part by part and never as text.

Pure. A reference is `[REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, read as container runtimes read it: without a
registry it is Docker Hub's (`busybox` is `docker.io/library/busybox`), without tag and digest its tag is `latest`. The
first part is a registry when it has a dot, a colon, or is `localhost`; registries are compared without case, all else
exactly.

A pattern has the same parts:

    PATTERN  = "*" | NAME [":" TAG] ["@" DIGEST] | "*@" DIGEST
    NAME     = [REGISTRY "/"] PART {"/" PART}    read like a reference: `team/*` is `docker.io/team/*`
    PART     = text | "*"                        "*" is one whole part, as the last part one or more
    TAG      = text with "*" and "?"             left out: every tag, and every digest
    DIGEST   = "sha256:" 64 hex digits | "sha512:" 128 | "sha256:*" | "sha512:*" | "*"

| pattern | fits |
| --- | --- |
| `*` | every image |
| `registry.example.com/team/*` | everything below that path, with any tag or digest |
| `busybox` | every tag and digest of Docker Hub's busybox |
| `busybox:1.36` | that tag, and no digest: runtimes follow the digest and do not look at the tag beside it |
| `busybox:1.36@*` | that tag with any digest beside it; a digest is required |
| `busybox@sha256:0123…` | that content, whatever tag stands beside it |
| `*@sha256:*` | every image that is named by its digest |

A registry is never a wildcard in part: `*.example.com/x` and `registry*/x` are no patterns, so `registry.good` cannot
fit `registry.good.evil.com`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_HOST = re.compile(
    r"(localhost|[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(:[0-9]{1,5})?"
)
_PART = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TAG_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9_.*?-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ANY_DIGEST = ("*", "sha256:*", "sha512:*")


class ImageError(ValueError):
    """The text is no image reference, or no pattern of one; the sentence names what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Image:
    """One reference with everything that was left out put in; `tag` is None only beside a digest."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of the allow-list. `parts` empty is every name; `tag` None every tag; `digest` None asks for none."""

    registry: str = ""
    parts: tuple[str, ...] = ()
    tag: str | None = None
    digest: str | None = None

    def fits(self, image: Image) -> bool:
        """Whether the image is one of those that this pattern names."""
        return self._fits_name(image) and self._fits_version(image)

    def _fits_name(self, image: Image) -> bool:
        if not self.parts:
            return True
        parts = image.repository.split("/")
        if self.registry != image.registry or len(parts) < len(self.parts):
            return False
        if len(parts) > len(self.parts) and self.parts[-1] != "*":
            return False
        return all(wanted in ("*", part) for wanted, part in zip(self.parts, parts, strict=False))

    def _fits_version(self, image: Image) -> bool:
        if self.digest is not None:
            if image.digest is None or not fnmatchcase(image.digest, self.digest):
                return False
        elif self.tag is not None and image.digest is not None:
            # The digest decides what runs and nobody compares the tag with it: the tag would promise nothing.
            return False
        return self.tag is None or (image.tag is not None and fnmatchcase(image.tag, self.tag))


def parse(reference: str) -> Image:
    """The image that a container runtime would fetch for this text. Raises `ImageError`."""
    name, tag, digest = _split(reference)
    registry, path = _named(name)
    parts = path.split("/")
    for part in parts:
        if not _PART.fullmatch(part):
            raise ImageError(f"{_shown(reference)} is no image: {_about(part)}")
    if tag is not None and not _TAG.fullmatch(tag):
        raise ImageError(f"{_shown(reference)} is no image: the tag {_shown(tag)} is not legal")
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ImageError(f"{_shown(reference)} is no image: a digest is sha256: and 64 of 0-9 a-f")
    if len(registry) + 1 + len(path) > MAX_NAME:
        raise ImageError(f"{_shown(reference)} is no image: its name is longer than {MAX_NAME} characters")
    return Image(registry, path, tag if tag or digest else DEFAULT_TAG, digest)


@lru_cache(maxsize=1000)
def parse_pattern(text: str) -> Pattern:
    """The pattern, in the grammar at the head of this file. Raises `ImageError`."""
    name, tag, digest = _split(text)
    if tag is not None and not _TAG_PATTERN.fullmatch(tag):
        raise ImageError(f"{_shown(text)} is no image pattern: the tag {_shown(tag)} is not legal")
    if digest is not None and digest not in _ANY_DIGEST and not _DIGEST.fullmatch(digest):
        raise ImageError(f"{_shown(text)} is no image pattern: after @ stands a digest, sha256:* or *")
    if name == "*":
        return Pattern(tag=tag, digest=digest)
    registry, path = _named(name)
    parts = tuple(path.split("/"))
    for part in parts:
        if part != "*" and not _PART.fullmatch(part):
            hint = "; * stands for one whole part" if "*" in part else ""
            raise ImageError(f"{_shown(text)} is no image pattern: {_about(part)}{hint}")
    return Pattern(registry, parts, tag, digest)


def is_allowed(reference: str, patterns: Iterable[str]) -> bool:
    """Whether the image fits one of the patterns; no patterns allow nothing. Raises `ImageError` for a bad pattern."""
    return refusal(reference, patterns) is None


def refusal(reference: str, patterns: Iterable[str]) -> str | None:
    """Why the image may not run, with the patterns it could have fitted; None when it may.

    Raises `ImageError` for a pattern that is none: an operator's mistake is never read as "allowed".
    """
    allowed = [(text, parse_pattern(text)) for text in patterns]
    try:
        image = parse(reference)
    except ImageError as error:
        return str(error)
    if any(pattern.fits(image) for _, pattern in allowed):
        return None
    listed = ", ".join(text for text, _ in allowed[:10]) or "none"
    more = f" and {len(allowed) - 10} more" if len(allowed) > 10 else ""
    return f"the image {image} is not allowed here{_nearly(image, allowed)}; allowed are: {listed}{more}"


def _nearly(image: Image, allowed: list[tuple[str, Pattern]]) -> str:
    """What is missing, when the name alone would be allowed."""
    named = [pattern for _, pattern in allowed if pattern._fits_name(image)]
    if any(pattern.digest is not None for pattern in named) and image.digest is None:
        return ": it has no digest (name@sha256:…)"
    if image.digest is not None and any(pattern.tag is not None and pattern.digest is None for pattern in named):
        return ": with a digest beside it a tag says nothing, write one of both"
    return ": its tag is not one of the allowed" if any(pattern.tag is not None for pattern in named) else ""


def _split(text: str) -> tuple[str, str | None, str | None]:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ImageError(f"{_shown(text)} is no image: it is empty or has a character that no image has")
    name, at, digest = text.partition("@")
    path, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return path, tag, digest if at else None
    return name, None, digest if at else None


def _named(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost"):
        return DEFAULT_REGISTRY, name if slash else f"library/{name}"
    if not _HOST.fullmatch(first):
        raise ImageError(f"{_shown(name)} is no image: {_shown(first)} is no registry (host, or host:port)")
    registry = first.lower()
    if registry in (DEFAULT_REGISTRY, "index.docker.io"):
        return DEFAULT_REGISTRY, rest if "/" in rest or rest == "*" else f"library/{rest}"
    return registry, rest


def _about(part: str) -> str:
    if part.lower() != part:
        return f"{_shown(part)} has upper case letters; repositories are lower case"
    return f"{_shown(part)} is no part of a name (a-z, 0-9, and . _ - between them)"


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
