"""The chart as rendered: what each value changes, that nothing else may be set, that all is restricted."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from helm import generate
from seeknal_k8s.doctor.on_cluster import RUNNER_RULES
from seeknal_k8s.settings import PREFIX, Settings
from seeknal_k8s.version import __version__
from tests import podsecurity
from tests.cluster import harness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.harness import Namespace

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "seeknal-k8s"
URL = {"prefect": {"apiUrl": "http://prefect:4200/api"}}
VERSIONS = [text for text in all_versions() if tuple(map(int, text.split(".")[:2])) >= (1, 31)]
EVERYTHING: dict[str, Any] = {
    "nameOverride": "pipelines",
    "commonLabels": {"team": "data"},
    "commonAnnotations": {"example.com/owner": "data"},
    "image": {"repository": "example.com/shop", "tag": "7", "pullSecrets": ["registry"]},
    "jobs": {"namespace": "jobs"},
    "prefect": {
        "queues": ["a", "b"],
        "apiKey": {"secretName": "prefect-key"},
        "authString": {"secretName": "prefect-auth"},
        "env": {"PREFECT_CLIENT_MAX_RETRIES": 7},
    },
    "pool": {"overwrite": True, "flowEnvFrom": ["warehouse"]},
    "settings": {"max_jobs": 20, "labels": {"team": "data"}, "queue": "team-a", "ttl": "12h"},
    "store": {"storageClassName": "nfs"},
    "worker": {
        "replicas": 2,
        "podLabels": {"extra": "label"},
        "podAnnotations": {"extra": "annotation"},
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
    },
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "apiServerCidrs": ["10.0.0.1/32"],
        "prefectCidrs": ["10.0.1.0/24"],
        "nodeEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}],
    },
    "server": {"enabled": True, "authString": {"secretName": "server-auth"}},
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}
    ],
}


pytestmark = pytest.mark.usefixtures("helm")


def program() -> Path:
    return harness.HELM


@dataclass(frozen=True)
class Rendered:
    """The objects of a chart."""

    objects: Sequence[dict[str, Any]]

    def get(self, kind: str, name: str = "") -> dict[str, Any]:
        """Return the one object of a kind whose name ends so."""
        (found,) = [
            one
            for one in self.objects
            if one["kind"] == kind and one["metadata"]["name"].endswith(name)
        ]
        return found

    def names(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.objects if one["kind"] == kind}


def call(values: dict[str, Any], release: str = "seeknal") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program()), "template", release, str(CHART), "--namespace", "data", "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def _rendered(text: str, release: str) -> Rendered:
    done = call(json.loads(text), release)
    assert done.returncode == 0, done.stderr
    return Rendered([one for one in yaml.safe_load_all(done.stdout) if one])


def render(values: dict[str, Any] | None = None, release: str = "seeknal") -> Rendered:
    """Render the chart; with the URL of a Prefect API, unless values bring their own."""
    return _rendered(json.dumps({**URL, **(values or {})}), release)


def at(thing: Any, path: str) -> Any:
    """Return what is at a dotted path; ``name=x`` picks from a list, a number too; None if absent."""
    for part in path.split("/"):
        if isinstance(thing, list):
            key, _, wanted = part.partition("=")
            found = (
                [one for one in thing if one.get(key) == wanted] if wanted else [thing[int(part)]]
            )
            thing = found[0] if found else None
        else:
            thing = (thing or {}).get(part)
    return thing


POD = "spec/template/spec"
WORKER = f"{POD}/containers/name=worker"
CASES = [
    # kind, the end of its name, path, values, what is there
    ("Deployment", "-worker", "spec/replicas", {}, 1),
    ("Deployment", "-worker", "spec/replicas", {"worker": {"replicas": 3}}, 3),
    ("Deployment", "-worker", f"{WORKER}/image", {}, f"seeknal-k8s:{__version__}"),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/image",
        {"image": {"repository": "a/b", "tag": "2"}},
        "a/b:2",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/image",
        {"image": {"digest": "sha256:" + "a" * 64}},
        "seeknal-k8s@sha256:" + "a" * 64,
    ),
    ("Deployment", "-worker", f"{WORKER}/imagePullPolicy", {}, "IfNotPresent"),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/imagePullPolicy",
        {"image": {"pullPolicy": "Always"}},
        "Always",
    ),
    ("Deployment", "-worker", f"{POD}/imagePullSecrets", {}, None),
    (
        "Deployment",
        "-worker",
        f"{POD}/imagePullSecrets",
        {"image": {"pullSecrets": ["r"]}},
        [{"name": "r"}],
    ),
    ("Deployment", "-worker", f"{WORKER}/command/4", {}, "--pool=seeknal"),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/command/4",
        {"prefect": {**URL["prefect"], "pool": "x"}},
        "--pool=x",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/command/7",
        {"prefect": {**URL["prefect"], "queues": ["q"]}},
        "--work-queue=q",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_API_URL/value",
        {},
        "http://prefect:4200/api",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_API_URL/value",
        {"prefect": {}, "server": {"enabled": True}},
        "http://seeknal-seeknal-k8s-server.data.svc:4200/api",
    ),
    ("Deployment", "-worker", f"{WORKER}/env/name=PREFECT_API_KEY", {}, None),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_API_KEY/valueFrom/secretKeyRef",
        {"prefect": {**URL["prefect"], "apiKey": {"secretName": "s"}}},
        {"name": "s", "key": "key"},
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_KEY_SECRET_NAME/value",
        {"prefect": {**URL["prefect"], "apiKey": {"secretName": "s"}}},
        "s",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_API_AUTH_STRING/valueFrom/secretKeyRef",
        {"prefect": {**URL["prefect"], "authString": {"secretName": "s", "secretKey": "k"}}},
        {"name": "s", "key": "k"},
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY/value",
        {"prefect": {**URL["prefect"], "authString": {"secretName": "s", "secretKey": "k"}}},
        "k",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_API_AUTH_STRING/valueFrom/secretKeyRef/name",
        {"prefect": {}, "server": {"enabled": True, "authString": {"secretName": "own"}}},
        "own",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=A/value",
        {"prefect": {**URL["prefect"], "env": {"A": 1}}},
        "1",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_LOGGING_LEVEL/value",
        {"worker": {"logLevel": "DEBUG"}},
        "DEBUG",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/env/name=PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES/value",
        {"jobs": {"namespace": "jobs"}},
        "jobs",
    ),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/readinessProbe/exec/command",
        {},
        ["python", "-m", "seeknal_k8s.readiness"],
    ),
    ("Deployment", "-worker", f"{WORKER}/livenessProbe/httpGet/path", {}, "/health"),
    ("Deployment", "-worker", f"{WORKER}/startupProbe/failureThreshold", {}, 60),
    (
        "Deployment",
        "-worker",
        f"{WORKER}/resources/limits/cpu",
        {"worker": {"resources": {"limits": {"cpu": "3"}}}},
        "3",
    ),
    ("Deployment", "-worker", f"{POD}/terminationGracePeriodSeconds", {}, 60),
    ("Deployment", "-worker", f"{POD}/serviceAccountName", {}, "seeknal-seeknal-k8s-worker"),
    (
        "Deployment",
        "-worker",
        f"{POD}/serviceAccountName",
        {"serviceAccounts": {"worker": {"name": "w"}}},
        "w",
    ),
    (
        "Deployment",
        "-worker",
        f"{POD}/nodeSelector",
        {"worker": {"nodeSelector": {"a": "b"}}},
        {"a": "b"},
    ),
    (
        "Deployment",
        "-worker",
        f"{POD}/tolerations",
        {"worker": {"tolerations": [{"key": "a"}]}},
        [{"key": "a"}],
    ),
    (
        "Deployment",
        "-worker",
        f"{POD}/priorityClassName",
        {"worker": {"priorityClassName": "p"}},
        "p",
    ),
    (
        "Deployment",
        "-worker",
        "spec/template/metadata/labels/a",
        {"worker": {"podLabels": {"a": "b"}}},
        "b",
    ),
    (
        "Deployment",
        "-worker",
        "spec/template/metadata/annotations/a",
        {"worker": {"podAnnotations": {"a": "b"}}},
        "b",
    ),
    ("Deployment", "-worker", "metadata/labels/team", {"commonLabels": {"team": "d"}}, "d"),
    (
        "Deployment",
        "-worker",
        "metadata/annotations/o",
        {"commonAnnotations": {"o": "d"}},
        "d",
    ),
    ("ConfigMap", "-settings", f"data/{PREFIX}ON", {}, "kubernetes"),
    ("ConfigMap", "-settings", f"data/{PREFIX}NAMESPACE", {}, "data"),
    ("ConfigMap", "-settings", f"data/{PREFIX}NAMESPACE", {"jobs": {"namespace": "j"}}, "j"),
    ("ConfigMap", "-settings", f"data/{PREFIX}IMAGE", {}, f"seeknal-k8s:{__version__}"),
    (
        "ConfigMap",
        "-settings",
        f"data/{PREFIX}IMAGE_PULL_SECRETS",
        {"image": {"pullSecrets": ["a", "b"]}},
        "a,b",
    ),
    ("ConfigMap", "-settings", f"data/{PREFIX}STORE_CLAIM", {}, "seeknal-seeknal-k8s-store"),
    (
        "ConfigMap",
        "-settings",
        f"data/{PREFIX}STORE_CLAIM",
        {"store": {"existingClaim": "mine"}},
        "mine",
    ),
    ("ConfigMap", "-settings", f"data/{PREFIX}NODE_SERVICE_ACCOUNT", {}, "seeknal-node"),
    ("ConfigMap", "-settings", f"data/{PREFIX}RUNNER_SERVICE_ACCOUNT", {}, "seeknal-runner"),
    ("ConfigMap", "-settings", f"data/{PREFIX}WORK_POOL", {}, "seeknal"),
    ("ConfigMap", "-settings", f"data/{PREFIX}MAX_JOBS", {"settings": {"max_jobs": 1000}}, "1000"),
    ("ConfigMap", "-settings", f"data/{PREFIX}TTL", {"settings": {"ttl": "12h"}}, "12h"),
    (
        "ConfigMap",
        "-settings",
        f"data/{PREFIX}LABELS",
        {"settings": {"labels": {"team": "data"}}},
        '{"team":"data"}',
    ),
    ("PersistentVolumeClaim", "-store", "spec/accessModes", {}, ["ReadWriteMany"]),
    (
        "PersistentVolumeClaim",
        "-store",
        "spec/accessModes",
        {"store": {"accessMode": "ReadWriteOnce"}},
        ["ReadWriteOnce"],
    ),
    ("PersistentVolumeClaim", "-store", "spec/resources/requests/storage", {}, "10Gi"),
    ("PersistentVolumeClaim", "-store", "spec/storageClassName", {}, None),
    (
        "PersistentVolumeClaim",
        "-store",
        "spec/storageClassName",
        {"store": {"storageClassName": "nfs"}},
        "nfs",
    ),
    (
        "PersistentVolumeClaim",
        "-store",
        "metadata/annotations",
        {},
        {"helm.sh/resource-policy": "keep"},
    ),
    ("PersistentVolumeClaim", "-store", "metadata/namespace", {"jobs": {"namespace": "j"}}, "j"),
    ("Role", "-runner", "metadata/namespace", {"jobs": {"namespace": "j"}}, "j"),
    ("RoleBinding", "-runner", "subjects/0/namespace", {"jobs": {"namespace": "j"}}, "j"),
    ("RoleBinding", "-worker", "metadata/namespace", {"jobs": {"namespace": "j"}}, "j"),
    ("RoleBinding", "-worker", "subjects/0/namespace", {"jobs": {"namespace": "j"}}, "data"),
    ("ServiceAccount", "seeknal-runner", "metadata/namespace", {"jobs": {"namespace": "j"}}, "j"),
    ("ServiceAccount", "seeknal-node", "automountServiceAccountToken", {}, False),
    (
        "ServiceAccount",
        "seeknal-node",
        "metadata/annotations/role",
        {"serviceAccounts": {"node": {"annotations": {"role": "r"}}}},
        "r",
    ),
    ("Job", "-pool", f"{POD}/containers/0/command/3", {}, "--runner-cpu=500m"),
    (
        "Job",
        "-pool",
        f"{POD}/containers/0/command/5",
        {"pool": {"flowEnvFrom": ["warehouse"]}},
        "--env-from=warehouse",
    ),
    (
        "Job",
        "-pool",
        f"{POD}/containers/0/command/5",
        {"pool": {"overwrite": True}},
        "--overwrite",
    ),
    (
        "Job",
        "-pool",
        "metadata/annotations/helm.sh~hook",
        {},
        "post-install,post-upgrade,post-rollback",
    ),
    ("Pod", "-test", "spec/serviceAccountName", {}, "seeknal-runner"),
    ("PodDisruptionBudget", "", "spec/minAvailable", {"podDisruptionBudget": {"enabled": True}}, 1),
    (
        "Deployment",
        "-server",
        f"{POD}/containers/0/env/name=PREFECT_SERVER_API_AUTH_STRING/valueFrom/secretKeyRef/name",
        {"server": {"enabled": True, "authString": {"secretName": "s"}}},
        "s",
    ),
    (
        "Deployment",
        "-server",
        f"{POD}/containers/0/image",
        {"server": {"enabled": True, "image": {"repository": "prefect", "tag": "3"}}},
        "prefect:3",
    ),
    (
        "StatefulSet",
        "-postgres",
        "spec/volumeClaimTemplates/0/spec/resources/requests/storage",
        {"server": {"enabled": True}},
        "1Gi",
    ),
    (
        "StatefulSet",
        "-postgres",
        "spec/volumeClaimTemplates",
        {"server": {"enabled": True, "postgres": {"size": ""}}},
        None,
    ),
    (
        "StatefulSet",
        "-postgres",
        f"{POD}/securityContext/runAsUser",
        {"server": {"enabled": True, "postgres": {"runAsUser": 70}}},
        70,
    ),
    (
        "NetworkPolicy",
        "-node",
        "spec/egress/1",
        {"networkPolicy": {"enabled": True, "nodeEgress": [{"to": []}]}},
        {"to": []},
    ),
    (
        "NetworkPolicy",
        "-runner",
        "spec/egress/1/to/0/ipBlock/cidr",
        {"networkPolicy": {"enabled": True, "apiServerCidrs": ["10.0.0.1/32"]}},
        "10.0.0.1/32",
    ),
    ("NetworkPolicy", "-worker", "spec/ingress", {"networkPolicy": {"enabled": True}}, []),
    (
        "ConfigMap",
        "seeknal-more",
        "kind",
        {"extraObjects": EVERYTHING["extraObjects"]},
        "ConfigMap",
    ),
    (
        "ConfigMap",
        "text",
        "data/a",
        {
            "extraObjects": [
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: text}, data: {a: {{ .Values.prefect.pool }} }}"
            ]
        },
        "seeknal",
    ),
]


@pytest.mark.parametrize(
    ("kind", "name", "path", "values", "expected"),
    [
        pytest.param(*case, id=f"{case[0]}{case[1]} {case[2]} {json.dumps(case[3])}"[:120])
        for case in CASES
    ],
)
def test_a_value_is_where_it_belongs(
    kind: str, name: str, path: str, values: dict[str, Any], expected: Any
) -> None:
    found = at(render(values).get(kind, name), path) if "~" not in path else None
    if "~" in path:
        *head, last = path.split("/")
        found = at(render(values).get(kind, name), "/".join(head))[last.replace("~", "/")]
    assert found == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("PersistentVolumeClaim", {"store": {"create": False}}),
        ("PersistentVolumeClaim", {"store": {"existingClaim": "mine"}}),
        ("ServiceAccount", {"serviceAccounts": {who: {"create": False} for who in ("worker", "runner", "node")}}),
        ("Role", {"rbac": {"create": False}}),
        ("RoleBinding", {"rbac": {"create": False}}),
        ("Job", {"pool": {"apply": False}}),
        ("NetworkPolicy", {}),
        ("PodDisruptionBudget", {}),
        ("StatefulSet", {}),
        ("Secret", {}),
        ("ClusterRole", EVERYTHING),
    ],
)  # fmt: skip
def test_what_is_off_is_not_there(kind: str, values: dict[str, Any]) -> None:
    assert render(values).names(kind) == set()


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("seeknal", {}, "seeknal-seeknal-k8s-worker"),
        ("my-seeknal-k8s", {}, "my-seeknal-k8s-worker"),
        ("seeknal", {"nameOverride": "x"}, "seeknal-x-worker"),
        ("seeknal", {"fullnameOverride": "y"}, "y-worker"),
    ],
)
def test_names_begin_with_the_release(release: str, values: dict[str, Any], name: str) -> None:
    assert name in render(values, release).names("Deployment")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prefect": {}}, "prefect.apiUrl is needed"),
        ({"prefect": {"apiUrl": "prefect:4200"}}, "apiUrl"),
        ({"workers": {}}, "workers"),
        ({"worker": {"replica": 2}}, "replica"),
        ({"worker": {"replicas": "2"}}, "replicas"),
        ({"settings": {"max_job": 2}}, "max_job"),
        ({"settings": {"namespace": "x"}}, "namespace"),
        ({"store": {"accessMode": "ReadWrite"}}, "accessMode"),
        ({"image": {"digest": "abc"}}, "digest"),
        ({"server": {"enabled": "yes"}}, "enabled"),
        ({"server": {"enabled": True, "image": {"repository": "x"}}}, "server.image.tag is needed"),
    ],
)
def test_a_typo_is_an_error(values: dict[str, Any], said: str) -> None:
    done = call({**URL, **values})
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_has_the_schema_of_its_version(version: str, values: dict[str, Any]) -> None:
    assert len(VERSIONS) >= 7
    for thing in render(values).objects:
        kubernetes_validate.validate(thing, version, strict=True)


def test_every_pod_is_restricted() -> None:
    pods = 0
    for thing in render(EVERYTHING).objects:
        template = thing if thing["kind"] == "Pod" else at(thing, "spec/template")
        if template and "containers" in template.get("spec", {}):
            pods += 1
            assert podsecurity.violations(template) == []
            for container in template["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    assert pods == 5


def test_only_the_worker_the_runner_and_their_test_have_a_token() -> None:
    with_token = {
        thing["metadata"]["name"]
        for thing in render(EVERYTHING).objects
        for template in [thing if thing["kind"] == "Pod" else at(thing, "spec/template")]
        if template and at(template, "spec/automountServiceAccountToken")
    }
    assert with_token == {"seeknal-pipelines-worker", "seeknal-pipelines-test"}


def test_the_runner_may_do_what_the_code_asks_for_and_nothing_else() -> None:
    rules = render().get("Role", "-runner")["rules"]
    allowed = {
        (group, resource, tuple(rule["verbs"]))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert allowed == set(RUNNER_RULES)


def test_the_settings_of_the_chart_are_those_of_the_code() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    told = set(schema["properties"]["settings"]["properties"])
    assert told | set(generate.DECIDED) == set(Settings.model_fields)
    assert told & set(generate.DECIDED) == set()


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_settings_can_be_read_by_the_code(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seeknal_k8s.settings import load  # noqa: PLC0415

    for name, value in render(values).get("ConfigMap", "-settings")["data"].items():
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    load().ensure_runnable()


@pytest.mark.parametrize("name", ["flow", "worker", "pool"])
def test_network_policies_let_pods_speak_to_the_bundled_server(name: str) -> None:
    """Whatever `prefectCidrs` says, which is about a Prefect API elsewhere."""
    values = {
        "prefect": {},
        "jobs": {"namespace": "jobs"},
        "server": {"enabled": True},
        "networkPolicy": {"enabled": True, "prefectCidrs": ["10.0.1.0/24"]},
    }
    objects = render(values)
    rule = objects.get("NetworkPolicy", f"-{name}")["spec"]["egress"][-1]
    (peer,) = rule["to"]
    pod = at(objects.get("Deployment", "-server"), "spec/template/metadata/labels")
    assert peer["podSelector"]["matchLabels"].items() <= pod.items()
    assert at(peer, "namespaceSelector/matchLabels") == {"kubernetes.io/metadata.name": "data"}
    assert rule["ports"] == [{"port": 4200, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("https://prefect.example.com/api", [443, 4200]),
        ("http://prefect:4200/api", [443, 4200]),
        ("http://prefect:8080/api", [443, 4200, 8080]),
        ("http://[fd00::1]:8080/api", [443, 4200, 8080]),
    ],
)
def test_network_policies_know_the_port_of_the_prefect_api(url: str, ports: list[int]) -> None:
    objects = render({"prefect": {"apiUrl": url}, "networkPolicy": {"enabled": True}})
    rule = objects.get("NetworkPolicy", "-flow")["spec"]["egress"][-1]
    assert [one["port"] for one in rule["ports"]] == ports


@pytest.mark.parametrize("namespace", ["", "jobs"])
def test_helm_test_needs_no_object_of_another_namespace(namespace: str) -> None:
    """Its pod is where Jobs are; the settings' ConfigMap is where the release is."""
    objects = render({"jobs": {"namespace": namespace}, "settings": {"labels": {"a": "b"}}})
    pod = objects.get("Pod", "-test")
    (container,) = pod["spec"]["containers"]
    told = {one["name"]: one["value"] for one in container["env"]}
    settings = objects.get("ConfigMap", "-settings")["data"]
    assert pod["metadata"]["namespace"] == (namespace or "data")
    assert told == {"HOME": "/work", **settings}
    assert "envFrom" not in container


