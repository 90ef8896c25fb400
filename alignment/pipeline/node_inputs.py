"""A node's inputs: where they lie, what the manifest says of them, and which are missing."""

from __future__ import annotations

from pathlib import Path

from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger, Manifest
from alignment.pipeline.node import Node


def directories(node: Node, known: Fingerprints, ledger: Ledger) -> dict[str, Path]:
    """Input name → outputs of the stage it comes from; all inputs are done."""
    return {
        name: ledger.committed_dir(manifest.version, manifest.stage, manifest.fingerprint)
        for name, manifest in _manifests(node, known).items()
    }


def described(node: Node, known: Fingerprints) -> dict[str, dict[str, str]]:
    """The inputs as a manifest records them; all are done."""
    found = {
        name: {
            "version": manifest.version,
            "stage": manifest.stage,
            "digest": manifest.digest,
            "fingerprint": manifest.fingerprint,
        }
        for name, manifest in _manifests(node, known).items()
    }
    outside = known.parts(node)[2].get("outside")
    if outside is not None:
        found["outside"] = {"digest": outside}
    return found


def missing(node: Node, known: Fingerprints) -> list[str]:
    """Keys of inputs that are not done."""
    return [f"{v}/{s}" for v, s in node.inputs.values() if known.manifest(v, s) is None]


def _manifests(node: Node, known: Fingerprints) -> dict[str, Manifest]:
    found = {}
    for name, (version, stage) in node.inputs.items():
        manifest = known.manifest(version, stage)
        assert manifest is not None, f"{version}/{stage} is not done"
        found[name] = manifest
    return found
