"""Works out which fingerprint the work of an older release would have today.

Nothing is rewritten. A finished stage keeps its directory, its manifest and its old fingerprint,
because verdicts, people's decisions, lineage and MLflow refer to it. So a dry run writes nothing,
and a kill breaks nothing.
"""

from __future__ import annotations

from typing import Any

from alignment.config.effective import effective
from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.config.renames import lost, translate
from alignment.errors import AlignError
from alignment.pipeline.format import OLD_NAMES
from alignment.pipeline.ledger import Ledger, fingerprint
from alignment.pipeline.node import Node
from alignment.pipeline.records import Manifest
from alignment.pipeline.slices import config_slice, stage_declaration, student_option
from alignment.utils.files import digest_json

DID_NOT_ASK = {
    "sample": ("4", "5"),
    "reward": ("4", "5", "7", "8", "9", "10", "11", "12"),
}
"""Code versions of a module whose finished outputs stay valid, though they knew no such option."""
ASKED_SINCE = ("finished_only", "max_prompt_tokens")
SHOWN = ("world",)
"""Options without which the work of an older release can be shown, but not gone on with."""


class Untranslatable(AlignError):
    """A setting that an older release recorded has no counterpart today."""


def todays_program(record: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a `program.json` under today's names, and those that have none today.

    Raises:
        Untranslatable: they have another shape than settings.
    """
    values = dict(record)
    if values.pop("format") > OLD_NAMES:
        return values, []
    return _translated(values)


def _translated(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        return translate(values), lost(values)
    except (AttributeError, TypeError) as error:  # a number where a section should be, and the like
        raise Untranslatable(f"these are no settings of an older release: {error}") from None


def todays_slice(manifest: Manifest, node: Node, program: ProgramConfig) -> dict[str, Any]:
    """The `config` and `options` that the manifest of a finished stage would record today.

    A setting that its release did not have yet has its default. Of `program` only the sources
    count, which decide what settings are possible.

    Raises:
        Untranslatable: settings have no counterpart; the message names them.
    """
    recorded = dict(manifest.config)
    student = manifest.options.get("student")
    if student is not None and isinstance(recorded.get("finetune", {}), dict):
        recorded["finetune"] = {**recorded.get("finetune", {}), "student": student}
    old_names = manifest.format <= OLD_NAMES
    if old_names:
        recorded, without_counterpart = _translated(recorded)
        if without_counterpart:
            raise Untranslatable("; ".join(without_counterpart))
    document = {
        "name": program.name,
        "workspace": str(program.workspace),
        "base": {"source": program.base.source},
        "intake": {"source": program.intake.source},
        **recorded,
    }
    try:
        then = effective(check_program(document))  # the slice has the version's own settings in it
    except AlignError as error:
        if old_names:
            raise Untranslatable(error.message) from error
        # Today's sources do not go with what is recorded: it is compared as it stands.
        return {"config": manifest.config, "options": manifest.options}
    options = dict(manifest.options)
    if manifest.code_version in DID_NOT_ASK.get(node.module, ()):
        options |= {name: node.options[name] for name in ASKED_SINCE if name in node.options}
    if student is not None:
        options |= student_option(then)
    return {"config": config_slice(then, node.module), "options": options}


_fingerprints: dict[tuple[str, ...], str | None] = {}


def todays_fingerprint(
    manifest: Manifest, node: Node, program: ProgramConfig, any_code: bool = False
) -> str | None:
    """The fingerprint that the work behind `manifest` has today, or None if it has none."""
    declared = stage_declaration(node.module)
    still_valid = any_code or declared.keeps_work(manifest.code_version, manifest.config)
    code_version = declared.code_version if still_valid else manifest.code_version
    sources = program.base.source, program.intake.source
    asked = digest_json(dict(node.options))
    said = (manifest.fingerprint, code_version, asked, str(any_code))
    key = (str(program.workspace), node.key, *said, *sources)
    if key not in _fingerprints:
        try:
            then = todays_slice(manifest, node, program)
        except Untranslatable:
            _fingerprints[key] = None
        else:
            if any_code:
                shown = {name: node.options[name] for name in SHOWN if name in node.options}
                then["options"] = {**then["options"], **shown}
            inputs = {name: source["digest"] for name, source in manifest.inputs.items()}
            as_it_was = Node(node.version, node.stage, node.module, {}, then["options"])
            _fingerprints[key] = fingerprint(
                as_it_was, code_version, then["config"], manifest.seed, inputs
            )
    return _fingerprints[key]


def same_work(
    ledger: Ledger, node: Node, key: str, program: ProgramConfig, any_code: bool = False
) -> Manifest | None:
    """The newest finished work whose fingerprint today is `key`, though it was recorded otherwise.

    With `any_code`, the work counts as if today's code had made it.
    """
    for manifest in reversed(ledger.committed(node.version, node.stage)):
        if todays_fingerprint(manifest, node, program, any_code) == key:
            return manifest
    return None
