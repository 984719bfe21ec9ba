"""The acceptance tests of the commands once more, with a dev whose runs are pods: all that concern what a run does.

The same functions, catalog and tests as for the local engine; only where `desk` runs them differs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.cli_desk import Desk
from tests.acceptance.commands.desk_functions import write_functions
from tests.acceptance.commands.test_publish import (
    test_a_failed_run_ends_with_3,
    test_headers_parameters_and_content_type_reach_the_function,
    test_one_of_two_runs_failed,
    test_publish_takes_files_and_standard_input,
    test_publish_waits_and_gives_the_bytes_and_nothing_else,
)
from tests.acceptance.commands.test_result import test_the_chain_of_a_request
from tests.acceptance.commands.test_runs import (
    test_ctrl_c_detaches_and_says_how_to_come_back,
    test_describe_says_in_words_what_went_wrong,
    test_logs_live_and_afterwards,
    test_progress_is_shown_while_it_runs,
)
from tests.cluster.engine_world import PYTHON_IMAGE, build_python_image
from tests.cluster.facts import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.acceptance, pytest.mark.timeout(300)]

__all__ = [
    "test_a_failed_run_ends_with_3",
    "test_ctrl_c_detaches_and_says_how_to_come_back",
    "test_describe_says_in_words_what_went_wrong",
    "test_headers_parameters_and_content_type_reach_the_function",
    "test_logs_live_and_afterwards",
    "test_one_of_two_runs_failed",
    "test_progress_is_shown_while_it_runs",
    "test_publish_takes_files_and_standard_input",
    "test_publish_waits_and_gives_the_bytes_and_nothing_else",
    "test_the_chain_of_a_request",
]


@pytest.fixture(scope="module")
def desk(cluster: Cluster, module_namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    build_python_image(cluster)
    environ = {
        "INVOKER_RUNTIME_IMAGES": f"python={PYTHON_IMAGE}",
        "INVOKER_IMAGE_PULL_POLICY": "Never",
        "INVOKER_KUBECONFIG": str(cluster.kubeconfig),
        "INVOKER_KUBE_NAMESPACE": module_namespace,
    }
    made = Desk(tmp_path_factory.mktemp("desk"), environ)
    write_functions(made)
    with made.dev("--engine", "kubernetes", "--http-host", cluster.host_address):
        yield made
