"""R2 over random schedules: the real engine in a world of troubles, and with rules left out, which must be noticed.

Longer, and with every mutation: `python -m staleness_check --help` in tests/support.
"""

from __future__ import annotations

import pytest

import staleness_mutations as mutations
from staleness_check import hunt
from staleness_world import play

DURATION_S = 60.0
SEEDS = range(20260, 20360)

FOUND_SOON = (
    mutations.a_fill_is_not_checked,
    mutations.the_shared_store_is_not_checked,
    mutations.a_look_up_counts_its_position_as_given_out,
    mutations.age_counts_from_a_later_reply,
    mutations.the_watermark_is_as_young_as_its_arrival,
    mutations.an_entry_outlives_its_epoch,
    mutations.a_write_through_that_overlapped_is_stored,
    mutations.own_writes_are_not_remembered,
    mutations.a_look_up_is_taken_to_know_unannounced_writes,
    mutations.coverage_does_not_wait_for_open_writes,
)


@pytest.mark.timeout(240)
def test_no_answer_is_ever_older_than_its_bound() -> None:
    served = sum(play(seed, DURATION_S) for seed in SEEDS)
    assert served > 10_000


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mutation", FOUND_SOON, ids=lambda mutation: mutation.__name__)
def test_a_rule_left_out_is_noticed(mutation: mutations.Mutation) -> None:
    assert hunt(mutation, range(500), DURATION_S) is not None
