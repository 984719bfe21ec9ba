"""How long a match takes, and whether that grows with the number of subscriptions.

    .venv/bin/python benchmarks/match.py [--sizes 100,1000,10000,100000] [--seed 1] [--rounds 7] [--shared-names]

Subscriptions have five tokens (tenant.team.service.kind.verb); a fifth of them have one `*` in a random place and one
in twenty ends in `>`. There is a tenant for every ten subscriptions, so that a topic has about the same number of
answers in a small and in a large catalog (it is printed: a flat time says nothing when it comes from finding less).
Each tenant has twenty teams of its own; with `--shared-names` all have the same, and the part of the trie below a `*`
in the first place, which every lookup visits, gets denser with the catalog.

    step      what intake does with a decoded event: its attributes (three headers are looked through), then the match;
              of five events four have one of the thousand topics in use, one has a topic that was never seen before
    match     the match alone, in the same mix
    cached    the match alone, the thousand topics only
    find      the lookup behind it, of topics drawn from all subscriptions: nothing is remembered
    linear    every pattern compared one by one (`wire.subject_matches`), as the reference of what is saved

All sizes are measured in turn, round after round, and the best round of each counts, since machines are shared. The
reference of the ratios is the smallest size of the same run.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from invoker import wire
from invoker.request import Content, Event
from trigger.filter import EventAttributes
from trigger.function import Subscription
from trigger.match import Matcher

LOOKUPS = 20_000
TOPICS_IN_USE = 1_000
LEVELS = ("tenant", "team", "service", "kind", "verb")
WIDTH = 20


def draw(count: int, random_: random.Random, own_names: bool) -> list[list[str]]:
    """The tokens of `count` subscriptions, wildcards not yet put in."""
    drawn = []
    for _ in range(count):
        tenant = random_.randrange(max(10, count // 10))
        names = [f"{name}{random_.randrange(WIDTH)}" for name in LEVELS[1:]]
        if own_names:
            names[0] = f"{names[0]}-of-{tenant}"
        drawn.append([f"{LEVELS[0]}{tenant}", *names])
    return drawn


def pattern(tokens: Sequence[str], random_: random.Random) -> str:
    kind = random_.random()
    if kind < 0.05:
        return ".".join(tokens[: random_.randint(2, len(tokens) - 1)]) + ".>"
    if kind < 0.25:
        place = random_.randrange(len(tokens))
        return ".".join("*" if index == place else token for index, token in enumerate(tokens))
    return ".".join(tokens)


def event(topic: str) -> Event:
    return Event(
        topic=topic,
        request_id="01kqz8m3",
        content=Content(size_bytes=512, content_type="application/json"),
        sha256="0" * 64,
        headers={"Content-Type": "application/json", "Traceparent": "00-4bf92f", "X-Tenant": "t"},
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@dataclass
class Size:
    """One number of subscriptions: its matcher, its events, and the best time of each way of asking, in µs."""

    count: int
    matcher: Matcher
    patterns: list[str]
    topics: list[str]
    hot: list[EventAttributes]
    mixed: list[EventAttributes]
    events: list[Event]
    build_seconds: float
    bytes_each: float
    best: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, count: int, seed: int, own_names: bool) -> Size:
        random_ = random.Random(seed)
        drawn = draw(count, random_, own_names)
        subscriptions = [(f"f{index}", Subscription(pattern(tokens, random_))) for index, tokens in enumerate(drawn)]
        before, started = resident_bytes(), time.perf_counter()
        matcher = Matcher(subscriptions)
        built, after = time.perf_counter() - started, resident_bytes()
        topics = [".".join(random_.choice(drawn)) for _ in range(LOOKUPS)]
        hot = [topics[random_.randrange(TOPICS_IN_USE)] for _ in range(LOOKUPS)]
        # A new last token is new to the memory, and leads as deep into the trie as the topic it was made from.
        mixed = [t if i % 5 else f"{t.rpartition('.')[0]}.new{i}" for i, t in enumerate(hot)]
        patterns = [one.topic for _, one in subscriptions]
        streams = [[EventAttributes(topic) for topic in stream] for stream in (hot, mixed)]
        events = [event(topic) for topic in mixed]
        return cls(count, matcher, patterns, topics, *streams, events, built, (after - before) / count)

    def answers(self) -> float:
        return sum(len(self.matcher.match_topic(topic)) for topic in self.topics) / LOOKUPS

    def measure(self) -> None:
        find, match, of = self.matcher._find, self.matcher.match, EventAttributes.of
        self._take("find", LOOKUPS, lambda: [find(topic) for topic in self.topics])
        self._warm_up()
        self._take("step", LOOKUPS, lambda: [match(of(event)) for event in self.events])
        self._warm_up()
        self._take("match", LOOKUPS, lambda: [match(attributes) for attributes in self.mixed])
        self._take("cached", LOOKUPS, lambda: [match(attributes) for attributes in self.hot])

    def _warm_up(self) -> None:
        self.matcher.forget()
        for attributes in self.hot[: TOPICS_IN_USE * 5]:
            self.matcher.match(attributes)

    def measure_linear(self) -> None:
        asked = self.topics[: max(1, 100_000 // self.count)]
        matches = wire.subject_matches
        self._take("linear", len(asked), lambda: [[p for p in self.patterns if matches(p, t)] for t in asked])

    def _take(self, name: str, lookups: int, run: Callable[[], object]) -> None:
        gc.collect()
        gc.disable()
        started = time.perf_counter()
        run()
        taken = (time.perf_counter() - started) / lookups * 1e6
        gc.enable()
        self.best[name] = min(self.best.get(name, taken), taken)


COLUMNS = ("step", "match", "cached", "find")


def table(sizes: Sequence[Size]) -> str:
    titles = "".join(f"  {name + ' µs':>9}  ratio" for name in COLUMNS)
    lines = [f"subscriptions  answers{titles}  linear µs  build s  bytes each"]
    for size in sizes:
        times = "".join(f"  {size.best[name]:>9.2f}  {size.best[name] / sizes[0].best[name]:>5.2f}" for name in COLUMNS)
        rest = f"  {size.best['linear']:>9,.0f}  {size.build_seconds:>7.2f}  {size.bytes_each:>10.0f}"
        lines.append(f"{size.count:>13,}  {size.answers():>7.2f}{times}{rest}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shared-names", action="store_true", help="every tenant has the same twenty team names")
    given = parser.parse_args()
    sizes = [Size.of(int(count), given.seed, not given.shared_names) for count in given.sizes.split(",")]
    for _ in range(given.rounds):
        for size in sizes:
            size.measure()
    for size in sizes:
        size.measure_linear()
    print(table(sizes))


if __name__ == "__main__":
    main()
