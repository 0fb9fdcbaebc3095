"""Containers: a daemon that speaks Docker's API, its images, and one container at a time that leaves nothing behind."""

from toolkit.containers.daemon import Daemon, connect
from toolkit.containers.images import Image, need_image
from toolkit.containers.owners import SETTLE_S, remove_of, remove_orphans
from toolkit.containers.running import ContainerSpec, Ended, Mount, run

__all__ = [
    "SETTLE_S",
    "ContainerSpec",
    "Daemon",
    "Ended",
    "Image",
    "Mount",
    "connect",
    "need_image",
    "remove_of",
    "remove_orphans",
    "run",
]
