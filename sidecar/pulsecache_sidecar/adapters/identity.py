"""Who published before this process from the same data folder: so that it can be declared dead."""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path

LOG = logging.getLogger(__name__)


class PublisherIds:
    """One publisher id per dataset and start of the process, `<owner>.<random>`; remembered for the successor."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._file = folder / "publishers.json"
        self._owner = owner
        self._own: dict[str, str] = {}
        try:
            former = json.loads(self._file.read_bytes())
            self._former = {str(dataset): str(publisher) for dataset, publisher in former.items()}
        except FileNotFoundError:
            self._former = {}
        except (OSError, ValueError, AttributeError) as error:
            LOG.warning(
                "%s cannot be read: %s; a former process is then fenced by the controller alone", self._file, error
            )
            self._former = {}

    def new(self, dataset: str) -> tuple[str, str | None]:
        """(the id of this process for the dataset, the id of its predecessor if there was one).

        Raises OSError where the id cannot be remembered.
        """
        publisher = f"{self._owner}.{secrets.token_hex(6)}"
        predecessor = self._own.get(dataset) or self._former.get(dataset)
        self._own[dataset] = publisher
        beside = self._file.with_suffix(".new")
        with beside.open("w") as file:
            json.dump({**self._former, **self._own}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._file)
        return publisher, predecessor
