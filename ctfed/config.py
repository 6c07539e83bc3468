"""Reading the YAML files that people write: every fault becomes one sentence with its file, line, key and expectation.

The dialect is YAML 1.2's core schema, because YAML 1.1 (PyYAML's default) reads ``no`` as false, ``1e-3`` as text and
``12:30`` as 750. Keys are always text, a key written twice is refused, and aliases are refused (a few lines of them
expand to gigabytes).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from ctfed.federation.errors import CtfedError

Key = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_FAULTS = "ctfed_faults"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_VALUE = 60
_LONGEST_FILE = 2**20  # bytes; longer ones are not what people write, and take minutes to read


class FaultsError(CtfedError):
    """Everything that is wrong with one input, one sentence per line; ``faults`` holds the sentences."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ConfigError(FaultsError):
    """A study or site file cannot be used as it is."""


class Section(BaseModel):
    """A mapping of a file: immutable, exact types, no key that is not declared, no infinity.

    The description of each field is written as a noun phrase, because it ends the sentence 'found X, expected ...'.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Faults:
    """Collects faults of a whole section, so that a validator can report all of them with their keys."""

    def __init__(self) -> None:
        self._found: list[tuple[Key, str]] = []

    def add(self, key: Key, sentence: str) -> None:
        """Note a fault at ``key``, relative to the section: 'found X, expected Y'."""
        self._found.append((key, sentence))

    def require(self) -> None:
        """Do nothing when no fault was added.

        Raises:
            PydanticCustomError: carrying every fault; ``validate`` makes sentences of it.
        """
        if self._found:
            text = "; ".join(f"{dotted(key)}: {sentence}" for key, sentence in self._found)
            raise PydanticCustomError(_FAULTS, "{text}", {"text": text, "faults": tuple(self._found)})


@dataclass(frozen=True)
class Document:
    """A YAML file as read: its name for messages, its content (JSON types only), and the line of every key."""

    origin: str
    content: Any
    lines: Mapping[Key, int]

    def fault(self, key: Key, sentence: str) -> str:
        """'file, line n: key: sentence', with the line of the nearest key that exists."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        where = f"{self.origin}, line {self.lines[known]}" if known in self.lines else self.origin
        return f"{where}: {dotted(key)}: {sentence}" if key else f"{where}: {sentence}"


def dotted(key: Key) -> str:
    """A key path as people write it: variables.age.range[0]."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def listed(names: Iterable[object]) -> str:
    """'a, b or c'."""
    words = [str(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "nothing"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """' (did you mean 'x'?)' for the closest choice, or '' when none is close."""
    close = _closest(name, choices)
    return f" (did you mean {close!r}?)" if close else ""


def _closest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``name``, whatever the case of letters; None when none is like it."""
    spelled = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), list(spelled), n=1, cutoff=0.6)
    return spelled[close[0]] if close else None


