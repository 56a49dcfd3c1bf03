"""Whether a cluster is as a plan needs it: values in, judgements out, nobody is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from seeknal_k8s.doctor.findings import Judgement, bad, good, unknown
from seeknal_k8s.quantity import parse_cpu, parse_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seeknal_k8s.doctor.needs import Need
    from seeknal_k8s.views import ThingView

OLDEST = (1, 31)
"""The first Kubernetes with all that our Jobs say: their failure policy is stable since then."""

SKEW = 10.0
"""Seconds that clocks may differ: beyond it, times in logs and schedules mislead."""

_LEVEL = "pod-security.kubernetes.io/enforce"
_NAMED = 3


def version(text: str) -> Judgement:
    """Judge the API server's version, such as ``v1.36.3``."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    if found is None:
        return unknown(f"its version is {text!r}, which says nothing to us")
    number = (int(found[1]), int(found[2]))
    oldest = ".".join(map(str, OLDEST))
    if number < OLDEST:
        return bad(
            f"Kubernetes {text} is older than {oldest}", f"use a cluster of {oldest} or later"
        )
    return good(f"Kubernetes {text}")


def clock(skew: float) -> Judgement:
    """Judge by how many seconds the API server's clock is ahead of ours."""
    if abs(skew) <= SKEW:
        return good(f"the API server's differs by {abs(skew):.0f} s")
    word = "ahead of" if skew > 0 else "behind"
    return bad(
        f"the API server's is {abs(skew):.0f} s {word} this machine's",
        "let both keep time by NTP: timedatectl set-ntp true",
    )


def namespace(found: ThingView) -> Judgement:
    """Judge the namespace: it has to be there to stay."""
    if found.status.get("phase") == "Terminating" or found.metadata.deletion_timestamp:
        return bad(f"{found.name} is being deleted", "wait, or set SEEKNAL_K8S_NAMESPACE")
    level = found.labels.get(_LEVEL)
    return good(f"{found.name}, Pod Security: {level or 'the cluster decides'}")


def claim(found: ThingView, machines: int | None) -> Judgement:
    """Judge a volume that pods share; ``machines`` is how many there are, None if nobody knows."""
    name, phase = found.name, found.status.get("phase", "unknown")
    if phase == "Lost":
        return bad(f"{name} has lost its volume", f"kubectl describe pvc {name}")
    modes = found.status.get("accessModes") or found.spec.get("accessModes") or []
    if "ReadWriteMany" not in modes and machines != 1:
        return bad(
            f"{name} is {', '.join(modes) or 'of no mode'}: pods on other machines cannot mount it",
            "use a storage class that can ReadWriteMany (NFS, CephFS, EFS, Filestore, Azure Files)",
        )
    if phase != "Bound":
        return unknown(
            f"{name} is {phase}: bound with its first pod, or never",
            f"kubectl describe pvc {name}; prove it: seeknal-k8s doctor --pods",
        )
    return good(f"{name} is bound, {', '.join(modes)}")


def rights(account: str, missing: Sequence[tuple[str, str, str]], namespace: str) -> Judgement:
    """Judge what an account may do: ``missing`` is group, resource and verb of what it may not."""
    if not missing:
        return good(f"{account} may do all that a run does")
    lines = [f"{verb} {resource}" for _, resource, verb in missing]
    return bad(
        f"{account} may not {', '.join(lines)}",
        f"kubectl apply --namespace {namespace} -f manifests/runner-rbac.yaml",
    )


def powers(account: str, found: Sequence[str]) -> Judgement:
    """Judge what a node's account may do, which ought to be nothing."""
    if not found:
        return good(f"{account} may do nothing, as it should")
    return bad(
        f"{account} may {', '.join(found)}, and no node needs that",
        "take it out of the RoleBinding, or name another with SEEKNAL_K8S_NODE_SERVICE_ACCOUNT",
    )


def machines(needs: Sequence[Need], found: Iterable[ThingView]) -> Judgement:
    """Judge whether every node fits at least one machine, with nothing else on it."""
    ready = [machine for machine in found if _takes_pods(machine)]
    if not ready:
        return bad("no machine takes pods", "kubectl get nodes")
    homeless = [need for need in needs if not any(_fits(need, machine) for machine in ready)]
    if homeless:
        largest = max(_amount("memory", _room(one).get("memory")) for one in ready)
        return bad(
            f"no machine of {len(ready)} has room for {_named(homeless)}; "
            f"the largest has {largest / 2**30:.1f}Gi of memory to give",
            "ask for less in seeknal-k8s.yml, or add machines; an autoscaler may bring larger ones",
        )
    return good(f"each node fits one of {len(ready)}, the largest asking {needs[0].text}")


def _takes_pods(machine: ThingView) -> bool:
    conditions = machine.status.get("conditions") or []
    is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return is_ready and not machine.spec.get("unschedulable")


