"""Containers: a daemon that speaks Docker's API, its images, and one container at a time that leaves nothing behind."""

from toolkit.containers.daemon import Daemon, connect
from toolkit.containers.images import Image, known_digest, need_image
from toolkit.containers.owners import SETTLE_S, of_job, remove_of, remove_orphans, terminate
from toolkit.containers.running import ContainerSpec, Ended, Mount, Published, run
from toolkit.containers.shown import compose_service, docker_run

__all__ = [
    "SETTLE_S",
    "ContainerSpec",
    "Daemon",
    "Ended",
    "Image",
    "Mount",
    "Published",
    "compose_service",
    "connect",
    "docker_run",
    "known_digest",
    "need_image",
    "of_job",
    "remove_of",
    "remove_orphans",
    "run",
    "terminate",
]
