r"""Collects messages, and sends them as one: every hour, each morning, in working days, for each team or for all.

`within: 1h` (or `digest: 1h`) collects for an hour, from the first message on. `at` is a time: a cron line
(`0 8 * * MON-FRI`), `@daily` or `@hourly`, in `timezone`, right over daylight saving. With `by` there is a digest for each
value of these fields.

```yaml
name: failed-jobs
producers:
  - sql:
      url: "${JOBS:-sqlite:////var/lib/jobs/jobs.db}"
      query: SELECT id, name, error, finished AS time FROM jobs WHERE failed AND id > :cursor ORDER BY id
      cursor: id
      start: SELECT coalesce(max(id), 0) FROM jobs
      title: "{{ data.name }} failed"
    schedule: 5m
filters:
  - digest:
      at: 0 8 * * MON-FRI
      timezone: Europe/Berlin
      attach: [xlsx, csv]
      columns: {When: time, Job: data.name, Error: data.error}
consumers:
  - email: {host: smtp.example.com, from: jobs@example.com, to: team@example.com}
```

What leaves is a message of type `digest`: its title says how many there are of each severity, its text has a line for each,
the gravest first. `title` and `text` are templates over `messages` that write something else. Its severity is the gravest of
what is not over, its status resolved where all are, its labels those in which all agree. `data` has `count`, `severities`,
`resolved`, `first` and `last` (times), and the first 100 `messages` in short. With `latest: true` only the newest message of
each key is shown, with how many there were.

```yaml
name: quiet
producers:
  - prometheus
filters:
  - digest:
      within: 1h
      by: labels.team
      latest: true
      pass: severity == "critical" && status == "firing"
      title: "{{ messages | length }} alerts of {{ messages[0].labels.team | default('nobody') }}"
      text: "{% for message in messages %}{{ message.severity }}: {{ message.title }}\n{% endfor %}"
consumers:
  - log
```

`pass` is a condition: such messages go on at once, unchanged. With `keep_passed: true` they stand in the digest as well.

`attach` adds files: `csv` (UTF-8), `xlsx` (needs `pip install "siftbell[xlsx]"`), `html` (a table) and `text` (each message in
full). `columns` says what stands in a row of the first three: fields, `labels.NAME`, `data.PATH`, and with `latest` `count`;
else time, severity, status, title, text, labels, source and url. An XLSX file has a sheet for each title, or for what the
template `sheet` gives, 50 at most. All cells are text, or numbers where the payload has numbers: nothing that
somebody sent is computed as a formula; in CSV such a text has an apostrophe before it. `email` attaches the files; what other
consumers send is without them.

A message waits in the store: a restart loses none, and `siftbell explain ID` tells until when. Each message is in one digest
exactly, but for what is repeated when a clock dies between sending and its record. Digests by `at` leave five seconds
later, so that clocks that differ by seconds make one of them. `empty: true` sends one that says so where nothing came; that
begins with the first message.

Bounds: `most` messages (10,000), with as many it leaves early, and so it does with about 64 MiB of them; `size` (400 KiB) of all
of it, as it travels: files are packed, so that is several thousand rows. A larger digest leaves in parts, `(1 of 3)`. SQS takes
messages of 640 KiB; for other brokers `size` may be up to 10 MiB. A cell has 32,767 characters at most, as Excel has it. Where
`title` or `text` fails the usual words are taken, and the text says why; a message whose `sheet` fails goes to the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec

from filters.digest.options import DigestConfig
from filters.digest.writing import Digests, sheet_of, size_of
from pipeline import Keep, Memory, Message, Opened, Released, Stay, TemporaryError, Window, WindowFilter

_SETTLING: Final = timedelta(seconds=5)
"""A digest by `at` leaves so much later: a worker whose clock is slow still puts messages into it when its time has come."""
_TICK: Final = timedelta(microseconds=1)
_REMEMBERED: Final = timedelta(days=1)
"""For so long how many messages wait is counted; a window that is open for longer is counted anew."""
_COUNTED: Final = 200
"""About so many of a full digest's messages are counted: a step's memory is written to for each."""
_MOST_BYTES: Final = 64 * 2**20
"""Bytes of messages that wait for a digest, about: a clock reads them all at once."""
_decoder: Final = msgspec.json.Decoder(Message)


class Digest(WindowFilter[DigestConfig]):
    """Collects messages for a while or until a time of day, and sends them as one, with files."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | None:
        """Have it wait, but for what passes at once. Raises `PermanentError` where it could not be put on a sheet."""
        config = self.config
        if "xlsx" in config.attach:
            sheet_of(config, message)
        urgent = config.pass_ is not None and config.pass_.matches(message)
        if urgent and not config.keep_passed:
            return None
        key = config.by.key(message)
        try:
            early = urgent or self._begins(memory, key) or self._is_full(memory, key, message)
        except TemporaryError:  # then it leaves when it is due, and in parts where it has to
            early = urgent
        return Window(key, now if early else self._end(now))

    def release(self, opened: Opened) -> Iterable[Released]:
        """Let what passes go on. Give the digest, or several, where it is time; else all else stays."""
        config, kept = self.config, opened.kept or {}
        passed = {one.id: one for one in map(_decoder.decode, kept.get("passed", ()))}
        if config.keep_passed and config.pass_ is not None:
            urgent = [message for message in opened.messages if config.pass_.matches(message)]
            yield from urgent
            passed |= {message.id: message for message in urgent}
        calm = [message for message in opened.messages if message.id not in passed]
        messages = sorted([*passed.values(), *calm], key=lambda message: message.id) if passed else calm
        if config.keep_passed and sum(map(self._weight, messages)) < config.most:
            end = datetime.fromisoformat(kept["end"]) if "end" in kept else self._end(opened.due, or_now=True)
            if opened.now < end:
                yield from (Stay(message, end) for message in calm)
                yield Keep({"end": end.isoformat(), "passed": [_written(message) for message in passed.values()]}, end)
                return
        yield from self._leave(opened, messages, kept.get("since", ""))

    def _leave(self, opened: Opened, messages: Sequence[Message], since: str) -> Iterator[Released]:
        config = self.config
        with suppress(TemporaryError):  # what is not forgotten costs a digest that leaves too early
            opened.memory.forget(opened.key)
        digests = Digests(config, config.by.values(messages[0]) if messages else {}, opened.due)
        if messages:
            yield from digests.write(messages)
        elif config.empty:
            yield digests.nothing(since)
        if config.empty:
            yield Keep({"since": opened.now.isoformat()}, self._end(opened.now))

    def _end(self, moment: datetime, *, or_now: bool = False) -> datetime:
        """Say when a window ends that begins now; with `or_now`, that may be this moment."""
        if self.config.schedule is None:
            return moment + (self.config.within or timedelta())
        return self.config.schedule.after(moment - (_SETTLING + _TICK if or_now else timedelta())) + _SETTLING

    def _begins(self, memory: Memory, key: str) -> bool:
        """Say whether this message opens its window to have written down when it ends, which what passes later has to know."""
        within = self.config.within if self.config.keep_passed else None
        return within is not None and memory.first(key, within)

    def _is_full(self, memory: Memory, key: str, message: Message) -> bool:
        """Say whether as much waits as may. Of many messages one in so many is counted, drawn by its id; of large ones more."""
        step = max(1, self.config.most // _COUNTED)
        if int(message.id[-8:], 16) % step >= self._weight(message):
            return False
        return memory.count(key, _REMEMBERED) * step >= self.config.most

    def _weight(self, message: Message) -> float:
        """Say for how many a message counts: for one, or for more where as many of its size would be too much."""
        return max(1.0, size_of(message) * self.config.most / _MOST_BYTES)


def _written(message: Message) -> str:
    """Write a message that has passed as what is kept for its digest."""
    return msgspec.json.encode(message).decode()
