"""The commands that make something of annotated responses: a lens, a guide on hidden states, a lens for another
model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdray.cli.lens_given import (
    Annotations,
    Limit,
    MaxWords,
    Model,
    Template,
    Window,
    aligned_set,
    annotated_set,
    file_of,
    follow,
    to_file,
    to_folder,
)
from kdray.cli.shared import err, say
from kdray.spec.errors import InputError

ToFolder = Annotated[str, typer.Option(help="the folder to write")]


def train(
    source: Annotations,
    model: Model,
    to: ToFolder,
    family: Annotated[str, typer.Option(help="for the record")] = "",
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
) -> None:
    """Train a lens on sliding windows of an annotated set, and keep it as a folder: every fifth document is kept out to
    test it.
    """
    from kdray.lens.training import keep, read_all, summary, train_lens
    from kdray.models import load

    folder, annotated = to_folder(to), annotated_set(source, limit)
    loaded, tokenizer = load(model, field="--model")
    rows, counts = aligned_set(annotated, loaded, tokenizer, template, max_words)
    origin = {"family": family, **_origin(model, source), **counts}
    made = train_lens(read_all(loaded, rows, window, follow), loaded.config.num_hidden_layers, window, origin)
    keep(made, rows, tokenizer, folder)
    say(f"lens {made.id} in {folder}: {summary(made)}")


def guide(
    source: Annotations,
    model: Model,
    to: Annotated[
        str, typer.Option(metavar="FILE.safetensors", help="the file to write, for guide: file:FILE.safetensors")
    ],
    layer: Annotated[
        str, typer.Option(help="counted from 1, or auto: of four depths the best on documents that are fitted")
    ] = "auto",
    part: Annotated[
        Literal["residual", "attention"],
        typer.Option(help="the layer's output, or its attention block's before it is added"),
    ] = "residual",
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
) -> None:
    """Train a classifier on hidden states that can guide decoding, by the protocol of `train`: one layer's, on sliding
    windows.
    """
    from kdray.lens.hidden import candidates, layers_of, read_states, train_guide
    from kdray.lens.training import in_words
    from kdray.models import load

    if layer != "auto" and not layer.isdecimal():
        raise InputError("--layer", f"'{layer}'", "auto, or the number of a layer, counted from 1")
    file, annotated = to_file(to), annotated_set(source, limit)
    loaded, tokenizer = load(model, field="--model")
    layers = candidates(None if layer == "auto" else int(layer), layers_of(loaded))
    rows, counts = aligned_set(annotated, loaded, tokenizer, template, max_words)
    made = train_guide(
        read_states(loaded, rows, layers, part, window, follow),
        part,
        window,
        {**_origin(model, source), **counts},
        follow,
    )
    made.save(file)
    for number, value in made.record.get("layer_auroc", {}).items():
        say(f"layer {number}: AUROC {value:.1f} on an inner fifth")
    say(f"guide on layer {made.layer} ({made.part}) in {file}: {in_words(made.record)}")


def map_(
    lens: Annotated[Path, typer.Argument(metavar="LENS", help="the folder of a lens of the model --of")],
    source: Annotations,
    of: Annotated[str, typer.Option(metavar="REF", help="the lens's own model")],
    model: Annotated[
        str, typer.Option(metavar="REF", help="the model that is to have a lens; its tokenizer may be another")
    ],
    to: ToFolder,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
) -> None:
    """Make a lens for another model: a linear map from its heads to those of the lens's model, on responses that both
    read.
    """
    from kdray.lens.classifier import Lens
    from kdray.lens.factual import lens_auroc
    from kdray.lens.training import keep
    from kdray.lens.transfer import kept_out, mapped, mean_ratios, together, with_score
    from kdray.models import load

    given, folder, annotated = Lens.load(lens), to_folder(to), annotated_set(source, limit)
    given.require_windows("LENS")
    if len({row.id for row in annotated}) < len(annotated):
        raise InputError(
            "annotations", f"an id twice in {source}", "what both models read is told apart by it: number the responses"
        )
    loaded, tokenizer = load(of, field="--of")
    given.require_shape(loaded.config.num_hidden_layers, loaded.config.num_attention_heads)
    vocabulary, rows = tokenizer.get_vocab(), aligned_set(annotated, loaded, tokenizer, template, max_words)[0]
    out_of = kept_out(given, [row.document for row in rows])
    fitting = {row.id: row.document for row in rows if row.document not in out_of}
    own = mean_ratios(loaded, [row for row in rows if row.id in fitting], follow)
    known = together(given, fitting.values())
    before = lens_auroc(loaded, [row for row in rows if row.document not in known], given)
    loaded, tokenizer = load(model, field="--model")
    if tokenizer.get_vocab() != vocabulary and any(row.input_ids or row.output_ids for row in annotated):
        allowed = "give responses as text, without input_ids and output_ids, or a model of the same vocabulary"
        raise InputError("annotations", "token ids, which another vocabulary takes for another text", allowed)
    rows = aligned_set(annotated, loaded, tokenizer, template, max_words)[0]
    other = mean_ratios(loaded, [row for row in rows if row.id in fitting], follow)
    made = mapped(
        given, other, own, {id: document for id, document in fitting.items() if id in other}, _origin(model, source)
    )
    tests = [row for row in rows if row.document not in made.documents]
    after = lens_auroc(loaded, tests, made)
    made = with_score(made, after, before, len({row.document for row in tests}))
    numbers = made.record
    keep(made, rows, tokenizer, folder)
    fitted = f"{numbers['map_responses']} responses to {numbers['map_documents']} documents"
    say(
        f"lens {made.id} in {folder}: {given.weights.numel()} heads of {of} from {made.weights.numel()} of {model},"
        f" mapped on {fitted}, {numbers['map_documents_trained']} of which had trained the lens"
    )
    if len(own) <= made.weights.numel():
        err.print(
            f"[yellow]{len(own)} responses fit {made.weights.numel()} heads exactly[/]: more would make a better map",
            highlight=False,
        )
    if numbers["auroc_test"] is None:
        say("not tested: windows of one kind alone are left")
        return
    for name, score in ((f"the lens on {of}", before), (f"behind the map on {model}", after)):
        found = f"AUROC {score['value']:.1f} ± {score['stderr']:.1f} on {score['n']} windows"
        say(f"{name}: {found} of {numbers['documents_tested']} documents kept out")


def _origin(model: str, source: str) -> dict[str, Any]:
    from kdray.store.io import sha256

    return {"model": model, "annotations": source, "sha256": sha256(file_of(source))}
