"""Every group of routes of the gateway, in one list."""

from __future__ import annotations

from fastapi import APIRouter

from invoker.gateway import gitfaas, publishing
from invoker.gateway.gateway import Gateway

OPEN_PATHS: tuple[str, ...] = ()
"""Beginnings of paths that need no login at the door: they look at a token of their own."""


def routers(gateway: Gateway) -> list[APIRouter]:
    """The routes, group by group."""
    return [publishing.router(gateway), gitfaas.router(gateway)]
