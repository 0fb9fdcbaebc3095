"""What the pipeline will make of a graph: every attention paged, with the window that its layer has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError

if TYPE_CHECKING:
    from toolkit.specs import ModelSpec

PAGED = "PagedAttentionExtension"
#: Among that operation's inputs.
SLIDING_WINDOW_INPUT = 10


def paged_windows(model: Any) -> list[int | None]:
    """Return the window of each paged attention that OpenVINO makes of a copy of the model, in order."""
    from openvino._offline_transformations import paged_attention_transformation
    from openvino.passes import ConstantFolding, Manager

    copy = model.clone()
    paged_attention_transformation(copy)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(copy)
    nodes = [node for node in copy.get_ordered_ops() if node.get_type_name() == PAGED]
    return [int(node.input_value(SLIDING_WINDOW_INPUT).get_node().get_data()) or None for node in nodes]


def need_windows(model: Any, spec: ModelSpec) -> None:
    """Raise BuildError when paged attention would look further, or less far, than a layer does."""
    found, expected = paged_windows(model), [spec.window_of(index) for index in range(spec.num_layers)]
    if found != expected:
        raise BuildError(
            f"OpenVINO's paged attention would use the windows {found} where the layers have {expected}.",
            hint="This OpenVINO recognizes windows by another form of graph; install openvino 2026.4.",
        )
