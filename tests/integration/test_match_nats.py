"""The matcher against the server itself: who gets a message is what nats-server delivers, over thousands of pairs."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker import wire
from tests.conftest import eventually
from trigger.function import Subscription
from trigger.match import Matcher

pytestmark = pytest.mark.integration

NAMES = wire.Names()
TOKENS = ["a", "b", "c", "ab", "ba", "A", "_x-1", "ü", "x:y", "1", "a" * 40, "$b", "{}"]
PATTERNS = 400
TOPICS = 600


def generated_topic(random_: random.Random) -> str:
    tokens = [random_.choice(TOKENS) for _ in range(random_.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 12]))]
    return ".".join(tokens) if not tokens[0].startswith("$") else generated_topic(random_)


def generated_pattern(random_: random.Random) -> str:
    tokens = ["*" if random_.random() < 0.35 else token for token in generated_topic(random_).split(".")]
    if random_.random() < 0.3:
        tokens = [*tokens[: random_.randrange(len(tokens) + 1)], ">"]
    return ".".join(tokens)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_matcher_finds_whom_the_server_delivers_to(client: NatsClient, seed: int) -> None:
    random_ = random.Random(seed)
    patterns = [wire.check_pattern(generated_pattern(random_)) for _ in range(PATTERNS)]
    topics = sorted({wire.check_topic(generated_topic(random_)) for _ in range(TOPICS)})
    delivered: dict[str, set[str]] = defaultdict(set)

    for index, pattern in enumerate(patterns):

        async def receive(message: Msg, name: str = f"f{index}") -> None:
            delivered[NAMES.topic_of(message.subject)].add(name)

        await client.subscribe(NAMES.event(pattern), cb=receive)
    last = await client.subscribe("last")
    for topic in topics:
        await client.publish(NAMES.event(topic))
    # One connection gets its messages in the order they were sent: after this one, only our callbacks have work left.
    await client.publish("last")
    await last.next_msg(timeout=60)
    await eventually(lambda: _nothing_waits(client), what="the last callback")

    matcher = Matcher((f"f{index}", Subscription(pattern)) for index, pattern in enumerate(patterns))
    found = {topic: set(matcher.match_topic(topic)) for topic in topics}
    assert found == {topic: delivered[topic] for topic in topics}
    pairs = sum(map(len, found.values()))
    assert 2_000 < pairs < len(topics) * PATTERNS / 2, "the generator makes too few or too many matches to say anything"


async def _nothing_waits(client: NatsClient) -> bool:
    return all(sub.pending_msgs == 0 for sub in client._subs.values())
