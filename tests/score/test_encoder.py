"""Encoders cut texts at their window, whether or not their tokenizer knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel, RobertaConfig, RobertaModel

from kdray.score.encoder import Encoder
from tests.tiny import write_tokenizer

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 18,
}


@pytest.mark.parametrize(
    ("kind", "model", "window"),
    [(RobertaConfig, RobertaModel, 16), (BertConfig, BertModel, 18)],
    ids=["RoBERTa", "BERT"],
)
def test_a_long_text_is_cut(
    kind: type[PretrainedConfig], model: type[PreTrainedModel], window: int, tmp_path: Path
) -> None:
    """RoBERTa's positions begin behind its padding token's number, so that it reads two tokens fewer than it has
    positions.
    """
    tokenizer = write_tokenizer(tmp_path)
    model(kind(vocab_size=len(tokenizer), pad_token_id=1, **SIZES)).save_pretrained(tmp_path)  # type: ignore[call-arg]
    states, mask, _ = Encoder(tmp_path, "cpu").states(["Ada lives in Paris . " * 9, "Ben"])
    assert states.shape == (2, window, 8)
    assert mask.sum(1).tolist() == [window, len(tokenizer("Ben")["input_ids"])]
