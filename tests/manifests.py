"""Attempts, settings and the whole manifests of the golden files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from seeknal_k8s import manifest, manifest_indexed
from seeknal_k8s.attempt import Link, Piece, Span
from seeknal_k8s.backends import Attempt, Share
from seeknal_k8s.graph import Node
from seeknal_k8s.manifest_indexed import Indexes
from seeknal_k8s.options import NodeOptions, Resolved
from seeknal_k8s.settings import Settings

OWNER = manifest.Owner(
    run_id="20260102-030405-ab12",
    project="shop",
    anchor="seeknal-run-20260102-030405-ab12-d7e89268",
    anchor_uid="6b1d3c0e-8f5e-4d53-9d3c-0a4a1c8f3a11",
)
ORDER = "/store/runs/20260102-030405-ab12/bundles/transform-orders-1b2c3d4e/1/order.json"


def an_attempt(node_id: str = "transform.orders", number: int = 1, **options: Any) -> Attempt:
    kind, _, name = node_id.partition(".")
    resolved = Resolved(
        NodeOptions.model_validate(options),
        dict.fromkeys(NodeOptions.model_fields, "seeknal-k8s.yml nodes"),
    )
    return Attempt(
        node=Node(node_id, kind, name, f"seeknal/{name}.yml"),
        number=number,
        folder=Path("/store/anywhere"),
        options=resolved,
        share=Share(1.0, 1),
    )


def for_interval(attempt: Attempt, key: str) -> Attempt:
    link = Link(attempt.node.id, timeout=attempt.options.timeout_seconds)
    return replace(attempt, piece=Piece(key, chain=(link,), spans=(Span(key, ()),)))


def some_settings(**given: Any) -> Settings:
    needed = {"image": "example.com/shop:1.4", "store_claim": "store"}
    # Whoever runs the tests may have settings in the environment; these have none of them.
    nothing: dict[str, Any] = {"_env_prefix": "NOBODY_HAS_SUCH_"}
    return Settings(**nothing, **{**needed, **given})


def a_job(
    attempt: Attempt | None = None,
    settings: Settings | None = None,
    owner: manifest.Owner = OWNER,
    **more: Any,
) -> dict[str, Any]:
    return manifest.build(
        attempt or an_attempt(), owner, settings or some_settings(), **{"order": ORDER, **more}
    )


def an_indexed_job(settings: Settings | None = None, **about: Any) -> dict[str, Any]:
    attempt = an_attempt()
    draft = manifest.Draft(attempt.node, attempt.options, interval="2025-01-01/2026-01-01")
    return manifest_indexed.build(
        draft,
        OWNER,
        settings or some_settings(),
        orders="/store/runs/20260102-030405-ab12/indexed/1",
        indexes=Indexes(at_once=8, **about),
    )


EVERY_OPTION: dict[str, Any] = {
    "cpu": "1500m",
    "memory": "4Gi",
    "memory_max": "16Gi",
    "ephemeral_storage": "10Gi",
    "retries": 2,
    "timeout": "1h30m",
    "env": {"PRICE": "$$5 or $(PRICE)", "LOG_LEVEL": "debug", "HOME": "/store/home"},
    "env_from": ("warehouse", "object-store"),
    "image": "example.com/shop:1.5",
    "node_selector": {"pool": "big", "arch": "arm64"},
    "tolerations": (
        {"key": "dedicated", "value": "seeknal", "effect": "NoExecute", "tolerationSeconds": 60},
    ),
    "priority_class": "batch-high",
    "service_account": "warehouse-reader",
}
EVERY_SETTING: dict[str, Any] = {
    "namespace": "data",
    "image_pull_policy": "Always",
    "image_pull_secrets": ("registry", "mirror"),
    "node_service_account": "seeknal-node",
    "store_path": "/mnt/store",
    "project_path": "/mnt/project",
    "project_claim": "project",
    "priority_class": "batch",
    "ttl": "2h",
    "deadline_margin": "5m",
    "labels": {"team": "data"},
    "annotations": {"example.com/contact": "data team <data@example.com>"},
}
FOR_ALL = {
    "metadata": {"annotations": {"example.com/sidecar": "no"}},
    "spec": {
        "dnsPolicy": "Default",
        "containers": [{"name": "node", "env": [{"name": "TZ", "value": "UTC"}]}],
    },
}
FOR_ONE = {
    "spec": {
        "containers": [
            {
                "name": "node",
                "env": [{"name": "TZ", "value": "Asia/Jakarta"}],
                "volumeMounts": [{"mountPath": "/certs", "name": "certs", "readOnly": True}],
            }
        ],
        "volumes": [
            {"name": "certs", "secret": {"secretName": "warehouse-certs"}},
            {"name": "work", "emptyDir": {"medium": "Memory"}},
        ],
        "hostAliases": [{"ip": "10.0.0.5", "hostnames": ["warehouse"]}],
        "enableServiceLinks": None,
    },
}


def goldens() -> dict[str, dict[str, Any]]:
    """Return every manifest that has a golden file, by name."""
    return {
        "anchor": manifest.anchor(
            OWNER.run_id, OWNER.project, some_settings(), started_by="seeknal-runner-x7k2p"
        ),
        "default": a_job(),
        "everything": a_job(
            for_interval(
                an_attempt(number=3, **EVERY_OPTION), "2024-01-01T00:00:00/2024-01-02T00:00:00"
            ),
            some_settings(**EVERY_SETTING),
            order=f"/mnt{ORDER}",
        ),
        "gpu": a_job(an_attempt("model.churn", gpu={"count": 2, "resource": "amd.com/gpu"})),
        "indexed": an_indexed_job(count=365, timeout=3600.0, max_failures=3),
        "indexed-kueue": an_indexed_job(some_settings(queue="data-team"), count=4),
        "kueue": a_job(an_attempt(timeout="10m"), some_settings(queue="data-team")),
        "one-machine": a_job(
            settings=some_settings(
                store_claim=None, store_host_path="/var/store", project_host_path="/var/project"
            )
        ),
        "patched": a_job(
            an_attempt(pod_template=FOR_ONE), some_settings(node_pod_template=FOR_ALL)
        ),
        "unicode": a_job(
            an_attempt(f"transform.数据_Größe_{'x' * 60}"),
            owner=replace(OWNER, run_id="läuft heute", project="Bücher & Co"),
        ),
    }
