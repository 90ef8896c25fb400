"""What a reward stage writes down: metrics by the names MLflow and reports know, and JSON."""

from __future__ import annotations

from typing import Any

from alignment.config.vocabulary import STRENGTHS


def headline(figures: dict[str, Any]) -> dict[str, float]:
    """The metrics of the stage, by the names MLflow and reports know."""
    domain = figures["domain"]
    other = "safety" if domain == "helpfulness" else "helpfulness"
    own = figures["by_strength"][domain]
    length = figures["length"]
    named = {
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
        named["unsafe_recall"] = figures["unsafe"]["recall"]
        named["unsafe_precision"] = figures["unsafe"]["precision"]
    return named


def metrics(figures: dict[str, Any]) -> dict[str, float]:
    """Every figure of `evaluation.json` that is worth a curve over the versions."""
    training, newest, growth = figures["training"], figures["newest"], figures["growth"]
    named = {
        **headline(figures),
        "pairs": training["pairs"],
        "dropped": training["dropped_long"] + training["dropped_same"],
        "first_loss": training["first_loss"],
        "last_loss": training["last_loss"],
        "new_batch_accuracy": newest["now"]["accuracy"],
    }
    if "before" in newest:
        named["previous_accuracy"] = newest["before"]["accuracy"]
    if "agreement" in figures:
        named["agreement"] = figures["agreement"]["same"]["accuracy"]
        named["agreement_by_chance"] = figures["agreement"]["chance"]
    for row in growth.get("forecast", []):
        if row["times"] == 2.0:
            named["accuracy_at_double"] = row["accuracy"]
    for row in growth.get("price", []):
        if row["points"] == 0.01:
            named["pairs_for_a_point"] = row["more_pairs"]
    versions = figures["versions"]
    for batch, cells in figures["by_batch"][figures["domain"]].items():
        version = versions[batch]
        alone = list(versions.values()).count(version) == 1
        name = version if alone else f"{version}/{batch}"
        named[f"accuracy_on/{name}"] = cells["all"]["accuracy"]
    return named


def plain(value: Any) -> Any:
    """JSON has no NaN: an undefined figure is null; digits beyond the eighth are noise."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if abs(value) < float("inf") else None
    return value
