"""Works out which fingerprint the work of an older release would have today.

Nothing is rewritten. A finished stage keeps its directory, its manifest and its old fingerprint,
because verdicts, approvals, lineage and MLflow refer to it. So a dry run writes nothing, and a
kill breaks nothing.
"""

from __future__ import annotations

from typing import Any

from alignment.config.load import check_program, for_version
from alignment.config.program import ProgramConfig
from alignment.config.renames import lost, translate
from alignment.errors import AlignError
from alignment.pipeline.format import FORMAT
from alignment.pipeline.ledger import Ledger, fingerprint
from alignment.pipeline.node import Node
from alignment.pipeline.records import Manifest
from alignment.pipeline.slices import config_slice, stage_declaration, student_option


class Untranslatable(AlignError):
    """A setting that an older release recorded has no counterpart today."""


def todays_program(values: dict[str, Any], number: int) -> dict[str, Any]:
    """The values of a `program.json` of format `number` under today's names."""
    return translate(values) if number < FORMAT else values


def todays_slice(manifest: Manifest, node: Node, program: ProgramConfig) -> dict[str, Any]:
    """The configuration slice and the options that `manifest` would record today.

    Args:
        manifest: of a finished stage, in the format of its release.
        node: that stage in today's plan.
        program: supplies the sections that the stage did not read.

    Returns:
        `{"config": …, "options": …}`.

    Raises:
        Untranslatable: settings have no counterpart; the message names them.
    """
    recorded = dict(manifest.config)
    student = manifest.options.get("student")
    if student is not None:
        recorded["finetune"] = {**recorded.get("finetune", {}), "student": student}
    shared = program.model_dump(mode="json")
    if manifest.format < FORMAT:
        without_counterpart = lost(recorded)
        if without_counterpart:
            raise Untranslatable("; ".join(without_counterpart))
        recorded = translate(recorded)
        for section in ("generation", "optimizer"):  # 0.1 lacked them: they have their defaults
            del shared[section]
    # The slice already contains the versions' own settings.
    versions = [{"name": version.name} for version in program.versions]
    document = {**shared, **recorded, "versions": versions}
    try:
        then = for_version(check_program(document), "sft")
    except AlignError as error:
        raise Untranslatable(error.message) from error
    options = dict(manifest.options)
    if student is not None:
        options |= student_option(then)
    return {"config": config_slice(then, stage_declaration(node.module).reads), "options": options}


_fingerprints: dict[tuple[str, str], str | None] = {}


def todays_fingerprint(
    manifest: Manifest, node: Node, program: ProgramConfig, any_code: bool = False
) -> str | None:
    """The fingerprint that the work behind `manifest` has today, or None if it has none.

    Args:
        manifest: of a finished stage, in the format of its release.
        node: that stage in today's plan.
        program: the program of the workspace.
        any_code: treat the work as if today's code had made it.
    """
    declared = stage_declaration(node.module)
    still_valid = any_code or manifest.code_version in declared.keeps
    code_version = declared.code_version if still_valid else manifest.code_version
    key = (str(program.workspace), f"{node.key}/{manifest.fingerprint}/{code_version}")
    if key not in _fingerprints:
        try:
            then = todays_slice(manifest, node, program)
        except Untranslatable:
            _fingerprints[key] = None
        else:
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

    Args:
        ledger: the ledger of the workspace.
        node: the stage.
        key: the node's fingerprint today.
        program: the program of the workspace.
        any_code: treat the work as if today's code had made it.
    """
    for manifest in reversed(ledger.committed(node.version, node.stage)):
        if todays_fingerprint(manifest, node, program, any_code) == key:
            return manifest
    return None
