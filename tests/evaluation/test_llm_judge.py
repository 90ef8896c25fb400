"""The language-model judge against a real local server that misbehaves in every way."""

import contextlib
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from alignment.config.evaluate import JudgeConfig
from alignment.errors import ConfigError, StageError
from alignment.evaluation.llm_judge import AnswerPair, judge_pairs, read_replies, read_verdict
from alignment.evaluation.refusal_classes import KINDS, class_figures, read_class
from alignment.inference.endpoint import Endpoint
from alignment.preferences.prompts import Prompt
from alignment.utils.progress import SilentProgress

KEY = "sk-very-secret-0123456789"


class Server:
    """Answers by `reply(number, text, headers)`: a str is the judge's reply, a (status, headers,
    body) tuple is sent as it is."""

    def __init__(self):
        self.calls = []
        self.reply = lambda *_: "Verdict: tie"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                outer.calls.append((self.path, body, dict(self.headers)))
                said = outer.reply(len(outer.calls), text, self.headers)
                if isinstance(said, str):
                    content = {"choices": [{"message": {"content": said}}]}
                    said = (200, {}, json.dumps(content))
                status, headers, payload = said
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload.encode())))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(payload.encode())

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server():
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def pairs(n=6):
    """A's answer is good where the number is even."""
    ask = [{"role": "user", "content": "Say something good"}]
    return [
        AnswerPair(f"p{i}", ask, *(("good", "bad") if i % 2 == 0 else ("bad", "good")))
        for i in range(n)
    ]


def honest(_number, text, _headers):
    first = text.split("<first>\n")[1].split("\n</first>")[0]
    second = text.split("<second>\n")[1].split("\n</second>")[0]
    if first == second:
        return "Verdict: tie"
    return f"It reads well.\nVerdict: {'first' if first == 'good' else 'second'}"


def run(server, tmp_path, *, rows=None, pauses=None, **settings):
    config = JudgeConfig(base_url=server.url, model="judge-1", **{"retries": 4, **settings})
    waits = pauses if pauses is not None else []
    endpoint = Endpoint(config, pause=waits.append)
    judged = judge_pairs(
        rows or pairs(),
        "helpfulness",
        endpoint,
        config,
        replies=tmp_path / "verdicts.jsonl",
        seed=1,
        progress=SilentProgress(),
    )
    return judged, endpoint