def test_the_names_of_a_long_release_are_short_enough() -> None:
    """A StatefulSet's pods get a label of its name and eleven characters more."""
    objects = render({"prefect": {}, "server": {"enabled": True}}, "r" * 53)
    for thing in objects.objects:
        limit = 52 if thing["kind"] == "StatefulSet" else 63
        assert len(thing["metadata"]["name"]) <= limit


@pytest.mark.parametrize("text", ["team #1", "a: b", "123", "yes"])
def test_names_are_taken_as_they_are(text: str) -> None:
    prefect = {
        **URL["prefect"],
        "pool": text,
        "queues": [text],
        "apiKey": {"secretName": text, "secretKey": text},
    }
    worker = render({"prefect": prefect}).get("Deployment", "-worker")
    command = at(worker, f"{WORKER}/command")
    assert {f"--pool={text}", f"--work-queue={text}"} <= set(command)
    reference = at(worker, f"{WORKER}/env/name=PREFECT_API_KEY/valueFrom/secretKeyRef")
    assert reference == {"name": text, "key": text}


def test_no_secret_is_in_a_manifest() -> None:
    """The one that is made, the database's password, is in its Secret and nowhere else."""
    objects = render(EVERYTHING).objects
    (secret,) = [one for one in objects if one["kind"] == "Secret"]
    password = secret["data"]["password"]
    others = json.dumps([one for one in objects if one is not secret])
    assert password not in others


