"""Receivers: everybody who is named gets the message, once, and who is unknown is told of and lost to nobody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.receivers import Receivers
from filters.receivers.options import ReceiversConfig
from pipeline import Buried, Message, PermanentError
from pipeline.testing import FilterContract

USERS = {
    "ann": {"github": "Ann-Dev", "telegram": 1234, "email": "ann@example.com"},
    "bob": {"github": "bobby", "email": "bob@example.com", "phone": "+4915112345678"},
    "carl": {"telegram": "@carl"},
}
GROUPS = {"db": ["ann", "bob"], "all": ["ann", "bob", "carl"]}


class TestToAGroup(FilterContract):
    plugin = Receivers
    options = {"users": USERS, "groups": GROUPS, "to": "db"}


class TestToALabel(FilterContract):
    plugin = Receivers
    options = {"users": USERS, "groups": GROUPS, "to": ["labels.team", "carl"], "otherwise": "all", "each": False}


def receivers(**options):
    return Receivers(ReceiversConfig.model_validate({"users": USERS, "groups": GROUPS} | options))


def given_by(plugin, message):
    """Gives who gets it, and why somebody does not."""
    out = [*plugin.filter(message)]
    return [one.labels["receiver"] for one in out if isinstance(one, Message)], [
        one.reason for one in out if isinstance(one, Buried)
    ]


def message(**fields):
    return Message(**{"source": "t", "title": "disk full"} | fields)


REVIEW = {"pull_request": {"requested_reviewers": [{"login": "ann-dev"}, {"login": "BOBBY"}, {"login": "ann-dev"}]}}


@pytest.mark.parametrize(
    ("options", "fields", "names"),
    [
        ({"to": "db"}, {}, ["ann", "bob"]),
        ({"to": ["carl", "db", "all"]}, {}, ["carl", "ann", "bob"]),
        ({"to": "labels.assignee"}, {"labels": {"assignee": " Ann; db,\ncarl,"}}, ["ann", "bob", "carl"]),
        ({"to": "labels.a.b"}, {"labels": {"a.b": "carl"}}, ["carl"]),
        ({"to": "labels.assignee", "as": "github"}, {"labels": {"assignee": "@bobby"}}, ["bob"]),
        ({"to": "labels.assignee", "as": "telegram"}, {"labels": {"assignee": "1234,carl"}}, ["ann", "carl"]),
        ({"to": "data.pull_request.requested_reviewers[*].login", "as": "github"}, {"data": REVIEW}, ["ann", "bob"]),
        ({"to": "data.people"}, {"data": {"people": ["ann", None, "carl"]}}, ["ann", "carl"]),
        ({"to": "data.people[0]"}, {"data": {"people": ["bob", "carl"]}}, ["bob"]),
        ({"to": "data[*].who[*]"}, {"data": [{"who": ["bob"]}, {}, {"who": ["carl", "bob"]}, 5]}, ["bob", "carl"]),
        ({"to": "data.chats", "as": "telegram"}, {"data": {"chats": [1234]}}, ["ann"]),
        ({"to": "{{ labels.team }}, carl"}, {"labels": {"team": "db"}}, ["ann", "bob", "carl"]),
        (
            {"to": [{"names": "data.by", "as": "github"}, "labels.team"]},
            {"data": {"by": "bobby"}, "labels": {"team": "carl"}},
            ["bob", "carl"],
        ),
        ({"to": ["labels.team", {"names": "ann"}], "as": "github"}, {"labels": {}}, ["ann"]),
        ({"to": "labels.assignee", "otherwise": "db"}, {}, ["ann", "bob"]),
        ({"to": "data.reviewers[*].login", "otherwise": ["carl"]}, {"data": {"reviewers": []}}, ["carl"]),
        ({"to": "data.a.b[*].c", "otherwise": ["carl"]}, {"data": [1]}, ["carl"]),
    ],
)
def test_who_is_meant(options, fields, names):
    assert given_by(receivers(**options), message(**fields)) == (names, [])


def test_each_gets_a_message_with_their_names_in_its_labels():
    first, second = receivers(to="db").filter(message(labels={"team": "db"}, key="k"))
    assert first.labels == {"team": "db", "receiver": "ann", "receiver_github": "Ann-Dev", "receiver_telegram": "1234",
                            "receiver_email": "ann@example.com"}  # fmt: skip
    assert second.labels["receiver_phone"] == "+4915112345678"
    assert "receiver_telegram" not in second.labels
    assert first.key == second.key == "k"


def test_all_of_them_get_one_message():
    (one,) = receivers(to="all", each=False).filter(message())
    assert one.labels == {
        "receiver": "ann, bob, carl",
        "receiver_github": "Ann-Dev, bobby",
        "receiver_telegram": "1234, @carl",
        "receiver_email": "ann@example.com, bob@example.com",
        "receiver_phone": "+4915112345678",
    }


def test_what_an_earlier_step_wrote_is_not_mixed_with_what_this_one_does():
    (one,) = receivers(to="carl").filter(message(labels={"receiver": "ann", "receiver_email": "ann@example.com", "a": "b"}))
    assert one.labels == {"a": "b", "receiver": "carl", "receiver_telegram": "@carl"}


def test_only_the_channels_that_are_asked_for_are_written_down_and_who_has_none_is_unknown():
    ann, carl, rest = receivers(to="all", channels=["telegram"]).filter(message())
    assert ann.labels == {"receiver": "ann", "receiver_telegram": "1234"}
    assert carl.labels["receiver"] == "carl"
    assert (rest.reason, rest.message.labels) == ("'bob' has no name on telegram", {"receiver_unknown": "name:bob"})


def test_those_who_are_known_get_theirs_and_a_copy_waits_for_the_others():
    plugin = receivers(to=["labels.by", "carl"], **{"as": "github"})
    *known, rest = plugin.filter(message(labels={"by": "dora,bobby,emil"}, text="x"))
    assert [one.labels["receiver"] for one in known] == ["bob", "carl"]
    assert rest.reason == "on github no user is called 'dora'; on github no user is called 'emil'"
    assert rest.message.labels == {"by": "dora,bobby,emil", "receiver_unknown": "github:dora, github:emil"}
    assert rest.message.text == "x"


def test_the_copy_goes_to_those_alone_who_were_unknown_once_they_are_known():
    options = {"to": ["labels.by", "db"], "as": "github"}
    *_, rest = receivers(**options).filter(message(labels={"by": "dora,bobby,emil"}))
    with pytest.raises(PermanentError, match=r"'dora'.*'emil'"):
        [*receivers(**options).filter(rest.message)]
    dora, again = receivers(**options, users=USERS | {"dora": {"github": "Dora"}}).filter(rest.message)
    assert dora.labels == {"by": "dora,bobby,emil", "receiver": "dora", "receiver_github": "Dora"}
    assert again.message.labels["receiver_unknown"] == "github:emil"


def test_a_group_that_is_named_a_thousand_times_is_looked_up_once(monkeypatch):
    plugin, asked = receivers(to="labels.team"), []
    look = plugin._looked_up
    monkeypatch.setattr(plugin, "_looked_up", lambda *name: asked.append(name) or look(*name))
    assert len([*plugin.filter(message(labels={"team": "db, DB,@db," * 1000}))]) == 2
    assert len(asked) == 1


def test_where_nobody_is_known_or_named_the_message_itself_is_buried():
    with pytest.raises(PermanentError, match=r"^no user or group is called 'Dora'$"):
        [*receivers(to="labels.by").filter(message(labels={"by": "Dora"}))]
    with pytest.raises(PermanentError, match=r"^it names nobody, and there is no `otherwise`$"):
        [*receivers(to=["labels.by", "data.by[*].login"]).filter(message())]


def test_a_name_of_another_system_is_none_of_ours():
    with pytest.raises(PermanentError, match="on github no user is called 'ann'"):
        [*receivers(to="labels.by", **{"as": "github"}).filter(message(labels={"by": "ann"}))]
    with pytest.raises(PermanentError, match="on github no user is called 'db'"):
        [*receivers(to="labels.by", **{"as": "github"}).filter(message(labels={"by": "db"}))]


def test_an_object_is_no_name():
    with pytest.raises(PermanentError, match=r"such as data\.reviewers\[\*\]\.login"):
        [*receivers(to="data.reviewers[*]").filter(message(data={"reviewers": [{"login": "ann"}]}))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "labls.assignee"}, "a user, a group, a place such as labels.assignee, or a template is expected"),
        ({"to": "dora"}, "a user, a group, a place"),
        ({"to": "{{ labls.x }}"}, "no field of a message is called 'labls'; did you mean 'labels'"),
        ({"to": []}, "`to` names nobody"),
        ({"to": "db", "as": "gitlab"}, "no user has a name on the channel 'gitlab'"),
        ({"to": "db", "channels": ["pager"]}, "no user has a name on the channel 'pager'"),
        ({"to": {"names": "labels.a", "as": "pager"}}, "no user has a name on the channel 'pager'"),
        ({"to": "db", "groups": {"db": ["ann", "dora"]}}, "group 'db' names 'dora', who is none of the users"),
        ({"to": "ann", "groups": {"db": []}}, "group 'db' is empty"),
        ({"to": "ann", "groups": {"Ann": ["bob"]}}, "bear one name"),
        ({"to": "ann", "otherwise": "dora"}, "names of users and groups are expected"),
        ({"to": "a", "users": {"a": {"name": "b"}}, "groups": {}}, "no channel is called 'name'"),
        ({"to": "a", "as": "x", "users": {"a": {"x": "Q"}, "b": {"x": "@q"}}, "groups": {}}, "the same name on the channel 'x'"),
        ({"to": "a", "users": {"a:b": {}}, "groups": {}}, "match"),
        ({"to": "a", "users": {"a": {"x": ""}}, "groups": {}}, "at least 1 character"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(options, words):
    with pytest.raises(ValidationError, match=words):
        receivers(**options)


NAMES = st.lists(st.sampled_from(["ann-dev", "BOBBY", "@ann-dev", "dora", "emil", "fritz"]), max_size=6)


@settings(max_examples=200, deadline=None)
@given(names=NAMES, each=st.booleans(), otherwise=st.booleans())
def test_everybody_who_is_named_is_a_receiver_once_or_told_of_as_unknown(names, each, otherwise):
    plugin = receivers(to="data.by[*]", each=each, otherwise=["carl"] if otherwise else [], **{"as": "github"})
    known = [*dict.fromkeys({"ann-dev": "ann", "bobby": "bob"}.get(name.lower().lstrip("@")) for name in names)]
    known = [name for name in known if name] or (["carl"] if otherwise and not names else [])
    unknown = {*names} & {"dora", "emil", "fritz"}
    try:
        got, why = given_by(plugin, message(data={"by": names}))
    except PermanentError as error:
        got, why = [], [str(error)]
    assert [name for one in got for name in one.split(", ")] == known
    assert len(got) == (len(known) if each else bool(known))
    assert all(f"'{name}'" in "".join(why) for name in unknown)
    assert bool(why) == bool(unknown or not known)


TABLES = {
    "with commas": 'name,github,telegram,groups\nann,Ann-Dev,1234,"db, web"\nbob,bobby,,db\n\n,,,\n',
    "as spreadsheets write it": "\ufeffname;github;telegram;groups\r\nann;Ann-Dev;1234;db web\r\nbob;bobby;;db\r\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_users_come_from_a_table(tmp_path, text):
    (tmp_path / "people.csv").write_text(text, encoding="utf-8", newline="")
    config = ReceiversConfig(file=tmp_path / "people.csv", groups={"web": ["bob"]}, to="web", **{"as": "github"})
    assert config.users == {"ann": {"github": "Ann-Dev", "telegram": "1234"}, "bob": {"github": "bobby"}}
    assert config.groups == {"db": ("ann", "bob"), "web": ("ann", "bob")}


def test_what_is_written_beside_a_table_comes_first(tmp_path):
    (tmp_path / "people.csv").write_text("name,chat\nann,1\nbob,2\n")
    config = ReceiversConfig(file=tmp_path / "people.csv", users={"ann": {"chat": 3}, "carl": {}}, to="ann")
    assert config.users == {"ann": {"chat": "3"}, "bob": {"chat": "2"}, "carl": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "needs a first line with the column `name`"),
        ("who,chat\nann,1\n", "needs a first line with the column `name`"),
        ("name,chat,chat\nann,1,2\n", "each column once"),
        ("name,chat\n,1\n", "line 2 of its table of users has no name"),
        ("name,chat\nann,1\nann,2\n", "line 3 of its table of users has a name that was there before"),
        ("name\n", "nobody is a user"),
        (f"name\n{'x' * 200_000}\n", "its table of users cannot be read: field larger"),
        ("name,Chat Id\nann,1\n", "match"),
        ("name,chat\na:b,1\n", "match"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, text, words):
    if text is not None:
        (tmp_path / "people.csv").write_text(text)
    with pytest.raises(ValidationError, match=words):
        ReceiversConfig(file=tmp_path / "people.csv", to="labels.by")
