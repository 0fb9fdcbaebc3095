"""Text to tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from chat import Chat
from served import Refused, flag, parameters, path_of, refusal, tensors_of, text_of, tokenizer_in, wants_code
from words import Words

#: A normalizer may make one character of a few; a text this much longer than the longest tokens are is too long.
NORMALIZED_CHARS = 4
#: As max_tokens: no limit but the context. INT32 has no larger number.
AS_MANY_AS_FIT = 2**31 - 1


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
        self.chat = Chat.of(folder)
        self.words = Words(self.tokenizer)
        self.longest_token = max(map(len, self.tokenizer.get_vocab()), default=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own, so that one wrong request fails alone."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return the tensors that tensorrt_llm reads, or an error of one sentence."""
        try:
            outputs = self.outputs(tensors_of(request))
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            return pb_utils.InferenceResponse(error=refusal(error, has_code=wants_code(request)))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])

    def outputs(self, asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output tensor, in the types of config.pbtxt."""
        if any(text_of(item, "decoder_text_input") for item in asked.get("DECODER_QUERY", np.empty(0)).reshape(-1)):
            raise Refused("decoder_text_input is for encoder-decoder models; this one is decoder-only.")
        prompts = self.prompts(asked)
        lengths = np.array([[len(prompt)] for prompt in prompts], np.int32)
        wanted = self.with_room_filled(lengths, asked["REQUEST_OUTPUT_LEN"].astype(np.int32))
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
            "BAD_WORDS_IDS": self.words.table(asked.get("BAD_WORDS_DICT"), [], batch),
            "STOP_WORDS_IDS": self.words.table(asked.get("STOP_WORDS_DICT"), ends, batch),
            "EMBEDDING_BIAS": self.words.bias(asked, batch),
            "REQUEST_OUTPUT_LEN": wanted,
            "OUT_END_ID": end_ids,
            "OUT_PAD_ID": pad_ids,
            "OUT_PROMPT_TABLE_EXTRA_IDS": self.extra_ids(asked, padded),
        }

    def prompts(self, asked: dict[str, np.ndarray]) -> list[list[int]]:
        """Return each row's tokens: of its text, or of its messages."""
        texts = [text_of(item, "text_input") for item in asked["QUERY"].reshape(-1)]
        given = asked.get("MESSAGES", np.empty(0)).reshape(-1)
        chats = [text_of(item, "messages") for item in given] or [""] * len(texts)
        pairs = zip(texts, chats, strict=True)
        return [self.tokens_of_chat(chat, text) if chat else self.tokens_of(text) for text, chat in pairs]

    def tokens_of_chat(self, messages: str, text: str) -> list[int]:
        """Encode a chat; its template writes the special tokens itself."""
        if text:
            raise Refused("text_input and messages are both given; leave text_input empty to send messages.")
        if self.chat is None:
            raise Refused("This model has no chat template; send text_input.")
        self.check_size(messages, "messages")
        return list(self.tokenizer.encode(self.chat.text(messages), add_special_tokens=False).ids)

    def tokens_of(self, text: str) -> list[int]:
        """Encode a prompt; one that a chat template began with the special tokens does not get them twice."""
        if not text:
            raise Refused("text_input is empty; there is nothing to continue.")
        self.check_size(text, "text_input")
        tokens = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        if self.adds_special_tokens and (not self.prefix or tokens[: len(self.prefix)] != self.prefix):
            tokens = list(self.tokenizer.encode(text).ids)
        return tokens

    def check_size(self, text: str, name: str) -> None:
        """Refuse a text that cannot fit however it is cut into tokens, before time is spent on cutting it."""
        most = NORMALIZED_CHARS * self.longest_token * self.max_seq_len
        if self.max_seq_len and len(text) > most:
            raise Refused(
                f"{name} has {len(text)} characters, which cannot fit into the {self.max_seq_len} tokens of prompt and"
                " answer that the server is set up for."
            )

    def with_room_filled(self, lengths: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return how many tokens each row may make; as many as fit is the room that its prompt leaves."""
        if not self.max_seq_len:
            return wanted
        return np.where(wanted == AS_MANY_AS_FIT, np.maximum(self.max_seq_len - lengths, 1), wanted).astype(np.int32)

    def check_lengths(self, lengths: np.ndarray, wanted: np.ndarray) -> None:
        """Refuse what no engine can do, before it waits in a queue."""
        if wanted.min() <= 0:
            raise Refused(f"max_tokens is {wanted.min()}; it must be 1 or more.")
        if not self.max_seq_len:
            return
        if lengths.max() >= self.max_seq_len:
            raise Refused(
                f"The prompt has {lengths.max()} tokens, and the server is set up for {self.max_seq_len} tokens of"
                " prompt and answer together."
            )
        for length, more in zip(lengths.reshape(-1).tolist(), wanted.reshape(-1).tolist(), strict=True):
            if length + more > self.max_seq_len:
                raise Refused(
                    f"The prompt has {length} tokens and max_tokens is {more}; the server is set up for"
                    f" {self.max_seq_len} tokens of both together, so max_tokens can be {self.max_seq_len - length}."
                )

    def ids_of(self, asked: dict[str, np.ndarray], batch: int) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
        """Return END_ID, PAD_ID and the other ends; who sets end_id, -1 included, gets that one end alone."""
        end_ids = asked.get("END_ID", np.full((batch, 1), self.end_ids[0])).astype(np.int32)
        pad_ids = asked.get("PAD_ID", np.full((batch, 1), self.pad_id)).astype(np.int32)
        ends = [] if "END_ID" in asked else [[token] for token in self.end_ids[1:]]
        return end_ids, pad_ids, ends

    def extra_ids(self, asked: dict[str, np.ndarray], padded: np.ndarray) -> np.ndarray:
        """Return the prompt-table id at every virtual token, or nothing where none is given."""
        if "PROMPT_TABLE_EXTRA_ID" not in asked:
            return np.zeros((len(padded), 0), np.uint64)
        virtual = padded >= self.tokenizer.get_vocab_size()
        return np.where(virtual, asked["PROMPT_TABLE_EXTRA_ID"], 0).astype(np.uint64)


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
