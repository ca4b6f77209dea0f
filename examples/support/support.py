"""A help desk: answers from the manuals with their sources, and looks error codes up. The manuals are Mainspring's."""

import re
from pathlib import Path

from mainspring import App

app = App("support")
llm = app.llm("chat", max_tokens=120, temperature=0)  # which model, and where, is the profile's business
manuals = app.documents("manuals/", every="1h", include=["**/*.md"])
library = app.index(manuals)  # hybrid search, headings kept, versions with an alias


@app.tool(timeout="5s")
def error_meaning(code: str) -> str:
    """What an error code of Mainspring means and how to mend it.

    Args:
        code: as it is printed: MS-3012.
    """
    table = (Path(__file__).parent / "manuals" / "errors.md").read_text("utf-8")
    row = re.search(rf"^\| {re.escape(code.strip().upper())} \| (.+?) \| (.+?) \|", table, re.MULTILINE)
    return f"{row[1]}. To mend it: {row[2]}" if row else f"there is no error {code}"


help_desk = app.assistant(
    "help_desk",
    llm,
    knows=[library],
    k=3,
    grounded=True,  # a small model's invention gives way to what the manuals say
    may=[error_meaning],
    instructions="Answer from the manuals and name the source. If they do not say, say so.",
)


@app.evaluation(library, cases="evals/searches.jsonl", least={"recall@10": 0.8})
def first(found, case) -> bool:
    """Whether the page that has the answer is the first that is found."""
    return bool(found.retrieved) and found.retrieved[0].endswith(case["must_cite"])


@app.evaluation(help_desk, cases="evals/questions.jsonl", least={"answered": 0.5})
def grounded(answer, case) -> bool:
    """Whether the page that has the answer is among the sources; what the manuals do not know is refused."""
    return answer.refused if case.get("unanswerable") else case["must_cite"] in answer.sources


app.endpoint(help_desk)  # OpenAI API, MCP, and a chat page in the console
app.monitor(help_desk, watch=["grounded", "latency", "cost"])
