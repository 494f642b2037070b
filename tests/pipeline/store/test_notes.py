"""Notes: one text for each name, of a producer's own."""

from __future__ import annotations


def test_a_note_takes_the_place_of_the_earlier_one_of_its_name(store):
    store.write_notes("p", "watch", {"b": "1", "a": "1"})
    store.write_notes("p", "watch", {"b": "2", "c": "x\0\ud800y"})
    store.write_notes("p", "other", {"a": "9"})
    store.write_notes("q", "watch", {})
    assert store.notes("p", "watch") == {"a": "1", "b": "2", "c": "x\ufffd?y"}
    assert store.notes("p", "other") == {"a": "9"}
    assert store.notes("q", "watch") == {}


def test_a_note_is_dropped_where_it_was_not_written_anew(store):
    store.write_notes("p", "watch", {"a": "1", "b": "1", "c": "1"})
    store.write_notes("p", "other", {"a": "1"})
    old = store.notes("p", "watch")
    store.write_notes("p", "watch", {"b": "2"})
    store.drop_notes("p", "watch", {name: old[name] for name in "ab"})
    store.drop_notes("p", "watch", {})
    assert store.notes("p", "watch") == {"b": "2", "c": "1"}
    assert store.notes("p", "other") == {"a": "1"}
