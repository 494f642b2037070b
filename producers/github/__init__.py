"""Takes what GitHub's webhooks post, and polls pull requests, issues and notifications: also of GitHub Enterprise Server.

**Webhooks.** In the settings of a repository, an organization or a GitHub App, *Webhooks*, give the URL
`https://SIFTBELL/in/shop/github`, either content type, and the same secret as here. Any event is a message that says who did
what to what, also one that Siftbell does not know. `events` and `repositories` take only some of what is posted.

```yaml
name: shop
producers:
  - github:
      secret: "${GITHUB_SECRET}"
      events: [pull_request.opened, pull_request.review_requested, workflow_run.completed, dependabot_alert]
consumers:
  - log:
    when: type != "workflow_run" || severity == "error" || status == "resolved"
```

GitHub signs what it posts with the secret; what is not signed is refused. Without `secret`, whoever posts needs an API key of
Siftbell. A delivery that GitHub repeats has the same message id: who has that message does not get it
again, as long as Siftbell keeps records. What lies in the dead letters is not sent by a repeat, but by `siftbell dead-letters
redrive`. GitHub posts up to 25 MB, for a push of many commits; what is larger than `SIFTBELL_MAX_BODY` is answered 413.

**Polling**, on the step's `schedule`, needs a `token`, or an `app` with its private key, who may read pull requests and issues;
notifications need the token (classic) of the person whose they are, with the scope `notifications`. A message tells what is
opened, closed, merged or changed since the last poll. The first poll tells nothing, or what changed in the time that `start`
says. GitHub Enterprise Server is asked at `base_url`; `ca_file` is for a certificate of your own authority.

```yaml
name: watched
producers:
  - github:
      repositories: [acme/shop, acme/web]
      app: {id: 12345, private_key: "${APP_KEY:-unset}"}
      base_url: https://github.example.com/api/v3
    schedule: 2m
consumers:
  - log
```

`remind` tells all that is open, or unread, at each poll. With `per: person` a pull request is a message for each of its assignees
and reviewers, whose login (`TEAM` of an organization: `acme/TEAM`) is the label `person`; one that nobody has is one message.

```yaml
name: reminders
producers:
  - github: {repositories: [acme/shop], token: "${GITHUB_TOKEN:-unset}", poll: [pull_requests], remind: true, per: person}
    schedule: "0 9 * * MON-FRI"
    timezone: Europe/Berlin
filters:
  - match: data.pull_request.draft != true
consumers:
  - log
```

Lists are read page by page as their links lead. What changes while they are read is neither lost nor told twice: they are asked
from two minutes before the latest change on, and the cursor knows what was told. A list that has not changed costs nothing of the
rate limit (ETag). Where GitHub limits, nothing is asked until the time it names. A list that cannot be read keeps no other from
being told.

**Messages.** `type` is GitHub's event, such as `pull_request` or `workflow_run`; what is polled is `pull_request`, `issues` or
`notification`. `key` is what it is about: `acme/shop#12`, a run `acme/shop@main/CI` (of a fork `acme/shop@monalisa:main/CI`), an
alert `acme/shop/dependabot/3`, a deployment `acme/shop/deployments/production`. `status` is resolved when that is closed, merged,
fixed, dismissed or green now, whatever was done to it, and else firing. `url` is the page to look at.

`severity` of an alert is its own (moderate is warning, high is error), of a leaked secret critical. Runs, checks and deployments
are error where they fail, warning where they are cancelled or wait for somebody. Warning are also a push by force, protection of
branches that changes, a repository that is made public, moves or goes, a new deploy key, a webhook or an app that goes. What is
resolved, and all else, is info.

`labels` are `repository`, `organization`, `action`, `sender`, and of what there is `author`, `branch`, `head`, `labels` (with
commas between), `milestone`, `category`, `review`, `workflow`, `job`, `check`, `conclusion`, `environment`, `tag`, `package`,
`ghsa`, `rule`, `tool`, `secret`, `member`, `team`, `reason`, `person` and `role` (assignee or reviewer). `data` is the payload as
it came; what was polled stands in it as in a webhook's, as `pull_request` or `issue`, or as `notification`.

Protocols: https://docs.github.com/en/webhooks/webhook-events-and-payloads,
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries,
https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import uuid4

from pipeline import (
    Config,
    Message,
    PermanentError,
    PollingProducer,
    Problem,
    Request,
    RequestError,
    WebhookProducer,
)
from producers.github.options import GithubConfig
from producers.github.reading import Payload
from producers.github.writing import write

if TYPE_CHECKING:
    from producers.github.polling import Polling

_NAME: Final = re.compile("[a-z0-9_]{1,100}")


class Github(WebhookProducer[GithubConfig], PollingProducer[GithubConfig]):
    """Makes messages of what happens on GitHub: of what its webhooks post, and of what it is asked on a schedule."""

    asks_for: ClassVar[str | None] = "token"

    @classmethod
    def asks(cls, config: Config) -> bool:
        """Say whether there is somebody to ask as."""
        return isinstance(config, GithubConfig) and (config.token or config.app) is not None

    @property
    def verifies_sender(self) -> bool:
        """True where the webhook has a secret."""
        return self.config.secret is not None

    def open(self) -> None:
        """Make ready what asks, where it may be asked; no connection is made yet."""
        self._polling: Polling | None = None
        if self.asks(self.config):
            from producers.github.polling import Polling  # noqa: PLC0415 - an extra of its own

            self._polling = Polling(self.config)

    def close(self) -> None:
        """Close the connections."""
        if self._polling is not None:
            self._polling.close()

    def probe(self) -> str | None:
        """Ask GitHub who asks; nothing where nobody polls."""
        return self._polling.probe() if self._polling else None

    def receive(self, request: Request) -> Iterable[Message]:
        """Give the messages of an event, or none where it is not wanted; raises `RequestError` for what GitHub does not send."""
        self._check_signature(request)
        event = request.headers.get("x-github-event", "")
        if not _NAME.fullmatch(event):
            text = "the header X-GitHub-Event with the name of an event is expected"
            raise RequestError(text, problems=[Problem("X-GitHub-Event", "the name of an event is expected")])
        payload = Payload(event, _body(request))
        if not self._wants(payload):
            return []
        unique = request.headers.get("x-github-delivery") or uuid4().hex
        return list(write(payload, unique, per_person=self.config.per == "person"))

    def poll(self, cursor: str | None) -> Iterable[tuple[Message | None, str]]:
        """Give what has changed, or all that is open; raises `TemporaryError` where GitHub limits, with the time to wait."""
        if self._polling is None:
            raise PermanentError("polling needs the option 'token', or 'app'")
        return self._polling.poll(cursor)

    def _check_signature(self, request: Request) -> None:
        if self.config.secret is None:
            return
        signature = request.headers.get("x-hub-signature-256")
        if not signature:
            raise RequestError("a signature is expected in X-Hub-Signature-256: does the webhook have a secret?", status=401)
        if not request.signed_by(self.config.secret.get_secret_value(), signature):
            raise RequestError("the signature does not fit: the webhook's secret is another than here", status=403)

    def _wants(self, payload: Payload) -> bool:
        """Say whether the options ask for this event of this repository."""
        events, repositories = self.config.events, self.config.repositories
        name = payload.text("repository.full_name").lower()
        return (not events or payload.event in events or f"{payload.event}.{payload.action}" in events) and (
            not repositories or name in map(str.lower, repositories)
        )


def _body(request: Request) -> dict[str, Any]:
    """Read the payload: JSON, or a form with JSON in its field `payload`, as a webhook's content type says."""
    if request.content_type == "application/x-www-form-urlencoded":
        form = request.form()
        if "payload" not in form:
            raise RequestError("the form has no field 'payload'", problems=[Problem("payload", "is required")])
        request = replace(request, body=form["payload"].encode())
    elif request.content_type not in ("application/json", ""):
        raise RequestError(f"GitHub sends application/json or a form, this is {request.content_type}", status=415)
    body = request.json()
    if not isinstance(body, dict):
        raise RequestError("an object is expected", status=422)
    return body
