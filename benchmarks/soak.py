"""A soak: clients that behave and clients that do not, against one running server, and what is left of it afterwards.

    trtk serve engines/demo-int4 --name soak --detach --openai
    python benchmarks/soak.py soak --minutes 20 --clients 32

Half of the clients ask properly and compare each answer with the first answer to the same prompt; the others cancel,
hang up, send garbage, prompts that are too long and parameters that are wrong. The server is looked at every few
seconds (memory, file descriptors, /dev/shm, KV blocks), and once more when all have gone. Exit code 1 if something
leaked, an answer was wrong, or a bad request was not refused with a sentence.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import tritonclient.grpc.aio as triton

from toolkit import serve

#: Continuations that a small model is sure of: with others, two tokens can be so close that the batch decides.
PROMPTS = (
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
    "red green blue red green blue red green blue red green",
    "print(1)\nprint(2)\nprint(3)\nprint(4)\nprint(5)\nprint(6)\n",
    "你好世界。你好世界。你好世界。你好世界。你好",
    "مرحبا بالعالم. مرحبا بالعالم. مرحبا بالعالم. مرحبا",
    "\U0001f600 \U0001f680 \U0001f600 \U0001f680 \U0001f600 \U0001f680 \U0001f600 \U0001f680",
    "  a b c  a b c  a b c  a b c  a b c ",
    "la la la la la la la la la la la la",
)
TOKENS = 24
KINDS = {"INT32": np.int32, "FP32": np.float32, "BOOL": np.bool_, "BYTES": np.object_}
#: What may be left in use after the soak, above what was in use after the warm-up.
SPARE_FDS = 16
SPARE_SHM_BYTES = 8 << 20
SPARE_RSS_SHARE = 0.05


class Tally:
    """Counts by kind, and the first examples of what went wrong."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def count(self, kind: str) -> None:
        """Count one."""
        self.counts[kind] += 1

    def fault(self, kind: str, text: str) -> None:
        """Count something that must not happen."""
        self.counts[f"FAULT {kind}"] += 1
        if len(self.wrong) < 50:
            self.wrong.append(f"{kind}: {text[:300]}")


