"""Images come from a registry with progress and are pinned to what came; what cannot be had says why and what to do."""

import contextlib

import pytest

from tests.containers.registry import NAME, Registry, digest, serving
from toolkit import containers
from toolkit.containers.images import refused
from toolkit.errors import MissingError, UsageError

pytestmark = pytest.mark.docker


@contextlib.contextmanager
def served(registry):
    with serving(registry) as host:
        yield f"{host}/{NAME}"


def remove(daemon, reference):
    daemon.client.images.remove(reference, force=True)


def test_an_image_is_pulled_with_progress_and_pinned_to_its_digest(docker_daemon):
    registry, steps = Registry(), []
    with served(registry) as name:
        image = containers.need_image(docker_daemon, f"{name}:1.0", progress=lambda *step: steps.append(step))
    again = containers.need_image(docker_daemon, f"{name}:1.0")  # the registry is gone, the image is here
    remove(docker_daemon, image.reference)

    pinned = f"{name}@{digest(registry.manifest)}"
    assert (image.reference, image.image_id, image.digest) == (f"{name}:1.0", registry.image_id, pinned)
    assert again == image
    step = f"Pull {name}:1.0"
    assert {said for said, _, _ in steps} == {step}
    layer = max(map(len, registry.blobs.values()))
    assert (steps[0], steps[-1]) == ((step, 0, 1), (step, 1, 1))
    assert steps[-2] == (step, layer, layer)
    fetched = [done for _, done, total in steps if total == layer]
    assert fetched == sorted(fetched)
    assert fetched[0] < layer


def test_an_image_by_digest_is_that_image(docker_daemon):
    registry = Registry(layer_bytes=1 << 10)
    with served(registry) as name:
        reference = f"{name}@{digest(registry.manifest)}"
        image = containers.need_image(docker_daemon, reference)
    remove(docker_daemon, reference)

    assert (image.image_id, image.digest) == (registry.image_id, reference)


@pytest.mark.parametrize(
    ("status", "said", "hint"),
    [
        (404, "manifest unknown", "`trtk releases` lists images; --image names another."),
        (401, "", "Log in first: docker login {host}"),
        (500, "", "Does the daemon's machine reach {host}? An image can be carried: docker save | docker load."),
    ],
)
def test_an_image_that_cannot_be_had_is_a_sentence_with_the_next_command(docker_daemon, status, said, hint):
    with served(Registry(status=status)) as name, pytest.raises(MissingError) as caught:
        containers.need_image(docker_daemon, f"{name}:1.0")

    assert str(caught.value).startswith(f"The image {name}:1.0 could not be pulled: ")
    assert said in str(caught.value)
    assert caught.value.hint == hint.format(host=name.partition("/")[0])


def test_a_registry_that_is_not_there_is_named(docker_daemon):
    with serving(Registry()) as host:
        pass
    with pytest.raises(MissingError, match=f"The image {host}/x:1 could not be pulled: .*connection refused"):
        containers.need_image(docker_daemon, f"{host}/x:1")


@pytest.mark.parametrize("name", ["llama:1", "me/llama:1"])
def test_a_name_without_a_host_is_looked_for_at_docker_s_own_registry(name):
    assert refused(name, "denied").hint == "Log in first: docker login docker.io"


def test_what_is_no_name_of_an_image_is_refused(docker_daemon):
    with pytest.raises(UsageError, match="'my image' is no image's name"):
        containers.need_image(docker_daemon, "my image")
