"""Results: what the consumer noted and what the other side said of a delivery, in whichever order they come."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.store.results import Result


@pytest.fixture
def result(make):
    def result(**fields):
        return Result(**{"pipeline": "p", "step": "sms", "reference": "SM1", "message_id": "", "at": make.now} | fields)

    return result


@pytest.mark.parametrize("noted_first", [True, False], ids=["noted first", "told first"])
def test_a_note_and_what_is_told_come_together(store, result, noted_first):
    noted, told = result(message_id="m", note="to +49"), result(arrived=True, text="delivered")
    for write in (store.note_result, store.tell_result)[:: 1 if noted_first else -1]:
        write(noted if write == store.note_result else told)
    store.note_result(result(message_id="other", reference="SM2"))
    store.tell_result(result(step="other", arrived=False))
    assert store.results("m") == [result(message_id="m", note="to +49", arrived=True, text="delivered")]
    assert store.results("nobody") == []


@pytest.mark.parametrize("end", [True, False])
def test_what_is_final_stays(store, result, end):
    store.note_result(result(message_id="m"))
    for text, arrived in (("queued", None), ("the end", end), ("sent", None)):
        store.tell_result(result(text=text, arrived=arrived))
    (found,) = store.results("m")
    assert (found.text, found.arrived) == ("the end", end)


def test_what_the_databases_cannot_hold_is_replaced(store, result):
    store.note_result(result(message_id="m", reference="a\0", note="\0"))
    store.tell_result(result(reference="a\0", text="\ud800"))
    (found,) = store.results("m")
    assert (found.reference, found.note, found.text) == ("a\ufffd", "\ufffd", "?")


def test_old_ones_go_with_the_records(store, make, result):
    for reference, age in (("old", 2), ("new", 0)):
        store.note_result(result(message_id="m", reference=reference, at=make.now - timedelta(days=age)))
    store.purge(make.now - timedelta(days=1), 100)
    assert [found.reference for found in store.results("m")] == ["new"]
