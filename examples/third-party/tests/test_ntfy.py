from pipeline.testing import HttpConsumerContract
from siftbell_ntfy import Ntfy


class TestNtfy(HttpConsumerContract):
    plugin = Ntfy
    options = {"url": "{url}", "topic": "deploys", "token": "a-secret"}
