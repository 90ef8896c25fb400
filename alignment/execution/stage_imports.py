"""What stages need from libraries, for the fork server of `warm_start` alone.

A process that imports it holds signals back, and ends without unloading anything.
"""

# ruff: noqa: E402, F401

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal

# Who ends a run's whole process group means the run, which ends its stages with their grace period.
# Blocked and not ignored, so that a fork that is told to end at once finds the signal waiting; and
# before the imports, which take seconds.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import transformers.models.auto.modeling_auto
import transformers.models.llama.modeling_llama
import trl.trainer.sft_trainer

import alignment.execution.stage_main
import alignment.stages.collect
import alignment.stages.evaluate
import alignment.stages.finetune
import alignment.stages.ppo
import alignment.stages.pretrain
import alignment.stages.reward
import alignment.stages.sample
import alignment.stages.select

# Before its first model every fork would compile a thousand patterns of parameters' names. It is no
# public function: where it has gone, forks do what they do.
with contextlib.suppress(ImportError):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")

# No collection in a fork looks at what is here, nor copies its pages.
gc.collect()
gc.freeze()

# These libraries take seconds to unload, and whoever reads the run's output would wait for it.
_server = os.getpid()
atexit.register(lambda: os._exit(0) if os.getpid() == _server else None)
