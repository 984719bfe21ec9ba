"""What the sample functions are called with: a context of their own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sample_functions import RecordingContext, fresh_context


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return fresh_context(tmp_path)
