"""The configuration: what `config/orchestrator.yml` may say.

`read_settings` turns text and an environment into `Settings` and touches nothing else. Paths are kept as written, that
is relative to the working directory.
"""

from __future__ import annotations

from orchestrator.settings.model import FACTORY_PASSWORD, FreeSwitchSettings, Settings, guarded
from orchestrator.settings.reader import DEFAULT_FILE, load_settings, read_secret, read_settings
from orchestrator.settings.values import Address, InvalidValue, Listen

__all__ = [
    "DEFAULT_FILE",
    "FACTORY_PASSWORD",
    "Address",
    "FreeSwitchSettings",
    "Listen",
    "InvalidValue",
    "Settings",
    "guarded",
    "load_settings",
    "read_secret",
    "read_settings",
]
