"""A real MariaDB for tests, from the system's mariadb-server package: started once a run, removed at its end."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def there():
    return shutil.which("mariadbd") is not None and shutil.which("mariadb-install-db") is not None


@contextlib.contextmanager
def running():
    """The URL of a MariaDB that only this run uses."""
    place = Path(tempfile.mkdtemp(prefix="mainspring-mariadb-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--no-defaults", f"--datadir={place / 'data'}", *(["--user=root"] if os.geteuid() == 0 else [])]
    process = None
    try:
        made = ["mariadb-install-db", *shared, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        (place / "init.sql").write_text(
            "create database shop character set utf8mb4;\n"
            "create user me@'127.0.0.1' identified by 'secret-word';\ngrant all on *.* to me@'127.0.0.1';\n"
        )
        process = subprocess.Popen(
            [
                "mariadbd", *shared, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={place / 'socket'}",
                f"--pid-file={place / 'pid'}", f"--init-file={place / 'init.sql'}", "--innodb-flush-method=nosync",
                "--skip-log-bin", "--character-set-server=utf8mb4", "--skip-name-resolve",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "mariadbd has ended"
            assert time.monotonic() < deadline, "mariadbd does not answer"
            time.sleep(0.1)
        yield f"mariadb://me:secret-word@127.0.0.1:{port}/shop"
    finally:
        if process is not None:
            process.terminate()
            process.wait(timeout=60)
        shutil.rmtree(place, ignore_errors=True)
