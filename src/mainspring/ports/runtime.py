"""Model runtimes: from a model's folder to scores."""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from mainspring.errors import MainspringError, RefusedError, StoreError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "CARD",
    "RUNS_CODE",
    "Card",
    "Form",
    "Format",
    "ModelRuntime",
    "Predictor",
    "file_digest",
    "forms",
    "loading",
    "read_card",
]

CARD = "card.json"
"""The file of a model's folder that says what the others are."""

Format = Literal[
    "onnx", "lightgbm", "xgboost", "skops", "pickle", "python", "pyfunc", "torchscript", "exported", "savedmodel"
]
RUNS_CODE: frozenset[str] = frozenset({"pickle", "pyfunc", "torchscript", "exported", "savedmodel"})
"""The formats of which loading or scoring runs what is in the file: only what the catalog vouches for is loaded."""


class Form(msgspec.Struct, frozen=True):
    """One way in which a model is stored.

    Attributes:
        format: how.
        file: the file with the model.
        output: the name of the runtime's output to read, where it has several.
    """

    format: Format
    file: str
    output: str = ""


class Card(msgspec.Struct, frozen=True):
    """What a model's folder holds.

    Attributes:
        model: the model's name.
        format: how the model is stored.
        file: the file with the model.
        columns: the input columns, in order.
        dtype: of the input matrix: ``float32`` or ``float64``.
        task: ``binary`` scores are probabilities of true; ``regression`` scores are predictions.
        output: the name of the runtime's output to read, where it has several.
        converted: whether the model passed the parity gate into a format other than its own.
        why: why it was not converted, or how far the conversion is off.
        versions: versions of the libraries that made it.
        also: further forms of the same model, which score within the tolerance of this one.
        digest: of a file that runs code when it is loaded, the SHA-256; a runtime is handed it only where the catalog
            vouches for it.
    """

    model: str
    format: Format
    file: str
    columns: tuple[str, ...]
    dtype: Literal["float32", "float64"]
    task: Literal["binary", "regression"]
    output: str = ""
    converted: bool = False
    why: str = ""
    versions: dict[str, str] = {}
    also: tuple[Form, ...] = ()
    digest: str = ""


class Predictor(Protocol):
    """A loaded model; safe to call from several threads."""

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row, float64 (rows,); `matrix` is (rows, columns) of the card's dtype, NaN where missing."""


@runtime_checkable
class ModelRuntime(Protocol):
    """Loads models of the formats in its adapter's capabilities."""

    def load(self, folder: Path, card: Card) -> Predictor:
        """Load a model; nothing in it is executed but the runtime's own format.

        Raises:
            StoreError: MS-4150, the files are damaged or of another format.
            RefusedError: MS-5030, the file may run code and is not trusted; MS-4341, nobody vouches for it.
        """


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files with their names, in hexadecimal."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    whole = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix().encode()
        whole.update(b"%d:%s" % (len(name), name))
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


@contextmanager
def loading(folder: Path, card: Card) -> Iterator[Path]:
    """The file of a form, while a runtime loads it in the block.

    Args:
        folder: the model's folder.
        card: the form.

    Raises:
        RefusedError: MS-4341, it runs code, and its digest is not the one that the catalog has recorded; the block is
            not entered.
        StoreError: MS-4150, the block has failed: the libraries' errors share no base but Exception.
    """
    path = folder / card.file
    try:
        if card.format in RUNS_CODE and (why := _unvouched(path, card)):
            raise RefusedError(
                f"model file {card.file!r} runs code when it is loaded, and nobody vouches for it",
                code="MS-4341",
                why=why,
                fix="train the model with this project: its catalog then records what it has made",
            )
        with _unwritten():
            yield path
    except MainspringError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(
            f"model file {card.file!r} cannot be loaded",
            code="MS-4150",
            why=f"{type(error).__name__}: {first}"[:200] if first else type(error).__name__,
            fix="install what the model was made with, or train it again: mainspring run NAME --force",
        ) from error


@contextmanager
def _unwritten() -> Iterator[None]:
    """Keep Python from writing what it compiles: beside the code of a model's folder it would change its digest."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _unvouched(path: Path, card: Card) -> str:
    """Why a file that runs code must not be loaded; empty when the digest that the catalog has recorded is its own."""
    if not card.digest:
        return "it comes from no catalog of ours"
    return "" if hmac.compare_digest(file_digest(path), card.digest) else "it is not what the catalog has recorded"


def forms(card: Card) -> tuple[Card, ...]:
    """A card for each form that a model is stored in, the first one its own."""
    plain = msgspec.structs.replace(card, also=())
    others = (
        msgspec.structs.replace(plain, format=form.format, file=form.file, output=form.output) for form in card.also
    )
    return (plain, *others)


def read_card(folder: Path) -> Card:
    """The card of a model's folder."""
    return msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
