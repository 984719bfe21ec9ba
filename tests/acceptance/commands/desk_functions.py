"""The functions of the desk on which every command is tried: good, failing, slow and large ones, pairs, a chain."""

from __future__ import annotations

from tests.acceptance.cli_desk import Desk

HELLO = """\
def handle(event, context):
    data = event["data"]
    return f"Hello, {data['name'] if isinstance(data, dict) else data}!"
"""
ECHO = "def handle(event, context):\n    return event['data'] if event['data'] else b''\n"
BINARY = "def handle(event, context):\n    return bytes(range(256))\n"
FAIL = """\
def handle(event, context):
    print("about to fail")
    raise ValueError("no such order")
"""
SLOW = """\
import time


def handle(event, context):
    print("begun", flush=True)
    for _ in range(600):  # every test cancels its own; news may be lost, so they are told again
        context.progress(40, "unpacking")
        time.sleep(1)
"""
FACTS = """\
def handle(event, context):
    return {"topic": event["topic"], "params": event["params"], "headers": event["headers"]}
"""
BIG = "def handle(event, context):\n    return b'x' * 2_000_000\n"
BAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: bad}\nspec:\n  runtim: python\n"
SCHEMA = "input: {schema: {type: object, required: [name], properties: {name: {type: string}}}}"


def write_functions(desk: Desk) -> None:
    desk.function("hello", HELLO)
    desk.function("echo", ECHO)
    desk.function("binary", BINARY)
    desk.function("fail", FAIL)
    desk.function("slow", SLOW)
    desk.function("slower", SLOW, "later.slower", ["concurrency: 1"])
    desk.function("facts", FACTS, more=["parameters: [{name: level, schema: {type: integer}, default: 6}]"])
    desk.function("big", BIG)
    desk.function("strict", HELLO, more=[SCHEMA])
    desk.function("pair-a", HELLO, "pair")
    desk.function("pair-b", FAIL, "pair")
    desk.function("both-a", ECHO, "both")
    desk.function("both-b", ECHO, "both")
    desk.function("first", ECHO, "chain.first", ["onSuccess: {publish: chain.second}"])
    desk.function("second", HELLO, "chain.second")
    desk.function("filtered", ECHO, "filtered.>", ["resources: {limits: {memory: 512Mi}}"])