class Soak:
    """The clients of one run."""

    def __init__(self, endpoint: Any, options: argparse.Namespace) -> None:
        self.options, self.tally = options, Tally()
        self.http_url, self.grpc_url = endpoint.http_url, endpoint.grpc_url
        self.openai_url, self.openai_model = options.openai_url, options.openai_model
        self.http = _http()
        self.expected: dict[str, set[str]] = collections.defaultdict(set)
        self.ids = 0

    @property
    def generate_url(self) -> str:
        """Where HTTP clients ask."""
        return f"{self.http_url}/v2/models/ensemble/generate"

    async def client(self, number: int, end: float) -> None:
        """One client: ask, or misbehave, until the time is up."""
        dice = random.Random(f"{self.options.seed}/{number}")
        good = [self.whole, self.streamed, self.grpc_streamed, *([self.openai] if self.openai_url else [])]
        bad = [self.cancel, self.hang_up, self.garbage, self.oversized, self.invalid]
        bad += [self.openai_hang_up, self.openai_invalid] if self.openai_url else []
        while time.monotonic() < end:
            act = dice.choice(good if number % 2 else bad)
            try:
                await act(dice)
            except (httpx.HTTPError, triton.InferenceServerException, OSError, asyncio.TimeoutError) as error:
                self.tally.fault(act.__name__, f"{type(error).__name__}: {error}")
            await asyncio.sleep(dice.random() * 0.2)

    def check(self, kind: str, prompt: str, text: str) -> None:
        """Compare an answer with the one to the same prompt that was made alone."""
        if text in self.expected[prompt]:
            self.tally.count(f"right ({kind})")
        else:
            self.tally.fault(f"another answer ({kind})", f"{prompt!r} gave {text!r}, not {self.expected[prompt]}")

    async def whole(self, dice: random.Random) -> None:
        """Ask over HTTP for a whole answer."""
        prompt = dice.choice(PROMPTS)
        body = {"text_input": prompt, "max_tokens": TOKENS}
        reply = await self.http.post(self.generate_url, json=body)
        if reply.status_code == 200:
            self.check("generate", prompt, reply.json()["text_output"])
        else:
            self.tally.fault("generate", f"{reply.status_code} {reply.text}")

    async def streamed(self, dice: random.Random) -> None:
        """Ask over HTTP for a stream."""
        prompt = dice.choice(PROMPTS)
        body = {"text_input": prompt, "max_tokens": TOKENS, "stream": True}
        text = ""
        async with self.http.stream("POST", f"{self.generate_url}_stream", json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data:"):
                    text += json.loads(line[5:]).get("text_output", "<error>")
        self.check("generate_stream", prompt, text)

    async def grpc_streamed(self, dice: random.Random) -> None:
        """Ask with tritonclient for a stream."""
        prompt = dice.choice(PROMPTS)
        self.check("gRPC stream", prompt, await self.over_grpc(prompt, TOKENS))

    async def over_grpc(self, prompt: str, tokens: int, *, leave_after: int = 0) -> str:
        """Return the text of a stream; leave in the middle where that is asked for."""
        self.ids += 1
        request_id = f"soak-{self.ids}"  # of its own: an id that two share stops neither
        inputs = [
            tensor("text_input", prompt, "BYTES"),
            tensor("max_tokens", tokens, "INT32"),
            tensor("stream", True, "BOOL"),
        ]

        async def requests() -> Any:
            yield {
                "model_name": "ensemble",
                "inputs": inputs,
                "outputs": [triton.InferRequestedOutput("text_output")],
                "request_id": request_id,
                "enable_empty_final_response": True,
            }

        text, pieces = "", 0
        async with triton.InferenceServerClient(self.grpc_url) as client:
            answers = client.stream_infer(requests())
            async for result, error in answers:
                if error:
                    raise error
                piece = result.as_numpy("text_output")
                text += piece.reshape(-1)[0].decode() if piece is not None else ""
                pieces += 1
                if pieces == leave_after:
                    answers.cancel()
                    break
        return text

    async def openai(self, dice: random.Random) -> None:
        """Ask the OpenAI endpoint for a stream."""
        prompt = dice.choice(PROMPTS)
        body = {"model": self.openai_model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True}
        text = ""
        async with self.http.stream("POST", f"{self.openai_url}/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    choices = json.loads(line[6:]).get("choices") or [{"text": "<error>"}]
                    text += choices[0]["text"]
        self.check("OpenAI", prompt, text)

    async def cancel(self, dice: random.Random) -> None:
        """Cancel a gRPC stream in the middle."""
        await self.over_grpc(dice.choice(PROMPTS), 400, leave_after=dice.randint(1, 5))
        self.tally.count("cancelled")

    async def hang_up(self, dice: random.Random) -> None:
        """Close an HTTP stream in the middle."""
        self.ids += 1
        body = {"id": f"h-{self.ids}", "text_input": dice.choice(PROMPTS), "max_tokens": 400, "stream": True}
        async with self.http.stream("POST", f"{self.generate_url}_stream", json=body) as reply:
            left = dice.randint(1, 6)
            async for _ in reply.aiter_lines():
                left -= 1
                if left == 0:
                    break
        self.tally.count("hung up")

    async def openai_hang_up(self, dice: random.Random) -> None:
        """Close a stream of the OpenAI endpoint in the middle."""
        body = {"model": self.openai_model, "prompt": dice.choice(PROMPTS), "max_tokens": 400, "stream": True}
        async with self.http.stream("POST", f"{self.openai_url}/completions", json=body) as reply:
            left = dice.randint(1, 6)
            async for _ in reply.aiter_lines():
                left -= 1
                if left == 0:
                    break
        self.tally.count("hung up (OpenAI)")

    async def garbage(self, dice: random.Random) -> None:
        """Send bytes that mean nothing, to one of the ports or as a body."""
        if dice.random() < 0.5:
            host, _, port = dice.choice([self.http_url.removeprefix("http://"), self.grpc_url]).rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            sent = dice.randbytes(dice.randint(1, 4096))
            writer.write(sent)
            await writer.drain()
            # What may go on to be a request is waited for.
            if dice.random() < 0.5 and not re.fullmatch(rb"[\r\n]*[A-Za-z]*", sent):
                await asyncio.wait_for(reader.read(64), 10)
            writer.close()
            self.tally.count("garbage bytes")
            return
        bodies = (b"{", b"[]", b"\xff\xfe", b'{"text_input": 3, "max_tokens": "x"}', b"", dice.randbytes(99))
        body = dice.choice([*bodies, b"[" * dice.randint(1000, 300_000), b'{"a":' * 200_000])
        path = dice.choice(["ensemble/generate", "ensemble/infer", "preprocessing/infer"])
        self.refused("garbage body", await self.http.post(f"{self.http_url}/v2/models/{path}", content=body))

    async def oversized(self, dice: random.Random) -> None:
        """Send a prompt beyond what the server is set up for."""
        words = " ".join(str(dice.randint(0, 999)) for _ in range(dice.choice([3000, 20000])))
        reply = await self.http.post(self.generate_url, json={"text_input": words, "max_tokens": 8})
        self.refused("oversized", reply)

    async def invalid(self, dice: random.Random) -> None:
        """Send one wrong parameter."""
        wrong = dice.choice(
            [
                {"max_tokens": 0},
                {"max_tokens": -5},
                {"temperature": -1.0},
                {"top_p": 7.0},
                {"top_k": -3},
                {"text_input": ""},
                {"beam_width": 4},
                {"lora_task_id": 77},
                {"num_return_sequences": 0},
                {"guided_decoding_guide_type": "cobol", "guided_decoding_guide": "x"},
            ]
        )
        body = {"text_input": "A", "max_tokens": 4} | wrong
        self.refused(f"invalid {wrong}", await self.http.post(self.generate_url, json=body))

    async def openai_invalid(self, dice: random.Random) -> None:
        """Send the OpenAI endpoint one wrong parameter."""
        wrong = dice.choice(
            [{"temperature": 9}, {"model": "nobody"}, {"max_tokens": 0}, {"n": 0}, {"top_p": 2}, {"prompt": ""}]
        )
        body = {"model": self.openai_model, "prompt": "A", "max_tokens": 4} | wrong
        self.refused(f"OpenAI invalid {wrong}", await self.http.post(f"{self.openai_url}/completions", json=body))

    def refused(self, kind: str, reply: httpx.Response) -> None:
        """Check that a bad request got a 4xx with a sentence."""
        message = reply.text
        if not 400 <= reply.status_code < 500 or len(message) < 20 or "Traceback" in message:
            self.tally.fault(f"not refused ({kind})", f"{reply.status_code} {message}")
        else:
            self.tally.count("refused")

    async def rest(self) -> None:
        """Close what is kept open for further requests, so that what the server still holds is its own; and wait."""
        await self.http.aclose()
        self.http = _http()
        await asyncio.sleep(self.options.settle)

    async def learn(self) -> None:
        """Ask each prompt alone, so that later answers can be compared."""
        for prompt in PROMPTS:
            reply = await self.http.post(self.generate_url, json={"text_input": prompt, "max_tokens": TOKENS})
            self.expected[prompt].add(reply.raise_for_status().json()["text_output"])


def _http() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None))