def _room(machine: ThingView) -> Mapping[str, Any]:
    return machine.status.get("allocatable") or {}


def _fits(need: Need, machine: ThingView) -> bool:
    labels, room = machine.labels, _room(machine)
    if any(labels.get(key) != value for key, value in need.selector.items()):
        return False
    taints = [
        one
        for one in machine.spec.get("taints") or []
        if one.get("effect") in {"NoSchedule", "NoExecute"}
    ]
    if not all(_tolerated(taint, need) for taint in taints):
        return False
    return all(amount <= _amount(name, room.get(name)) for name, amount in need.amounts.items())


def _tolerated(taint: Mapping[str, str], need: Need) -> bool:
    for one in need.tolerations:
        if one.get("effect") not in {None, "", taint["effect"]}:
            continue
        if one.get("key") in {None, ""} and one.get("operator") == "Exists":
            return True
        if one.get("key") == taint["key"] and (
            one.get("operator") == "Exists" or one.get("value", "") == taint.get("value", "")
        ):
            return True
    return False


def quotas(needs: Sequence[Need], found: Iterable[ThingView]) -> Judgement:
    """Judge whether every node fits each quota when nothing else uses it."""
    problems, full, count = [], [], 0
    for quota in found:
        if quota.spec.get("scopes") or quota.spec.get("scopeSelector"):
            continue
        count += 1
        hard, used = quota.status.get("hard") or {}, quota.status.get("used") or {}
        for name, most in hard.items():
            wanted = [(need, _of_quota(name, need)) for need in needs]
            limit, taken = _amount(name, most), _amount(name, used.get(name))
            too_large = [need for need, amount in wanted if amount > limit]
            if too_large:
                problems.append(
                    f"{quota.name} allows {name} {most}: {_named(too_large)} never fits"
                )
            elif any(amount > limit - taken for _, amount in wanted):
                full.append(f"{quota.name}: {name} {used.get(name)} of {most} is used")
    if problems:
        return bad("\n".join(problems), "kubectl describe quota; ask for less, or for a larger one")
    if full:
        return good("nodes fit, some after a wait now: " + "; ".join(full))
    return good("there is none" if not count else f"every node fits, by {count}")


def _of_quota(name: str, need: Need) -> float:
    if name in {"pods", "count/pods", "count/jobs.batch"}:
        return 1
    bare = name.removeprefix("requests.").removeprefix("limits.")
    return need.amounts.get(bare, 0)


def limit_ranges(needs: Sequence[Need], found: Iterable[ThingView]) -> Judgement:
    """Judge whether every node is within the limits that the namespace has for a pod."""
    problems, count = [], 0
    for limits in found:
        count += 1
        for item in limits.spec.get("limits") or []:
            if item.get("type") in {"Container", "Pod"}:
                problems += _beyond(limits.name, item, needs)
    if problems:
        return bad("\n".join(problems), "kubectl describe limitrange; change seeknal-k8s.yml")
    return good("there is none" if not count else f"every node fits, by {count}")


def _beyond(name: str, item: Mapping[str, Any], needs: Sequence[Need]) -> list[str]:
    problems = []
    for resource, most in (item.get("max") or {}).items():
        over = [one for one in needs if one.amounts.get(resource, 0) > _amount(resource, most)]
        if over:
            problems.append(
                f"{name} allows {resource} {most} at most: {_named(over)} asks for more"
            )
    for resource, least in (item.get("min") or {}).items():
        under = [
            one for one in needs if 0 < one.amounts.get(resource, 0) < _amount(resource, least)
        ]
        if under:
            problems.append(
                f"{name} wants {resource} {least} at least: {_named(under)} asks for less"
            )
    return problems


def queue(found: ThingView) -> Judgement:
    """Judge a LocalQueue of Kueue."""
    conditions = found.status.get("conditions") or []
    active: dict[str, Any] = next((one for one in conditions if one["type"] == "Active"), {})
    if active.get("status") == "True":
        return good(f"{found.name} is active")
    why = active.get("message") or "Kueue has said nothing of it"
    return bad(f"{found.name} is not active: {why}", f"kubectl describe localqueue {found.name}")


def _named(needs: Sequence[Need]) -> str:
    names = [f"{need.node} ({need.text})" for need in needs[:_NAMED]]
    rest = f" and {len(needs) - _NAMED} more" if len(needs) > _NAMED else ""
    return ", ".join(names) + rest


def _amount(name: str, text: Any) -> float:
    """Return a quantity as a number; 0 where there is none."""
    if text is None or not str(text).strip("0. "):
        return 0.0
    try:
        return parse_cpu(text) if name.endswith("cpu") else float(parse_memory(text))
    except ValueError:
        return 0.0
