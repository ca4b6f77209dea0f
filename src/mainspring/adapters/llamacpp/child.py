"""The process that llama.cpp runs in: started with ``-m``, told by one line on stdin, ended by the end of stdin.

One line of JSON on stdout says that it listens, or why it does not; all else goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import xllamacpp
else:
    xllamacpp = lazy("xllamacpp")

__all__ = ["main", "params_of"]

_SET_PARENT_DEATH_SIGNAL = 1
_POOLING = {"mean": "LLAMA_POOLING_TYPE_MEAN", "cls": "LLAMA_POOLING_TYPE_CLS", "last": "LLAMA_POOLING_TYPE_LAST"}
_ERRORS_ONLY = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that is (Linux; elsewhere stdin tells)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def params_of(told: Mapping[str, Any]) -> Any:
    """The parameters of llama.cpp's server for what the parent has told."""
    params = xllamacpp.CommonParams()
    params.model.path = told["path"]
    params.model_alias = {told["name"]}
    params.n_parallel = told["slots"]
    params.n_ctx = told["slots"] * told["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told["threads"]
    params.n_gpu_layers = told["gpu_layers"]
    params.fit_params = False  # what was asked for is what is used, or an error
    params.cache_ram_mib = told["cache_ram_mib"]
    params.hostnames = [told["socket"]]
    params.api_keys = [told["key"]]
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.ui = False
    params.offline = True
    params.warmup = False  # the first token, which the parent asks for, does that
    params.verbosity = _ERRORS_ONLY
    if told["template"]:
        params.chat_template = told["template"]
    if told["embedding"]:
        params.embedding = True
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, _POOLING[told["pooling"]])
        slots, tokens = told["slots"], max(512, told["context"])
        params.n_batch = params.n_ubatch = -(-tokens // slots) * slots  # a text is one batch; ggml wants a multiple
    return params


def main() -> None:
    """Serve until stdin ends."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's Ctrl-C: the parent decides
    told = json.loads(sys.stdin.buffer.readline())
    die_with(told["parent"])
    try:
        server = xllamacpp.Server(params_of(told))
    except (RuntimeError, ImportError, OSError) as error:
        answer.write(json.dumps({"error": str(error)}) + "\n")
        answer.flush()
        os._exit(1)
    answer.write(json.dumps({"listening": str(server.listening_address)}) + "\n")
    answer.flush()
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
