"""`python two_nodes.py NODES PER_NODE -m MODULE ARGS…`: what srun does, with torchrun on each node.

Every node is a network namespace with an address of its own where this machine allows it (Linux, as
root), else a group of processes. Writes how the nodes met to $TWO_NODES. The first node that fails
ends all.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 29511


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def _network(nodes: int) -> Iterator[list[tuple[list[str], str, str]]]:
    """(command before each node's, its address, its interface)."""
    names = [f"align{os.getpid()}n{number}" for number in range(nodes)]
    bridge = f"al{os.getpid()}"
    places = []
    try:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            _ip("link", "set", bridge, "up")
            for number, name in enumerate(names):
                _ip("netns", "add", name)
                outer, inner = f"{bridge}o{number}", "eth0"
                _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
                _ip("link", "set", outer, "master", bridge, "up")
                address = f"10.211.7.{number + 1}"
                inside = ["netns", "exec", name, "ip"]
                _ip(*inside, "addr", "add", f"{address}/24", "dev", inner)
                _ip(*inside, "link", "set", inner, "up")
                _ip(*inside, "link", "set", "lo", "up")
                places.append((["ip", "netns", "exec", name], address, inner))
        except (OSError, subprocess.CalledProcessError):
            places = [([], "127.0.0.1", "lo")] * nodes
        yield places
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def main(nodes: int, per_node: int, command: list[str]) -> int:
    with _network(nodes) as places:
        master = places[0][1]
        port = PORT if master != "127.0.0.1" else _free()
        Path(os.environ["TWO_NODES"]).write_text(" ".join(address for _, address, _ in places))
        agents = [
            subprocess.Popen(
                [
                    *before,
                    *(sys.executable, "-m", "torch.distributed.run", "--max-restarts=0"),
                    *(f"--nnodes={nodes}", f"--node-rank={number}"),
                    *(f"--nproc-per-node={per_node}", f"--master-addr={master}"),
                    *(f"--master-port={port}", *command),
                ],
                env={**os.environ, "GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"},
            )
            for number, (before, _, interface) in enumerate(places)
        ]
        signal.signal(signal.SIGTERM, lambda *_: [agent.terminate() for agent in agents])
        while (codes := [agent.poll() for agent in agents]).count(0) < nodes and not any(codes):
            time.sleep(0.05)
        for agent in agents:
            agent.terminate()
            agent.wait()
        return next((code for code in codes if code), 0)


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
