"""A folder of manifests, read once: its files, its YAML documents, the Kubernetes objects among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.validation.charts import Rendered, rendered

YAML_SUFFIXES = (".yaml", ".yml")
#: Of the tools' own making, never of ours.
PASSED_OVER = {".git", ".terraform", "__pycache__"}
#: Nobody writes a manifest of this size; something else was named.
LARGEST_BYTES = 8 << 20
#: Nor one of so many values, or so deep, when its aliases are unfolded.
MOST_VALUES, DEEPEST = 200_000, 100


@dataclass(frozen=True, kw_only=True)
class KubernetesObject:
    """One object, and where it stands."""

    file: str
    line: int
    document: Mapping[str, Any]

    @property
    def api_version(self) -> str:
        """`apps/v1`."""
        return str(self.document["apiVersion"])

    @property
    def kind(self) -> str:
        """`Deployment`."""
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        """The object's own name; empty where it has none."""
        metadata = self.document.get("metadata")
        return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""

    @property
    def place(self) -> str:
        """`service.yaml Service/demo`."""
        return f"{self.file} {self.kind}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document of a YAML file."""

    file: str
    line: int
    content: Any


class Folder:
    """What lies below a path, by name relative to it."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UsageError(f"There is no folder {path}.", hint="`trtk deploy TARGET ENGINE -o DIR` makes one.")
        self.path = path

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """The names of all files, sorted."""
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        names = [path.relative_to(self.path) for path in found]
        return tuple(str(name) for name in names if not PASSED_OVER & set(name.parts))

    def text(self, name: str) -> str:
        """Return a file's text; what is no UTF-8 is shown as such."""
        path = self.path / name
        if path.stat().st_size > LARGEST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")

    def named(self, *patterns: str) -> tuple[str, ...]:
        """Return the files whose last name matches a pattern."""
        return tuple(name for name in self.files if any(fnmatch(Path(name).name, one) for one in patterns))

    @functools.cached_property
    def charts(self) -> tuple[str, ...]:
        """The folders of Helm charts, `.` for this one."""
        return tuple(str(Path(name).parent) for name in self.named("Chart.yaml"))

    @functools.cached_property
    def yaml_files(self) -> tuple[str, ...]:
        """The YAML files; a chart's templates are none before they are rendered."""
        return tuple(
            name for name in self.files if name.endswith(YAML_SUFFIXES) and not self._is_chart_template(Path(name))
        )

    @functools.cached_property
    def documents(self) -> tuple[Document, ...]:
        """Every YAML document that can be read; those that cannot are the yaml validator's."""
        return tuple(one for name in self.yaml_files for one in documents_of(name, self.text(name)))

    @functools.cached_property
    def objects(self) -> tuple[KubernetesObject, ...]:
        """Every Kubernetes object that stands in a file as it is."""
        return tuple(objects_among(self.documents))

    @functools.cached_property
    def rendered(self) -> tuple[Rendered, ...]:
        """What Helm makes of each chart with the chart's own values."""
        return tuple(rendered(self.path, name) for name in self.charts)

    @functools.cached_property
    def all_objects(self) -> tuple[KubernetesObject, ...]:
        """Every object, those that charts make too; what could not be rendered is the helm validator's to say."""
        made = (
            KubernetesObject(file=name, line=one.line, document=one.document)
            for chart in self.rendered
            for name, text in chart.files.items()
            for one in objects_among(documents_of(name, text))
        )
        return (*self.objects, *made)

    def _is_chart_template(self, name: Path) -> bool:
        return any(name.is_relative_to(Path(chart) / "templates") for chart in self.charts)


def documents_of(name: str, text: str) -> tuple[Document, ...]:
    """Return the documents of a YAML text, each with its first line; none where it cannot be parsed."""
    import yaml

    made = []
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    except yaml.YAMLError:
        return ()
    try:
        while loader.check_node():
            node = loader.get_node()
            made.append(Document(file=name, line=node.start_mark.line + 1, content=loader.construct_document(node)))
    except yaml.YAMLError:
        return ()
    except RecursionError:
        raise _endless(name) from None
    finally:
        loader.dispose()
    for one in made:
        _need_end(name, one.content)
    return tuple(made)


def _need_end(name: str, content: Any) -> None:
    """Raise UsageError for a document that unfolds without end, or to more than anybody writes."""
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise _endless(name)
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        waiting.extend((one, depth + 1) for one in inner)


def _endless(name: str) -> UsageError:
    return UsageError(
        f"{name} unfolds to more than {MOST_VALUES:,} values, or is more than {DEEPEST} deep.",
        hint="No manifest is like that: look at its aliases (`*`), or take it out of the folder.",
    )


def objects_among(documents: tuple[Document, ...]) -> Iterator[KubernetesObject]:
    """Yield the documents that are Kubernetes objects; the items of a List are objects too."""
    for one in documents:
        content = one.content
        if not (isinstance(content, Mapping) and "kind" in content and "apiVersion" in content):
            continue
        if content["kind"] == "List" and isinstance(content.get("items"), list):
            items = tuple(Document(file=one.file, line=one.line, content=item) for item in content["items"])
            yield from objects_among(items)
        else:
            yield KubernetesObject(file=one.file, line=one.line, document=content)
