"""docs/api.md names every route of the API, every code of a refusal, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.testing.api_stage import ApiStage

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_every_route_is_named() -> None:
    named = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) ([^`]+)`", PAGE, re.MULTILINE))
    served = {(endpoint.method, endpoint.path.replace(":path", "")) for endpoint in ApiStage().endpoints}
    assert named == served


def test_every_code_is_named() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "orchestrator" / "api").glob("*.py"))
    raised = set(re.findall(r'Problem\(\s*(?:\d+|status),\s*"([a-z_.]+)"', sources))
    raised |= {f"{kind}.unknown" for kind in re.findall(r'unknown\("(\w+)"', sources)}
    named = set(re.findall(r"`([a-z]+(?:\.[a-z_]+)|busy)`", PAGE))
    assert raised - {"fault"} <= named, "docs/api.md lacks these"
    assert {code for code in named if code.split(".")[0] in ("token", "gateway", "registration", "reload")} <= raised
