"""Sends messages to a chat or a topic of Telegram, as a bot, and keeps together what belongs to one key.

Ask `@BotFather` for a bot, add it to the group, and give its token and the group's id. A token belongs into the
environment or into a file of secrets:

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - telegram:
      token: "${TELEGRAM_TOKEN:-123:not-set}"
      chat_id: -1001234567890
      topic: 42
      text: |-
        <b>{{ title }}</b>
        {{ text }}
      silent: {outside: "08:00-20:00", timezone: Europe/Berlin, unless: severity == "critical"}
    when: severity in ["critical", "error"]
    rate: 20/m
    ordered: true
    retry: {for: 6h}
```

`text` is a template whose own text is HTML (`<b>`, `<i>`, `<code>`, `<pre>`, `<a href>`, `<blockquote>`) and whose values
are escaped, so that a title with `<` in it does no harm. A text of more than 4096 characters is sent in parts, none of
which cuts a tag or an entity; with `long: file` it is a file, below the first 1024 characters. `data: true` sends what the
message was made of along, as a file of JSON.

Later messages with the `key` of an earlier one belong to it. With `follow_up: reply`, the default, they answer it, so that
the chat shows them as one thread; `update` changes the first message into what holds now, which makes no sound; `both`
does the two, and `post` neither. What does not fit into the changed message, and what follows a file, is an answer.
Once a key was resolved, its next message begins anew. `ordered: true` keeps a resolved message from overtaking its firing one.
Which message is which is remembered for 30 days after it last changed; where that is lost, or somebody deleted the message,
the next one is posted anew.

`silent: true` delivers without a sound; `silent: {outside: "08:00-20:00"}` does so at night. `days: [mon, tue, wed, thu, fri]`
limits the hours to these days, and what `unless` holds for always makes its sound.

Telegram takes 20 messages a minute for a group, one a second for a person, and 30 a second from a bot in all: `rate: 20/m`
keeps a step below that, over all workers (each part, file and change counts as a message there). A wait that Telegram asks
for is kept: between parts up to 20 seconds at once, else the message is held, and goes on with the part that is missing.

`chat_id` may be a template, so that a message goes to the chat that it names itself: `"{{ labels.receiver_telegram }}"`. Each
chat has threads of its own then.

A chat that is not found, a bot that was removed and a refused token bury the message; everything that may pass is tried
again. A group that became a supergroup is followed to its new id, and a line in the log says so.

Protocol: https://core.telegram.org/bots/api, and for the limits https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import msgspec
from telegram.constants import MessageLimit

from consumers.telegram.chat import Chat, File, Text
from consumers.telegram.html import plain, split_html
from consumers.telegram.options import TelegramConfig
from pipeline import Consumer, Message, PermanentError, TemporaryError, follow, now

_PARTS_KNOWN: Final = timedelta(days=7)
"""For so long after the last attempt it is known which parts of a message were sent."""


class Telegram(Consumer[TelegramConfig]):
    """Sends messages to a chat or a topic of Telegram, and keeps those of a key together."""

    _chat: Chat | None = None

    def open(self) -> None:
        """Make the bot; nothing is sent yet."""
        self._chat = Chat(self.config, self.networks.guard)

    async def consume(self, message: Message) -> None:
        """Post the message, in parts where it is long, or follow up on the first one of its key."""
        follows = self.config.follow_up != "post"
        to = "" if self.config.one_chat is not None else str(self.config.chat_of(message))
        await follow(message, self.memory if follows else None, self._post, self._follow_up, to=to)

    async def probe(self) -> str:
        """Ask for the names of the bot and the chat."""
        assert self._chat is not None
        return await self._chat.name()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._chat is not None:
            await self._chat.close()
            self._chat = None

    def preview(self, message: Message) -> object:
        """Give the chat and the texts that would be sent."""
        pieces = self._pieces(message)
        files = [piece.name for piece in pieces if isinstance(piece, File)]
        shown = {
            "chat_id": self.config.chat_of(message),
            "topic": self.config.topic,
            "texts": [piece.html for piece in pieces if piece.html],
        }
        return shown | ({"files": files} if files else {})

    async def _post(self, message: Message) -> str:
        return await self._send(message, self._pieces(message))

    async def _follow_up(self, message: Message, first: str) -> None:
        """Change the first message of a key, or answer it."""
        assert self._chat is not None
        pieces = self._pieces(message)
        place, _, kind = first.partition("/")
        changes = self.config.follow_up != "reply" and not kind and isinstance(pieces[0], Text)
        if changes and isinstance(pieces[0], Text):
            await self._chat.change(place, pieces[0])
            if self.config.follow_up == "update":
                pieces = pieces[1:]
        if pieces:
            await self._send(message, pieces, to=place)

    async def _send(self, message: Message, pieces: list[Text | File], to: str = "") -> str:
        """Post the pieces that an earlier attempt has not, and give the place of the first."""
        assert self._chat is not None
        name = f"parts of {message.id}: {len(pieces)}"  # who goes on with other pieces than it began with begins anew
        known = await self._sent(name) if len(pieces) > 1 else []
        for number, piece in enumerate(pieces[len(known) :], len(known)):
            follows = to if number == 0 else known[0] if isinstance(piece, File) else ""
            into, silent = self.config.chat_of(message), self._silent(message)
            known.append(await self._chat.post(piece, into, silent=silent, to=follows, patient=number > 0))
            if len(known) < len(pieces):
                await self._keep(name, known)
        return f"{known[0]}/file" if isinstance(pieces[0], File) else known[0]

    async def _sent(self, name: str) -> list[str]:
        kept = await asyncio.to_thread(self.memory.recall, name) if self.memory else None
        return msgspec.json.decode(kept, type=list[str]) if kept else []

    async def _keep(self, name: str, known: list[str]) -> None:
        if self.memory is not None:
            text = msgspec.json.encode(known).decode()
            try:
                await asyncio.to_thread(self.memory.remember, name, text, _PARTS_KNOWN)
            except TemporaryError:
                return  # it costs a part that comes twice, and only if a later one cannot be sent

    def _pieces(self, message: Message) -> list[Text | File]:
        text = self.config.text.render(message).strip()
        parts = list(split_html(text, MessageLimit.MAX_TEXT_LENGTH))
        if not parts:
            raise PermanentError("the text for Telegram is empty")
        pieces: list[Text | File] = [Text(part) for part in parts]
        if len(parts) > 1 and self.config.long == "file":
            beginning = next(split_html(text, MessageLimit.CAPTION_LENGTH))
            pieces = [File("message.txt", plain(text).encode(errors="replace"), beginning)]
        if self.config.data and message.data is not None:
            pieces.append(File("data.json", msgspec.json.format(msgspec.json.encode(message.data))))
        return pieces

    def _silent(self, message: Message) -> bool:
        silent = self.config.silent
        return silent if isinstance(silent, bool) else silent.holds(message, now())
