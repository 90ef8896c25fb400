"""The built-in synthetic world: a language, its prompts, its truth and its simulated annotators.

Nothing here was written or judged by a person; every label carries an annotator named `simulated`.
"""

from alignment.world.gold import Gold
from alignment.world.judge import World

__all__ = ["Gold", "World"]
