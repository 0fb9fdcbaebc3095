"""Text to tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from served import Refused, flag, parameters, path_of, refusal, tensors_of, tokenizer_in


class TritonPythonModel:
    """Loads tokenizer.json once; nothing of a request is kept."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer and the ids that end and pad a text."""
        settings = parameters(args)
        folder = path_of(args, settings, "tokenizer_dir")
        self.tokenizer = tokenizer_in(folder)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.adds_special_tokens = flag(settings.get("add_special_tokens", "true"))
        self.max_seq_len = int(settings.get("max_seq_len", 0))
        self.end_ids = [int(settings["end_id"])] if "end_id" in settings else end_ids_of(folder, self.tokenizer)
        self.pad_id = int(settings.get("pad_id", self.end_ids[0]))
        plain = self.tokenizer.encode("a", add_special_tokens=False).ids
        special = self.tokenizer.encode("a").ids
        self.prefix = special[: special.index(plain[0])] if plain[0] in special else []

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own, so that one wrong request fails alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return the tensors that tensorrt_llm reads, or an error of one sentence."""
        try:
            outputs = self.outputs(tensors_of(request))
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            return pb_utils.InferenceResponse(error=refusal(error))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])

    def outputs(self, asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output tensor, in the types of config.pbtxt."""
        prompts = [self.tokens_of(text_of(item, "text_input")) for item in asked["QUERY"].reshape(-1)]
        if any(text_of(item, "decoder_text_input") for item in asked.get("DECODER_QUERY", np.empty(0)).reshape(-1)):
            raise Refused("decoder_text_input is for encoder-decoder models; this one is decoder-only.")
        lengths = np.array([[len(prompt)] for prompt in prompts], np.int32)
        wanted = asked["REQUEST_OUTPUT_LEN"].astype(np.int32)
        self.check_lengths(lengths, wanted)
        batch = len(prompts)
        end_ids, pad_ids, ends = self.ids_of(asked, batch)
        padded = np.full((batch, int(lengths.max())), pad_ids[0, 0], np.int32)
        for row, prompt in enumerate(prompts):
            padded[row, : len(prompt)] = prompt
        return {
            "INPUT_ID": padded,
            "REQUEST_INPUT_LEN": lengths,
            "DECODER_INPUT_ID": pad_ids,
            "REQUEST_DECODER_INPUT_LEN": np.ones((batch, 1), np.int32),
            "BAD_WORDS_IDS": self.words(asked.get("BAD_WORDS_DICT"), [], batch),
            "STOP_WORDS_IDS": self.words(asked.get("STOP_WORDS_DICT"), ends, batch),
            "EMBEDDING_BIAS": self.bias(asked, batch),
            "REQUEST_OUTPUT_LEN": wanted,
            "OUT_END_ID": end_ids,
            "OUT_PAD_ID": pad_ids,
            "OUT_PROMPT_TABLE_EXTRA_IDS": self.extra_ids(asked, padded),
        }

    def tokens_of(self, text: str) -> list[int]:
        """Encode a prompt; one that a chat template began with the special tokens does not get them twice."""
        if not text:
            raise Refused("text_input is empty; there is nothing to continue.")
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        if self.adds_special_tokens and (not self.prefix or tokens[: len(self.prefix)] != self.prefix):
            tokens = self.tokenizer.encode(text).ids
        return tokens

    def check_lengths(self, lengths: np.ndarray, wanted: np.ndarray) -> None:
        """Refuse what no engine can do, before it waits in a queue."""
        if wanted.min() <= 0:
            raise Refused(f"max_tokens is {wanted.min()}; it must be 1 or more.")
        if self.max_seq_len and lengths.max() >= self.max_seq_len:
            raise Refused(
                f"The prompt has {lengths.max()} tokens, and the server is set up for {self.max_seq_len} tokens of"
                " prompt and answer together."
            )

    def ids_of(self, asked: dict[str, np.ndarray], batch: int) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
        """Return END_ID, PAD_ID and the other ends; who sets end_id, -1 included, gets that one end alone."""
        end_ids = asked.get("END_ID", np.full((batch, 1), self.end_ids[0])).astype(np.int32)
        pad_ids = asked.get("PAD_ID", np.full((batch, 1), self.pad_id)).astype(np.int32)
        ends = [] if "END_ID" in asked else [[token] for token in self.end_ids[1:]]
        return end_ids, pad_ids, ends

    def words(self, asked: np.ndarray | None, always: list[list[int]], batch: int) -> np.ndarray:
        """Return word lists as TensorRT-LLM reads them: [rows, 2, width], tokens above, ends below, padded with -1."""
        rows = asked.reshape(batch, -1) if asked is not None else [[]] * batch
        lists = [[word for item in row if item for word in self.spellings(item)] + always for row in rows]
        width = max(1, *(sum(map(len, words)) for words in lists))
        table = np.full((batch, 2, width), -1, np.int32)
        table[:, 0, :] = 0
        for row, words in enumerate(lists):
            flat = [token for word in words for token in word]
            table[row, 0, : len(flat)] = flat
            table[row, 1, : len(words)] = np.cumsum([len(word) for word in words])
        return table

    def spellings(self, item: bytes) -> list[list[int]]:
        """Return a word's tokens at the start of a text and after a space: tokenizers tell the two apart."""
        text = text_of(item, "a stop or bad word")
        forms = [text] if text[:1].isspace() else [text, f" {text}"]
        made = [self.tokenizer.encode(form, add_special_tokens=False).ids for form in forms]
        return [word for index, word in enumerate(made) if word and word not in made[:index]]

    def bias(self, asked: dict[str, np.ndarray], batch: int) -> np.ndarray:
        """Return a weight for every token of the vocabulary, or nothing where no words are given."""
        words = asked.get("EMBEDDING_BIAS_WORDS", np.empty(0)).reshape(-1)
        weights = asked.get("EMBEDDING_BIAS_WEIGHTS", np.empty(0)).reshape(-1)
        if len(words) != len(weights):
            raise Refused(f"embedding_bias_words has {len(words)} items and embedding_bias_weights {len(weights)}.")
        if not any(words):
            return np.zeros((batch, 0), np.float32)
        table = np.zeros((batch, self.tokenizer.get_vocab_size()), np.float32)
        per_row = len(words) // batch
        for index, (item, weight) in enumerate(zip(words, weights, strict=True)):
            for word in self.spellings(item):
                table[index // per_row, word] += weight
        return table

    def extra_ids(self, asked: dict[str, np.ndarray], padded: np.ndarray) -> np.ndarray:
        """Return the prompt-table id at every virtual token, or nothing where none is given."""
        if "PROMPT_TABLE_EXTRA_ID" not in asked:
            return np.zeros((len(padded), 0), np.uint64)
        virtual = padded >= self.tokenizer.get_vocab_size()
        return np.where(virtual, asked["PROMPT_TABLE_EXTRA_ID"], 0).astype(np.uint64)


def text_of(item: bytes, name: str) -> str:
    """Read UTF-8."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise Refused(f"{name} is not UTF-8.") from None


def end_ids_of(folder: Path, tokenizer: Any) -> list[int]:
    """Return the tokens that end a text, as the model's own files say; -1 where none does."""
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        ends = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        if ends is not None:
            return ends if isinstance(ends, list) else [ends]
    file = folder / "tokenizer_config.json"
    token = json.loads(file.read_text(encoding="utf-8")).get("eos_token") if file.is_file() else None
    token = token.get("content") if isinstance(token, dict) else token
    number = tokenizer.token_to_id(token) if token else None
    return [-1 if number is None else number]
