"""Without an API server the tests that need one are skipped; in CI that is a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import real_cluster

if TYPE_CHECKING:
    from pathlib import Path


def test_without_an_api_server_a_test_is_skipped_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="make cluster-up"):
        real_cluster.kubeconfig({"CLUSTER_ROOT": str(tmp_path)})


def test_in_ci_it_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=real_cluster.VARIABLE):
        real_cluster.kubeconfig({real_cluster.VARIABLE: str(tmp_path / "none"), "CI": "true"})


def test_a_kubeconfig_whose_server_does_not_answer_is_none(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    real_cluster.write_kubeconfig(path, {"server": "https://127.0.0.1:1"}, {})

    with pytest.raises(pytest.skip.Exception, match="no API server"):
        real_cluster.kubeconfig({real_cluster.VARIABLE: str(path)})
