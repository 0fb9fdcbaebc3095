"""Documents of a text, JSONL or Parquet file, one after another, without reading more than is asked for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from toolkit.errors import MissingError, UsageError
from toolkit.templating import chat_prompt, chat_template

#: Where a row's text is when nobody says: plain text, or a conversation.
COLUMNS = ("text", "content", "messages", "conversations")
#: Who speaks, in the words of older conversation files.
ROLES = {"human": "user", "gpt": "assistant"}
ROWS_AT_ONCE = 256

#: Turns a conversation into text.
Chat = Callable[[list[dict[str, str]]], str]


def plain_chat(messages: list[dict[str, str]]) -> str:
    """Return what was said, without who said it."""
    return "\n".join(message["content"] for message in messages)


def chat_of(tokenizer_dir: Path) -> Chat:
    """Return what a model's own chat template makes of a conversation, or `plain_chat` where it has none."""
    found = chat_template(tokenizer_dir)
    if found is None:
        return plain_chat
    template, special = found
    return lambda messages: chat_prompt(template, messages, special)


def documents(path: Path, *, column: str = "", chat: Chat = plain_chat) -> Iterator[str]:
    """Yield the documents of a file, but blank ones; a file that is neither JSONL nor Parquet is one document."""
    if path.name.endswith(".parquet"):
        rows = _parquet_rows(path, column)
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
        rows = _json_rows(path)
    else:
        yield from _whole(path)
        return
    for number, row in enumerate(rows, 1):
        text = _text_of(row, column, chat, where=f"{path} row {number}")
        if text.strip():
            yield text


def _whole(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"There is no text file {path}.", hint="Give a text, JSONL or Parquet file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", hint="Give a text, JSONL or Parquet file.") from error
    if text.strip():
        yield text


def _json_rows(path: Path) -> Iterator[Any]:
    try:
        with _text_stream(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _json_row(line, f"{path} line {number}")
    except FileNotFoundError as error:
        raise UsageError(f"There is no text file {path}.", hint="Give a text, JSONL or Parquet file.") from error
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UsageError(
            f"{path} is damaged or not UTF-8: {error}.", hint="Give a text, JSONL or Parquet file."
        ) from error


def _text_stream(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _json_row(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON: {error}.", hint="JSONL has one JSON object in every line.") from error


def _parquet_rows(path: Path, column: str) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingError(
            f"{path.name} is a Parquet file, which needs pyarrow to be read: {error}.",
            hint="pip install 'pyarrow<26'",  # 26 needs NumPy 2, which the embedded tritonserver does not allow
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [name for name in ([column] if column else COLUMNS) if name in file.schema_arrow.names][:1]
        if not names:
            raise _no_column(str(path), column, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path} is no whole Parquet file: {error}.", hint="Download it again.") from error


def _text_of(row: Any, column: str, chat: Chat, *, where: str) -> str:
    fields = row if isinstance(row, Mapping) else {}
    name = next((name for name in ([column] if column else COLUMNS) if name in fields), None)
    if name is None:
        raise _no_column(where, column, fields)
    value = fields[name]
    if isinstance(value, str):
        return value
    messages = [_message(part) for part in value] if isinstance(value, list) else []
    if not messages or None in messages:
        raise UsageError(
            f"{where} holds neither text nor messages in {name!r}.",
            hint="Name the column that does: hf:NAME:SPLIT:COLUMN.",
        )
    return chat([message for message in messages if message])


def _message(part: Any) -> dict[str, str] | None:
    """Return one message in today's words, or None for what is none."""
    if not isinstance(part, Mapping):
        return None
    role, content = part.get("role") or part.get("from"), part.get("content") or part.get("value") or ""
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return {"role": ROLES.get(role, role), "content": content}


def _no_column(where: str, column: str, known: Any) -> UsageError:
    wanted = repr(column) if column else " or ".join(map(repr, COLUMNS))
    return UsageError(f"{where} has no {wanted}; it has {', '.join(sorted(known)) or 'no fields'}.")
