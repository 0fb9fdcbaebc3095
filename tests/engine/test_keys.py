"""Engines for several cards and builders lie side by side."""

from __future__ import annotations

from toolkit import gpus, releases
from toolkit.engine.keys import engine_key


def test_a_key_says_what_an_engine_is_bound_to():
    assert engine_key(86, releases.get("26.07")) == "sm86-trtllm1.2.1-trt10.14.1.48"


def test_releases_with_the_same_builder_share_engines():
    assert engine_key(89, releases.get("26.04")) == engine_key(89, releases.get("26.07"))


def test_every_card_and_builder_has_a_folder_of_its_own():
    builders = {(release.tensorrt_llm, release.tensorrt) for release in releases.catalogue()}
    sms = {card.sm for card in gpus.catalogue()}
    keys = {engine_key(sm, release) for sm in sms for release in releases.catalogue()}

    assert len(keys) == len(sms) * len(builders)
