"""What the programs inside a release accept: trtllm-build's flags, and the keys of the LLM API's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Kinds of flags that take several words, and the one that takes none.
LISTS = ("paths", "choices")
SWITCH = "switch"


@dataclass(frozen=True, kw_only=True)
class BuildFlag:
    """One flag of trtllm-build."""

    kind: str  # switch, integer, text, path, paths, choice, choices
    default: str | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    refused_sms: tuple[int, ...] = ()  # where the builder raises unless the flag is `disable`


@dataclass(frozen=True, kw_only=True)
class BuildTool:
    """The trtllm-build of one line of releases: every flag it accepts, and no other."""

    name: str  # 1.2
    flags: Mapping[str, BuildFlag]
    sources: tuple[str, ...]
    notes: str = ""

    def names(self) -> tuple[str, ...]:
        """Return every name that the command line takes, aliases included, without dashes."""
        return tuple(sorted({name for key, flag in self.flags.items() for name in (key, *flag.aliases)}))


@dataclass(frozen=True, kw_only=True)
class LlmApi:
    """The LLM API of one line of releases: the keys of model.yaml that trtk may write, dotted, and their kinds."""

    name: str  # 1.2
    keys: Mapping[str, str]  # kv_cache_config.enable_block_reuse → boolean
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    notes: str = ""
