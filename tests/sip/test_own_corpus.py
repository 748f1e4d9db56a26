"""Messages of our own for the kinds of RFC 4475 and RFC 5118: what the parser refuses, and with which status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sip.message import MalformedMessage, parse_message

FOLDER = Path(__file__).parent / "corpus"
MESSAGES: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))["messages"]


@pytest.mark.parametrize("verdict", MESSAGES, ids=lambda verdict: verdict["name"])
def test_the_parser_decides_as_the_verdict_says(verdict: dict[str, Any]) -> None:
    data = (FOLDER / verdict["file"]).read_bytes()
    if "parser" in verdict:
        with pytest.raises(MalformedMessage) as refused:
            parse_message(data)
        assert refused.value.sip_status == verdict["parser"]
    else:
        parse_message(data)
