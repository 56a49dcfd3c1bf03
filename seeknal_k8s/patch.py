"""Patches to a pod: one rule to merge them, and what they may not change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from seeknal_k8s.settings import OURS

_MERGED_BY = {"volumeMounts": "mountPath"}
_CONTAINER = "node"
_MOUNTED = ("work", "tmp", "store", "project")
_SHARED = ("store", "project")  # the pod's own disks may be of another kind
_FITTED = ("cpu", "memory", "ephemeral-storage")


def merge(base: Any, patch: Any, *, by: str = "name") -> Any:
    """Return ``base`` with ``patch`` over it; neither is changed.

    Maps merge key by key, and a ``null`` deletes the key, as in RFC 7386. Lists of named things
    (containers, env, volumes) merge by ``name``, ``volumeMounts`` by ``mountPath``: what has the
    same name is merged in its place, what is new comes last. Everything else is replaced.
    """
    if isinstance(patch, Mapping):
        merged = dict(_map(base))
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged.get(key), value, by=_MERGED_BY.get(key, "name"))
        return merged
    if isinstance(patch, list):
        things = [*_list(base), *patch]
        if all(isinstance(_map(thing).get(by), str) for thing in things):
            named: dict[str, Any] = {}
            for thing in things:
                named[thing[by]] = merge(named.get(thing[by]), thing)
            return list(named.values())
    return copy.deepcopy(patch)


def changes(before: Any, after: Any) -> list[tuple[str, str]]:
    """Return what a patch to a pod has changed that we rely on, by place, and what to do instead."""
    relied, found = _relied_on(before), _relied_on(after)
    return [
        (place, _INSTEAD.get(place, _LEAVE)) for place in relied if found[place] != relied[place]
    ]


_LEAVE = "leave that out of the patch: without it the node does not run, or is not found again"
_INSTEAD = {
    "spec.containers[node].resources.limits": "leave that out of the patch and use the options "
    "`cpu`, `memory` and `ephemeral_storage`: DuckDB is fitted to them",
    "spec.restartPolicy": "leave that out of the patch and use the option `retries`",
}


def _relied_on(template: Any) -> dict[str, Any]:
    """Return what has to survive a patch, by place. A patch may give a template any shape."""
    labels = _map(_map(_map(template).get("metadata")).get("labels"))
    spec = _map(_map(template).get("spec"))
    node = _named(spec.get("containers"), _CONTAINER)
    limits = _map(_map(node.get("resources")).get("limits"))
    return {
        "metadata.labels": {key: labels[key] for key in labels if key.startswith(OURS)},
        "spec.containers[node].args": node.get("args"),
        "spec.containers[node].command": node.get("command"),
        "spec.containers[node].resources.limits": [limits.get(name) for name in _FITTED],
        "spec.containers[node].volumeMounts": [
            _named(node.get("volumeMounts"), name) for name in _MOUNTED
        ],
        "spec.restartPolicy": spec.get("restartPolicy"),
        "spec.volumes": [_named(spec.get("volumes"), name) for name in _SHARED],
    }


def _named(things: Any, name: str) -> Mapping[str, Any]:
    return next((thing for thing in map(_map, _list(things)) if thing.get("name") == name), {})


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
