"""What a batch is on the queue: a task of Celery's with the batch's own bytes, whose queue is looked for once a connection."""

from __future__ import annotations

import pytest
from kombu.transport.virtual import Channel

from pipeline.engine.batch import Batch, decode, encode
from pipeline.queue.app import make_app
from pipeline.queue.brokers import Broker
from pipeline.queue.publishing import CeleryQueue


def test_a_batch_is_a_task_whose_body_is_its_own_bytes(text_messages, monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    declare = Channel.queue_declare

    def note(self, queue=None, *args, **options):
        declared.append(queue)
        return declare(self, queue, *args, **options)

    monkeypatch.setattr(Channel, "queue_declare", note)
    app = make_app(Broker("memory://publishing"))
    queue = CeleryQueue(app)
    batch = Batch(job="process", queue="sent", pipeline="a", messages=text_messages(["x", "y"]))
    queue.publish([batch, batch])
    queue.publish([batch])
    assert declared == ["sent"]
    app.send_task("siftbell.process", args=["text"], queue="sent", argsrepr="[messages of a]")
    with app.connection_for_read() as connection, connection.SimpleQueue("sent") as waiting:
        ours, again, _, celerys = (waiting.get_nowait() for _ in range(4))
        assert ours.body == encode(batch)
        assert decode(ours.payload[0][0]) == batch
        assert ours.headers["id"] != again.headers["id"]
        assert ours.headers.items() - {"id": ours.headers["id"]}.items() <= celerys.headers.items()
        assert ours.delivery_info | {"priority": 0} == celerys.delivery_info | {"priority": 0}
        assert ours.properties["delivery_mode"] == celerys.properties["delivery_mode"]
    queue.close()
