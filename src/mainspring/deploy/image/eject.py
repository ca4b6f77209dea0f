"""A Dockerfile and a compose file of the same image, for those who want to keep them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping

from mainspring.choose.services import Services
from mainspring.deploy.image.build import PORT, base_registry, environment_of, image_store, run_settings
from mainspring.deploy.image.files import AppFile, app_files, left_out
from mainspring.deploy.image.lock import read_lock
from mainspring.deploy.image.manifest import spelled
from mainspring.deploy.image.transport import Told
from mainspring.deploy.release import FILE, model_folder, release_of
from mainspring.errors import StoreError, UsageError

__all__ = ["eject"]

_NAMES = ("Dockerfile", ".dockerignore", "compose.yaml")
_MODELS = "image/models"

_DOCKERFILE = """\
# Ejected by `mainspring build --eject`: the image that `mainspring build --image` makes without a daemon.
# It is yours now: Mainspring does not read it.
FROM {base} AS deps
COPY requirements.lock {wheels}/build/
RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --only-binary :all: --require-hashes \\
    {links}--target /app/deps/site-packages --requirement /build/requirements.lock \\
 && python3 -m compileall -q --invalidation-mode unchecked-hash /app/deps \\
 && rm -rf /app/deps/site-packages/bin

FROM {base}
COPY --from=deps /app/deps /app/deps
COPY image/models /app/models
{source}
{environment}
USER 10001:10001
WORKDIR /app/src
EXPOSE {port}
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "mainspring"]
CMD ["serve"]
"""

_COMPOSE = """\
# Ejected by `mainspring build --eject`.
services:
  {name}:
    build: .
    command: ["serve"]
    ports: ["127.0.0.1:{port}:{port}"]
    read_only: true
    tmpfs: ["/tmp:mode=1777,size=1g"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: 30s
    healthcheck:
      test: ["CMD", "python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/v2/health/ready')"]
      interval: 10s
      timeout: 5s
      start_period: 60s
"""


def eject(services: Services, told: Told) -> list[str]:
    """Write the files into the project, with the champions' folders beside them; what was written.

    Raises:
        UsageError: MS-2705, a file is there already.
        ConfigError: MS-3089, MS-3093 to MS-3095; StoreError: MS-4171, the project cannot be written.
    """
    project, settings = services.project, services.settings
    there = [name for name in _NAMES if (project / name).exists()]
    if there:
        raise UsageError(
            f"{there[0]} is there already",
            code="MS-2705",
            why="what was ejected is yours, and is not written over",
            origin=project.name,
            fix=f"move it away: mv {there[0]} {there[0]}.old",
        )
    read_lock(project)
    runs = run_settings(settings)
    base = base_registry(settings).at
    release, store = release_of(services), image_store(services)
    wheels = settings.words("image.wheels")
    try:
        target = project / _MODELS
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, artifact in release.models.items():
            told(f"writing {_MODELS}/{name}")
            shutil.copytree(model_folder(services, artifact, store.folder("models")), target / name)
        (target / FILE).write_bytes(spelled(release))
        texts = {
            "Dockerfile": _DOCKERFILE.format(
                base=base,
                wheels="".join(f"{place} " for place in wheels),
                links="".join("--find-links /build " for _ in wheels[:1]),
                source="\n".join(_copies(app_files(project, left_out(runs)))),
                environment=_environment(environment_of(runs)),
                port=PORT,
            ),
            ".dockerignore": "\n".join(_ignored(left_out(runs))) + "\n",
            "compose.yaml": _COMPOSE.format(name=_service(project.name), port=PORT),
        }
        for name, text in texts.items():
            part = project / f".{name}.{os.getpid()}"
            part.write_text(text, "utf-8")
            os.replace(part, project / name)
    except OSError as error:
        raise StoreError(
            "the project cannot be written",
            code="MS-4171",
            why=str(error.strerror or error),
            origin=project.name,
            fix="make the folder writable",
        ) from error
    return [*_NAMES, _MODELS]


def _copies(files: Iterable[AppFile]) -> list[str]:
    """A COPY for the files of the project's folder, and one for each folder in it: models are copied apart."""
    names = [file.name for file in files]
    plain = [name for name in names if "/" not in name]
    folders = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    return [f"COPY {' '.join(plain)} /app/src/", *(f"COPY {name} /app/src/{name}" for name in folders)]


def _environment(variables: Mapping[str, str]) -> str:
    pairs = [f"{name}={value}" for name, value in sorted(variables.items())]
    return "ENV " + " \\\n    ".join(pairs)


def _ignored(patterns: tuple[str, ...]) -> list[str]:
    hidden = [".*", "**/.*", "**/__pycache__", "**/*.pyc", "**/node_modules", "**/*.pem", "**/*.key", "venv"]
    return [*hidden, *_NAMES, *patterns]


def _service(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name.lower())
