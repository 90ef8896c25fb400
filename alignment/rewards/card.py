"""What stands beside a reward model's weights: domain, scale, threshold, what it learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignment.errors import DataError
from alignment.models.adapters import adapter_base, is_reward_adapter
from alignment.models.digest import weights_digest
from alignment.utils.files import read_json

CARD = "reward.json"


@dataclass(frozen=True)
class RewardCard:
    """What stands in `reward.json` beside the weights.

    Attributes:
        bias: added to the head's output; demonstrations then have mean 0.
        mean, std: of raw scores on the reference set.
        threshold: σ(z) under which an answer counts as unsafe (Table 29 uses 0.5).
        max_length: longest prompt and answer seen in training, in tokens.
        versions: whose batches it learned from.
        backbone: digest of the checkpoint that an adapter needs (`models.digest`); None for a
            model that is complete.
        guard: it judges what training climbs, and training never sees it.
    """

    domain: str
    bias: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    threshold: float = 0.5
    max_length: int = 4096
    margin: str = "none"
    versions: tuple[str, ...] = ()
    pairs: int = 0
    backbone: str | None = None
    guard: bool = False


def read_card(directory: Path | str) -> RewardCard:
    """The card beside a reward model's weights.

    Raises:
        DataError: there is none.
    """
    card_file = Path(directory) / CARD
    if not card_file.is_file():
        raise DataError(
            f"{directory} is no reward model: it has no {CARD}",
            remedy="give the model directory of a reward stage",
        )
    described = read_json(card_file)
    described["versions"] = tuple(described.get("versions", ()))
    return RewardCard(**described)


def check_backbone(directory: Path, card: RewardCard) -> None:
    """See that an adapter lies over the checkpoint that it was trained over.

    Raises:
        DataError: that one was changed.
    """
    if card.backbone is None or not is_reward_adapter(directory):
        return
    base = Path(adapter_base(directory))
    if weights_digest(base) != card.backbone:
        raise DataError(
            "the checkpoint under this reward adapter is not the one it was trained over",
            where=f"{directory} over {base}",
            remedy="restore that checkpoint, or train the reward model again",
        )
