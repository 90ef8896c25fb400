"""PPO and RLOO: pure functions, one rollout, one trainer.

Notation of every function in this package:

* b: episodes (an episode is one answer to one prompt);
* t: tokens of the longest answer; answers are padded on the right and `mask` (b, t) is True on
  real tokens, the EOS token included;
* s: tokens of prompt and answer together; v: vocabulary.

Position i of a (b, t) tensor belongs to the choice of answer token i: its log-probability, the
value of the state in which it was chosen, the reward that followed.
"""
