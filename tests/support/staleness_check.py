"""Random schedules of the staleness protocol, as many as one likes.

PYTHONPATH=tests/support python -m staleness_check                   # schedules 0 to 999 of the protocol as it is
PYTHONPATH=tests/support python -m staleness_check --seeds 7 8       # one schedule again
PYTHONPATH=tests/support python -m staleness_check --mutations       # which rule left out is noticed, and how soon
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable

import pytest

from staleness_mutations import MUTATIONS, Mutation
from staleness_world import Violation, play


def hunt(mutation: Mutation, seeds: Iterable[int], duration_s: float) -> tuple[int, str] | None:
    """The first schedule that notices the mutation, and what it saw."""
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        for seed in seeds:
            try:
                play(seed, duration_s)
            except Violation as violation:
                return seed, str(violation)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1000), metavar=("FROM", "TO"))
    parser.add_argument("--duration", type=float, default=60.0, help="virtual seconds of each schedule")
    parser.add_argument("--mutations", action="store_true", help="leave one rule out at a time")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seeds = range(*options.seeds)
    if options.mutations:
        missed = 0
        for mutation in MUTATIONS:
            started = time.monotonic()
            found = hunt(mutation, seeds, options.duration)
            missed += found is None
            told = f"noticed by schedule {found[0]}: {found[1]}" if found else "NOT NOTICED"
            print(f"{mutation.__name__:52} {time.monotonic() - started:6.1f} s  {told}", flush=True)
        return 1 if missed else 0
    served = violations = 0
    for seed in seeds:
        try:
            served += play(seed, options.duration)
        except Violation as violation:
            violations += 1
            print(f"schedule {seed}: {violation}", flush=True)
    print(f"{len(seeds)} schedules, {served} answers from caches, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
