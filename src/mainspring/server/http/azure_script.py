"""Azure ML's entry script: ``init()`` once, ``run(data)`` for each request, where the platform names one."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from mainspring.errors import ConfigError, UserCodeError
from mainspring.protocols.http import Fault

__all__ = ["EntryScript", "entry_script"]

_NAME = "azureml_entry_script"
_TIMEOUT_MS = 3_600_000
"""The platform's default of ``SCORING_TIMEOUT_MS``."""


def entry_script(environment: Mapping[str, str], told: Callable[[str], None]) -> EntryScript | None:
    """The script of ``AZUREML_ENTRY_SCRIPT``, below ``AML_APP_ROOT``, after its ``init()``; None when none is named.

    Raises:
        ConfigError: MS-3103, it is not there, or a variable is no number.
        UserCodeError: MS-2520, it has no ``run``, or fails at its start.
    """
    named = environment.get("AZUREML_ENTRY_SCRIPT")
    if not named:
        return None
    path = Path(environment.get("AML_APP_ROOT", "."), named)
    if not path.is_file():
        raise ConfigError(
            f"the entry script {named!r} is not there",
            code="MS-3103",
            origin="AZUREML_ENTRY_SCRIPT",
            fix="name a file below AML_APP_ROOT, or no script: the app's model answers then",
        )
    limit = environment.get("SCORING_TIMEOUT_MS") or str(_TIMEOUT_MS)
    if not limit.isdecimal() or not int(limit):
        raise ConfigError(
            f"SCORING_TIMEOUT_MS is {limit!r}",
            code="MS-3103",
            origin="SCORING_TIMEOUT_MS",
            fix=f"write milliseconds: {_TIMEOUT_MS}",
        )
    return EntryScript(_started(path), int(limit) / 1000, told)


class EntryScript:
    """A script at work, in one thread of its own: ``run`` need not be safe to call from several.

    Args:
        module: the script.
        timeout_s: seconds that one call may take; a call that takes longer keeps the thread until it ends.
        told: told of its faults, which clients do not see.
    """

    def __init__(self, module: ModuleType, timeout_s: float, told: Callable[[str], None]) -> None:
        self._run: Callable[[str], object] = module.run
        self._timeout_s = timeout_s
        self._told = told
        self._thread = ThreadPoolExecutor(1, _NAME)

    async def run(self, data: str) -> bytes:
        """What the script answers, as JSON; bytes as they are.

        Raises:
            Fault: 500, it fails, takes too long, or answers what has no form in JSON.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await loop.run_in_executor(self._thread, self._run, data)
            return _written(found)
        except TimeoutError:
            self._told(f"the entry script took longer than {self._timeout_s:g} s")
            raise Fault(500, "the script took too long") from None
        except Exception as error:
            self._told(f"the entry script failed: {type(error).__name__}: {error}")
            raise Fault(500, "the script failed") from None

    def close(self) -> None:
        """Take no more calls; one that is under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _written(found: object) -> bytes:
    return found if isinstance(found, bytes) else orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def _started(path: Path) -> ModuleType:
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # the platform's scripts import what lies beside them
    spec = importlib.util.spec_from_file_location(_NAME, path)
    why = "it is no Python file"
    try:
        if spec is not None and spec.loader is not None:
            module: Any = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            getattr(module, "init", lambda: None)()
            if callable(getattr(module, "run", None)):
                found: ModuleType = module
                return found
            why = "it has no function run(data)"
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    raise UserCodeError(
        "the entry script does not start",
        code="MS-2520",
        why=why,
        origin="AZUREML_ENTRY_SCRIPT",
        fix="mend the script: init() is called once, run(data) for each request",
    )
