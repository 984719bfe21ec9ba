"""Whether the libraries of the Kubernetes engine are installed: they are an extra, so most laptops do not have them."""

from __future__ import annotations

from importlib.util import find_spec

from invoker.errors import SettingsError

_LIBRARIES = ("kubernetes", "aiohttp")


def require_installed() -> None:
    """Raises `SettingsError` saying what to install when a library is missing. Imports none of them."""
    missing = [name for name in _LIBRARIES if not _is_there(name)]
    if missing:
        raise SettingsError(
            f"INVOKER_ENGINE: the kubernetes engine needs the package {' and '.join(missing)}, which is not installed",
            hint="pip install '.[kubernetes]' in the checkout of Invoker",
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
