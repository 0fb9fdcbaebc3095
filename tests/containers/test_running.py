"""How a container ended, in words."""

import pytest

from toolkit.containers import Ended


@pytest.mark.parametrize(
    ("code", "is_oom_killed", "said"),
    [
        (137, False, "by SIGKILL"),
        (137, True, "by SIGKILL; it used more memory than it may"),
        (3, False, "with exit code 3"),
        (255, False, "with exit code 255"),
    ],
)
def test_an_end_is_told_by_signal_or_code(code, is_oom_killed, said):
    assert Ended(exit_code=code, is_oom_killed=is_oom_killed).how == said
