"""Write the chart's README and values.schema.json from values.yaml, whose comments say what keys mean.

    python helm/generate.py [--manifests]

``--manifests`` writes manifests/seeknal-k8s.yaml instead, with the helm of the tests' cluster, or the
one on PATH. ``settings`` comes from
``seeknal_k8s.settings``, so that the chart knows every setting and no other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from seeknal_k8s.settings import Settings

CHART = Path(__file__).parent / "seeknal-k8s"

DECIDED = {
    "context": "pods use their service account",
    "image": "image",
    "image_pull_policy": "image.pullPolicy",
    "image_pull_secrets": "image.pullSecrets",
    "namespace": "jobs.namespace",
    "node_service_account": "serviceAccounts.node.name",
    "on": "kubernetes",
    "runner_service_account": "serviceAccounts.runner.name",
    "store_claim": "store",
    "work_pool": "prefect.pool",
}
"""Settings that other values of the chart decide, and which."""

FREE = {
    "affinity", "annotations", "commonAnnotations", "commonLabels", "env", "limits", "nodeSelector",
    "podAnnotations", "podLabels", "requests",
}  # fmt: skip
"""Maps in which any key is right."""

ENUMS = {
    "image.pullPolicy": ["Always", "IfNotPresent", "Never"],
    "store.accessMode": ["ReadWriteMany", "ReadWriteOnce"],
    "worker.logLevel": ["DEBUG", "INFO", "WARNING", "ERROR"],
}
ITEMS: dict[str, dict[str, Any]] = {
    "extraObjects": {"type": ["object", "string"]},
    "networkPolicy.apiServerPorts": {"type": "integer"},
    "networkPolicy.nodeEgress": {"type": "object"},
    "networkPolicy.prefectPorts": {"type": "integer"},
    "worker.tolerations": {"type": "object"},
}
"""What lists are made of that are not of texts."""

PATTERNS = {
    "image.digest": "^(sha256:[0-9a-f]{64})?$",
    "prefect.apiUrl": "^(https?://.+)?$",
    "prefect.pool": "^[^/%&<>]+$",
    "server.uiApiUrl": "^https?://.+$",
}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


def sentences(text: str) -> dict[str, str]:
    """Return what the comments of values.yaml say: dotted key → sentence."""
    found: dict[str, str] = {}
    place: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        if comment := re.match(r"\s*# (-- )?(.*)", line):
            said = [comment[2]] if comment[1] else [*said, comment[2]] if said else []
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            indent = len(key[1])
            place = [(i, name) for i, name in place if i < indent] + [(indent, key[2])]
            if said:
                found[".".join(name for _, name in place)] = " ".join(said)
            said = []
        else:
            said = []
    return found


def schema_of(value: Any, path: str, said: dict[str, str]) -> dict[str, Any]:
    """Return the schema of a value, and of all below it."""
    about = {"description": said[path]} if path in said else {}
    if path == "settings":
        return {**about, **settings_schema()}
    name = path.rpartition(".")[2]
    if isinstance(value, dict):
        if name in FREE:
            return {**about, "type": "object"}
        below = {k: schema_of(v, f"{path}.{k}".lstrip("."), said) for k, v in value.items()}
        return {**about, "type": "object", "additionalProperties": False, "properties": below}
    found: dict[str, Any] = {**about, "type": _TYPES[type(value)]}
    if path in ENUMS:
        found["enum"] = ENUMS[path]
    if path in PATTERNS:
        found["pattern"] = PATTERNS[path]
    if isinstance(value, list):
        found["items"] = ITEMS.get(path, {"type": "string"})
    if type(value) is int:
        found["minimum"] = 0
    return found


def settings_schema() -> dict[str, Any]:
    """Return the schema of ``settings``: all that the chart does not decide otherwise."""
    fields = {n: f for n, f in Settings.model_fields.items() if n not in DECIDED}
    properties = {
        name: {"description": field.description, "type": _kinds(field.default)}
        for name, field in fields.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _kinds(default: object) -> list[str] | str:
    if isinstance(default, dict):
        return "object"
    if isinstance(default, tuple):
        return ["array", "string"]
    return ["integer", "string"] if isinstance(default, int) else "string"


def schema() -> str:
    """Return values.schema.json."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    found = schema_of(yaml.safe_load(text), "", sentences(text))
    found["properties"]["global"] = {
        "description": "What a chart above this one tells all of its charts.",
        "type": "object",
    }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "seeknal-k8s"}
    return json.dumps({**head, **found}, indent=2, ensure_ascii=False) + "\n"


def rows(value: Any, path: str, said: dict[str, str]) -> list[str]:
    """Return the rows of the README's table."""
    if isinstance(value, dict) and value and path not in said:
        return [row for k, v in value.items() for row in rows(v, f"{path}.{k}".lstrip("."), said)]
    shown = json.dumps(value, ensure_ascii=False)
    return [f"| `{path}` | `{shown}` | {said.get(path, '')} |"]


def readme() -> str:
    """Return README.md: its beginning by hand, its table from values.yaml."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    table = rows(yaml.safe_load(text), "", sentences(text))
    decided = [f"| `{name}` | {what} |" for name, what in sorted(DECIDED.items())]
    return "\n".join([*_HEAD, *table, *_SETTINGS, *decided, ""])


_HEAD = """\
# seeknal-k8s

A Prefect worker that runs Seeknal pipelines as Kubernetes Jobs, one per node.

```sh
helm install seeknal helm/seeknal-k8s --namespace data --set prefect.apiUrl=http://prefect:4200/api \\
  --set image.repository=shop --set image.tag=1
helm test seeknal --namespace data
```

What it installs: the worker; service accounts and Roles for it, for flows and for nodes; the settings
of runs; the claim of the store; and, by a hook, the work pool in Prefect. To try things out without a
Prefect server of your own: `--set server.enabled=true`, which is not for production.

`helm uninstall` leaves the claim of the store (with outputs, results and logs), ended Jobs until
their time is up, and the work pool with its deployments in Prefect.

An API key or a password of Prefect is taken from a Secret that exists in the release's namespace and,
if that is another, in the jobs' (`prefect.apiKey.secretName`, `prefect.authString.secretName`). It is in no
manifest of this chart and of no Job.

This page is made of values.yaml: `make docs`.

## Values

| key | default | meaning |
|---|---|---|""".splitlines()

_SETTINGS = """
## Settings

`settings` takes any setting of [docs/settings.md](../../docs/settings.md), by its name in lower case.
These are decided by other values:

| setting | decided by |
|---|---|""".splitlines()


def manifests(helm: str) -> str:
    """Return the chart's objects with its defaults, as helm renders them."""
    command = [helm, "template", "seeknal", str(CHART), "--namespace", "seeknal", "--skip-tests"]
    command += ["--set", "prefect.apiUrl=http://prefect-server:4200/api"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{_MANIFESTS}{done.stdout}"


_MANIFESTS = """\
# The chart with its defaults, for those who do without Helm: change what has to be changed, then
#   kubectl apply --namespace seeknal -f manifests/seeknal-k8s.yaml
# Made by `make manifests`.
"""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifests", action="store_true")
    if parser.parse_args().manifests:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(os.environ.get("CLUSTER_ROOT") or Path(cache) / "seeknal-k8s-cluster")
        ours = root / "bin" / "helm"
        text = manifests(str(ours) if ours.exists() else "helm")
        (CHART.parent.parent / "manifests" / "seeknal-k8s.yaml").write_text(text, encoding="utf-8")
        return
    (CHART / "values.schema.json").write_text(schema(), encoding="utf-8")
    (CHART / "README.md").write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()
