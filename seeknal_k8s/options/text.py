"""Documents → YAML, for what is printed for people and for kubectl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and nothing is written as a reference to another place."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - yaml's
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's own signature
        return True


def documents(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return the objects as one stream of YAML documents, their keys in the order they have."""
    return yaml.dump_all(
        objects,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        explicit_start=True,
        width=1000,
    )
