"""Broken variants of the plugin, made by a test: what goes wrong with plugins in the field.

Each is a distribution of its own name, so that all can be installed side by side. The fifth thing that goes
wrong, bad settings in the configuration, needs no variant.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_HERE = Path(__file__).parent

#: By the variant's name: the file to change, what stands there, what is put in its place.
_FAULTS = {
    "acmeimport": ("__init__.py", "from __future__ import annotations\n", None),
    "acmeversion": ("venue.py", "api_version=1", "api_version=99"),
    "acmeraises": ("__init__.py", "    return [ACME]", '    raise RuntimeError("no licence file")'),
    "acmeclash": ("venue.py", 'name="acme"', 'name="binance"'),
}

NAMES = tuple(_FAULTS)


def make(name: str, into: Path) -> Path:
    """Return the folder of a broken distribution `pricefeedd-NAME`, made below `into`; "acme" is the good one."""
    target = into / name
    shutil.copytree(_HERE / "pricefeedd_acme", target / f"pricefeedd_{name}", ignore=_no_caches)
    shutil.copy(_HERE / "README.md", target)
    shutil.copy(_HERE / "pyproject.toml", target)
    if name in _FAULTS:
        file, old, new = _FAULTS[name]
        path = target / f"pricefeedd_{name}" / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r} to break"
        path.write_text(
            text.replace(old, f"{old}\nimport acme_client_that_is_not_there\n" if new is None else new)
        )
    for path in [*target.rglob("*.py"), target / "pyproject.toml"]:
        text = path.read_text().replace("pricefeedd_acme", f"pricefeedd_{name}")
        text = text.replace("pricefeedd-acme", f"pricefeedd-{name}").replace("acme = ", f"{name} = ")
        path.write_text(
            text.replace('name="acme"', f'name="{name}"').replace('venue="acme"', f'venue="{name}"')
        )
    return target


def _no_caches(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}
