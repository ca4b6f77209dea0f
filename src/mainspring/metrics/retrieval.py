"""How good found documents, citations and answers are, without a judge: pure functions on texts and ids."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

__all__ = [
    "averaged",
    "citation_precision",
    "content_tokens",
    "holds",
    "ndcg",
    "recall_at",
    "reciprocal_rank",
    "token_f1",
]

_TOKEN = re.compile(r"\w+(?:[.,:]\d+)*")
_ARTICLES = frozenset({"a", "an", "the"})
_FUNCTION_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by
can could did do does doing down during each few for from further had has have having he her here hers him his how
i if in into is it its itself just may me might more most must my no nor not now of off on once only or other our
out over own same shall she should so some such than that the their theirs them then there these they this those
through to too under until up very was we were what when where which while who whom why will with would you your
"""
_STOP = frozenset(_FUNCTION_WORDS.split())


def ndcg(ranked: Sequence[str], gains: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain of a ranking, in [0, 1]; NaN when nothing is relevant.

    DCG = sum of gain_i / log2(i + 1) over places i from 1 to k, with linear gains, over the best that could be
    (Järvelin and Kekäläinen 2002). What is not judged gains nothing; a document that is found twice counts once.

    Args:
        ranked: ids of documents, the best first.
        gains: gain of each judged document, 0 or more.
        k: places that count.

    >>> round(ndcg(["b", "a"], {"a": 2, "b": 1}), 4)
    0.8597
    """
    best = _dcg(sorted(gains.values(), reverse=True)[:k])
    if not best:
        return math.nan
    return _dcg(gains.get(one, 0.0) for one in _distinct(ranked)[:k]) / best


def recall_at(ranked: Sequence[str], relevant: Set[str], k: int = 10) -> float:
    """Share of the relevant documents among the first k; NaN when nothing is relevant.

    >>> recall_at(["x", "a"], {"a", "b"})
    0.5
    """
    return len(relevant & set(_distinct(ranked)[:k])) / len(relevant) if relevant else math.nan


def reciprocal_rank(ranked: Sequence[str], relevant: Set[str], k: int = 10) -> float:
    """1 / the place of the first relevant document among the first k, 0 when there is none, NaN without relevant ones.

    The mean over queries is MRR@k.

    >>> reciprocal_rank(["x", "a"], {"a"})
    0.5
    """
    if not relevant:
        return math.nan
    return next((1 / place for place, one in enumerate(_distinct(ranked)[:k], 1) if one in relevant), 0.0)


def averaged(values: Iterable[float]) -> float:
    """The mean of what is defined: queries without judgements are left out; NaN when none is left.

    >>> averaged([1.0, float("nan"), 0.0])
    0.5
    """
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def content_tokens(text: str) -> list[str]:
    """The words and numbers of a text that carry meaning, in lower case: English function words are left out.

    >>> content_tokens("The wing is 1.5 m long.")
    ['wing', '1.5', 'm', 'long']
    """
    return [token for token in _TOKEN.findall(text.lower()) if token not in _STOP]


def holds(span: str, sentence: str, share: float = 1.0) -> bool:
    """Whether a span has at least this share of the distinct content tokens of a sentence.

    A sentence without content tokens says nothing that a source could hold, so no span does.
    """
    wanted = set(content_tokens(sentence))
    return bool(wanted) and len(wanted & set(content_tokens(span))) >= share * len(wanted)


def citation_precision(cited: Iterable[tuple[str, str]], share: float = 1.0) -> float:
    """Share of citations whose span holds what the sentence says; NaN when nothing is cited.

    Args:
        cited: sentence of the answer and text of the span that it cites, for each citation.
        share: of the sentence's content tokens that the span must have.

    >>> citation_precision([("It weighs 5 kg.", "The wing weighs 5 kg."), ("It is red.", "The wing weighs 5 kg.")])
    0.5
    """
    return averaged(float(holds(span, sentence, share)) for sentence, span in cited)


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Overlap of an answer's words with the best of the references, in [0, 1]; NaN without references.

    The F1 of SQuAD (Rajpurkar et al. 2016): lower case, without punctuation and articles, words counted as often as
    they come.

    >>> token_f1("the red wing", ["a red plane"])
    0.5
    """
    return max((_f1(_words(answer), _words(reference)) for reference in references), default=math.nan)


def _dcg(gains: Iterable[float]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))


def _distinct(ranked: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ranked))


def _words(text: str) -> list[str]:
    return [word for word in re.sub(r"[^\w\s]", "", text.lower()).split() if word not in _ARTICLES]


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    both = sum((Counter(found) & Counter(wanted)).values())
    return 2 * both / (len(found) + len(wanted))
