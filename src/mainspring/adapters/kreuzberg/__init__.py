"""Documents read by kreuzberg and pdfium, in child processes that may die."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="parser",
    name="kreuzberg",
    factory="mainspring.adapters.kreuzberg.parser:open_parser",
    settings="mainspring.adapters.kreuzberg.settings:KreuzbergSettings",
    embedded=True,
    modules=("kreuzberg", "pypdfium2"),
    extra="rag",
    capabilities={"formats": ("pdf", "html", "docx", "pptx", "markdown", "text", "csv"), "ocr": False},
)
