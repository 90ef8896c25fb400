"""The toys are modules of the tests, not of the library."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
