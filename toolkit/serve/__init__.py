"""Serve a Triton model repository: start, watch, stop, and leave nothing behind."""

from toolkit.serve.ports import free_from
from toolkit.serve.starting import models_in, start
from toolkit.serve.status import ServerStatus, is_running, log_path, only_name, running
from toolkit.serve.stopping import Stopped, stop
from toolkit.serve.supervising import start_supervisor, supervise

__all__ = [
    "ServerStatus",
    "Stopped",
    "free_from",
    "is_running",
    "log_path",
    "models_in",
    "only_name",
    "running",
    "start",
    "start_supervisor",
    "stop",
    "supervise",
]
