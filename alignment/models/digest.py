"""Identity of a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

from alignment.errors import ConfigError
from alignment.models.adapters import ADAPTER_CONFIG, adapter_base, is_adapter
from alignment.utils.files import MANIFEST, digest_json, read_json, sha256_file


def weights_digest(directory: Path) -> str:
    """Digest (hex) of the safetensors files and of the model's or adapter's configuration.

    Equal digests mean the same network, so cached results of one hold for the other. An adapter's
    digest covers its base. For files that a stage committed, the sha256 of the manifest is used.

    Raises:
        ConfigError: there are no weights, or an adapter's base is missing.
    """
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"{directory} holds no .safetensors weights")
    committed = _committed(directory)
    names = [*weights, directory / "config.json", directory / ADAPTER_CONFIG]
    digests = {
        path.name: committed.get(path.name) or sha256_file(path) for path in names if path.is_file()
    }
    if is_adapter(directory):
        digests["base"] = weights_digest(Path(adapter_base(directory)))
    return digest_json(digests)


def _committed(directory: Path) -> dict[str, str]:
    """File → sha256, from the manifest of the stage that wrote the directory."""
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
