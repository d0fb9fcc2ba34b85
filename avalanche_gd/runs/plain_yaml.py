"""Read YAML of plain content, whose result is not larger than its text."""

from collections import Counter
from typing import Any

from yaml import AliasEvent, SafeLoader, YAMLError, load
from yaml.nodes import MappingNode


class _PlainLoader(SafeLoader):
    """Refuses aliases, with which a few lines can become many, and repeated names."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            raise YAMLError("it has an alias, such as *name")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        content = super().construct_mapping(node, deep=deep)
        if len(content) < len(node.value):
            ((name, _),) = Counter(str(key.value) for key, _ in node.value).most_common(1)
            raise YAMLError(f"it has {name} twice")
        return content


def load_plain_yaml(text: str) -> Any:
    """Read the content of a YAML document.

    :raises YAMLError: if it is not one, or has aliases or repeated names.
    """
    try:
        return load(text, _PlainLoader)
    except RecursionError as error:
        raise YAMLError("nested too deeply") from error
    except (YAMLError, ValueError) as error:
        raise YAMLError(str(error).splitlines()[0]) from error
    except Exception as error:  # PyYAML's constructors raise errors of many kinds
        raise YAMLError("a value is not of its tag") from error
