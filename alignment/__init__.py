"""Iterative RLHF alignment in the manner of Llama 2: SFT, then RLHF-V1 ... RLHF-V5."""

import os

__version__ = "0.1.0"

# Before torch is loaded: its threads wait for one another by spinning. Beside other work on the
# same cores they spin away the time of the very thread that they wait for, and a pass takes 10 to
# 30 times as long. 1000 turns is what GNU's OpenMP takes itself where it knows that its threads
# outnumber the cores; alone on the machine it costs a small model up to a sixth, a large one less.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
