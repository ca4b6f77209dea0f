"""Loading the user's app: the only place that imports the user's module."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from mainspring.config.settings import Settings
from mainspring.declare.app import App
from mainspring.declare.misuse import misused
from mainspring.errors import ConfigError, DeclarationError, MainspringError

__all__ = ["load_app"]


def load_app(settings: Settings) -> App:
    """Import the app that ``app = "module:variable"`` names, and give its declarations their names.

    Raises:
        ConfigError: MS-3008, the setting is missing or names nothing; MS-3009, the module has no such app.
        DeclarationError: MS-1031, the module fails when it is imported; or as its declarations raise.
    """
    found = settings.setting("app")
    reference = str(found.value) if found is not None else ""
    origin = found.origin if found is not None else ""
    module_name, _, variable = reference.partition(":")
    if not module_name or not variable:
        raise ConfigError(
            f"app = {reference!r} names no app" if reference else "no app is named",
            code="MS-3008",
            origin=origin,
            fix='write app = "flights:app" into mainspring.toml',
        )
    module = _import(module_name, settings.project, origin)
    app = getattr(module, variable, None)
    if not isinstance(app, App):
        raise ConfigError(
            f"{module_name} has no app called {variable!r}",
            code="MS-3009",
            origin=origin,
            fix=f'{variable} = App("{settings.project.name}") in {module_name}.py',
        )
    app.bind(vars(module))
    return app


def _import(name: str, project: Path, origin: str) -> object:
    folder = str(project)
    if sys.path[:1] != [folder]:
        sys.path[:] = [folder, *(place for place in sys.path if place != folder)]
    _forget_namesake(name.partition(".")[0], project)
    # An edit within a second that leaves a file's size would be taken for what was compiled before it.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(name)
    except MainspringError:
        raise
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise _failed(name, error, project) from error
        raise ConfigError(
            f"module {name!r} is not in the project", code="MS-3008", origin=origin, fix=f"write {name}.py"
        ) from error
    except Exception as error:
        raise _failed(name, error, project) from error
    finally:
        sys.dont_write_bytecode = before


def _forget_namesake(top: str, project: Path) -> None:
    """Let go of a module of that name which another project has brought into this process, where this one has its own.

    A notebook may open two checkouts of one app, whose modules are called alike.
    """
    known = getattr(sys.modules.get(top), "__file__", None)
    if known is None or Path(known).is_relative_to(project):
        return
    if (project / f"{top}.py").exists() or (project / top / "__init__.py").exists():
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]
        importlib.invalidate_caches()


def _failed(name: str, error: Exception, project: Path) -> DeclarationError:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(project)]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else name
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name}:{error.lineno}"
    if (misspelt := misused(error, place)) is not None:
        return misspelt
    return DeclarationError(
        f"module {name!r} fails when it is imported",
        code="MS-1031",
        why=f"{type(error).__name__}: {error}",
        origin=place,
        fix="mend that line",
    )
