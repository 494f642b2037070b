"""What a service says later of a delivery: a stand-in of Twilio takes an SMS, calls back, and `siftbell explain` tells it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode
from urllib.request import Request, urlopen

import pytest
from pytest_httpserver import HTTPServer
from trees import free_port, process, siftbell, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.against("consumer sms", "a server of our own that calls back as Twilio does"),
]

ACCOUNT, TOKEN = "AC00000000000000000000000000000000", "a-made-up-token"
PIPELINE = """
name: night
producers: [http]
consumers:
  - sms:
      via: twilio
      account: {account}
      token: {token}
      from: "+15005550006"
      to: ["+4915112345678", "+14155550100"]
      callback: {callback}
      base_url: {service}
"""


def call_back(url: str, form: dict[str, str], token: str = TOKEN) -> int:
    """Post as Twilio does: a form, and the HMAC of the URL with its fields in the order of their names."""
    text = url + "".join(name + value for name, value in sorted(form.items()))
    signature = base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    try:
        with urlopen(Request(url, urlencode(form).encode(), headers), timeout=30) as answer:
            status: int = answer.status
    except HTTPError as error:
        with error:
            return error.code
    return status


def test_what_became_of_an_sms_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    taken: list[dict[str, str]] = []

    def take(request):
        from werkzeug import Response

        taken.append(dict(parse_qsl(request.get_data(as_text=True))))
        sid = f"SM{taken[-1]['To'][1:]}"
        return Response(json.dumps({"sid": sid, "status": "queued", "price": None}), 201, content_type="application/json")

    httpserver.expect_request(f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json").respond_with_handler(take)
    port, data, log = free_port(), tmp_path / "data", tmp_path / "run.log"
    callback = f"http://127.0.0.1:{port}/callback/night/sms"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "night.yaml").write_text(
        PIPELINE.format(account=ACCOUNT, token=TOKEN, callback=callback, service=httpserver.url_for("").rstrip("/"))
    )
    environment = {"SIFTBELL_PRIVATE_NETWORKS": "127.0.0.0/8"}
    where = ["--config", str(tmp_path / "configs"), "--data", str(data)]
    with process(["run", *where, "--port", str(port), "--output", "json"], environment, log) as started:
        facts = json.loads(until(lambda: started.stdout and started.stdout.readline(), "it is ready"))
        headers = {"authorization": f"Bearer {facts['key']}", "content-type": "application/json"}
        with urlopen(Request(f"{facts['url']}/in/night/http", b'{"title": "disk full"}', headers), timeout=30) as answer:
            (message_id,) = json.load(answer)["ids"]
        until(lambda: len(taken) == 2, "both SMS are sent")
        assert {form["StatusCallback"] for form in taken} == {callback}
        anna = {"MessageSid": "SM4915112345678", "MessageStatus": "delivered", "To": "+4915112345678"}
        bert = {"MessageSid": "SM14155550100", "MessageStatus": "undelivered", "To": "+14155550100", "ErrorCode": "30003"}
        assert call_back(callback, anna, token="another-token") == 403
        assert [call_back(callback, form) for form in (anna, bert, bert | {"MessageStatus": "sent"})] == [204, 204, 204]
        assert call_back(callback.replace("night", "day"), anna) == 404

        def explained() -> str:
            text = siftbell(["explain", message_id, *where], environment | {"COLUMNS": "200"})
            return text if "delivered to sms" in text and "to +14155550100" in text and "to +4915112345678" in text else ""

        text = until(explained, "the delivery is on record")
    assert "delivered to sms; sms: 1 of 2 did not arrive" in text
    assert "arrived: delivered; to +4915112345678, 1 part (SM4915112345678" in text
    assert "did not arrive: undelivered, error 30003; to +14155550100, 1 part (SM14155550100" in text
    assert "did not arrive" in log.read_text()
    assert TOKEN not in log.read_text()
