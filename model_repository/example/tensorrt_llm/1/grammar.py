"""What a text must follow, in OpenVINO GenAI's words."""

from __future__ import annotations

import json
from typing import Any

#: What `json` means to TensorRT-LLM: an object or an array.
ANY_JSON = json.dumps({"anyOf": [{"type": "object"}, {"type": "array"}]})
#: guided_decoding_guide_type → attribute of StructuredOutputConfig.
ATTRIBUTES = {"json": "json_schema", "json_schema": "json_schema", "regex": "regex", "ebnf_grammar": "grammar"}


def structure_of(kind: str, guide: str) -> Any:
    """Return a guide in OpenVINO GenAI's words."""
    import openvino_genai

    structure = openvino_genai.StructuredOutputConfig()
    setattr(structure, ATTRIBUTES[kind], ANY_JSON if kind == "json" else guide)
    return structure
