"""The metrics of a reward stage, under the names that MLflow and reports use."""

from __future__ import annotations

from typing import Any

from alignment.config.vocabulary import STRENGTHS


def headline(figures: dict[str, Any]) -> dict[str, float]:
    """The main metrics of the stage."""
    domain = figures["domain"]
    other = "safety" if domain == "helpfulness" else "helpfulness"
    own = figures["by_strength"][domain]
    length = figures["length"]
    values = {
        "accuracy": own["all"]["accuracy"],
        "accuracy_low": own["all"]["low"],
        "accuracy_high": own["all"]["high"],
        "heldout": own["all"]["count"],
        "cross_accuracy": figures["by_strength"][other]["all"]["accuracy"],
        "ece": figures["ece"],
        "longer_wins": length["longer_wins"]["accuracy"],
        "length_correlation": length["correlation"],
        **{f"accuracy/{name}": own[name]["accuracy"] for name in STRENGTHS},
        **{
            f"cross_accuracy/{name}": figures["by_strength"][other][name]["accuracy"]
            for name in STRENGTHS
        },
    }
    if figures["unsafe"]["unsafe"]:
        values["unsafe_recall"] = figures["unsafe"]["recall"]
        values["unsafe_precision"] = figures["unsafe"]["precision"]
    return values


def metrics(figures: dict[str, Any]) -> dict[str, float]:
    """All figures of `evaluation.json` that are worth a curve over the versions."""
    training, newest, growth = figures["training"], figures["newest"], figures["growth"]
    values = {
        **headline(figures),
        "heldout_available": figures["available"][figures["domain"]],
        "pairs": training["pairs"],
        "dropped": training["dropped_long"] + training["dropped_same"],
        "first_loss": training["first_loss"],
        "last_loss": training["last_loss"],
        "new_batch_accuracy": newest["now"]["accuracy"],
    }
    if figures["cut"]["answers"]:
        values["cut_scores_higher"] = figures["cut"]["higher"]
    near, far = (figures["near_copies"][name] for name in ("near", "far"))
    values["near_copy_share"] = near["count"] / max(near["count"] + far["count"], 1)
    if near["count"] and far["count"]:
        values["accuracy_without_near_copies"] = far["accuracy"]
    if "before" in newest:
        values["previous_accuracy"] = newest["before"]["accuracy"]
    if "agreement" in figures:
        values["agreement"] = figures["agreement"]["same"]["accuracy"]
        values["agreement_by_chance"] = figures["agreement"]["chance"]
    for row in growth.get("forecast", []):
        if row["times"] == 2.0:
            values["accuracy_at_double"] = row["accuracy"]
    for row in growth.get("price", []):
        if row["points"] == 0.01:
            values["pairs_for_a_point"] = row["more_pairs"]
    versions = figures["versions"]
    for batch, cells in figures["by_batch"][figures["domain"]].items():
        version = versions[batch]
        alone = list(versions.values()).count(version) == 1
        name = version if alone else f"{version}/{batch}"
        values[f"accuracy_on/{name}"] = cells["all"]["accuracy"]
    return values


def plain(value: Any) -> Any:
    """`value` for JSON, which has no NaN: undefined figures are null, others have 8 digits."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if abs(value) < float("inf") else None
    return value
