"""Makes a sampled text independent of the batch that it was computed in.

The last bits of a sequence's logits depend on the shape of its batch, because matrix products sum
in another order. About once in a million draws that changes the token, and with it the rest of the
text. So the referee decides every draw that such noise could change: it runs the model over that
sequence alone, without a cache, which is the same computation for any batch. Other draws cannot
change as long as the noise stays under `slack`. Every refereed draw measures the noise, and the
slack is widened if the noise comes close.
"""

from __future__ import annotations

from typing import Any

import torch

from alignment.inference.counter_noise import GumbelNoise
from alignment.inference.draw import draw
from alignment.inference.types import SamplingSettings
from alignment.models.stepper import last_only
from alignment.utils.progress import Progress

# Float32 noise of logits: 1e-6 to 2e-5 in models of 260K to 1B parameters.
FIRST_SLACK = 1e-4


class Referee:
    """Decides close draws for one model and setting.

    Attributes:
        slack: assumed bound of the noise of logits divided by the temperature.
        decided: number of draws decided so far.
        noise: largest noise measured so far.
    """

    def __init__(
        self, model: Any, gumbel: GumbelNoise, settings: SamplingSettings, progress: Progress
    ) -> None:
        self._model = model
        self._gumbel = gumbel
        self._settings = settings
        self._progress = progress
        self.slack = FIRST_SLACK
        self.decided = 0
        self.noise = 0.0

    def decide(
        self, ids: list[int], keys: torch.Tensor, batch_scores: torch.Tensor
    ) -> tuple[int, float]:
        """The token after `ids` and its log-probability, from the sequence alone.

        Args:
            ids: the sequence's prompt and the tokens drawn so far.
            keys: [2], the sequence's keys of this step.
            batch_scores: [vocabulary] logits over temperature from the batch, to measure the noise.
        """
        drawn = draw(alone(self._model, ids), keys[None], self._gumbel, self._settings)
        self.measure(drawn.scores, batch_scores)
        self.decided += 1
        return int(drawn.tokens[0]), float(drawn.logprobs[0])

    def measure(self, scores: torch.Tensor, batch_scores: torch.Tensor) -> None:
        """Compare the two computations of one position; widen the slack if they are far apart."""
        difference = (scores.reshape(-1) - batch_scores.reshape(-1)).abs()
        noise = float(difference[torch.isfinite(difference)].max())
        self.noise = max(self.noise, noise)
        if noise > self.slack / 4:
            self.slack = 8 * noise
            self._progress.say(
                f"rounding noise of {noise:.1e} in the logits: draws closer than "
                f"{2 * self.slack:.1e} are now decided one by one"
            )


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after `ids`, computed for this sequence alone: float32 [1, vocabulary]."""
    device = next(model.parameters()).device
    tokens = torch.tensor([ids], device=device)
    logits: torch.Tensor = model(input_ids=tokens, use_cache=False, **last_only(model)).logits
    return logits[:, -1].float()
