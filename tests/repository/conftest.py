"""The served models' Python, loaded as Triton loads it: a version folder on the path, with a double of pb_utils."""

import importlib
import sys
import types

import numpy as np
import pytest

from toolkit import templating

SHARED = templating.directory() / "inflight_batcher" / "shared"
#: Every module of a served model.
OWN = sorted({path.stem for path in templating.directory().rglob("*.py")})


class Tensor:
    def __init__(self, name, value):
        self._name, self._value = name, value

    def name(self):
        return self._name

    def as_numpy(self):
        return self._value


class TritonError:
    INVALID_ARG, INTERNAL, CANCELLED, UNAVAILABLE = "invalid", "internal", "cancelled", "unavailable"

    def __init__(self, message, code=INTERNAL):
        self._message, self.code = message, code

    def message(self):
        return self._message


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self.error = error
        self.outputs = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}


class Request:
    """What execute() is given."""

    def __init__(self, **tensors):
        self.tensors = [Tensor(name, np.array(value)) for name, value in tensors.items()]
        self.named = "{}"

    def inputs(self):
        return self.tensors

    def parameters(self):
        return self.named


@pytest.fixture
def served(monkeypatch):
    """Return a function that loads a module of a served model."""
    utils = types.ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.TritonError, utils.InferenceResponse = Tensor, TritonError, InferenceResponse
    utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    utils.Logger = types.SimpleNamespace(log_error=lambda _: None)
    utils.get_input_tensor_by_name = lambda request, name: next(t for t in request.inputs() if t.name() == name)
    loaded = {"triton_python_backend_utils": utils}
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)

    def load(model, module):
        monkeypatch.syspath_prepend(str(SHARED))
        monkeypatch.syspath_prepend(str(SHARED.parent / model / "1"))
        loaded[module] = importlib.import_module(module)
        return loaded[module]

    yield load
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def request_of():
    return Request
