"""What every test of this folder has."""

from __future__ import annotations

from tests.custody.processes import no_controller_stays

__all__ = ["no_controller_stays"]