def tensor(name: str, value: Any, kind: str) -> Any:
    """Return one request's tensor."""
    made = triton.InferInput(name, [1, 1], kind)
    made.set_data_from_numpy(np.array([[value]], dtype=KINDS[kind]))
    return made


class Watched:
    """The server's processes, and what they hold."""

    def __init__(self, status: serve.ServerStatus) -> None:
        self.endpoint = status.endpoint
        self.pids = [status.endpoint.pid, *(one.pid for one in status.companions)]
        self.samples: list[dict[str, float]] = []

    def sample(self, seconds: float) -> dict[str, float]:
        """Return what the server holds now."""
        members = [member for pid in self.pids for member in with_children(pid)]
        one: dict[str, float] = {"t_s": round(seconds, 1), "processes": len(members)}
        one["rss_mib"] = sum(member.memory_info().rss for member in members) / 2**20
        one |= {f"rss_mib of {role(member)}": member.memory_info().rss / 2**20 for member in members}
        one["fds"] = sum(member.num_fds() for member in members)
        one["threads"] = sum(member.num_threads() for member in members)
        one["shm_mib"] = sum(path.stat().st_size for path in Path("/dev/shm").iterdir() if path.is_file()) / 2**20
        one |= self.engine()
        self.samples.append(one)
        return one

    def engine(self) -> dict[str, float]:
        """Return the KV blocks and requests that the engine says are in use."""
        text = httpx.get(self.endpoint.metrics_url, timeout=30).text
        wanted = {
            "kv_used": ("nv_trt_llm_kv_cache_block_metrics", '"used"'),
            "active": ("nv_trt_llm_request_metrics", '"active"'),
        }
        return {
            name: float(line.rsplit(" ", 1)[1])
            for name, (family, label) in wanted.items()
            for line in text.splitlines()
            if line.startswith(family) and label in line
        }


