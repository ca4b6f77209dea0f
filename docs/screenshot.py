"""Takes the README's screenshot of the console: ``python docs/screenshot.py URL [dark]``."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main(url: str, scheme: str = "light") -> None:
    target = Path(__file__).parent / "images" / f"console-{scheme}.png"
    target.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 820}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(url)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=str(target))
        browser.close()
    print(target, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
