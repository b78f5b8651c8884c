"""YAML as people and programs exchange it here: plain values, each written out once, and nothing that a file could hide.

A file may come from a stranger. So an alias, which a few lines can multiply into gigabytes, is no part of what is read or
written; no key is there twice; and what is too large or too deep is refused before it is understood.
"""

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from vittle.spaces.errors import VittleError
from vittle.spaces.validation import shortened

NOT_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("binary", "omap", "pairs", "set"))
MOST_BYTES = 2**20  # a hundred times what an exported schedule has


def read_yaml(path: Path, hint: str) -> Any:
    """What a YAML or JSON file holds.

    Raises:
        VittleError: it cannot be read or is not plain YAML; the message ends in `hint`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise VittleError(f"{path} has more than {MOST_BYTES >> 20} MiB; {hint}")
        return yaml.load(content.decode(), _Reader)
    except OSError as error:
        raise VittleError(f"cannot read {path}: {error.strerror}; {hint}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise VittleError(f"{path} is not YAML as it is read here ({line}{shortened(str(error.problem))}); {hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise VittleError(f"{path} is not YAML; {hint}") from None
    except (ArithmeticError, RecursionError, ValueError) as error:
        if isinstance(error, VittleError):
            raise
        raise VittleError(f"{path} holds a value that nothing here can have; {hint}") from None


def to_yaml(document: Any, width: int = 120) -> str:
    """Plain values as text, in the order in which they are given."""
    text: str = yaml.dump(document, Dumper=_Writer, sort_keys=False, default_flow_style=None, width=width, allow_unicode=True)
    return text


class _Reader(yaml.SafeLoader):
    yaml_constructors = {  # noqa: RUF012 - its base has it so
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag not in NOT_PLAIN
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "an alias is not accepted", alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise ConstructorError(None, None, "a key is there twice", node.start_mark)
        return made


class _Writer(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
