"""Push notifications through a ntfy server."""

import json

from pydantic import Field, SecretStr

from pipeline import Config, HttpConsumer, HttpRequest, Message


class NtfyConfig(Config):
    url: str = Field(description="The server, such as `https://ntfy.example.com`.", pattern="^https?://")
    topic: str = Field(description="The topic that people subscribe to.")
    token: SecretStr = Field(description="An access token of the server.")


class Ntfy(HttpConsumer[NtfyConfig]):
    """Publishes each message to a ntfy topic; critical ones at the highest priority."""

    def request(self, message: Message) -> HttpRequest:
        priority = 5 if message.severity == "critical" else 3
        push = {"topic": self.config.topic, "title": message.title, "message": message.text, "priority": priority}
        headers = {"authorization": f"Bearer {self.config.token.get_secret_value()}", "content-type": "application/json"}
        return HttpRequest(url=self.config.url, body=json.dumps(push).encode(), headers=headers)
