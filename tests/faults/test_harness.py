"""The harness around the ledger: draws from a seed, pages, results on disk, disks that fill, and a loss made on purpose."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from random import Random

import pytest
from harness import schedules, table
from harness.bench import COMBINATIONS, Bench
from harness.cell import Plan, Result, run_cell
from harness.disk import Disk
from harness.faults import Fault, all_faults
from harness.journal import Journal, write_section
from harness.processes import until
from harness.servers import Server


def result(**changes: object) -> Result:
    return Result(**({"combination": "sqlite", "faults": ["kill -9: web"], "seed": "1"} | changes))  # type: ignore[arg-type]  # any of them


class LoseOnPurpose(Fault):
    """Removes what waits for a consumer from the store, behind the product's back."""

    name = "what is held is deleted"
    holds = 0.0

    def inject(self, bench: Bench, chance: Random) -> None:
        bench.sinks["alpha"].become("500")
        connection = sqlite3.connect(bench.store_file, timeout=30, isolation_level=None)
        self.deleted = until(lambda: connection.execute("DELETE FROM held").rowcount, "a message is held")
        connection.close()
        bench.sinks["alpha"].become("takes")


class Sleeper(Server):
    """A server that serves nobody."""

    name = "sleeper"

    def command(self) -> list[str]:
        return ["sleep", "60"]

    def url(self, port: int) -> str:
        return f"sleeper://127.0.0.1:{port}"


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_loss_that_is_made_on_purpose_is_reported(tmp_path: Path) -> None:
    sabotage = LoseOnPurpose()
    with Bench(COMBINATIONS["sqlite"], tmp_path) as bench:
        healthy = run_cell(bench, [], Plan(100, 1, patience=60), "healthy")
        assert (healthy.problems, healthy.lost, healthy.accepted >= 100) == ([], 0, True)
        found = run_cell(bench, [sabotage], Plan(300, 2, patience=4), "sabotage")
    assert found.lost > 0
    assert sabotage.deleted >= found.lost
    assert any("lost at alpha, the first" in problem for problem in found.problems)


def test_a_seed_draws_the_same_schedule_each_time_and_another_seed_another() -> None:
    def names(seed: str) -> tuple[list[str], Plan]:
        faults, plan = schedules.draw(COMBINATIONS["redis"], seed)
        return [fault.name for fault in faults], plan

    assert names("1000") == names("1000")
    assert len({str(names(str(seed))) for seed in range(50)}) > 40


def test_faults_have_names_of_their_own_and_each_can_be_somewhere() -> None:
    faults = all_faults()
    assert len({fault.name for fault in faults}) == len(faults)
    for fault in faults:
        assert any(not fault.why_not(combination) for combination in COMBINATIONS.values()), fault.name


def test_the_table_says_what_was_lost_and_what_was_not_run() -> None:
    text = table.markdown([result(accepted=1200, delivered=1100, lost=3, duplicates=4, bound=50), result(skipped="no mount")])
    assert "| kill -9: web | 1,200 | 1,100 | 0 | 3 | 4 (50) | 0.0 s | - |" in text
    assert "not run: no mount" in text
    assert "| **together** | **1,200** | **1,100** | **0** | **3** | **4** |" in text


def test_what_held_is_not_run_again_and_what_failed_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    journal.add(result(seed="1"))
    journal.add(result(seed="2", problems=["3 lost"]))
    again = Journal(tmp_path / "results.jsonl")
    assert again.holds("sqlite", "1") == result(seed="1")
    assert again.holds("sqlite", "2") is None
    assert again.holds("redis", "1") is None


def test_a_section_of_a_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: made by the harness -->\nold\n<!-- end of table -->\nafter\n")
    write_section(page, "table", r"new \1")
    assert page.read_text() == (
        "before\n<!-- table: made by the harness -->\n\n" + r"new \1" + "\n\n<!-- end of table -->\nafter\n"
    )
    with pytest.raises(ValueError, match="lacks the lines"):
        write_section(page, "outage", "text")


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = Sleeper(tmp_path)
    try:
        thread = threading.Thread(target=server.launch)
        thread.start()
        thread.join()
        server.freeze()
        server.thaw()
        assert server.pids
    finally:
        server.kill()
    assert not server.pids


def test_a_disk_fills_to_the_last_byte_and_is_cleared(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    try:
        if disk.why_not:
            pytest.skip(f"mounting is not allowed here: {disk.why_not}")
        disk.fill()
        assert disk.free == 0
        with pytest.raises(OSError, match="No space left"):
            (disk.place / "file").write_bytes(b"x" * 10_000)
        disk.clear()
        assert disk.free > 0
    finally:
        disk.close()