def test_the_worker_restarts_when_its_settings_change() -> None:
    path = "spec/template/metadata/annotations"
    one = at(render().get("Deployment", "-worker"), path)["checksum/settings"]
    other = render({"settings": {"max_jobs": 3}}).get("Deployment", "-worker")
    assert at(other, path)["checksum/settings"] != one


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__


def test_its_readme_and_its_schema_are_made_of_its_values() -> None:
    for name, text in (("README.md", generate.readme()), ("values.schema.json", generate.schema())):
        assert (CHART / name).read_text(encoding="utf-8") == text, "write it anew: make docs"


def test_every_value_has_a_sentence() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    told = generate.sentences(text)
    missing = [row for row in generate.rows(yaml.safe_load(text), "", told) if row.endswith("|  |")]
    assert missing == []


def test_it_is_clean() -> None:
    command = [
        str(program()),
        "lint",
        "--strict",
        str(CHART),
        "--set",
        "prefect.apiUrl=http://p/api",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manifests_are_the_chart_with_its_defaults() -> None:
    file = ROOT / "manifests" / "seeknal-k8s.yaml"
    text = file.read_text(encoding="utf-8")
    assert text == generate.manifests(str(program())), "write it anew: make manifests"


@pytest.mark.parametrize("file", sorted((ROOT / "manifests").rglob("*.yaml")), ids=lambda f: f.name)
def test_every_manifest_is_accepted_by_a_real_server(file: Path, namespace: Namespace) -> None:
    """Only tried, not made; what is Kueue's is unknown to a cluster without it."""
    if file.name in {"kueue.yaml", "values.yaml"}:
        assert list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        return
    there = [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]
    for thing in there:
        elsewhere = thing["metadata"].pop("namespace", None)
        if thing["kind"] == "RoleBinding" and elsewhere:
            thing["subjects"][0]["namespace"] = namespace.name
    text = yaml.safe_dump_all(there)
    namespace.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
