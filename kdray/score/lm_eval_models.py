"""Two models without weights that lm-eval takes for real ones: one encodes its requests, one has their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kdray.data.templates.chat import dated, refused
from kdray.data.thoughts import closed
from kdray.data.tokenise import unended
from kdray.models.load import load_tokenizer
from kdray.spec.chat import require_read
from kdray.spec.folders import window_of


class Encoder(HFLM):
    """lm-eval's own model without weights: tokens and chat template are exactly those that it would use."""

    def __init__(self, folder: str, task: str, chat: dict[str, Any]) -> None:
        """`folder` has tokenizer and config.json; `chat` are the parameters of the template `chat`."""
        self.task, self.given = task, chat
        with torch.device("meta"):
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
            auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = auto.from_config(config)
        tokenizer = load_tokenizer(Path(folder))
        if isinstance(tokenizer.chat_template, str):
            tokenizer.chat_template = dated(tokenizer.chat_template)  # requests must not depend on the day
            require_read(self.given.get("arguments") or {}, tokenizer.chat_template)
        arguments = self.given.get("arguments") or {}
        super().__init__(chat_template_args=arguments, **as_lm_eval_takes(model, tokenizer))  # type: ignore[arg-type]
        keep_to_window(self, window_of(Path(folder)))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As `HFLM`. What the template raises is told as the task's fault.

        Raises:
            InputError: it refuses the prompt, or there is none.
        """
        try:
            text = super().apply_chat_template(chat_history, add_generation_prompt)
        except Exception as error:
            raise refused(error, f"score.tasks.{self.task}.chat_template", "leave it out") from error
        return closed(text) if self.given.get("close_thought") and add_generation_prompt else text

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:  # type: ignore[override]
        return requests


def as_lm_eval_takes(model: Any, tokenizer: Any) -> dict[str, Any]:
    """A model and its tokenizer for `HFLM`: an encoder reads the end of its context too, a causal model none."""
    if model.config.is_encoder_decoder:
        return {"pretrained": model, "tokenizer": tokenizer, "backend": "seq2seq"}
    return {"pretrained": model, "tokenizer": unended(tokenizer), "backend": "causal"}


def keep_to_window(lm: Any, window: int | None) -> None:
    """Let lm-eval know of a window that it does not find and takes a longer one for: no model reads beyond its own."""
    if window is not None and window < lm.max_length:
        lm._max_length = window


class Table(LM):
    """A model that has answered already: in the order in which lm-eval asks."""

    def __init__(self, answers: list[Any], kinds: dict[str, int]) -> None:
        super().__init__()
        waiting = iter(answers)
        self.answers = {kind: [next(waiting) for _ in range(count)] for kind, count in kinds.items()}

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:  # type: ignore[override]
        return self.answers["loglikelihood"]

    def generate_until(self, requests: list[Instance]) -> list[Any]:  # type: ignore[override]
        return self.answers["generate_until"]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[Any]:  # type: ignore[override]
        raise NotImplementedError("tasks by the log-likelihood of whole texts (perplexity) are not supported")