def shown(value: object) -> str:
    """A value as the file spells it, short enough for a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple) and not all(isinstance(item, str | int | float) for item in value):
        return "a list"
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def canonical_sha256(model: BaseModel) -> str:
    """SHA-256 (hex) of the validated content as canonical JSON: comments, order of keys and formatting do not matter.

    Defaults are part of the content: writing one out does not change the digest, changing a default does.
    """
    content = model.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load(model: type[M], path: Path, marker: str, context: Mapping[str, Any] | None = None) -> M:
    """Read and validate a file of which the first key is ``marker: 1``, the version of its format.

    Raises:
        ConfigError: with one sentence per fault.
    """
    return read_document(model, read_yaml(path), marker, context)


def read_document(model: type[M], document: Document, marker: str, context: Mapping[str, Any] | None = None) -> M:
    """Validate what ``load`` has read.

    Raises:
        ConfigError: with one sentence per fault.
    """
    kind = f"a mapping that begins with '{marker}: 1'"
    if not isinstance(document.content, dict):
        raise ConfigError(f"{document.origin}: found {shown(document.content)}, expected {kind}")
    if marker not in document.content:
        raise ConfigError(f"{document.origin}: found no key {marker!r}, expected {kind}")
    version = document.content[marker]
    if type(version) is not int or version != 1:
        raise ConfigError(
            document.fault((marker,), f"found {shown(version)}, expected 1, the only format this ctfed reads")
        )
    return validate(model, document, context)


def validate(model: type[M], document: Document, context: Mapping[str, Any] | None = None) -> M:
    """The document as a ``model``.

    Raises:
        ConfigError: with one sentence per fault.
    """
    # By way of JSON: strict validation then takes a list for a tuple, as YAML has no other sequence.
    text = json.dumps(document.content)
    try:
        return model.model_validate_json(text, context=dict(context or {}))
    except ValidationError as error:
        details = error.errors()
        kept = [detail for detail in details if not _follows_from_another(model, detail, details)]
        faults = [line for detail in kept for line in _sentences(model, document, detail)]
        raise ConfigError(*faults) from error
    except ArithmeticError as error:  # of a validator that divides what the file says
        found = f"numbers too far apart to compute with ({error})"
        raise ConfigError(f"{document.origin}: found {found}, expected plausible ones") from error


def _follows_from_another(model: type[BaseModel], detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """True for a list that is too short because its items are wrong, and for a missing key that was misspelt."""
    key: Key = detail["loc"]
    if detail["type"] == "too_short":
        return any(len(other["loc"]) > len(key) and other["loc"][: len(key)] == key for other in details)
    if detail["type"] == "missing":
        owner, _ = _declared(model, key[:-1])
        unknown = [other["loc"] for other in details if other["type"] == "extra_forbidden"]
        siblings = [str(other[-1]) for other in unknown if other[:-1] == key[:-1]]
        return owner is not None and any(_closest(name, owner.model_fields) == key[-1] for name in siblings)
    return False


def _sentences(model: type[BaseModel], document: Document, detail: ErrorDetails) -> list[str]:
    key: Key = detail["loc"]
    found = detail["input"]
    if detail["type"] == _FAULTS:
        return [document.fault(key + inner, sentence) for inner, sentence in detail["ctx"]["faults"]]
    if detail["type"] == "extra_forbidden":
        owner, _ = _declared(model, key[:-1])
        names = tuple(owner.model_fields) if owner else ()
        hint = did_you_mean(str(key[-1]), names)
        return [document.fault(key, f"found an unknown key, expected {listed(names)}{hint}")]
    if len(key) > 1 and key[-1] == "[key]":  # pydantic's mark for 'the key itself is wrong'
        key, found = key[:-1], key[-2]
    _, field = _declared(model, key)
    described = field.description if field and field.description else str(detail["msg"])
    spelled = "nothing" if detail["type"] == "missing" else shown(found)
    return [document.fault(key, f"found {spelled}, expected {described}")]


def _declared(model: type[BaseModel], key: Key) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The section that ``key`` leads to (None for a plain value), and the last declared field on the way."""
    here: Any = model
    field: FieldInfo | None = None
    for part in key:
        here = _without_wrapping(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            if part not in here.model_fields:
                return None, field
            field = here.model_fields[str(part)]
            here = field.annotation
        else:  # an item of a list or a value of a mapping
            arguments = [argument for argument in get_args(here) if argument is not Ellipsis]
            here = arguments[-1] if arguments else None
    here = _without_wrapping(here)
    return (here if isinstance(here, type) and issubclass(here, BaseModel) else None), field


def _without_wrapping(annotation: Any) -> Any:
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation


def read_yaml(path: Path) -> Document:
    """Read one YAML file.

    Raises:
        ConfigError: when it cannot be read, is not UTF-8, is not YAML, or repeats a key; with the line.
    """
    origin = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{origin}: found no readable file ({error.strerror}), expected a YAML file") from error
    return parse_yaml(origin, data)


def parse_yaml(origin: str, data: bytes) -> Document:
    """The document in the bytes of a file called ``origin``.

    Raises:
        ConfigError: when it is too long, is not UTF-8, is not YAML, or repeats a key; with the line.
    """
    if len(data) > _LONGEST_FILE:
        raise ConfigError(f"{origin}: found {len(data)} bytes, expected a file of at most {_LONGEST_FILE}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{origin}, line {line}: found a byte that is not UTF-8, expected UTF-8 text") from error
    try:
        return _compose(origin, text)
    except yaml.MarkedYAMLError as error:
        where = f"{origin}, line {error.problem_mark.line + 1}" if error.problem_mark else origin
        raise ConfigError(f"{where}: found invalid YAML ({error.problem}), expected a YAML mapping") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(f"{origin}, line {line}: found a control character, expected plain text") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: found brackets nested too deeply, expected a YAML mapping") from error
    except (OverflowError, ValueError) as error:  # PyYAML, of an escape such as "\UFFFFFFFF"
        raise ConfigError(f"{origin}: found an impossible character ({error}), expected plain text") from error


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the YAML 1.2 core schema and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*name); write the value out", mark)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if _SURROGATE.search(node.value):
            raise yaml.MarkedYAMLError(problem="an escape of half a character", problem_mark=node.start_mark)
        return node


_PREFIX = "tag:yaml.org,2002:"
_TABLES = (_PREFIX + "seq", _PREFIX + "map")
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    # tag: (pattern, first characters, value of the text); the first that matches wins
    "null": (r"^(?:~|null|Null|NULL|)$", "~nN", lambda text: None),
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF", lambda text: text.lower() == "true"),
    "int": (r"^[-+]?[0-9]{1,18}$", "-+0123456789", int),
    "float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
        lambda text: float(re.sub(r"\.(?=[a-z])", "", text.lower())),
    ),
}
_CoreLoader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _tag, (_pattern, _first, _) in _SCALARS.items():
    _CoreLoader.add_implicit_resolver(_PREFIX + _tag, re.compile(_pattern), [*_first, ""])


def _compose(origin: str, text: str) -> Document:
    root = yaml.compose(text, Loader=_CoreLoader)
    lines: dict[Key, int] = {}

    def build(node: yaml.Node, key: Key) -> Any:
        lines.setdefault(key, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _TABLES:
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag}", problem_mark=node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*key, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return mapping(node, key)
        return _scalar(node)

    def mapping(node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is not plain text", problem_mark=name.start_mark)
            if name.value in content:
                problem = f"the key {dotted((*key, name.value))} for the second time"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=name.start_mark)
            lines[(*key, name.value)] = name.start_mark.line + 1
            content[name.value] = build(value, (*key, name.value))
        return content

    return Document(origin, None if root is None else build(root, ()), lines)


def _scalar(node: yaml.Node) -> Any:
    tag = node.tag.removeprefix(_PREFIX)
    if tag == "str":
        return node.value
    if tag not in _SCALARS or not re.match(_SCALARS[tag][0], node.value):
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} on {node.value!r}", problem_mark=node.start_mark)
    return _SCALARS[tag][2](node.value)
