"""yamllint: every YAML file parses, no key stands twice, lists and comments are indented as they should be."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

#: Comments say why in whole sentences, and dashboards are long; the rest is yamllint's own.
CONFIG = """\
extends: default
rules:
  line-length: disable
  document-start: disable
  truthy: {check-keys: false}
  comments: {min-spaces-from-content: 1}
  indentation: {indent-sequences: whatever}
"""


def run(folder: Folder) -> Outcome:
    """Lint the YAML files."""
    try:
        import yaml
        import yamllint.config
        import yamllint.linter
    except ModuleNotFoundError:
        return not_installed("yamllint", "pip install 'trtk[deploy]'") if folder.yaml_files else Outcome()
    config = yamllint.config.YamlLintConfig(CONFIG)

    def found(name: str) -> Iterator[Problem]:
        try:
            for one in yamllint.linter.run(folder.text(name), config):
                yield Problem(place=f"{name}:{one.line}", says=f"{one.desc} ({one.rule or 'syntax'})")
        except yaml.reader.ReaderError as error:
            yield Problem(place=name, says=f"it is no text: {error.reason}")

    return outcome(len(folder.yaml_files), (one for name in folder.yaml_files for one in found(name)))


VALIDATOR = Validator(name="yamllint", title="YAML files", order=10, run=run)
