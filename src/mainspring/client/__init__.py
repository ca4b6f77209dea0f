"""A client of a Mainspring server: typed, with limits of time and tries, sync and async, JSON and binary.

``Client`` needs ``mainspring[client]``; so does ``AsyncClient``. Neither imports what a server needs.
"""

from mainspring.client.aio import AsyncClient
from mainspring.client.answers import FeatureAnswer, Inference, Labelled, Prediction, Pushed
from mainspring.client.faults import AnswerError, KeyRefusedError, RequestRefusedError
from mainspring.client.sync import Client
from mainspring.client.wire import Label

__all__ = [
    "AnswerError",
    "AsyncClient",
    "Client",
    "FeatureAnswer",
    "Inference",
    "KeyRefusedError",
    "Label",
    "Labelled",
    "Prediction",
    "Pushed",
    "RequestRefusedError",
]
