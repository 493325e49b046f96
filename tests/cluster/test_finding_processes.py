"""A recorded process is found again and ended; another one that has its pid by now is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from onenode.console import ClusterError
from onenode.process import Process, spawn, wait_for


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Path]:
    record = tmp_path / "sleeper.pid"
    yield record
    if process := Process.recorded(record):
        process.end(0)


def start(record: Path, *argv: str) -> Process:
    process = spawn(argv or ["sleep", "60"], record=record, log=record.with_suffix(".log"))
    wait_for("record", lambda: Process.recorded(record) == process, timeout_s=10, problem=lambda: None)
    return process


def test_a_process_records_itself_before_it_becomes_the_program(record: Path) -> None:
    process = start(record)
    assert Process.recorded(record) == process
    assert process.alive()


def test_a_process_is_not_in_our_session_and_signals_reach_it(record: Path) -> None:
    process = start(record)
    assert os.getsid(process.pid) == process.pid
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10)
    assert Process.recorded(record) is None


def test_output_is_appended_to_the_log(record: Path, tmp_path: Path) -> None:
    log = record.with_suffix(".log")
    log.write_text("before\n")
    process = spawn(["sh", "-c", "echo out; echo err >&2"], record=record, log=log)
    assert process.wait(10)
    assert log.read_text().splitlines() == ["before", "out", "err"]


def test_end_asks_first_and_then_insists(record: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    stubborn = start(
        record, "sh", "-c", f'trap "touch {asked}" TERM; touch {asked}.ready; while :; do sleep 0.05; done'
    )
    wait_for("trap", (tmp_path / "asked.ready").exists, timeout_s=10, problem=lambda: None)
    stubborn.end(grace_s=0.5)
    assert asked.exists()
    assert not stubborn.alive()


def test_a_pid_that_belongs_to_another_process_by_now_is_left_alone(record: Path) -> None:
    process = start(record)
    earlier = Process(process.pid, process.start - 1)
    assert not earlier.alive()
    earlier.end(0)
    assert process.alive()


def test_a_record_of_another_boot_names_nobody(record: Path) -> None:
    process = start(record)
    boot, stat = record.read_text().splitlines()
    record.write_text(f"{boot[::-1]}\n{stat}\n")
    assert Process.recorded(record) is None
    record.write_text(f"{boot}\n{stat}\n")
    assert Process.recorded(record) == process


@pytest.mark.parametrize("content", ["", "\n", "half a boot id", "boot\n12 (sh) S"])
def test_a_record_that_was_cut_short_names_nobody(record: Path, content: str) -> None:
    record.write_text(content)
    assert Process.recorded(record) is None


def test_a_command_with_spaces_and_parentheses_is_read_right(record: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a) S (b"
    odd.symlink_to("/bin/sleep")
    process = start(record, str(odd), "60")
    assert Process.of(process.pid) == process


def test_a_process_that_has_ended_but_is_not_reaped_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Process.of(child.pid) is None


def test_a_program_that_is_not_there_says_so_in_the_log(record: Path) -> None:
    log = record.with_suffix(".log")
    process = spawn(["no-such-program"], record=record, log=log)
    assert process.wait(10)
    assert "no-such-program" in log.read_text()


def test_wait_for_ends_with_the_reason_or_the_deadline() -> None:
    with pytest.raises(ClusterError, match="door: it is locked"):
        wait_for("door", lambda: False, timeout_s=5, problem=lambda: "it is locked")
    started = time.monotonic()
    with pytest.raises(ClusterError, match="door: not within 0 s"):
        wait_for("door", lambda: False, timeout_s=0.1, problem=lambda: None)
    assert time.monotonic() - started < 5
