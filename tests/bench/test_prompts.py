import pytest

from toolkit.bench import prompts
from toolkit.errors import UsageError


@pytest.mark.parametrize("tokens", [1, 2, 11, 12, 13, 128, 1000])
def test_a_prompt_has_a_word_or_a_full_stop_per_token(tokens):
    text = prompts.made(seed=3, index=5, tokens=tokens)
    assert len(text.replace(".", " .").split()) == tokens


def test_a_seed_makes_the_same_prompts_and_no_two_alike():
    first, again = ([prompts.made(seed=1, index=i, tokens=64) for i in range(50)] for _ in range(2))
    assert first == again
    assert len({text[:40] for text in first}) == 50
    assert prompts.made(seed=2, index=0, tokens=64) not in first


def test_prompts_are_read_from_lines_and_from_json_lines(tmp_path):
    path = tmp_path / "prompts"
    path.write_text('What is 2 + 2?\n\n{"prompt": "Say \\"hi\\" 你好"}\n', encoding="utf-8")
    assert prompts.read(path) == ("What is 2 + 2?", 'Say "hi" 你好')


@pytest.mark.parametrize("content", [b"", b'{"text": "x"}', b'{"prompt": ', b"\xff\xfe"])
def test_a_file_without_prompts_is_refused_by_name(tmp_path, content):
    path = tmp_path / "prompts"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        prompts.read(path)
