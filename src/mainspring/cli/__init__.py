"""The command line: one small module a verb, imported only when it is used."""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Sequence

import click

from mainspring.errors import MainspringError

__all__ = ["VERBS", "cli", "main", "module_of"]

VERBS = {
    "new": "make a project that passes its tests",
    "import": "a Feast repository's definitions as a project, and a report",
    "dev": "the whole loop: build what is stale, serve, watch files, console",
    "check": "types, schemas, cycles, settings, secrets; reads only",
    "plan": "what would change, as a diff; exits 2 if anything would",
    "apply": "carry the plan out",
    "run": "one source, feature view, model, index, evaluation, step or pipeline, now",
    "step": "one step by itself: values and folders in, a folder out; for orchestrators",
    "serve": "the production server only",
    "build": "what ships the app: an image, objects for a cluster, pipelines, files for CI",
    "deploy": "bring the app to where it runs, and look after it there",
    "ask": "talk to an assistant in the terminal",
    "score": "a whole table scored with a model, into a file",
    "show": "list or describe anything",
    "tables": "what is kept, and removing it; who writes an object store's",
    "why": "why a step ran again, or did not",
    "diff": "what differs between two runs",
    "logs": "what a step printed",
    "gate": "whether the newest version of a model may take over; exits 5 when not",
    "report": "what gates found, as the comment on a pull request",
    "ci": "the generated CI pipelines: verify them, and whether drift may start a training",
    "promote": "make a model version the champion",
    "rollback": "give an endpoint its previous champion, or an index its version, back",
    "bench": "your own index in every vector store, your own endpoint under load",
    "conditions": "every choice of an adapter, and why",
    "doctor": "this machine: versions, cores, disk, ports, each fault with its remedy",
}


def module_of(verb: str) -> str:
    """The module of a verb; one called ``import`` could be imported by nobody."""
    return f"mainspring.cli.{'import_' if verb == 'import' else verb}"


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(module_of(cmd_name)).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest verb when there is no such one."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise importlib.import_module("mainspring.cli.fault").unknown_verb(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Tells a reader that has gone from any other broken pipe, both of which click would take for a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            if _reader_is_gone():
                raise _NobodyReads from error
            raise importlib.import_module("mainspring.cli.fault").unexpected(error) from error

    def get_help(self, ctx: click.Context) -> str:
        """Plain text, laid out here: click's formatter costs twenty modules that no other verb needs."""
        width = max(len(verb) for verb in VERBS)
        verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
        return f"""Usage: mainspring VERB [OPTIONS] [ARGUMENTS]...

Mainspring: declare it once, run it anywhere, see why.

Verbs:
{verbs}

Options:
  -h, --help     show this text, or with a verb that verb's
  --version      show the version
"""


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"mainspring {importlib.import_module('importlib.metadata').version('mainspring')}")
        ctx.exit()


def _show_help(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(ctx.get_help(), nl=False)
        ctx.exit()


@click.group(cls=_Verbs, add_help_option=False, invoke_without_command=True)
@click.option("-h", "--help", is_flag=True, is_eager=True, expose_value=False, callback=_show_help)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
@click.pass_context
def cli(ctx: click.Context) -> int:
    """Mainspring: declare it once, run it anywhere, see why."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), nl=False)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status.

    Exit statuses: 0 done, 1 the user's code or data failed, 2 usage (or a difference, for ``plan``),
    3 configuration, 4 a service could not be reached, 5 refused by a gate or quota, 70 our bug, 130 stopped.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    status = _run(words)
    if _reader_is_gone():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
    sys.exit(status)


class _NobodyReads(Exception):  # noqa: N818 - no error
    """Whoever read our output has gone, as ``head`` does; click would make it a failure."""


def _reader_is_gone() -> bool:
    """Whether it is our output that has no reader: a pipe to a worker that died breaks, too."""
    if sys.stdout is None:
        return False
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
        return any(found & select.POLLERR for _, found in watched.poll(0))
    except (OSError, ValueError):
        return False  # no file: a test's, or closed


def _run(words: list[str]) -> int:
    verbose, as_json = "-v" in words or "--verbose" in words, "--json" in words
    try:
        status = cli.main(args=words, prog_name="mainspring", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except MainspringError as error:
        if verbose:
            raise
        return _failed(error, as_json)
    except click.ClickException as error:
        return _failed(importlib.import_module("mainspring.cli.fault").misused(error), as_json)
    except (KeyboardInterrupt, click.Abort):
        print("stopped", file=sys.stderr)
        return 130
    except (_NobodyReads, BrokenPipeError):
        return 0
    except Exception as error:
        if verbose:
            raise
        return _failed(importlib.import_module("mainspring.cli.fault").unexpected(error), as_json)


def _failed(error: MainspringError, as_json: bool) -> int:
    if as_json and not _reader_is_gone():
        importlib.import_module("mainspring.cli.output").emit({"error": error.as_dict()})
    print(error.lines(), file=sys.stderr)
    return error.exit_status