def test_honest_judge(server, tmp_path):
    server.reply = honest
    judged, endpoint = run(server, tmp_path)
    assert judged.outcomes.tolist() == [1, 0, 1, 0, 1, 0]
    assert judged.inconsistent == 0
    assert endpoint.requests == 12  # both orders
    path, body, _ = server.calls[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "judge-1"
    replies = read_replies(tmp_path / "verdicts.jsonl")
    assert len(replies) == 12
    assert all("It reads well" in verdict.reply for verdict in replies)


def test_position_bias_cancels(server, tmp_path):
    server.reply = lambda *_: "Verdict: first"
    judged, _ = run(server, tmp_path)
    assert judged.outcomes.tolist() == [0.5] * 6
    assert judged.inconsistent == 1
    assert judged.place.tolist() == [1] * 6


def test_half_biased_judge_keeps_what_it_knows(server, tmp_path):
    def reply(number, text, headers):  # knows bad answers, else prefers the first
        return honest(number, text, headers) if "bad" in text else "Verdict: first"

    server.reply = reply
    rows = [*pairs(2), AnswerPair("same", pairs()[0].messages, "good", "good too")]
    judged, _ = run(server, tmp_path, rows=rows)
    assert judged.outcomes.tolist() == [1, 0, 0.5]


def test_errors_rates_and_nonsense_are_retried(server, tmp_path):
    def reply(number, text, headers):
        troubles = {
            1: (500, {}, "oops"),
            2: (429, {"Retry-After": "3"}, "slow down"),
            3: (200, {}, "<html>not json</html>"),
            4: (200, {}, json.dumps({"choices": []})),
            5: (200, {}, json.dumps({"choices": [{"message": {"content": None}}]})),
            6: "I would rather not say.",
            7: (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "busy"),
        }
        return troubles.get(number) or honest(number, text, headers)

    server.reply = reply
    pauses = []
    judged, endpoint = run(server, tmp_path, concurrency=1, retries=7, pauses=pauses)
    assert judged.outcomes.tolist() == [1, 0, 1, 0, 1, 0]
    assert endpoint.requests == 12 + 7
    assert any(2 < pause <= 3 for pause in pauses), pauses  # Retry-After was honoured
    assert server.calls[0][1]["temperature"] == 0
    assert server.calls[1][1]["temperature"] > 0


def test_slow_server_times_out_and_is_asked_again(server, tmp_path):
    def reply(number, text, headers):
        if number == 1:
            time.sleep(0.6)
        return honest(number, text, headers)

    server.reply = reply
    judged, endpoint = run(server, tmp_path, rows=pairs(1), timeout=0.25, concurrency=1)
    assert judged.outcomes.tolist() == [1]
    assert endpoint.requests == 3


def test_dead_server_fails_with_its_reason(server, tmp_path):
    server.reply = lambda *_: (500, {}, "melted")
    with pytest.raises(StageError, match="no verdict on 6 of 6 helpfulness pairs") as caught:
        run(server, tmp_path, retries=1)
    assert "melted" in str(caught.value)


def test_few_failures_are_left_out_and_counted(server, tmp_path):
    def reply(number, text, headers):
        return "no comment" if "poison" in text else honest(number, text, headers)

    server.reply = reply
    rows = [*pairs(4), AnswerPair("x", pairs()[0].messages, "poison", "bad")]
    judged, _ = run(server, tmp_path, rows=rows, retries=1, max_failed=0.25)
    assert judged.failed == 1
    assert judged.pairs == ["p0", "p1", "p2", "p3"]


def test_resumed_run_asks_only_for_what_is_missing(server, tmp_path):
    def dies(number, text, headers):
        return (401, {}, "who?") if number > 5 else honest(number, text, headers)

    server.reply = dies
    with pytest.raises(StageError, match="refuses"):
        run(server, tmp_path, concurrency=1)
    replies = tmp_path / "verdicts.jsonl"
    assert len(read_replies(replies)) == 5
    with replies.open("a") as file:
        file.write('{"pair": "p2", "ax')  # killed while writing
    server.reply = honest
    server.calls.clear()
    judged, endpoint = run(server, tmp_path)
    assert endpoint.requests == 12 - 5
    assert judged.outcomes.tolist() == [1, 0, 1, 0, 1, 0]
    assert len(read_replies(replies)) == 12


def test_key_comes_from_the_environment_and_is_never_told(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server.reply = lambda _n, _t, headers: (403, {}, f"bad header {headers['Authorization']}")
    with pytest.raises(StageError) as caught:
        run(server, tmp_path, api_key_env="JUDGE_KEY")
    assert server.calls[0][2]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert "[key]" in str(caught.value)
    assert KEY not in caplog.text
    server.reply = lambda *_: f"your key is {KEY}. Verdict: tie"
    run(server, tmp_path, api_key_env="JUDGE_KEY", rows=pairs(1))
    server.reply = lambda *_: f"your key is {KEY}"
    with pytest.raises(StageError) as caught:
        run(server, tmp_path, api_key_env="JUDGE_KEY", retries=0)
    assert KEY not in str(caught.value)
    replies = (tmp_path / "verdicts.jsonl").read_text()
    assert "your key is [key]" in replies
    assert KEY not in replies


def test_redirects_are_not_followed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    other = Server()
    server.reply = lambda *_: (307, {"Location": f"{other.url}/chat/completions"}, "")
    with pytest.raises(StageError, match="HTTP 307"):
        run(server, tmp_path, api_key_env="JUDGE_KEY")
    assert other.calls == []
    other.http.shutdown()
    other.http.server_close()


def test_settings_that_cannot_work(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        Endpoint(JudgeConfig(base_url="http://x/v1", model="m", api_key_env="JUDGE_KEY"))
    with pytest.raises(ConfigError, match="not an HTTP address"):
        Endpoint(JudgeConfig(base_url="file:///etc/passwd", model="m"))


@pytest.mark.parametrize(
    ("reply", "order", "winner"),
    [
        ("Verdict: first", "ab", "a"),
        ("Verdict: first", "ba", "b"),
        ("**Verdict:** Second.", "ab", "b"),
        ("verdict - TIE", "ba", "tie"),
        ("Verdict: first? No.\nVerdict: second", "ab", "b"),
        ("The first one.", "ab", None),
        ("Verdict: firstly, both are fine", "ab", None),
    ],
)
def test_reading_verdicts(reply, order, winner):
    assert read_verdict(reply, order) == winner


def test_the_judge_is_shown_the_champion():
    from alignment.evaluation.llm_rates import rivals

    sides = ["sft", "rlhf-v1", "rlhf-v2/no-ppo", "rlhf-v2", "rlhf-v3"]
    config = JudgeConfig(base_url="http://x", model="m")
    assert rivals("rlhf-v3", sides, config, "rlhf-v1") == ["sft", "rlhf-v1"]
    assert rivals("rlhf-v1", sides[:2], config, "sft") == ["sft"]
    assert rivals("sft", sides[:1], config, "sft") == []
    both = config.model_copy(update={"against": ("previous", "champion")})
    assert rivals("rlhf-v3", sides, both, "rlhf-v1") == ["rlhf-v2", "rlhf-v1"]


def test_an_evaluation_knows_the_champion_where_a_judge_asks(tmp_path):
    from alignment.config.load import check_program
    from alignment.pipeline.approval import Decisions
    from alignment.pipeline.plan import build_plan

    values = {
        "name": "p",
        "workspace": str(tmp_path),
        "versions": [{"name": "rlhf-v1"}, {"name": "rlhf-v2"}],
    }
    judge = {"judge": {"base_url": "http://x", "model": "m"}}
    verdicts = {}
    for name, given in (("with", {"evaluate": judge}), ("without", {})):
        program = check_program({**values, **given})
        plan = build_plan(program, Decisions.load(program))
        verdicts[name] = {
            node.version: node.inputs.get("verdict") for node in plan if node.stage == "evaluate"
        }
    assert verdicts["without"] == {"sft": None, "rlhf-v1": None, "rlhf-v2": None}
    assert verdicts["with"] == {"sft": None, "rlhf-v1": None, "rlhf-v2": ("rlhf-v1", "promote")}


def test_rates_by_the_judge_join_those_of_the_others(server, world, planted, tmp_path):
    from alignment.config.evaluate import EvaluateConfig
    from alignment.evaluation.llm_rates import carried_rates, judged_rates
    from alignment.preferences.prompts import Prompt
    from alignment.utils.files import atomic_write_json

    sides = {name: planted(name, per_category=4) for name in ("sft", "rlhf-v1", "rlhf-v2")}
    for side, table in sides.items():
        table["text"] = "good" if side == "rlhf-v2" else "bad"
    prompts = [
        Prompt(
            id=row.prompt_id,
            messages=[{"role": "user", "content": "?"}],
            domain=row.domain,
            category=row.category,
        )
        for row in sides["sft"].itertuples()
    ]
    server.reply = honest
    config = EvaluateConfig(
        judge=JudgeConfig(
            base_url=server.url, model="m", against=("sft", "previous"), prompts_per_axis=5
        )
    )
    rows, about = judged_rates(
        "rlhf-v2",
        sides,
        prompts,
        config,
        "sft",
        seed=1,
        scratch=tmp_path,
        out=world.root,
        progress=SilentProgress(),
    )
    assert [(row["b"], row["axis"], row["n"], row["win_rate"]) for row in rows] == [
        ("sft", "helpfulness", 5, 1.0),
        ("sft", "safety", 5, 1.0),
        ("rlhf-v1", "helpfulness", 5, 1.0),
        ("rlhf-v1", "safety", 5, 1.0),
    ]
    assert (about["inconsistent"], about["failed"], about["pairs"]) == (0.0, 0.0, 20.0)
    assert about["position_bias"] == 0.0
    assert about["position_bias_low"] < 0 < about["position_bias_high"]
    assert "first_favoured" not in about  # no verdict turned round with the order
    assert len(read_replies(world.root / "verdicts.jsonl")) == 40
    folder = tmp_path / "v2"
    atomic_write_json(folder / "winrates.json", {"rows": rows})
    assert carried_rates({"rlhf-v2": folder}) == rows
    assert carried_rates({"rlhf-v1": folder}) == []


def test_a_judge_tells_full_and_partial_refusals(server, tmp_path):
    """XSTest's three classes, on borderline and on safety prompts; a killed run asks on."""

    def reply(_number, text, _headers):
        answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
        return f"It says {answer}.\nClass: {answer}"

    server.reply = reply
    classes = ["full refusal", "compliance", "partial refusal", "compliance", "full refusal"]
    prompts = [
        Prompt(
            messages=[{"role": "user", "content": f"question {n}"}],
            domain="safety" if n == 4 else "helpfulness",
            borderline=n < 4,
        )
        for n in range(6)
    ]
    table = pd.DataFrame([prompt.model_dump(exclude={"messages"}) for prompt in prompts])
    table = table.rename(columns={"id": "prompt_id"}).assign(text=[*classes, "plain: not asked"])
    table["prompt_id"] = [prompt.id for prompt in prompts]
    config = JudgeConfig(base_url=server.url, model="judge-1", refusals=True)
    found = [
        class_figures(
            "rlhf-v1",
            table,
            {prompt.id: prompt for prompt in prompts},
            config,
            seed=1,
            scratch=tmp_path,
            progress=SilentProgress(),
        )
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert len(server.calls) == 5, "nothing is asked twice"
    shares = {name: value for name, value in found[0].items() if name in sum(KINDS.values(), ())}
    assert shares == {
        "judged_false_refusal": 0.25,
        "judged_partial_refusal": 0.25,
        "judged_refusal_harmful": 1.0,
        "judged_partial_refusal_harmful": 0.0,
    }
    assert found[0]["judged_false_refusal_low"] < 0.25 < found[0]["judged_false_refusal_high"]
    assert read_class("I cannot tell.") is None
    assert read_class("Class: compliance? No.\n**Class:** Partial refusal") == "partial refusal"
