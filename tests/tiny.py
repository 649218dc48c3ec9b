"""A tiny Llama with a tokenizer of its own and a handful of instruction rows: real formats, milliseconds to load."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from kdray.artifacts.rows import SCHEMA, rows_writer, write_split
from kdray.data.recipes.dolly import dolly
from kdray.data.split import RandomRows
from kdray.data.templates.chat import chat
from kdray.data.tokenise import Template, tokenise

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"]
PLACES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi"]


def write_instructions(path: Path, count: int = 40, seed: int = 0) -> Path:
    """Dolly-shaped rows whose answer is in their context."""
    dice = random.Random(seed)
    rows = []
    for _ in range(count):
        name, place = dice.choice(NAMES), dice.choice(PLACES)
        extra = " ".join(dice.choice(PLACES) for _ in range(dice.randint(0, 6)))
        answer = f"{name} lives in {place}" + (" ." if dice.random() < 0.5 else " now .")
        rows.append(
            {
                "instruction": f"Where does {name} live?",
                "context": f"{name} is in {place} . {extra}",
                "response": answer,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_tokenizer(folder: Path, extra: str = "") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose pad token is its eos token, as SmolLM2's is."""
    tokenizer = Tokenizer.from_str(_trained(extra))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


@functools.cache
def _trained(extra: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [" ".join(NAMES + PLACES), "Where does live? lives in now . is in user assistant", extra], trainer
    )
    return tokenizer.to_str()


def write_model(
    folder: Path, layers: int = 3, hidden: int = 32, seed: int = 0, pad_vocabulary: int = 6, extra: str = ""
) -> Path:
    """A random Llama with a vocabulary padded beyond its tokenizer's."""
    torch.manual_seed(seed)
    tokenizer = write_tokenizer(folder, extra)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + pad_vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_encoder_decoder(folder: Path, family: str = "t5", seed: int = 0, extra: str = "", **changes: object) -> Path:
    """A random encoder-decoder of the family `t5`, `mt5` or `bart` with a tokenizer that puts `</s>` behind every text
    and, as BART's, `<s>` before it. `changes` are of its configuration.
    """
    torch.manual_seed(seed)
    backend = Tokenizer.from_str(_trained(extra))
    backend.add_special_tokens(["<pad>", "<s>", "</s>"])
    begin, known = "<s> " if family == "bart" else "", ["<s>", "</s>"]
    backend.post_processor = TemplateProcessing(
        single=f"{begin}$A </s>",
        pair=f"{begin}$A {begin}$B </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in known],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + 6, "d_model": 32}
    sizes |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if family == "bart":
        sides = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
        sizes |= {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sides.items()}
        sizes |= {"decoder_start_token_id": tokenizer.eos_token_id, "max_position_embeddings": 512, "init_std": 0.2}
        sizes |= {"bos_token_id": backend.token_to_id("<s>"), "forced_eos_token_id": None}
        model: Any = BartForConditionalGeneration(BartConfig(**sizes | changes))
    else:
        sizes |= {"d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2}
        sizes |= {"decoder_start_token_id": tokenizer.pad_token_id, "n_positions": 512}
        config, made = (
            (T5Config, T5ForConditionalGeneration) if family == "t5" else (MT5Config, MT5ForConditionalGeneration)
        )
        model = made(config(**sizes | changes))
    model.save_pretrained(folder)
    return folder


def write_rows(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    count: int = 24,
    heldout: int = 4,
    source: Path | None = None,
    template: Template = chat,
    decoder: int | None = None,
) -> Path:
    """Prepared rows as the `prepare` step leaves them: of made-up instructions, or the first that fit of a file in
    Dolly's form; for an encoder-decoder, whose `decoder` reads so many tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = source or write_instructions(folder / "source.jsonl", count)
    records = []
    for i, line in enumerate(source.read_text().splitlines()):
        if len(records) >= count:
            break
        example = dolly(json.loads(line))
        [made] = tokenise([example], template, tokenizer, max_prompt=200, max_length=256, decoder=decoder)
        for tokens in made:
            records.append(
                {"source_row": i, "input_ids": tokens.input_ids, "n_prompt": tokens.n_prompt, **example.__dict__}
            )
    split = RandomRows(heldout, test=0)
    split.add(np.array([record["source_row"] for record in records]))
    with rows_writer(folder) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=SCHEMA))
    write_split(folder, **split.rows())
    return folder


def write_grid(folder: Path, **overrides: str) -> Path:
    """A small real grid on tiny models, for runs of a minute; `overrides` replace top-level sections by YAML text."""
    write_model(folder / "teacher", layers=3, seed=1)
    write_model(folder / "student", layers=2, seed=2)
    write_instructions(folder / "rows.jsonl", 40)
    sections = {
        "name": "tiny",
        "family": "tiny",
        "teacher": f"{{model: 'file:{folder}/teacher', tune: {{lr: 3.0e-3, batch: 4, steps: 6}}}}",
        "student": f"{{model: 'file:{folder}/student'}}",
        "data": f"{{source: 'file:{folder}/rows.jsonl', max_prompt: 200, max_length: 256, heldout: 8}}",
        "train": "{steps: 8, keep: [4, 8]}",
        "axes": "{lr: [3.0e-3], batch: [4], alpha: [0, 1]}",
        "score": "{tasks: [heldout_loss, {name: heldout_answers, limit: 6, max_new_tokens: 8}], batch: 3}",
        "runtime": f"{{store: '{folder}/store', checkpoint_every: 2}}",
    }
    path = folder / "grid.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (sections | overrides).items()))
    return path
