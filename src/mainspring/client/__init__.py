"""A client of a Mainspring server: typed, with limits of time and tries, sync and async, JSON, binary and gRPC.

All of them need ``mainspring[client]``. None imports what a server needs.
"""

from mainspring.client.aio import AsyncClient
from mainspring.client.answers import FeatureAnswer, Inference, Labelled, Prediction, Pushed
from mainspring.client.faults import AnswerError, KeyRefusedError, RequestRefusedError
from mainspring.client.grpc import AsyncGrpcClient, GrpcClient
from mainspring.client.sync import Client
from mainspring.client.wire import Label

__all__ = [
    "AnswerError",
    "AsyncClient",
    "AsyncGrpcClient",
    "Client",
    "FeatureAnswer",
    "GrpcClient",
    "Inference",
    "KeyRefusedError",
    "Label",
    "Labelled",
    "Prediction",
    "Pushed",
    "RequestRefusedError",
]
