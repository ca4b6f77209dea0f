"""Declared prompts and what their aliases stood for, and when: in the same file as the records of requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import orjson

from mainspring.llm.prompts import Alias, Prompt
from mainspring.llm.store import open_log

__all__ = ["PromptStore"]

_SCHEMA = """
create table if not exists prompt(
  id text primary key, name text not null, template text not null, variables text not null, model text not null,
  sampling text not null, schema text, created_at integer not null) without rowid;
create table if not exists prompt_alias(
  name text not null, alias text not null, prompt_id text not null, weight real not null, set_by text not null,
  set_at integer not null);
"""


class PromptStore:
    """Prompts by id, and their aliases in the order in which they were set.

    Args:
        path: the file; made with its folder.
        clock_ns: UTC nanoseconds since 1970.

    Raises:
        StoreError: MS-4180, the file cannot be opened.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._database = open_log(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def keep_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Write down every version of the prompts that is not yet."""
        now = self._clock_ns()
        rows = [
            (
                prompt.id,
                prompt.name,
                orjson.dumps([prompt.system, prompt.template]).decode(),
                orjson.dumps([msgspec.to_builtins(variable) for variable in prompt.variables]).decode(),
                prompt.model,
                orjson.dumps({"temperature": prompt.temperature, "max_tokens": prompt.max_tokens}).decode(),
                None if prompt.schema is None else orjson.dumps(prompt.schema).decode(),
                now,
            )
            for prompt in prompts
        ]
        self._database.executemany("insert or ignore into prompt values (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def prompts(self) -> list[Prompt]:
        """Every version of every prompt, oldest first."""
        sql = "select name, template, variables, model, sampling, schema from prompt order by created_at, id"
        found = []
        for name, template, variables, model, sampling, schema in self._database.execute(sql):
            system, text = orjson.loads(template)
            found.append(
                msgspec.convert(
                    {
                        "name": name,
                        "template": text,
                        "system": system,
                        "variables": orjson.loads(variables),
                        "model": model,
                        **orjson.loads(sampling),
                        "schema": None if schema is None else orjson.loads(schema),
                    },
                    Prompt,
                )
            )
        return found

    def keep_aliases(self, aliases: Sequence[Alias]) -> None:
        """Write down what an alias stands for from now on; nothing is ever overwritten."""
        rows = [(a.name, a.alias, a.prompt_id, a.weight, a.set_by, a.set_ns) for a in aliases]
        self._database.executemany("insert into prompt_alias values (?, ?, ?, ?, ?, ?)", rows)

    def aliases(self) -> list[Alias]:
        """Every alias as it was set, oldest first."""
        sql = "select name, alias, prompt_id, weight, set_by, set_at from prompt_alias order by set_at, rowid"
        return [Alias(*row) for row in self._database.execute(sql)]
