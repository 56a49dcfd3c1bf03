"""Pod Security *restricted*, written from the standard and not from our manifests.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, Linux, as of Kubernetes 1.37:
the *baseline* controls that *restricted* does not sharpen, and those of *restricted*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"),
    *("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")
HOOKS = ("postStart", "preStop")


def violations(template: dict[str, Any]) -> list[str]:
    """Return everything in a pod, or a pod template, that *restricted* does not allow."""
    spec = template["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    found = [*_of_annotations(template), *_of_pod(spec)]
    for container in containers:
        found += [f"{container['name']}: {what}" for what in _of_container(container, spec)]
    return found


def _of_annotations(template: dict[str, Any]) -> Iterator[str]:
    for key, value in template.get("metadata", {}).get("annotations", {}).items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not (
            value in {"", "runtime/default"} or value.startswith("localhost/")
        ):
            yield "AppArmor"


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes", []):
        if not volume.keys() & VOLUMES:
            yield f"volume {volume['name']}"
    context = spec.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_either_context(context)


def _of_either_context(context: dict[str, Any]) -> Iterator[str]:
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "AppArmor"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield "SELinux"
    if context.get("runAsUser") == 0:
        yield "runAsUser"


def _of_container(container: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    of_both = {**spec.get("securityContext", {}), **context}
    yield from _of_either_context(context)
    if context.get("privileged"):
        yield "privileged"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    handlers = [container.get(name, {}) for name in HANDLERS]
    handlers += [container.get("lifecycle", {}).get(name, {}) for name in HOOKS]
    if any(
        part.get("host") for each in handlers for part in each.values() if isinstance(part, dict)
    ):
        yield "host of a probe"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if of_both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if of_both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccomp"
    capabilities = context.get("capabilities", {})
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities added"
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities kept"