def with_children(pid: int) -> list[psutil.Process]:
    """Return a process and what it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def role(member: psutil.Process) -> str:
    """Return what a process is for: a stub's model, a companion's module, or the program."""
    words = member.cmdline()
    if "stub" in words[0]:
        return Path(words[1]).parents[1].name
    return words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name


async def run(options: argparse.Namespace) -> int:
    """Run the soak and print what it found."""
    status = next(one for one in serve.running() if one.endpoint.name == options.name)
    soak, watched = Soak(status.endpoint, options), Watched(status)
    await soak.learn()
    started = time.monotonic()
    await asyncio.gather(*(soak.client(number, started + 20) for number in range(options.clients)))
    await soak.rest()
    soak.tally = Tally()
    before = watched.sample(0)
    print(json.dumps({"after warm-up": before}), flush=True)
    started = time.monotonic()
    end = started + options.minutes * 60
    clients = [asyncio.create_task(soak.client(number, end)) for number in range(options.clients)]
    while time.monotonic() < end:
        await asyncio.sleep(options.every)
        one = await asyncio.to_thread(watched.sample, time.monotonic() - started)
        print(json.dumps({key: round(value, 1) for key, value in one.items()}), flush=True)
    await asyncio.gather(*clients)
    await soak.rest()
    return verdict(soak.tally, watched, before)


def verdict(tally: Tally, watched: Watched, before: dict[str, float]) -> int:
    """Print the counts and what is left; return the exit code."""
    after = watched.sample(0)
    middle = [one["rss_mib"] for one in watched.samples[1:-1]]
    third = max(1, len(middle) // 3)
    growth = statistics.median(middle[-third:]) / statistics.median(middle[third : 2 * third] or middle) - 1
    print(json.dumps(dict(sorted(tally.counts.items())), indent=1))
    print(json.dumps({"before": before, "after": after, "rss growth, last third over middle third": round(growth, 4)}))
    leaks = [
        growth > SPARE_RSS_SHARE and "memory",
        after["fds"] > before["fds"] + SPARE_FDS and "file descriptors",
        after["shm_mib"] > before["shm_mib"] + SPARE_SHM_BYTES / 2**20 and "/dev/shm",
        after.get("kv_used", 0) > before.get("kv_used", 0) and "KV blocks",
        after.get("active", 0) > 0 and "requests",
        after["processes"] != before["processes"] and "processes",
    ]
    leaked = [leak for leak in leaks if leak]
    print("leaked: " + (", ".join(leaked) or "nothing"))
    print("\n".join(tally.wrong) or "no fault")
    return 1 if leaked or tally.wrong else 0


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a server that `trtk serve --name NAME --detach` started")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks at the server")
    parser.add_argument("--settle", type=float, default=8, help="seconds of quiet before the last look")
    parser.add_argument("--openai-url", default="", help="http://127.0.0.1:9000/v1")
    parser.add_argument("--openai-model", default="demo-int4")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(parsed())))
