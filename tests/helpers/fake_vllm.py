"""A program that answers as `vllm serve` does, without a model: the server in tests of engines.

It is started by the command line of `alignment.inference.server_command`. A token depends on the
prompt and the seed; each costs 0.5 nats. Into $FAKE_VLLM it writes how it was started
(`started.jsonl`), its process ids (`pids`), and the prompt and seed of each request that it answers
(`answered.jsonl`). Where `die_after` there holds a number, it dies at the request after so many;
the file goes, so that the next server lives. A file `never` makes it end before it is ready, a
file `hang` keeps it from ever answering.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOGPROB = -0.5
VOCABULARY = (5, 25)  # ids of words in the tests' tokenizer


def drawn(prompt: list[int], seed: int, most: int, ends: list[int]) -> tuple[list[int], bool]:
    """The ids of an answer, and whether it ended by itself."""
    random_ = random.Random(f"{seed}{prompt}")
    length = random_.randint(1, most)
    ids = [random_.randrange(*VOCABULARY) for _ in range(length)]
    if length < most:
        ids[-1] = ends[0]
    return ids, length < most


class Completions(BaseHTTPRequestHandler):
    """OpenAI's completions, as far as they are used."""

    models: tuple[str, ...] = ("policy",)
    key = ""
    plain_tokens = False
    """Give tokens by their texts alone, as servers do that were started without our flags."""
    seen: list[dict[str, Any]]
    headers_seen: list[str]
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {})
        else:
            self.reply(200, {"data": [{"id": name} for name in self.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        said = self.headers.get("Authorization", "")
        self.headers_seen.append(said)
        if self.key and said != f"Bearer {self.key}":
            self.reply(401, {"error": "Unauthorized"})
        elif body["max_tokens"] > 1000:
            self.reply(400, {"error": "max_tokens is too large"})
        elif body["model"] not in self.models:
            self.reply(404, {"error": f"The model {body['model']} does not exist."})
        else:
            self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        ids, stopped = drawn(
            body["prompt"], body["seed"], body["max_tokens"], body["stop_token_ids"]
        )
        self.give(ids, self.logprobs(body, ids), stopped, body["prompt"])

    def logprobs(self, body: dict[str, Any], ids: list[int]) -> list[float]:
        return [LOGPROB] * len(ids)

    def give(self, ids: list[int], logprobs: list[float], stopped: bool, prompt: list[int]) -> None:
        names = [f"word{one}" if self.plain_tokens else f"token_id:{one}" for one in ids]
        choice = {
            "text": "",
            "finish_reason": "stop" if stopped else "length",
            "logprobs": {"tokens": names, "token_logprobs": logprobs},
        }
        if not self.plain_tokens:
            choice |= {"token_ids": ids, "prompt_token_ids": prompt}
        self.reply(200, {"choices": [choice]})

    def reply(self, status: int, value: Any, *, plain: bool = False) -> None:
        data = (value if plain else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Live(Completions):
    """Takes new weights while it runs: `calls` are the paths that were asked for that."""

    calls: list[str]
    version = "default"
    adapters: dict[str, str]
    """Name → directory."""
    empties = True

    def do_GET(self) -> None:
        if self.path == "/weight_info":
            self.reply(200, {"weight_version": self.version})
        elif self.path == "/v1/models" and self.adapters:
            cards = [{"id": name, "root": root} for name, root in self.adapters.items()]
            self.reply(200, {"data": [{"id": self.models[0], "root": "base"}, *cards]})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        if self.path.endswith("/completions"):
            super().do_POST()
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        cls = type(self)
        cls.calls.append(self.path)
        match self.path:
            case "/collective_rpc":
                assert body["method"] == "reload_weights"
                self.load(body["kwargs"]["weights_path"])
            case "/update_weight_version":
                cls.version = body["new_version"]
            case "/v1/load_lora_adapter":
                assert body["lora_name"] not in cls.adapters, "vLLM refuses it"
                self.load_adapter(body["lora_path"])
                cls.adapters[body["lora_name"]] = body["lora_path"]
                cls.models = (*cls.models, body["lora_name"])
            case "/v1/unload_lora_adapter":
                del cls.adapters[body["lora_name"]]
                cls.models = tuple(name for name in cls.models if name != body["lora_name"])
        if self.path.startswith("/v1"):
            self.reply(200, "Success: as vLLM says it, in plain text", plain=True)
        else:
            self.reply(200, {"success": self.empties})

    def load(self, path: str) -> None:
        """Take the checkpoint at `path`."""

    def load_adapter(self, path: str) -> None:
        """Take the adapter at `path`."""


class Counted(Live):
    """Writes down what it answers, and dies when it is told to."""

    home: Path
    left: int | None = None

    def answer(self, body: dict[str, Any]) -> None:
        cls = type(self)
        while (self.home / "hang").exists():
            time.sleep(0.1)
        with self.lock:
            if cls.left == 0:
                os._exit(137)
            if cls.left is not None:
                cls.left -= 1
            with (self.home / "answered.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps([body["prompt"], body["seed"]]) + "\n")
            super().answer(body)


def main(words: list[str]) -> None:
    """Serve until somebody ends it."""
    home = Path(os.environ["FAKE_VLLM"])
    with (home / "started.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"words": words, "variables": dict(os.environ)}) + "\n")
    if (home / "never").exists():
        print("ValueError: no KV cache fits", flush=True)
        sys.exit(1)
    # An engine that leaves its parent's group and session, as a daemon does.
    engine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with (home / "pids").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {engine.pid}\n")
    deadly = home / "die_after"
    if deadly.exists():
        Counted.left = int(deadly.read_text(encoding="utf-8"))
        deadly.unlink()
    Counted.models = (words[words.index("--served-model-name") + 1],)
    Counted.key = os.environ["VLLM_API_KEY"]
    Counted.seen, Counted.headers_seen, Counted.home = [], [], home
    Counted.calls, Counted.adapters = [], {}
    port = int(words[words.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Counted).serve_forever()


def installed_in(home: Path) -> Path:
    """A `python` in `home` that finds vLLM's versions, and starts this program as vLLM."""
    python = home / "python"
    versions = json.dumps({"vllm": "0.32.0+cpu"})
    python.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{versions}'; exit; fi\n"
        f'FAKE_VLLM={home} exec {sys.executable} {Path(__file__)} "$@"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    return python


if __name__ == "__main__":
    main(sys.argv[1:])
