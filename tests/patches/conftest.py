"""Makes the vLLM plugin importable without installing it."""

import sys
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "patches" / "vllm-scheduler-stats"

sys.path.insert(0, str(PLUGIN))
