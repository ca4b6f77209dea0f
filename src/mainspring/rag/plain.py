"""A rule for markdown-it that takes the most frequent blocks in one step: paragraphs and list items of plain lines.

markdown-it asks each of its rules about each line. What a line that begins with a letter can be is known without: a
paragraph, when the lines after it are such lines, too, up to a blank one or the next item of a list. Where there is any
doubt this rule declines, and the others decide as ever, so that the blocks are the same with it as without.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import markdown_it.rules_block as rules
else:
    rules = lazy("markdown_it.rules_block")

__all__ = ["PLAIN", "plain"]

PLAIN = "plain"
"""The type of the token that stands for such a paragraph: one, without what is in it."""

_WORD = r"""(?:[^\W\d_]|[("'\[\\*_`]{1,2}[^\W_]|\d+[^\W\d_])"""
_BEGINNING = re.compile(_WORD)
"""What begins no list, quotation, code, heading, table, rule or HTML, underlines no heading and parts no columns."""
_ITEM = re.compile(f"[-+*] {{1,4}}{_WORD}")


def plain(state: rules.StateBlock, first: int, last: int, silent: bool) -> bool:
    """Take the lines from `first` on as a paragraph or a list when that is all that they can be."""
    if state.is_code_block(first):
        return False
    if _begins(_ITEM, state, first):
        return _is_sure(state, first + 1) and rules.list_block(state, first, last, silent)
    line = first
    while line < state.lineMax and not state.isEmpty(line):
        if not _begins(_BEGINNING, state, line):
            if line == first or not _begins(_ITEM, state, line) or not _is_level(state, line):
                return False
            break
        line += 1
    if not silent:
        state.line = line
        state.push(PLAIN, "", 0).map = [first, line]
    return True


def _begins(pattern: re.Pattern[str], state: rules.StateBlock, line: int) -> bool:
    return pattern.match(state.src, state.bMarks[line] + state.tShift[line]) is not None


def _is_sure(state: rules.StateBlock, line: int) -> bool:
    """Whether a line cannot make the head of a table of the one before."""
    return state.isEmpty(line) or _begins(_BEGINNING, state, line) or _begins(_ITEM, state, line)


def _is_level(state: rules.StateBlock, line: int) -> bool:
    """Whether an item is indented so little that it ends a paragraph for sure."""
    indent = state.sCount[line]
    return 0 <= indent < 4 + min(state.blkIndent, max(state.listIndent, 0))
