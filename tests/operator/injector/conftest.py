from __future__ import annotations

from apiserver import apiserver as apiserver
