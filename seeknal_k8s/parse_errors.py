"""What Seeknal says about files it could not read, as problems with a place and a remedy.

Seeknal collects these as sentences and then drops the nodes. The patterns below are the words of
Seeknal 2.13, held to the installed one by ``tests/test_seeknal_contract.py``.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from seeknal_k8s.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Groups = Mapping[str, str]

_FILE = r"(?P<file>.+?\.(?:yml|py))"
_HERE = r"where seeknal-k8s runs, and in the image of the nodes"


def translate(message: str, root: str) -> Problem:
    """Return one of Seeknal's parse errors as a problem with its file relative to ``root``.

    A message of a kind that is not known keeps all its words, and has no ``fix``.
    """
    text = message.replace(f"{root.rstrip('/')}/", "").strip()
    for pattern, problem in _PATTERNS:
        if match := pattern.match(text):
            return problem(match.groupdict(default=""))
    place = re.search(r"\bseeknal/\S+?\.(?:yml|py)\b", text)
    return Problem(what=_one_line(text), file=place[0] if place else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unreadable_yaml(said: Groups) -> Problem:
    # PyYAML says each half of its complaint on a line and the place on the next; the last is where.
    lines = said["why"].splitlines()
    places = re.findall(r'^ +in ".*", line (\d+), column \d+', said["why"], flags=re.MULTILINE)
    why = ", ".join(line.strip() for line in lines if not line.startswith("  in "))
    at = f"line {places[-1]}: " if places else ""
    return Problem(what=f"not valid YAML: {at}{why}", fix=_yaml_fix(why), file=said["file"])


def _yaml_fix(why: str) -> str:
    remedies = {
        "found another document": "one file holds one node: put what follows --- into its own file",
        r"'\t'": "indent with spaces: YAML allows no tabs",
        "mapping values are not allowed": "put a value that contains a colon between quotes",
        "cannot start any token": "put the value between quotes",
    }
    default = "look at the indentation, quotes and brackets there and on the line before"
    return next((fix for part, fix in remedies.items() if part in why), default)


def _not_a_mapping(said: Groups) -> Problem:
    return Problem(
        what="holds no node: a node file is a mapping with `kind:` and `name:` at its top",
        fix="write these two keys, or move the file out of seeknal/",
        file=said["file"],
    )


def _without(said: Groups) -> Problem:
    key = said["key"]
    stem = said["file"].rsplit("/", 1)[-1].removesuffix(".yml")
    line = "kind: transform" if key == "kind" else f"name: {stem}"
    fix = f"add it, for example `{line}`; what is not a node has no place under seeknal/"
    return Problem(what=f"has no `{key}:`", fix=fix, file=said["file"], key=key)


def _unknown_kind(said: Groups) -> Problem:
    kinds = said["kinds"].split(", ")
    near = difflib.get_close_matches(said["kind"].lower(), kinds, n=1)
    fix = f"write `kind: {near[0]}`" if near else f"write one of {said['kinds']}"
    return Problem(
        what=f"Seeknal has no kind {said['kind']!r}", fix=fix, file=said["file"], key="kind"
    )


def _duplicate(said: Groups) -> Problem:
    return Problem(
        what=f"this node is already defined in {said['first']}; Seeknal would ignore this file",
        fix="give one of the two another `name:`, or delete one",
        file=said["file"],
        node=said["node"],
    )


def _both_materializations(said: Groups) -> Problem:
    return Problem(
        what="has both `materialization:` and `materializations:`; Seeknal would use neither fully",
        fix="keep `materializations:` alone, and make the other one an item of its list",
        file=said["file"],
        key="materializations",
    )


def _materialization_type(said: Groups) -> Problem:
    key = said["key"]
    wanted = "a list of mappings" if key == "materializations" else "a mapping, or a list of them"
    return Problem(
        what=f"`{key}:` is not {wanted}",
        fix=f"write {wanted}, each with `type:` and `table:`",
        file=said["file"],
        key=key,
    )


def _inputs_type(said: Groups) -> Problem:
    return Problem(
        what="`inputs:` is not a list, so Seeknal would run the node without any",
        fix="write one line `- ref: kind.name` for each input",
        file=said["file"],
        key="inputs",
    )


def _unset_variable(said: Groups) -> Problem:
    name = said["variable"]
    return Problem(
        what=f"the environment variable {name} is not set, and `{{{{ env:{name} }}}}` needs it",
        fix=f"`export {name}=...`, put {name}=... into .env, or give a default: "
        f"`{{{{ env:{name}|default }}}}`",
        file=said["file"],
    )


def _unknown_common_key(said: Groups) -> Problem:
    near = said["near"].split(", ")[0]
    known = said["known"] or "none"
    return Problem(
        what=f"seeknal/common/ does not define `{{{{ {said['key']} }}}}`",
        fix=f"write `{{{{ {near} }}}}`" if near else f"define it there; it has {known}",
        file=said["file"],
    )


def _not_utf8(said: Groups) -> Problem:
    what = f"not UTF-8 text: byte {said['byte']} at position {said['position']}"
    return Problem(what=what, fix="save the file as UTF-8", file=said["file"])


def _failed_import(said: Groups) -> Problem:
    module, why = said["module"], _one_line(said["why"])
    if module:
        what = f"its import of {module} fails: no such module {_HERE.split(',', 1)[0]}"
        package = module.split(".", 1)[0]
        fix = f"install {package} {_HERE}, or move the import into the node's function"
    else:
        what = f"running the file fails: {why}"
        fix = "reading a project runs all its Python files: what stands outside functions must work"
    return Problem(what=what, fix=fix, file=said["file"])


def _bad_syntax(said: Groups) -> Problem:
    file, line = said["file"], said["line"]
    at = f"line {line}: " if line else ""
    return Problem(
        what=f"not valid Python: {at}{_one_line(said['why'])}",
        fix=f"`python -m py_compile {file}` shows the place",
        file=file,
    )


def _unprocessed(said: Groups) -> Problem:
    return Problem(
        what=f"Seeknal cannot read it: {_one_line(said['why'])}",
        fix="look for a value of another type or form than Seeknal expects there",
        file=said["file"],
    )


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[Groups], Problem]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), problem)
    for pattern, problem in (
        (rf"Failed to parse YAML in {_FILE}: (?P<why>.*)$", _unreadable_yaml),
        (rf"Invalid YAML in {_FILE}: must be a dictionary$", _not_a_mapping),
        (rf"Missing '(?P<key>kind|name)' field in {_FILE}$", _without),
        (
            rf"Invalid kind '(?P<kind>.*?)' in {_FILE}\. Valid kinds: (?P<kinds>.+)$",
            _unknown_kind,
        ),
        (
            (
                rf"Duplicate node '(?P<node>.+?)' found in {_FILE} "
                r"\(already defined in (?P<first>.+)\)$"
            ),
            _duplicate,
        ),
        (
            rf"Both 'materialization' and 'materializations' present in {_FILE}\.",
            _both_materializations,
        ),
        (rf"'(?P<key>materializations?)' must be a .+? in {_FILE}$", _materialization_type),
        (rf"Invalid 'inputs' field in {_FILE}: must be a list$", _inputs_type),
        (
            rf"Error processing {_FILE}: Environment variable '(?P<variable>.+)' not set",
            _unset_variable,
        ),
        (
            (
                rf"Error processing {_FILE}: Unknown common config key '{{{{ (?P<key>.+?) }}}}'\. "
                r"Available keys: (?P<known>.*?)\.(?: Did you mean: (?P<near>.+)\?)?$"
            ),
            _unknown_common_key,
        ),
        (
            (
                rf"Error processing {_FILE}: 'utf-8' codec can't decode byte (?P<byte>\w+) "
                r"in position (?P<position>\d+)"
            ),
            _not_utf8,
        ),
        (
            (
                rf"Import error in {_FILE}: (?:Error importing .+?\.py: )?"
                r"(?P<why>No module named '(?P<module>.+)'|.*)$"
            ),
            _failed_import,
        ),
        (
            rf"Syntax error in {_FILE}: (?:Syntax error in .+?\.py:(?P<line>\d+): )?(?P<why>.*)$",
            _bad_syntax,
        ),
        (r"Error processing (?P<file>seeknal|.+?\.(?:yml|py)): (?P<why>.*)$", _unprocessed),
    )
)
