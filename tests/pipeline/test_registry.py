import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import pipeline.registry
from pipeline import Consumer, Filter, NoOptions
from pipeline.plugin import Producer
from pipeline.registry import (
    AmbiguousPluginError,
    BrokenPluginError,
    MissingExtraError,
    Registry,
    UnknownPluginError,
    WrongKindError,
    did_you_mean,
    kind_of,
)

CONSUMER = """
from pipeline import Consumer, Message, NoOptions

class {name}(Consumer[NoOptions]):
    def consume(self, message: Message) -> None:
        pass
"""
FILTER = """
from pipeline import Filter, Message, NoOptions

class {name}(Filter[NoOptions]):
    def filter(self, message: Message):
        return [message]
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    directory = tmp_path / "plugins"
    directory.mkdir()
    return directory


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a distribution of one module: a real dist-info directory on sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def installed(distribution: str, group: str, entry: str, module: str, source: str) -> None:
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[siftbell.{group}]\n{entry}\n")
        (site / f"{module}.py").write_text(source)

    yield installed
    for name in [name for name, module in sys.modules.items() if str(site) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_built_ins_are_found_by_their_entry_points() -> None:
    registry = Registry()
    assert {"http", "prometheus"} <= set(registry.names("producer"))
    assert {"match", "render"} <= set(registry.names("filter"))
    assert {"file", "log", "telegram", "webhook"} <= set(registry.names("consumer"))


def test_an_installed_distribution_offers_a_plugin(install) -> None:
    install("acme-pager", "consumers", "pager = acme_pager:Pager", "acme_pager", CONSUMER.format(name="Pager"))
    registry = Registry()
    assert "pager" in registry.names("consumer")
    assert registry.find("consumer", "pager").__name__ == "Pager"
    assert registry.find("consumer", "pager") is registry.find("consumer", "pager")


def test_nothing_is_imported_before_it_is_asked_for(install) -> None:
    install("acme-pager", "consumers", "pager = acme_pager:Pager", "acme_pager", "raise RuntimeError")
    assert "pager" in Registry().names("consumer")
    assert "acme_pager" not in sys.modules


def test_a_name_of_two_distributions_names_both(install) -> None:
    install("acme-pager", "consumers", "pager = acme_pager:Pager", "acme_pager", CONSUMER.format(name="Pager"))
    install("other-pager", "consumers", "pager = other_pager:Pager", "other_pager", CONSUMER.format(name="Pager"))
    with pytest.raises(AmbiguousPluginError) as caught:
        Registry().find("consumer", "pager")
    assert caught.value.text == (
        "consumer 'pager' is offered twice: by distribution 'acme-pager' (acme_pager:Pager)"
        " and distribution 'other-pager' (other_pager:Pager)"
    )


def test_a_missing_extra_says_what_to_install(install) -> None:
    install("acme-pager", "consumers", "pager = acme_pager:Pager [sms,voice]", "acme_pager", "import no_such_module")
    with pytest.raises(MissingExtraError) as caught:
        Registry().find("consumer", "pager")
    assert str(caught.value) == "consumer 'pager' needs: pip install \"acme-pager[sms,voice]\""


def test_a_missing_module_without_an_extra_is_named(install) -> None:
    install("acme-pager", "consumers", "pager = acme_pager:Pager", "acme_pager", "import no_such_module")
    with pytest.raises(MissingExtraError) as caught:
        Registry().find("consumer", "pager")
    assert str(caught.value) == "consumer 'pager' of 'acme-pager' needs the module 'no_such_module', which is not installed"


@pytest.mark.parametrize(
    ("target", "source", "text"),
    [
        ("acme_gone:Pager", "", "consumer 'pager' of 'acme-pager' cannot be imported: No module named 'acme_gone'"),
        ("acme_pager:Pagr", "", "consumer 'pager' of 'acme-pager' cannot be loaded: 'acme_pager' has no 'Pagr'"),
        ("acme_pager:Pager", "Pager = 3", "'pager' is not a plugin class"),
        ("acme_pager:Pager", "import sys\nsys.exit(3)", "acme_pager.py:2: SystemExit: 3"),
    ],
)
def test_a_broken_entry_point_says_how(install, target: str, source: str, text: str) -> None:
    install("acme-pager", "consumers", f"pager = {target}", "acme_pager", source)
    with pytest.raises(BrokenPluginError) as caught:
        Registry().find("consumer", "pager")
    assert str(caught.value).endswith(text)


def test_an_entry_point_in_the_wrong_group_is_the_wrong_kind(install) -> None:
    install("acme-pager", "filters", "pager = acme_pager:Pager", "acme_pager", CONSUMER.format(name="Pager"))
    with pytest.raises(WrongKindError, match=r"^'pager' is a consumer, not a filter$"):
        Registry().find("filter", "pager")


def test_an_entry_point_without_a_distribution_is_named_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("pager", "no_such_package.pager:Pager", "siftbell.consumers")
    monkeypatch.setattr(pipeline.registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    with pytest.raises(BrokenPluginError, match="consumer 'pager' of 'no_such_package' cannot be imported"):
        Registry().find("consumer", "pager")


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownPluginError) as caught:
        Registry().find("producer", "promethus")
    assert (caught.value.text, caught.value.hint) == ("no producer is called 'promethus'", "did you mean 'prometheus'?")


def test_a_name_near_to_nothing_gets_the_list() -> None:
    with pytest.raises(UnknownPluginError, match=r"no filter is called 'zzzzzz': there are .*match"):
        Registry().find("filter", "zzzzzz")


def test_where_there_is_no_plugin_at_all_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.registry, "entry_points", lambda **_: [])
    with pytest.raises(UnknownPluginError, match="no filter is called 'match': none is installed"):
        Registry().find("filter", "match")


def test_a_name_of_another_kind_says_which() -> None:
    with pytest.raises(WrongKindError, match=r"^'telegram' is a consumer, not a filter$"):
        Registry().find("filter", "telegram")


def test_a_file_offers_a_plugin_of_its_own_name(plugins: Path) -> None:
    (plugins / "ticket.py").write_text(CONSUMER.format(name="Anything"))
    registry = Registry([plugins])
    assert "ticket" in registry.names("consumer")
    assert "ticket" not in registry.names("filter")
    assert registry.find("consumer", "ticket").__name__ == "Anything"
    assert Registry([plugins]).find("consumer", "ticket") is registry.find("consumer", "ticket")


def test_a_file_may_hold_several_kinds(plugins: Path) -> None:
    (plugins / "ticket.py").write_text(CONSUMER.format(name="Out") + FILTER.format(name="Through"))
    registry = Registry([plugins])
    assert registry.find("consumer", "ticket").__name__ == "Out"
    assert registry.find("filter", "ticket").__name__ == "Through"
    with pytest.raises(WrongKindError, match="'ticket' is a filter, not a producer"):
        registry.find("producer", "ticket")


def test_two_plugins_of_a_kind_in_one_file_are_one_too_many(plugins: Path) -> None:
    (plugins / "ticket.py").write_text(CONSUMER.format(name="One") + CONSUMER.format(name="Two"))
    with pytest.raises(AmbiguousPluginError, match=r"ticket.py \(One\) and .*ticket.py \(Two\)"):
        Registry([plugins]).find("consumer", "ticket")


def test_a_file_and_an_entry_point_of_one_name_are_named_both(plugins: Path) -> None:
    (plugins / "log.py").write_text(CONSUMER.format(name="Mine"))
    with pytest.raises(AmbiguousPluginError, match=r"log.py \(Mine\) and distribution 'siftbell'"):
        Registry([plugins]).find("consumer", "log")


def test_a_file_of_another_kind_does_not_stand_in_the_way(plugins: Path) -> None:
    (plugins / "log.py").write_text(FILTER.format(name="Log"))
    assert Registry([plugins]).find("filter", "log").__name__ == "Log"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\nraise RuntimeError('no')", "{file}:2: RuntimeError: no"),
        ("def f():\n    raise ValueError\n\nf()", "{file}:2: ValueError"),
        ("x = (\n", "{file}:1: SyntaxError: '(' was never closed"),
        ("import no_such_module", "{file}:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit()", "{file}:2: SystemExit"),
        ("import json\n\njson.loads('{')", "{file}:3: JSONDecodeError: "),
    ],
)
def test_a_broken_file_names_its_line_and_is_nobody_elses_problem(plugins: Path, source: str, text: str) -> None:
    (plugins / "broken.py").write_text(source)
    (plugins / "fine.py").write_text(CONSUMER.format(name="Fine"))
    registry = Registry([plugins])
    with pytest.raises(BrokenPluginError) as caught:
        registry.find("consumer", "broken")
    assert str(caught.value).startswith(text.format(file=plugins / "broken.py"))
    assert registry.find("consumer", "fine").__name__ == "Fine"
    assert "broken" not in registry.names("consumer")
    assert [str(error) for error in registry.broken()] == [str(caught.value)]


def test_files_that_begin_with_an_underscore_are_not_plugins(plugins: Path) -> None:
    (plugins / "_shared.py").write_text("raise RuntimeError")
    assert Registry([plugins]).broken() == []


def test_an_abstract_class_in_a_file_is_not_its_plugin(plugins: Path) -> None:
    (plugins / "ticket.py").write_text(
        "from pipeline import Consumer, NoOptions\nclass Half(Consumer[NoOptions]): ...\n"
        "class Whole(Half):\n    def consume(self, message): ...\n"
    )
    assert Registry([plugins]).find("consumer", "ticket").__name__ == "Whole"


def test_a_class_by_its_module(install) -> None:
    install("acme", "consumers", "unused = acme_mod:Pager", "acme_mod", CONSUMER.format(name="Pager"))
    assert Registry().find("consumer", "acme_mod:Pager").__name__ == "Pager"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("no_such_module:X", UnknownPluginError, "no module is called 'no_such_module': is its directory in PYTHONPATH?"),
        ("acme_mod.inner:X", UnknownPluginError, "no module is called 'acme_mod.inner': is its directory in PYTHONPATH?"),
        ("acme_mod:Pagr", UnknownPluginError, "module 'acme_mod' has no class 'Pagr': did you mean 'Pager'?"),
        ("acme_mod:NAME", BrokenPluginError, "'acme_mod:NAME' is not a plugin class"),
        ("acme_mod:Half", BrokenPluginError, "consumer 'acme_mod:Half' is not complete: Half does not define consume"),
    ],
)
def test_a_reference_that_leads_nowhere(install, name: str, error: type[Exception], text: str) -> None:
    source = CONSUMER.format(name="Pager") + "\nNAME = 'x'\nclass Half(Consumer[NoOptions]): ...\n"
    install("acme", "consumers", "unused = acme_mod:Pager", "acme_mod", source)
    with pytest.raises(error) as caught:
        Registry().find("consumer", name)
    assert str(caught.value) == text


def test_a_reference_to_a_module_that_does_not_import(install) -> None:
    install("acme", "consumers", "unused = acme_mod:Pager", "acme_mod", "1 / 0")
    with pytest.raises(BrokenPluginError, match=r"'acme_mod': .*acme_mod.py:1: ZeroDivisionError"):
        Registry().find("consumer", "acme_mod:Pager")


def test_a_reference_to_a_module_that_needs_another(install) -> None:
    install("acme", "consumers", "unused = acme_mod:Pager", "acme_mod", "import no_such_module")
    with pytest.raises(MissingExtraError, match="'acme_mod:Pager' needs the module 'no_such_module', which is not installed"):
        Registry().find("consumer", "acme_mod:Pager")


def test_kinds_are_told_by_base_class() -> None:
    assert kind_of(Consumer) == "consumer"
    assert kind_of(Filter) == "filter"
    assert kind_of(Producer) == "producer"
    assert kind_of(NoOptions) is None
    assert kind_of("log") is None


def test_did_you_mean_overlooks_case_and_gives_nothing_for_what_is_far() -> None:
    assert did_you_mean("LOG", ["log"]) == "did you mean 'log'?"
    assert did_you_mean("zzz", ["log"]) == ""


@pytest.mark.parametrize(
    ("alertmanager", "ours"),
    [
        ("group_by", "by"),
        ("group_wait", "wait"),
        ("group_interval", "interval"),
        ("repeat_interval", "repeat"),
        ("send_resolved", "resolved"),
        ("intervall", "interval"),
    ],
)
def test_what_alertmanager_calls_an_option_leads_to_the_one_that_is_meant(alertmanager: str, ours: str) -> None:
    assert (
        did_you_mean(alertmanager, ["by", "wait", "interval", "repeat", "resolved", "resolve_after", "inhibit"])
        == f"did you mean '{ours}'?"
    )
