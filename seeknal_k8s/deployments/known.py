"""The flows there are, by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.logging import get_logger

FLOWS = "seeknal_k8s.flows"
"""The module of our flows, which is in every pod: an entrypoint of it needs no code to be fetched."""

RUN = "seeknal-run-pipeline"
"""The flow that a deployment under a new name runs."""

_NEAR = 0.8
_BANNED = "/%&<>"


@dataclass(frozen=True, slots=True)
class Known:
    """A flow, the name that it is deployed under, and where a worker finds it."""

    flow: Flow[..., Any]
    name: str
    entrypoint: str

    @property
    def renamed(self) -> bool:
        """Whether the name is another than the flow's own."""
        return self.name != self.flow.name


def find(name: str) -> Known:
    """Return the flow of this name: one of ours, or our run flow under a name of the user's.

    Raises:
        ValueError: the name is nearly one of ours, or none that Prefect takes.
    """
    ours = {
        thing.name: (attribute, thing)
        for attribute, thing in vars(import_module(FLOWS)).items()
        if isinstance(thing, Flow)
    }
    if name in ours:
        attribute, flow = ours[name]
        return Known(flow, name, f"{FLOWS}.{attribute}")
    if near := get_close_matches(name, ours, n=1, cutoff=_NEAR):
        raise ValueError(
            f"Flow {name!r} not found; did you mean {near[0]!r}? There is {', '.join(sorted(ours))}, "
            "and a name of your own may be any that is not so near to these"
        )
    check_name(name, "flow")
    attribute, flow = ours[RUN]
    return Known(flow, name, f"{FLOWS}.{attribute}")


def check_name(name: str, what: str) -> None:
    """Do nothing if Prefect takes this name.

    Raises:
        ValueError: it does not.
    """
    if not name.strip() or any(character in name for character in _BANNED):
        raise ValueError(f"{name!r} is no name for a {what}: leave out {' '.join(_BANNED)}")


def check_parameters(flow: Flow[..., Any], given: dict[str, Any]) -> list[str]:
    """Return what is wrong with the parameters that a deployment gives a flow."""
    known = flow.parameters.properties
    problems = []
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            problems.append(f"the flow has no parameter {name!r}; {hint}")
    return problems or _mistyped(flow, given)


def _mistyped(flow: Flow[..., Any], given: dict[str, Any]) -> list[str]:
    told = get_logger("flows")
    level = told.level
    told.setLevel(logging.CRITICAL)  # Prefect logs the parameters, and one may be a secret
    try:
        flow.validate_parameters(given)
    except ParameterTypeError as error:
        return [f"the parameters do not fit the flow: {error}"]
    finally:
        told.setLevel(level)
    return []
