"""The images that docker-compose.yml names, put into a daemon: ours as it is built here, and the two stand-ins."""

from __future__ import annotations

import re

from tests.cluster.invoker_image import invoker_archive
from tests.compose import stand_ins
from tests.compose.daemon import Daemon
from tests.compose.project import ROOT

FILE = (ROOT / "docker-compose.yml").read_text()


def default_image(variable: str) -> str:
    """The name in the file for who sets nothing."""
    found = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", FILE)
    assert found is not None
    return found[1]


def load_images(docker: Daemon) -> None:
    """Afterwards `docker-compose up` has everything it needs."""
    archive, loaded = invoker_archive(), docker.folder / "image.tar"
    stand_ins.write_nats(loaded, default_image("NATS_IMAGE"))
    docker.docker("load", "--input", str(loaded))
    stand_ins.write_redis(loaded, default_image("REDIS_IMAGE"))
    docker.docker("load", "--input", str(loaded))
    stand_ins.load_form(archive, default_image("INVOKER_IMAGE"), loaded)
    docker.docker("load", "--input", str(loaded))
    loaded.unlink()
