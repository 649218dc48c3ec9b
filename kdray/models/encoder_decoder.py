"""An encoder-decoder as a backbone: its encoder reads the prompt, its decoder gives the states of the response."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdray.spec.errors import InputError


class EncoderDecoder(nn.Module):
    """Both stacks of a model, without its output head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = model.get_encoder(), model.get_decoder()

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool = False,
    ) -> Any:
        """[B, T] ids and mask of prompts, [B, U] ids for the decoder -> its output, with `last_hidden_state` [B, U, d].

        Padding of the decoder's ids has to stand on the right, where no other token looks.
        """
        read = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=read,
            encoder_attention_mask=attention_mask,
            use_cache=use_cache,
        )


def decoder_start(model: Any) -> int | None:
    """The token behind which a decoder writes the first one of its response; None of a causal model.

    Raises:
        InputError: an encoder-decoder does not say which.
    """
    if not model.config.is_encoder_decoder:
        return None
    for config in (model.config, model.generation_config):
        if (start := getattr(config, "decoder_start_token_id", None)) is not None:
            return start
    raise InputError(
        "model", f"{type(model).__name__} without a decoder_start_token_id", "give it in the model's config.json"
    )
