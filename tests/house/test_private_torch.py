"""Torch's private names are known to the fast path alone, which can be switched off."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def dotted(node: ast.AST) -> str:
    """`torch.ops.mkldnn` of the expression that says so, or nothing."""
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def private_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names = [dotted(node)]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            hidden = any(part.startswith("_") and not part.endswith("__") for part in parts)
            if parts[0] == "torch" and (hidden or name.startswith("torch.ops.")):
                yield name


def test_a_private_name_is_seen() -> None:
    sources = ("torch._C.x", "import torch._dynamo", "from torch import _C", "torch.ops.aten.mm(a)")
    for source in sources:
        assert list(private_names(source)), source
    assert not list(private_names("torch.nn.functional.silu(x); self.torch._x; torch.__version__"))


def test_only_the_fast_path_uses_torchs_private_names() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for top in ("alignment", "flows")
        for path in (ROOT / top).rglob("*.py")
        if any(private_names(path.read_text()))
    }
    assert {user for user in users if not user.startswith("alignment/fastpath/")} == set()
