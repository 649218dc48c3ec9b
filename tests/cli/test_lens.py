"""The commands of `kdray lens`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdray.artifacts.answers import write_answers
from kdray.cli.shared import WRONG_INPUT
from tests.conftest import Run


@pytest.mark.slow
def test_lens_commands_on_a_tiny_model(run: Run, tmp_path: Path) -> None:
    from kdray.data.example import Example
    from kdray.data.templates.alpaca import alpaca
    from kdray.lens.annotations import sketch
    from kdray.models.load import load_tokenizer
    from tests.tiny import PLACES, write_model

    tokenizer = load_tokenizer(write_model(tmp_path / "model", layers=2))
    lines = [
        {
            "id": i,
            "document": f"Ada is in {here} .",
            "response": f"Ada lives in {there} now .",
            "spans": [] if here == there else [[13, 18]],
        }
        for i, (here, there) in enumerate((here, there) for here in PLACES for there in (here, "Delhi"))
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ("--model", f"file:{tmp_path}/model", "--template", "alpaca")
    code, stdout, stderr = run("lens", "train", "jsonl:own.jsonl", *model, "--to", "lens", "--window", 3)
    assert code == 0, stderr
    assert "AUROC" in stdout
    kept_out = {row["document"][0] for row in json.loads((tmp_path / "lens" / "kept_out.json").read_text())}
    known = [line for line in lines if sketch(str(line["document"]))[0] not in kept_out]
    assert 0 < len(known) < len(lines)
    code, stdout, _ = run("lens", "table", "jsonl:own.jsonl", "--target", "jsonl:./own.jsonl", *model, "--json")
    assert code == 0
    tables = json.loads(stdout.splitlines()[-1])
    assert tables["annotations"][0]["examples"] == 12
    assert len(tables["AUROC"]) == 12  # six methods in a model of two layers, both ways
    (tmp_path / "answers").mkdir()
    rows = [
        {
            "example": i,
            "source": f"Ben is in {place} .",
            "question": "Who?",
            "references": ["Ben"],
            "wrong": [],
            "answer": f"Ben lives in {place} now . He is there .",
            "error": None,
            "thought_ids": [],
            "input_ids": tokenizer(alpaca(Example("Who?", f"Ben is in {place} .", ""), tokenizer))["input_ids"],
            "output_ids": tokenizer(f"Ben lives in {place} now .")["input_ids"],
        }
        for i, place in enumerate(PLACES)
    ]
    rows += [
        rows[0] | {"example": 9, "source": known[0]["document"], "answer": "", "input_ids": [3], "output_ids": [4, 5]}
    ]
    write_answers(tmp_path / "answers", 0, rows, 1.0)
    code, stdout, stderr = run(
        "lens", "rate", "answers", *model, "--by", "lens", "--labelled", "jsonl:own.jsonl", "--json"
    )
    assert code == 0
    rate = json.loads(stdout.splitlines()[-1])
    assert rate["scores"]["fr"]["n"] == len(PLACES)
    assert rate["facts"]["left_out"]["training_documents"] == 1
    record = json.loads((tmp_path / "lens" / "lens.json").read_text())["record"]
    assert (
        rate["scores"]["auroc"]["n"] == record["windows_tested"]
    )  # of the documents that were kept out of the training
    assert rate["scores"]["auroc"]["value"] == pytest.approx(record["auroc_test"])
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    code, stdout, stderr = run(
        "lens", "rate", "answers", *model, "--by", "lens", "--labelled", "jsonl:known.jsonl", "--json"
    )
    assert code == 0
    assert json.loads(stdout.splitlines()[-1])["scores"]["auroc"] == {"value": None, "stderr": 0.0, "n": 0}
    assert "no AUROC of jsonl:known.jsonl: every document trained the lens" in stderr
    (tmp_path / "empty.jsonl").write_text("")
    for command in ("train --to other", "table", "rate answers --by lens --labelled"):
        name, *options = command.split()
        code, _, stderr = run("lens", name, *options, "jsonl:empty.jsonl", *model)
        assert (code, stderr.splitlines()[-1]) == (
            WRONG_INPUT,
            "error annotations: empty.jsonl has no responses; give annotated responses",
        )
    metric = f"{{name: support_standin, model: 'file:{tmp_path}/model'}}"
    code, stdout, _ = run("lens", "annotate", "answers", "--metric", metric, "--threshold", 1e9, "--to", "marked.jsonl")
    assert code == 0
    marked = [json.loads(line) for line in (tmp_path / "marked.jsonl").read_text().splitlines()]
    assert [row["spans"] for row in marked] == [
        [[0, 19 + len(place)], [20 + len(place), 33 + len(place)]] for place in PLACES
    ]
    code, stdout, _ = run("lens", "table", "jsonl:own.jsonl", *model, "--no-baselines", "--metric", metric, "--json")
    assert code == 0
    [judged] = json.loads(stdout.splitlines()[-1])["a metric on predefined spans"]
    assert (
        judged["spans"] == 7 + 5 * 3
    )  # clean answers, Delhi's twice; elsewhere what is wrong, and the text on both sides
    assert 0 <= judged["AUROC"] <= 100


@pytest.mark.slow
def test_guides_and_maps_on_tiny_models(run: Run, tmp_path: Path) -> None:
    from kdray.lens.classifier import Lens
    from kdray.lens.guides import HiddenGuide, open_guide
    from kdray.models.load import load_folder
    from kdray.score.decodings import open_decoding
    from tests.tiny import NAMES, PLACES, write_model

    write_model(tmp_path / "model", layers=2)
    write_model(
        tmp_path / "larger", layers=3, seed=5, extra=" ".join(f"{name} is in" for name in NAMES) * 9
    )  # other tokens
    lines: list[dict[str, Any]] = [
        {
            "id": f"{name} {i}",
            "document": f"{name} is in {here} .",
            "response": f"{name} lives in {there} now .",
            "spans": [] if here == there else [[len(name) + 10, len(name) + 15]],
        }
        for name in NAMES
        for i, (here, there) in enumerate((here, there) for here in PLACES for there in (here, "Delhi"))
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ("--model", f"file:{tmp_path}/model", "--template", "alpaca", "--window", 3)
    code, stdout, stderr = run(
        "lens", "guide", "jsonl:own.jsonl", *model, "--to", "g.safetensors", "--part", "attention"
    )
    assert code == 0, stderr
    guide = open_guide(tmp_path / "g.safetensors")
    assert isinstance(guide, HiddenGuide)
    assert list(guide.record["layer_auroc"]) == ["1", "2"]
    assert (
        f"guide on layer {guide.layer} (attention) in g.safetensors: fitted on {guide.record['windows_fitted']} windows"
        in stdout
    )
    assert f"AUROC {guide.record['auroc_test']:.1f} ± {guide.record['auroc_test_stderr']:.1f} on" in stdout
    assert (guide.record["annotations"], guide.record["examples"]) == ("jsonl:own.jsonl", len(lines))
    code, stdout, _ = run("lens", "guide", "jsonl:own.jsonl", *model, "--to", "g.safetensors", "--layer", 1)
    again = open_guide(tmp_path / "g.safetensors")
    assert (code, again.layer, again.part) == (0, 1, "residual")  # pyright: ignore
    code, _, stderr = run("lens", "guide", "jsonl:own.jsonl", *model, "--to", "g.safetensors", "--layer", 3)
    assert (code, stderr.splitlines()[-1]) == (WRONG_INPUT, "error --layer: 3; the model has layers 1 to 2")

    code, _, stderr = run("lens", "train", "jsonl:own.jsonl", *model, "--to", "lens")
    assert code == 0, stderr
    both = (
        "--of",
        f"file:{tmp_path}/model",
        "--model",
        f"file:{tmp_path}/larger",
        "--template",
        "alpaca",
        "--to",
        "lens2",
    )
    code, stdout, stderr = run("lens", "map", "lens", "jsonl:own.jsonl", *both)
    assert code == 0, stderr
    lens, moved = Lens.load(tmp_path / "lens"), Lens.load(tmp_path / "lens2")
    trained, numbers = lens.record, moved.record
    assert moved.weights.shape == (3, 4)
    assert numbers["mapped_from"] == lens.id
    assert (
        numbers["documents_tested"] == trained["documents_tested"]
    )  # the very documents that the lens's training kept out
    assert numbers["map_documents"] == numbers["map_documents_trained"] == trained["documents_fitted"]
    assert numbers["auroc_before_map"] == pytest.approx(trained["auroc_test"])
    assert f"the lens on file:{tmp_path}/model: AUROC {trained['auroc_test']:.1f} ±" in stdout
    assert (
        f"behind the map on file:{tmp_path}/larger: AUROC {numbers['auroc_test']:.1f} ±"
        f" {numbers['auroc_test_stderr']:.1f}" in stdout
    )
    beside = json.loads((tmp_path / "lens2" / "kept_out.json").read_text())
    assert {tuple(row["document"]) for row in beside}.isdisjoint(moved.documents.sketches)
    loaded, tokenizer = load_folder(tmp_path / "larger")
    decode = open_decoding("lookback_guided", {"guide": f"file:{tmp_path}/lens2", "candidates": 2, "chunk": 3})
    prompt = SimpleNamespace(input_ids=tokenizer("Ada is in Paris . Where?")["input_ids"], source="Ada is in Paris .")
    assert isinstance(decode(loaded, tokenizer, [prompt], 6)[0], list)  # pyright: ignore

    code, _, stderr = run("lens", "map", "lens2", "jsonl:own.jsonl", *both)
    assert code == WRONG_INPUT
    assert "a lens for 3 layers x 4 heads; the model has 2 x 4" in stderr
    stored = lines[0] | {
        "input_ids": tokenizer("Ada is in Paris . x")["input_ids"],
        "output_ids": tokenizer(lines[0]["response"])["input_ids"],
    }
    (tmp_path / "stored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [stored, *lines[1:]]))
    code, _, stderr = run("lens", "map", "lens", "jsonl:stored.jsonl", *both)
    assert (code, stderr.splitlines()[-1].split(";")[0]) == (
        WRONG_INPUT,
        "error annotations: token ids, which another vocabulary takes for another text",
    )
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    code, _, stderr = run("lens", "map", "lens", "jsonl:twice.jsonl", *both)
    assert code == WRONG_INPUT
    assert "error annotations: an id twice in jsonl:twice.jsonl" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "lens guide jsonl:nowhere --model file:absent --to g --layer two",
            "--layer: 'two'; auto, or the number of a layer",
        ),
        (
            "lens guide jsonl:nowhere --model file:absent --to g --layer -1",
            "--layer: '-1'; auto, or the number of a layer",
        ),
        ("lens guide jsonl:nowhere --model file:absent --to folder", "--to: folder is no file"),
        ("lens guide jsonl:nowhere --model file:absent --to g", "annotations: no file nowhere"),
        ("lens map folder jsonl:nowhere --of file:a --model file:b --to x", "lens: no lens in folder"),
        ("lens train jsonl:nowhere.jsonl --model file:absent --to lens", "annotations: no file nowhere.jsonl"),
        ("lens table jsonl:nowhere.jsonl --model file:absent", "annotations: no file nowhere.jsonl"),
        ("lens rate nowhere --model file:absent --by nowhere", "lens: no lens in nowhere"),
        ("lens import nowhere.pkl", "no file nowhere.pkl"),
        (
            "lens table jsonl:nowhere --model file:nowhere --metric best_span",
            "--metric: 'best_span' is not about an answer's source",
        ),
        ("lens annotate nowhere --metric rouge --to x.jsonl", "--metric: 'rouge' is not about an answer's source"),
        ("lens table jsonl:nowhere --model file:nowhere --metric hhemm", "did you mean 'hhem'?"),
        (
            "lens annotate nowhere --metric support_standin,hhem --to x.jsonl",
            "--metric: 'support_standin,hhem'; name one metric",
        ),
        ("lens train jsonl:nowhere --model file:absent --to file", "--to: file is no folder"),
        ("lens train jsonl:nowhere --model file:absent --to file/lens", "--to: "),
        ("lens train jsonl:nowhere --model file:absent --to=", "--to: empty"),
        ("lens import --to=", "--to: empty"),
        ("lens import nowhere.pkl --to file", "--to: file is no folder"),
        ("lens import nowhere.pkl --to s3://bucket/lens", "--to: 's3://bucket/lens' is an address"),
        (
            "lens train jsonl:nowhere --model file:absent --to file:lens",
            "--to: 'file:lens' is a reference; write the path alone",
        ),
        ("lens annotate nowhere --metric hhem --to $HOME/x.jsonl", "--to: '$HOME/x.jsonl': $HOME is not expanded here"),
        ("lens table jsonl:s3://bucket/x --model file:absent", "annotations: 's3://bucket/x' is an address"),
        ("lens annotate nowhere --metric hhem --to folder", "--to: folder is no file"),
        ("lens annotate nowhere --metric hhem --to absent/x.jsonl", "--to: no folder absent"),
        ("lens annotate nowhere --metric hhem --to=", "--to: empty"),
    ],
)
def test_wrong_lens_input_is_one_line(run: Run, tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    code, _, stderr = run(*arguments.split())
    assert code == WRONG_INPUT
    assert message in stderr
    assert stderr.count("\n") == 1
