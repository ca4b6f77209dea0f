"""A client that OpenAPI Generator makes compiles, and asks a running server; so does a bean of Spring."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.conftest import Served, call
from mainspring.client import Client

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "java"
SPRING = [
    Path(f"/usr/share/java/spring3-{part}.jar") for part in ("web", "context", "beans", "core", "aop", "expression")
]
"""Debian's Spring Framework, 4.3: the example uses what is alike in it and in Spring Boot's."""
OPTIONS = (
    "openApiNullable=false,annotationLibrary=none,documentationProvider=none,invokerPackage=shop.client,"
    "apiPackage=shop.client.api,modelPackage=shop.client.model"
)
GENERATED = (
    'package javax.annotation; public @interface Generated { String[] value(); String comments() default ""; '
    'String date() default ""; }'
)
"""What a Maven build takes from jakarta.annotation-api; the generator's archive holds the other libraries."""


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK: apt install openjdk-17-jdk-headless")
@pytest.mark.skipif(
    not all(jar.exists() for jar in SPRING), reason="no Spring: apt install libspring-web-java libspring-context-java"
)
def test_a_generated_java_client_asks_the_server_by_itself_and_from_spring(served: Served, tmp_path: Path) -> None:
    found = importlib.util.find_spec("openapi_generator_cli")
    assert found is not None
    assert found.origin is not None
    (archive,) = Path(found.origin).parent.glob("*.jar")
    document = tmp_path / "openapi.json"
    document.write_bytes(call(f"{served.url}/openapi.json")[1])
    sources = tmp_path / "client"

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    made = ("generate", "-i", document, "-g", "java", "--library", "native", "-o", sources)
    run("java", *quick, "-jar", archive, *made, f"--additional-properties={OPTIONS}")
    stub = sources / "stub" / "Generated.java"
    stub.parent.mkdir()
    stub.write_text(GENERATED)
    files = [*(sources / "src" / "main").rglob("*.java"), stub, *EXAMPLES.glob("*.java")]
    libraries = ":".join(map(str, [archive, *SPRING, "/usr/share/java/commons-logging.jar"]))
    flags = [f"-J{flag}" for flag in quick]
    run("javac", *flags, "-proc:none", "-nowarn", "-d", tmp_path / "classes", "-cp", libraries, *files)

    def ask(example: str) -> list[str]:
        return run("java", *quick, "-cp", f"{tmp_path / 'classes'}:{libraries}", example, served.url).split("\n")

    told = ask("Ask")
    with Client(served.url) as client:
        one = client.predict("returns", {"customer": "c1", "amount": 12.5})
    assert told[0].split(" ")[:2] == ["returns", json.dumps(one.prediction)]
    assert told[1].split(" ")[0] == "2"
    assert abs(float(told[0].split(" ")[2]) - one.score) < 1e-9
    assert told[1].split(" ")[1] == told[0].split(" ")[2]
    assert told[2:4] == ["1", "400"]
    assert ask("AskWithSpring")[:3] == [told[0], told[1].split(" ")[1], "400"]
