"""Sessions of botocore: what they read of its models, and from where."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ProfileNotFound
from botocore.loaders import JSONFileLoader

from pipeline.aws.session import new_session


def new_client():
    return new_session().create_client("sns", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")


def test_a_second_client_reads_nothing_again(monkeypatch):
    new_client()
    read = []
    load_file = JSONFileLoader.load_file
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: read.append(path) or load_file(self, path))
    assert new_client().meta.service_model.service_name == "sns"
    assert read == []


def test_models_of_another_place_are_its_own(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    assert str(tmp_path) in new_session().get_component("data_loader").search_paths
    monkeypatch.delenv("AWS_DATA_PATH")
    assert str(tmp_path) not in new_session().get_component("data_loader").search_paths


def test_a_profile_that_is_not_there_is_told(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("AWS_DATA_PATH", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ProfileNotFound, match="nobody"):
        new_session("nobody")
