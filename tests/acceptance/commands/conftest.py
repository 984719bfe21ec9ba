"""One running dev for all the commands of this folder: a desk with a catalog of every kind of function."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.cli_desk import Desk
from tests.acceptance.commands.desk_functions import write_functions


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"))
    write_functions(made)
    with made.dev():
        yield made
