from __future__ import annotations

from shop_world import postgres as postgres
from shop_world import serve as serve
