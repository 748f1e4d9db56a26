"""What comes with the package: the files of others are those that the table names, and nothing needs the internet."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest

import orchestrator.console
from orchestrator.console.assets import assets

STATIC = Path(orchestrator.console.__file__).parent / "static"
VENDOR = STATIC / "vendor"


def table() -> list[dict[str, str]]:
    with (VENDOR / "vendored.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_each_file_of_others_is_the_one_that_the_table_names() -> None:
    found = {path.name: path for path in VENDOR.iterdir() if path.suffix in (".js", ".css")}
    assert set(found) == {row["file"] for row in table()}
    for row in table():
        assert hashlib.sha256(found[row["file"]].read_bytes()).hexdigest() == row["sha256"], row["file"]


def test_each_file_of_others_says_its_version_and_has_its_licence() -> None:
    for row in table():
        package = row["package"].partition(".")[0]
        assert "Permission" in (VENDOR / f"LICENSE.{package}.txt").read_text(), row["file"]
    assert f'version="{version_of("htmx.org")}"' in (VENDOR / "htmx.min.js").read_text()
    assert f"(v{version_of('uplot')})" in (VENDOR / "uPlot.iife.min.js").read_text()


def version_of(package: str) -> str:
    (version,) = {row["version"] for row in table() if row["package"] == package}
    return version


@pytest.mark.parametrize("name", ["console.css", "console.js", "icon.svg", "vendor/htmx.min.js"])
def test_files_are_served_from_memory_by_name(name: str) -> None:
    asset = assets()[name]
    assert asset.data == (STATIC / name).read_bytes()
    assert asset.url == f"/static/{name}?{hashlib.sha256(asset.data).hexdigest()[:12]}"


def test_what_is_not_for_browsers_is_not_served() -> None:
    assert "vendor/vendored.tsv" not in assets()
    assert {name.rpartition(".")[2] for name in assets()} == {"css", "js", "svg", "txt"}


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in [*STATIC.glob("*.css"), *STATIC.glob("*.js"), *STATIC.parent.glob("templates/*.html")]:
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|@import|\burl\(", text), path.name


def test_no_template_has_script_or_style_in_it() -> None:
    """The content security policy refuses both; `|safe` would let markup of strangers in."""
    for path in STATIC.parent.glob("templates/*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe\b", text), (
            path.name
        )
