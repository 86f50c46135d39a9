"""Real runtime processes on a real PostgreSQL, and what befalls them."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "support"), str(HERE.parent / "scenarios" / "support")]
