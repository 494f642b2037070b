"""Sessions of botocore that read its models once: each of its own would cost a client 8 MB and 45 ms."""

from __future__ import annotations

from functools import cache

from botocore.loaders import Loader, create_loader
from botocore.session import Session


def new_session(profile: str | None = None) -> Session:
    """Give a session for clients of AWS's services.

    Where AWS's files lack the profile, this or the session's `create_client` raises `ProfileNotFound`.
    """
    session = Session(profile=profile)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)
