"""A module imports from its own layer or a lower one; a plugin imports only what plugins are promised."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    1: ("errors", "events", "instruments"),
    2: ("rest", "rules", "codec", "venue", "source", "envelope", "hookspecs"),
    3: (
        *(
            "gate",
            "lines",
            "trade_line",
            "candle_line",
            "book_line",
            "stats",
            "health",
            "histogram",
            "clock_offset",
            "book",
            "candles",
            "derive",
            "breaker",
            "limits",
            "wire",
            "frames",
        ),
        *("config", "loader"),
    ),
    4: (
        *(
            "mailbox",
            "message",
            "topic",
            "views",
            "bus",
            "loop_watch",
            "transport",
            "session",
            "subscriptions",
            "supervisor",
            "plan",
            "demand",
            "market",
            "wants",
            "keepers",
            "served",
            "on_demand",
            "runtime",
            "explain",
            "backfill",
            "lanes",
            "recording",
        ),
        *("notify", "logs", "store", "spool", "leader"),
        *("accounts", "kept", "inlet", "mirror", "mirrored", "registry", "offer", "restored", "write_behind"),
        *("roster", "term", "reload"),
    ),
    5: ("web",),
    6: ("service", "cli", "client", "inprocess", "demo"),
}

#: `testing` stands beside the layers: it serves plugin authors, and looks no higher than what runs a venue.
TESTING = "testing"
TESTING_MAY = 4

#: The one command that plays with plugins, for their authors.
TESTING_FOR = ("cli/plugin_test.py",)

#: What plugins may import of us.
PLUGIN_MAY = 2

LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}


def imported(source: str, *, package: str = "pricefeedd") -> Iterator[tuple[int, str]]:
    """Yield line and name of each module of ours that a source imports, whether at the top or within."""
    modules = {*LAYER_OF, TESTING}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, f"a relative import of {node.module or '.'}"
                continue
            # `from pricefeedd import wire` means the module; `from pricefeedd import __version__` does not.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if (
                parts[0] == package
                and len(parts) > 1
                and (parts[1] in modules or not parts[1].startswith("_"))
            ):
                yield node.lineno, parts[1]


def broken_rules(source: str, module: str, *, may_test: bool = False) -> list[str]:
    """Return what is wrong with the imports of one of our modules, by line."""
    layer = TESTING_MAY if module == TESTING else LAYER_OF[module]
    found = []
    for line, target in imported(source):
        if target == TESTING and (module == TESTING or may_test):
            continue
        if target not in LAYER_OF:
            found.append(f"{line}: {module} imports {target}, which has no layer that may be imported")
        elif LAYER_OF[target] > layer:
            found.append(f"{line}: {module} (layer {layer}) imports {target} (layer {LAYER_OF[target]})")
    return list(dict.fromkeys(found))


def plugin_broken_rules(source: str) -> list[str]:
    """Return what is wrong with the imports of a plugin, by line."""
    return [
        f"{line}: a plugin imports {target}"
        for line, target in imported(source)
        if target != TESTING and LAYER_OF.get(target, 99) > PLUGIN_MAY
    ]


def modules() -> list[Path]:
    return sorted(path for path in (ROOT / "pricefeedd").rglob("*.py") if path.parent.name != "__pycache__")


def top_module(path: Path) -> str:
    return path.relative_to(ROOT / "pricefeedd").parts[0].removesuffix(".py")


def plugin_modules() -> list[Path]:
    first_party = list(ROOT.glob("plugins/*/pricefeedd_*/**/*.py"))
    templates = ROOT.glob("pricefeedd/templates/*/pricefeedd_*/**/*.py.in")
    return sorted([*first_party, *templates, *ROOT.glob("tests/data/thirdparty/pricefeedd_*/**/*.py")])


def test_every_module_has_a_layer() -> None:
    without = {top_module(path) for path in modules()} - {*LAYER_OF, TESTING, "__init__"}

    assert not without, f"give these a layer here and in the style guide: {sorted(without)}"


def test_modules_import_downwards() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in modules()
        if top_module(path) in {*LAYER_OF, TESTING}
        for problem in broken_rules(
            path.read_text(),
            top_module(path),
            may_test=path.relative_to(ROOT / "pricefeedd").as_posix() in TESTING_FOR,
        )
    ]

    assert not found, "\n".join(found)


def test_plugins_import_the_plugin_api_alone() -> None:
    assert plugin_modules(), "no plugin was looked at"
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in plugin_modules()
        for problem in plugin_broken_rules(path.read_text())
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "module", "line"),
    [
        ("import trio\nfrom pricefeedd.bus import Bus\n", "gate", "2: gate (layer 3) imports bus (layer 4)"),
        ("from pricefeedd import wire\n", "codec", "1: codec (layer 2) imports wire (layer 3)"),
        ("import pricefeedd.web.app\n", "session", "1: session (layer 4) imports web (layer 5)"),
        ("def f():\n    from pricefeedd.cli import main\n", "web", "2: web (layer 5) imports cli (layer 6)"),
        (
            "from pricefeedd.testing import FakeVenue\n",
            "service",
            "1: service imports testing, which has no layer that may be imported",
        ),
        ("from pricefeedd.web.app import x\n", "testing", "1: testing (layer 4) imports web (layer 5)"),
    ],
)
def test_an_import_upwards_is_named(source: str, module: str, line: str) -> None:
    assert broken_rules(source, module) == [line]


def test_downward_and_foreign_imports_pass() -> None:
    source = (
        "import trio\nfrom pricefeedd import __version__, wire\nfrom pricefeedd.errors import DecodeError\n"
    )

    assert broken_rules(source, "bus") == []


def test_a_plugin_that_reaches_inside_is_named() -> None:
    source = "from pricefeedd.codec import BaseCodec\nfrom pricefeedd.transport import Dialer\n"

    assert plugin_broken_rules(source) == ["2: a plugin imports transport"]
