"""The cluster's own package is a tool, not a part of the distribution: tests find it by path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from apiserver import apiserver as apiserver
