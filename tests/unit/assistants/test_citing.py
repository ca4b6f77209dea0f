"""Citations: markers checked as they stream, whatever the pieces; what does not hold is taken out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistants_kit import ADA, BOB, PAGES
from mainspring.assistants.citing import Citing
from mainspring.assistants.events import Cited, Text
from mainspring.assistants.sources import Sources, quoted
from mainspring.assistants.text import content_tokens, is_refusal, sentences, without_markers
from mainspring.testing.library import Library, Page

QUESTION = "When may goods be returned? How long does delivery take?"


def cited(pieces, caller=ADA, change=lambda library: None, pages=PAGES):
    async def go():
        library = Library(pages)
        sources = Sources({"library": library}, caller, 5)
        await sources.search(QUESTION)
        change(library)
        citing = Citing(sources)
        sent = []
        for piece in pieces:
            sent += await citing.feed(piece)
        sent += await citing.close()
        assert "".join(one.text for one in sent if isinstance(one, Text)) == citing.answer
        assert [one for one in sent if isinstance(one, Cited)] == citing.cited
        return citing

    return asyncio.run(go())


def grounded(pieces, question, must=lambda: True, pages=PAGES):
    async def go():
        sources = Sources({"library": Library(pages)}, ADA, 5)
        await sources.search(question)
        citing = Citing(sources, must)
        held = [await citing.feed(piece) for piece in pieces]
        sent = await citing.close()
        assert held == [[] for _ in pieces], "nothing is sent before it is known to stand"
        assert "".join(one.text for one in sent if isinstance(one, Text)) == citing.answer
        assert [one for one in sent if isinstance(one, Cited)] == citing.cited
        return citing

    return asyncio.run(go())


def test_an_answer_that_stands_on_nothing_gives_way_to_what_the_sources_say():
    found = grounded(["Bananas are ", "blue and cost ", "ninety."], "When may goods be returned?", pages=PAGES[:2])
    said = "Goods may be returned within 30 days of delivery."
    assert found.answer == f"The sources say:\n\n{said} [1]"
    (one,) = found.cited
    assert (found.answer[one.start : one.end], one.citation.quote, one.by) == (said, said, "overlap")
    silent = grounded(["Bananas are blue."], "Who won the chess world championship in 1972?")
    assert (silent.answer, silent.cited) == ("The sources do not say.", [])
    assert is_refusal(silent.answer)


@pytest.mark.parametrize(
    "said",
    [
        "Within 30 days [1].",
        "Goods may be returned within 30 days of delivery.",
        "The documents do not say.",
        "",
        " \n",
    ],
)
def test_what_stands_or_refuses_or_says_nothing_is_left_alone(said):
    assert grounded([said], QUESTION).answer == said


def test_an_answer_from_a_tool_need_not_stand():
    assert grounded(["Bananas are blue."], QUESTION, must=lambda: False).answer == "Bananas are blue."


def test_without_any_source_nothing_stands():
    assert grounded(["Bananas are blue."], QUESTION, pages=[]).answer == "The sources do not say."


def test_a_quote_is_a_whole_sentence_of_wrapped_text_and_no_heading():
    text = "# Give it back\n\nGive the model the champion, or the\nindex the version, that it had.\n- Give more."
    start, end = quoted(text, "What gives the model its champion?")
    assert text[start:end] == "Give the model the champion, or the\nindex the version, that it had."


def test_a_citation_carries_the_words_that_it_stands_on():
    found = cited(["Goods may be returned within 30 days [1]."])
    (one,) = found.cited
    assert (one.number, one.by, one.start, one.end) == (1, "model", 0, 36)
    assert one.citation.quote == "Goods may be returned within 30 days of delivery."
    page = PAGES[0]
    assert page.text[one.citation.span[0] : one.citation.span[1]] == one.citation.quote
    assert (one.citation.uri, one.citation.title) == ("manuals/returns.md", "returns.md")
    assert (found.answer, found.dropped) == ("Goods may be returned within 30 days [1].", 0)


@pytest.mark.parametrize(
    ("said", "sent", "dropped"),
    [
        ("Thirty days [9].", "Thirty days.", 1),
        ("Thirty days [1, 9].", "Thirty days [1].", 1),
        ("Thirty days [1][9].", "Thirty days [1].", 1),
        ("Thirty days[1].", "Thirty days[1].", 0),
        ("Thirty days [0] or so.", "Thirty days or so.", 1),
        ("Write `items[9]` or items[9] and f()[9].", "Write `items[9]` or items[9] and f()[9].", 0),
        ("An open [bracket and [1", "An open [bracket and [1", 0),
        ("Trailing space [9] ", "Trailing space ", 1),
    ],
)
def test_what_does_not_hold_is_taken_out_and_counted(said, sent, dropped):
    found = cited([said])
    assert (found.answer, found.dropped) == (sent, dropped)


def test_a_version_that_is_gone_is_not_cited():
    found = cited(["Thirty days [1]."], change=lambda library: library.remove("manuals/returns.md"))
    assert (found.answer, found.dropped, found.cited) == ("Thirty days.", 1, [])


def test_a_text_that_has_changed_since_is_not_cited():
    class Shifted(Library):
        def passage(self, *asked):
            found = super().passage(*asked)
            return type(found)(found.document_id, found.document_version, "x" + found.text, found.title, found.uri)

    async def go():
        sources = Sources({"library": Shifted(PAGES)}, ADA, 5)
        await sources.search(QUESTION)
        return await sources.check(1, "Thirty days")

    assert asyncio.run(go()) is None


def test_rights_that_have_ended_end_the_citation():
    secret = Page("s.md", "When may goods be returned: never.", principals=("user:bob",))

    def close(library):
        library.put(Page("s.md", secret.text, principals=("user:eve",)))
        library._pages["s.md"] = Page("s.md", secret.text, principals=("user:eve",))

    assert cited(["Never [1]."], BOB, pages=[secret]).cited
    assert cited(["Never [1]."], BOB, close, pages=[secret]).dropped == 1


def test_an_answer_without_markers_is_cited_by_its_words():
    found = cited(["Goods may be returned within 30 days of delivery. Have a nice day and come again."])
    (one,) = found.cited
    assert (one.by, one.number, found.answer[one.start : one.end]) == (
        "overlap",
        1,
        "Goods may be returned within 30 days of delivery.",
    )


def test_a_refusal_is_not_cited_by_its_words():
    assert not cited(["The manuals do not say within how many days of delivery goods may be returned."]).cited


PARTS = st.sampled_from(["[1]", "[2]", "[9]", "[1, 9]", "[", "]", " ", "\n", ".", "`", "word", "x", "[1", ", ", "12"])


@given(st.lists(PARTS, max_size=14), st.data())
def test_the_pieces_do_not_matter(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, cut = cited([text]), cited(pieces)
    assert (cut.answer, cut.dropped, cut.cited) == (whole.answer, whole.dropped, whole.cited)
    for one in whole.cited:
        assert 0 <= one.start <= one.end <= len(whole.answer)


@given(st.text(alphabet="ab .!?\n'\"", max_size=60))
def test_sentences_lie_in_order_within_the_text(text):
    spans = list(sentences(text))
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert spans == sorted(spans)
    assert set("".join(text[a:b] for a, b in spans)) >= {c for c in text if c in "ab"}


def test_numbers_with_points_do_not_end_a_sentence():
    text = "It costs 3.50 euros. See example.com now!"
    assert [text[a:b] for a, b in sentences(text)] == ["It costs 3.50 euros.", "See example.com now!"]


def test_the_quote_is_the_sentence_that_shares_most():
    text = "Parcels leave at noon. Delivery takes two days. Call us."
    assert text[slice(*quoted(text, "the delivery takes two days"))] == "Delivery takes two days."
    assert quoted(text, "nothing alike") == (0, len(text))


def test_content_tokens_leave_out_what_says_nothing():
    assert content_tokens("The goods may be returned within 30 days [1].") == {
        "goods",
        "returned",
        "within",
        "30",
        "days",
    }


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("The manuals do not say.", True),
        ("I don't know.", True),
        ("Sorry. There is no information about that.", True),
        ("Returns are not mentioned in the sources.", True),
        ("Within 30 days [1].", False),
        ("Send it back. Then wait. I do not know the exact day.", False),
        ("", False),
    ],
)
def test_refusals(text, refused):
    assert is_refusal(text) is refused


def test_markers_are_left_out_of_what_the_model_reads_again():
    assert without_markers("Thirty days [1, 2]. Yes[3].") == "Thirty days. Yes."
