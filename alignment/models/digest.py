"""Identity of a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

from alignment.errors import ConfigError
from alignment.models.adapters import ADAPTER_CONFIG, adapter_base, is_adapter
from alignment.utils.files import MANIFEST, digest_json, read_json, sha256_file


def weights_digest(directory: Path) -> str:
    """Digest (hex) of the safetensors files and of the model's or adapter's configuration.

    Equal digests mean the same network: what was computed with one holds for the other. An
    adapter's digest covers its base. Files that a stage committed are not read again: their sha256
    stands in the stage's manifest.

    Raises:
        ConfigError: there are no weights, or an adapter's base is not there.
    """
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"{directory} holds no .safetensors weights")
    known = _committed(directory)
    names = [*weights, directory / "config.json", directory / ADAPTER_CONFIG]
    found = {
        path.name: known.get(path.name) or sha256_file(path) for path in names if path.is_file()
    }
    if is_adapter(directory):
        found["base"] = weights_digest(Path(adapter_base(directory)))
    return digest_json(found)


def _committed(directory: Path) -> dict[str, str]:
    """sha256 of the directory's files by the manifest of the stage that wrote them."""
    manifest = directory.parent / MANIFEST
    if not manifest.is_file():
        return {}
    prefix = f"{directory.name}/"
    outputs = read_json(manifest).get("outputs", {})
    return {
        name.removeprefix(prefix): digest
        for name, digest in outputs.items()
        if name.startswith(prefix)
    }
