"""Says who is meant: finds people by the names that others have for them, and writes down how each is reached.

`users` are people, each with the names by which other systems know them: `github`, `telegram`, `email`, `phone`, or what you
like. `groups` are lists of them. `to` says where a message names those who are to get it.

```yaml
name: reviews
producers:
  - github
filters:
  - receivers:
      users:
        ann: {github: ann-dev, telegram: 1234, email: ann@example.com}
        bob: {github: bobby, telegram: 5678, email: bob@example.com}
      groups:
        db: [ann, bob]
      to: data.pull_request.requested_reviewers[*].login
      as: github
      otherwise: db
consumers:
  - telegram: {token: "${TELEGRAM_TOKEN:-123:not-set}", chat_id: "{{ labels.receiver_telegram }}"}
  - email: {host: smtp.example.com, from: bell@example.com, to: "{{ labels.receiver_email }}"}
```

`to` is one of these, or a list of them:

| entry | means |
|---|---|
| `db`, `ann` | a group or a user of yours, always |
| `labels.assignee`, `data.user.login` | what stands there: a name, or several with commas between them |
| `data.reviewers[*].login` | the same of each element of a list |
| `"{{ … }}"` | what the template gives: names, with commas between them |
| `{names: labels.team, as: name}` | an entry with an `as` of its own |

`as` is the channel whose names these are. Without it, or with `as: name`, they are your own names of users and groups. Case does
not matter, nor an `@` before a name; who is named twice counts once. Where a label or a part of the payload is missing or empty,
it names nobody. A message that names nobody at all is for `otherwise`, and without that it goes to the dead letters.

What leaves is a message for each receiver, with the label `receiver`, which is your name for them, and one for each channel:
`receiver_telegram`, `receiver_email`. With `each: false` it is one message for all, and its labels have the names of all with
commas between them, as `to` of `email` and of `sms` takes them. `channels: [telegram]` writes down this channel alone, and
who has no name there counts as unknown. Consumers that show a message's labels do not show those of channels. The `key` stays
as it was: what goes by keys after this step (`deduplicate`, `group`) should go by `labels.receiver` as well.

Nobody is lost by a name that nobody bears: those who are known get the message, and a copy of it for the others goes to the dead
letters, which tell whose name is missing. Add it and redrive the copy: they alone get it then, as its label `receiver_unknown`
says. Whoever sends that label chooses among your users as well; where senders are not to, `remove: [labels.receiver_*]` stands
before this step, at which a copy that is redriven goes on.

People may stand in a table as well, which other programs write: `file: people.csv`, beside the pipeline. Its first line names the
columns: `name`, the channels, and `groups`, with commas or spaces between them. It is read when the pipeline is.

Several pipelines share people as a step of `siftbell.yaml`: `filters: {people: {receivers: …}}` there, `- use: people` in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

from filters.receivers.options import OWN, ReceiversConfig, folded, split_names, unique
from pipeline import Buried, Filter, Message, PermanentError, shorten

UNKNOWN: Final = "receiver_unknown"
"""The label of a copy for those who were unknown, such as `github:carl, github:dora`."""
_TOLD: Final = 500
"""Characters of those who are unknown, in an error."""


class Receivers(Filter[ReceiversConfig]):
    """Says who is meant by a message, and how each of them is reached."""

    def filter(self, message: Message) -> Iterable[Message | Buried]:
        """Give a message for each receiver, or one for all; and what is left for those who are unknown, buried."""
        users: list[str] = []
        unknown: dict[str, str] = {}
        named = {(channel, folded(name)): name for channel, name in self._named(message)}  # once each: a group may be a large one
        for (channel, _), name in named.items():
            found, missing = self._looked_up(channel, name)
            users += found
            unknown |= missing
        users = unique(users)
        if not users and not unknown:
            raise PermanentError("it names nobody, and there is no `otherwise`")
        why = shorten("; ".join(unknown.values()), _TOLD)
        if not users:
            raise PermanentError(why)
        plain = {name: text for name, text in message.labels.items() if name != "receiver" and not name.startswith("receiver_")}
        for some in [[user] for user in users] if self.config.each else [users]:
            yield message.replace(labels=plain | self._labels(some))
        if unknown:
            yield Buried(message.replace(labels=plain | {UNKNOWN: ", ".join(unknown)}), why)

    def _named(self, message: Message) -> Iterator[tuple[str, str]]:
        """Give the names that a message gives, each with its channel; what was left for the unknown names them alone."""
        if left := message.labels.get(UNKNOWN):
            for name in split_names(left):
                channel, _, bare = name.partition(":")
                yield channel, bare
            return
        config, somebody = self.config, False
        for entry in config.to:
            fixed = entry.names in config.users or entry.names in config.groups
            for name in [entry.names] if fixed else entry.found(message):
                somebody = True
                yield OWN if fixed else entry.as_ or config.as_, name
        if not somebody:
            for name in config.otherwise:
                yield OWN, name

    def _looked_up(self, channel: str, name: str) -> tuple[list[str], dict[str, str]]:
        """Give the users who bear a name, or are in the group of that name; and who is unknown, as in `UNKNOWN`, and why."""
        users = self._users.get((channel, folded(name)))
        if users is None:
            where = "no user or group is called" if channel == OWN else f"on {channel} no user is called"
            return [], {f"{channel}:{name}": f"{where} '{name}'"}
        needed = self.config.channels
        lacking = [user for user in users if needed and not any(channel in self.config.users[user] for channel in needed)]
        unknown = {f"{OWN}:{user}": f"'{user}' has no name on {' or '.join(needed)}" for user in lacking}
        return [user for user in users if user not in lacking], unknown

    def _labels(self, users: list[str]) -> dict[str, str]:
        """Give the labels of a message for these users."""
        found = {"receiver": ", ".join(users)}
        for channel in self.config.channels or unique(channel for user in users for channel in self.config.users[user]):
            if names := unique(self.config.users[user][channel] for user in users if channel in self.config.users[user]):
                found[f"receiver_{channel}"] = ", ".join(names)
        return found

    @cached_property
    def _users(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """By channel and name: whom it means."""
        config = self.config
        found = {(OWN, folded(group)): members for group, members in config.groups.items()}
        found |= {(OWN, folded(user)): (user,) for user in config.users}
        return found | {
            (channel, folded(name)): (user,) for user, names in config.users.items() for channel, name in names.items()
        }
