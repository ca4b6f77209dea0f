"""Model runtimes: from a model's folder to scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["CARD", "Card", "Form", "Format", "ModelRuntime", "Predictor", "forms", "read_card"]

CARD = "card.json"
"""The file of a model's folder that says what the others are."""

Format = Literal["onnx", "lightgbm", "xgboost", "skops", "pickle", "python"]


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
