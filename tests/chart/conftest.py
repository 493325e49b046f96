from __future__ import annotations

from apiserver import apiserver as apiserver
from helm import helm as helm
