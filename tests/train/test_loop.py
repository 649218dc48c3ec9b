"""The loop: what a step does is a function of its settings alone, and resuming changes nothing, bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_model

from kdray.artifacts.rows import Rows
from kdray.artifacts.soft_labels import write_labels
from kdray.artifacts.source import LabelSource
from kdray.distill.labels import LogitLabels
from kdray.distill.signals import open_signal
from kdray.distill.signals.hidden import Hidden
from kdray.distill.signals.online import OnlineTeacher
from kdray.distill.stored import Stored, write_head
from kdray.models.adapters import load_quantised, with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.checkpoints import MANIFEST, load_checkpoint, newest_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.engines.ddp import WEIGHTS
from kdray.train.loop import DivergedError, Loop
from kdray.train.order import Order
from kdray.train.settings import Settings
from tests.distill.reference import reference
from tests.tiny import write_model, write_rows

SLOW = pytest.mark.slow  # the same kind as a case that is not
SETTINGS = Settings(
    lr=1e-3,
    batch=4,
    alpha=1.0,
    seed=3,
    unit="steps",
    length=6.0,
    schedule={"name": "cosine", "version": 1, "params": {"floor": 0.0}},
    warmup=0.0,
    weight_decay=0.01,
    clip=1.0,
    dtype="float32",
    packing=True,
)


class Online:
    """The teacher beside the student: its logits at the response tokens of the given rows, row by row."""

    temperature = 1.0

    def __init__(self, model, rows):
        self.model, self.rows, self.width = model, rows, model.config.vocab_size

    def read(self, chosen):
        return LogitLabels(self.logits(chosen))

    @torch.no_grad()
    def logits(self, chosen):
        parts = [torch.zeros(0, self.model.config.vocab_size)]
        for row in chosen:
            ids = torch.tensor([self.rows.input_ids(row)])
            parts.append(self.model(ids).logits[0, int(self.rows.prompt_lengths[row]) - 1 : -1])
        return torch.cat(parts)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "student", layers=2, seed=2)
    write_model(folder / "teacher", layers=3, seed=1, pad_vocabulary=11)
    _, tokenizer = load_folder(folder / "student")
    write_rows(folder / "rows", tokenizer)
    return folder


def make_loop(world, settings=SETTINGS, micro_batch=None, signal="online"):
    torch.manual_seed(0)
    model, tokenizer = load_folder(world / "student")
    rows = Rows(world / "rows")
    if signal == "online":
        signal = Online(load_folder(world / "teacher")[0], rows)
    return Loop(
        ResponseModel(model),
        rows,
        settings,
        signal=signal,
        vocab_size=len(tokenizer),
        ranks=Ranks(),
        micro_batch=micro_batch,
    )


def weights(loop):
    return {name: value.clone() for name, value in loop.model.whole.state_dict().items()}


def assert_same(a, b, tolerance=0.0):
    for name, value in a.items():
        assert (value - b[name]).abs().max() <= tolerance, name


@pytest.mark.slow
@pytest.mark.realdata
def test_on_real_rows_too(world, tmp_path, data_dir):
    for name in ("student", "teacher"):
        (tmp_path / name).symlink_to(world / name)
    tokenizer = load_folder(world / "student")[1]
    write_rows(tmp_path / "rows", tokenizer, count=12, source=data_dir / "databricks-dolly-15k.jsonl")
    test_the_first_loss_and_gradient_are_those_of_the_float64_reference(tmp_path)


def test_the_first_loss_and_gradient_are_those_of_the_float64_reference(world):
    loop = make_loop(world, replace(SETTINGS, clip=None, alpha=0.5))
    chosen = loop.order.batch_at(0)
    longest = max(int(loop.rows.lengths[row]) for row in chosen)
    labels = torch.full((len(chosen), longest), -100)
    width = loop.model.whole.config.vocab_size
    student, teacher = torch.zeros(*labels.shape, width), torch.zeros(*labels.shape, width + 5)
    for i, row in enumerate(chosen):
        ids = torch.tensor(loop.rows.input_ids(row))
        labels[i, int(loop.rows.prompt_lengths[row]) : len(ids)] = ids[int(loop.rows.prompt_lengths[row]) :]
        with torch.no_grad():
            student[i, : len(ids)] = loop.model.whole(ids[None]).logits[0]
            teacher[i, : len(ids)] = loop.signal.model(ids[None]).logits[0]
    expected, gradient = reference(student, teacher, labels.numpy(), 0.5, loop.vocab_size)

    twin, _ = load_folder(world / "student")
    logits = torch.stack(
        [
            torch.nn.functional.pad(
                twin(torch.tensor([loop.rows.input_ids(r)])).logits[0], (0, 0, 0, longest - int(loop.rows.lengths[r]))
            )
            for r in chosen
        ]
    )
    logits.backward(torch.tensor(gradient, dtype=torch.float32))
    loop.engine.optimiser.zero_grad = lambda **_: None  # so that they can be looked at afterwards
    metrics = next(loop.steps())
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    ours = dict(loop.model.whole.named_parameters())
    for name, parameter in twin.named_parameters():
        error = (ours[name].grad - parameter.grad).norm() / parameter.grad.norm()
        assert error < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"), [("Bloom", "eager attention"), ("Falcon", "cannot be chosen"), ("OPT", "see each other")]
)
def test_a_model_that_takes_no_packed_rows_learns_padded_ones(world, name, why):
    """OPT in the shape of its 350M, with projections around its embeddings."""
    sizes = {"vocab_size": 340, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    sizes |= {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "alibi": True}
    config, losses = getattr(transformers, f"{name}Config")(**sizes), []
    for packing in (True, False):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        settings, rows = replace(SETTINGS, alpha=0.0, packing=packing, length=2.0), Rows(world / "rows")
        loop = Loop(ResponseModel(model), rows, settings, signal=None, vocab_size=340, ranks=Ranks())
        losses.append([step["loss"] for step in loop.steps()])
        assert (why in loop.padded) if packing else loop.padded is None
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packing", "micro_batch"),
    [(True, 2), *(pytest.param(*way, marks=SLOW) for way in [(True, 1), (True, 3), (False, None), (False, 3)])],
)
def test_packing_and_micro_batches_change_nothing_but_rounding(world, packing, micro_batch):
    whole, cut = make_loop(world), make_loop(world, replace(SETTINGS, packing=packing), micro_batch=micro_batch)
    for a, b in zip(whole.steps(), cut.steps(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert_same(weights(whole), weights(cut), 2e-5)


@pytest.mark.slow
def test_a_resumed_run_is_the_straight_one_bit_for_bit(world, tmp_path):
    straight = make_loop(world)
    curve = list(straight.steps())
    broken = make_loop(world)
    for metrics in broken.steps():
        if metrics["step"] == 3:
            break
    save_checkpoint(broken, tmp_path / "attempt-001")
    resumed = make_loop(world)
    load_checkpoint(resumed, newest_checkpoint(tmp_path, "ddp"))
    assert resumed.step == 3
    list(resumed.steps())
    assert resumed.history == curve
    assert_same(weights(straight), weights(resumed))


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=SLOW)])
@pytest.mark.parametrize("quantised", [False, True])
def test_adapters_resume_from_a_checkpoint_of_themselves_or_of_all_weights(tmp_path, quantised, whole):
    if quantised:
        pytest.importorskip("bitsandbytes")
    folder = write_model(tmp_path / "model", layers=2, hidden=64)
    tokenizer = load_folder(folder)[1]
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))

    def make():
        base = load_quantised(folder, "cpu", torch.float32) if quantised else load_folder(folder)[0]
        settings = replace(SETTINGS, alpha=0.0, length=4.0)
        return Loop(
            ResponseModel(with_lora(base, 4)), rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks()
        )

    straight, checkpoint = make(), tmp_path / "checkpoint"
    steps = straight.steps()
    next(steps), next(steps)
    save_checkpoint(straight, checkpoint)
    assert all("lora_" in name for name in load_file(checkpoint / WEIGHTS)), "frozen weights are kept too"
    if whole:
        save_model(straight.model.whole, str(checkpoint / WEIGHTS))
    curve = list(steps)
    resumed = make()
    load_checkpoint(resumed, checkpoint)
    assert list(resumed.steps()) == curve
    assert_same(straight.engine.weights(), resumed.engine.weights())


def test_what_rank_0_is_asked_reaches_all_ranks_with_the_losses_and_changes_none(world):
    class SecondOfTwo(Ranks):
        """Whose other rank has the same losses, and is asked to stop before the second step."""

        asked = iter([0, 1, 0])

        def sum(self, values, device="cpu"):
            assert values[3] == 0
            return 2 * values + torch.tensor([0, 0, 0, next(self.asked)])

    settings = replace(SETTINGS, length=3.0)
    alone, plain, second = (make_loop(world, settings) for _ in range(3))
    asked = iter([False, True, False])
    alone.asked = lambda: next(asked)
    stopping = [(metrics["loss"], alone.stopping) for metrics in alone.steps()]
    assert [told for _, told in stopping] == [False, True, False]
    assert [loss for loss, _ in stopping] == [metrics["loss"] for metrics in plain.steps()]

    second.ranks, second.asked = SecondOfTwo(1, 2), lambda: pytest.fail("rank 0 alone is asked")
    assert [second.stopping for _ in second.steps()] == [False, True, False]


def test_a_checkpoint_of_other_weights_is_refused(world, tmp_path):
    loop = make_loop(world, signal=None)
    save_checkpoint(loop, tmp_path / "checkpoint")
    loop.model.whole.model.norm = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"the model lacks: \['model.norm.weight'\]"):
        load_checkpoint(loop, tmp_path / "checkpoint")
    whole = make_loop(world, signal=None)
    loop.engine.write(loop.engine.state(), tmp_path / "checkpoint", Ranks())
    with pytest.raises(ValueError, match=r"are trained: \['model.norm.weight'\]"):
        load_checkpoint(whole, tmp_path / "checkpoint")


@pytest.mark.slow
def test_dropout_goes_on_as_in_the_straight_run_and_ranks_have_their_own(world, tmp_path):
    def make(rank=0):
        model, tokenizer = load_folder(world / "student")
        model.config.attention_dropout = 0.3
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        settings = replace(SETTINGS, alpha=0.0, packing=False)
        return Loop(
            ResponseModel(model),
            Rows(world / "rows"),
            settings,
            signal=None,
            vocab_size=len(tokenizer),
            ranks=Ranks(rank),
        )

    plain, straight, broken, resumed = (
        make_loop(world, replace(SETTINGS, alpha=0.0, packing=False), signal=None),
        make(),
        make(),
        make(),
    )
    curve = list(straight.steps())
    assert curve != list(plain.steps()), "there is no dropout"
    steps = broken.steps()
    next(steps), next(steps)
    save_checkpoint(broken, tmp_path / "checkpoint")
    torch.rand(7)  # something else of this process that draws
    load_checkpoint(resumed, tmp_path / "checkpoint")
    list(resumed.steps())
    assert resumed.history == curve
    seeds = set()
    for rank in (0, 1):
        make(rank).seed_dropout()
        seeds.add(torch.initial_seed())
    assert len(seeds) == 2


@pytest.mark.slow
@pytest.mark.parametrize("longer_than", ["student", "teacher"])
def test_a_tokenizer_longer_than_a_head_trains_on_what_both_models_know(tmp_path, longer_than):
    for name in ("student", "teacher"):
        write_model(tmp_path / name, layers=2, pad_vocabulary=-1 if name == longer_than else 6)
    student, tokenizer = load_folder(tmp_path / "student")
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    signal = OnlineTeacher(ResponseModel(load_folder(tmp_path / "teacher")[0]), rows, torch.bfloat16)
    settings = replace(SETTINGS, dtype="bfloat16", length=2.0)
    loop = Loop(ResponseModel(student), rows, settings, signal=signal, vocab_size=len(tokenizer), ranks=Ranks())
    assert loop.vocab_size == len(tokenizer) - 1
    assert len(list(loop.steps())) == 2
    assert np.isfinite(list(loop.heldout(3).values())).all()


def test_an_online_teacher_computes_in_its_own_type_whatever_the_student_does(world):
    rows = Rows(world / "rows")
    teacher = OnlineTeacher(ResponseModel(load_folder(world / "teacher")[0]), rows, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = teacher.read([0, 1]).states
    assert torch.equal(inside, teacher.read([0, 1]).states)


@pytest.mark.slow
def test_the_order_of_examples_depends_on_seed_and_batch_alone(world):
    base = make_loop(world)
    other = make_loop(world, replace(SETTINGS, lr=1.0, alpha=0.0))
    assert [base.order.batch_at(i) for i in range(9)] == [other.order.batch_at(i) for i in range(9)]
    reseeded = make_loop(world, replace(SETTINGS, seed=4))
    assert base.order.batch_at(0) != reseeded.order.batch_at(0)


def test_every_epoch_sees_every_row_once_and_no_heldout_row(world):
    rows = Rows(world / "rows")
    order = Order(rows.train, 3, seed=0)
    seen = [row for step in range(len(rows.train)) for row in order.batch_at(step)]
    for epoch in range(3):
        assert sorted(seen[epoch * len(rows.train) : (epoch + 1) * len(rows.train)]) == sorted(rows.train.tolist())
    assert not set(seen) & set(rows.heldout.tolist())


@pytest.mark.slow
def test_soft_labels_from_disk_train_as_the_teacher_beside_the_student(world, tmp_path):
    rows = Rows(world / "rows")
    teacher, _ = load_folder(world / "teacher")
    model = ResponseModel(teacher)
    online = Online(teacher, rows)
    write_head(model.head, tmp_path)
    for part, chosen in enumerate((range(10), range(10, len(rows)))):
        states = []
        for row in chosen:
            ids = torch.tensor([rows.input_ids(row)])
            begin = int(rows.prompt_lengths[row])
            positions = torch.tensor([[0, t - 1] for t in range(begin, ids.shape[1])])
            states.append(model.hidden(ids, torch.ones_like(ids), positions).detach())
        write_labels(tmp_path, part, chosen, [{"hidden": of_row} for of_row in states])
    cached = Stored(tmp_path, Hidden(dtype="float32"))
    for chosen in ([0], [11, 3, 9, 10], [len(rows) - 1]):
        labels = cached.read(chosen)
        assert torch.allclose(labels.chunk(0, len(labels)), online.logits(chosen), atol=1e-5)
    assert len(cached.read([])) == 0
    source = LabelSource(str(world / "teacher"), {"name": "online", "params": {}}, "float32")
    beside = open_signal([source], rows, "cpu", torch.float32)
    reference = make_loop(world)
    curve = [(metrics["loss"], metrics["soft"]) for metrics in reference.steps()]
    for signal in (cached, beside):
        loop = make_loop(world, signal=signal)
        for metrics, (loss, soft) in zip(loop.steps(), curve, strict=True):
            assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
            assert metrics["soft"] == pytest.approx(soft, rel=1e-5)
        assert_same(weights(loop), weights(reference), 2e-5)


@pytest.mark.slow
def test_the_eos_is_learned_although_pad_is_the_same_token(world):
    loop = make_loop(world, replace(SETTINGS, alpha=0.0, lr=1e-2, length=40.0), signal=None)
    eos = load_folder(world / "student")[1].eos_token_id
    row = int(loop.rows.train[0])
    ids = torch.tensor([loop.rows.input_ids(row)])
    assert ids[0, -1] == eos

    def probability():
        with torch.no_grad():
            return loop.model.whole(ids).logits[0, -2].softmax(-1)[eos].item()

    before = probability()
    list(loop.steps())
    assert probability() > max(0.5, 5 * before)


def test_lr_follows_warm_up_and_cosine_and_decay_spares_norms(world):
    loop = make_loop(world, replace(SETTINGS, warmup=0.5, length=8.0))
    rates = [metrics["lr"] / SETTINGS.lr for metrics in loop.steps()]
    expected = [0.25, 0.5, 0.75, 1.0] + [0.5 * (1 + np.cos(np.pi * p)) for p in (0, 0.25, 0.5, 0.75)]
    assert rates == pytest.approx(expected)
    decayed, spared = loop.engine.optimiser.param_groups
    assert decayed["weight_decay"] == 0.01
    assert spared["weight_decay"] == 0.0
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(spared["params"]) == 2 * 2 + 1  # two norms a layer and the final one


def test_clipping_bounds_the_gradient_and_reports_the_norm_before(world):
    loop = make_loop(world, replace(SETTINGS, clip=1e-3))
    loop.engine.optimiser.zero_grad = lambda **_: None
    metrics = next(loop.steps())
    norm = torch.stack([p.grad.norm() for p in set(loop.model.parameters())]).norm()
    assert metrics["grad_norm"] > 1e-2
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(world):
    loop = make_loop(world, replace(SETTINGS, alpha=0.0), signal=None)
    with torch.no_grad():
        loop.model.whole.model.norm.weight.fill_(float("nan"))
    before = weights(loop)
    with pytest.raises(DivergedError, match="step 1"):
        next(loop.steps())
    assert torch.equal(before["model.layers.0.mlp.up_proj.weight"], weights(loop)["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.slow
def test_bfloat16_keeps_float32_master_weights(world):
    loop = make_loop(world, replace(SETTINGS, dtype="bfloat16"))
    losses = [metrics["loss"] for metrics in loop.steps()]
    exact = [metrics["loss"] for metrics in make_loop(world).steps()]
    assert losses == pytest.approx(exact, rel=2e-2)
    assert {p.dtype for p in loop.model.parameters()} == {torch.float32}


def test_damaged_checkpoints_are_passed_over(world, tmp_path):
    loop = make_loop(world)
    for metrics in loop.steps():
        save_checkpoint(loop, tmp_path.joinpath(f"attempt-00{metrics['step']}").resolve())
        if metrics["step"] == 3:
            break
    assert newest_checkpoint(tmp_path, "ddp").name == "attempt-003"
    (tmp_path / "attempt-003" / MANIFEST).write_text('{"step": 3')
    assert newest_checkpoint(tmp_path, "ddp").name == "attempt-002"
    damaged = tmp_path / "attempt-002" / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert newest_checkpoint(tmp_path, "ddp").name == "attempt-001"
    (tmp_path / "attempt-001" / MANIFEST).unlink()
    assert newest_checkpoint(tmp_path, "ddp") is None


def test_heldout_loss_is_the_mean_over_tokens_and_kl_is_zero_against_oneself(world):
    loop = make_loop(world, signal=None)
    total, tokens = 0.0, 0
    for row in loop.rows.heldout.tolist():
        ids = torch.tensor([loop.rows.input_ids(row)])
        begin = int(loop.rows.prompt_lengths[row])
        with torch.no_grad():
            logits = loop.model.whole(ids).logits[0, begin - 1 : -1, : loop.vocab_size].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, begin:], reduction="sum").item()
        tokens += ids.shape[1] - begin
    assert loop.heldout(3)["heldout_ce"] == pytest.approx(total / tokens, rel=1e-5)
    loop.signal = Online(loop.model.whole, loop.rows)
    assert loop.heldout(3)["heldout_kl"] == pytest.approx(0, abs=1e-5)


def test_smoothing_of_a_points_parameters_reaches_the_loss_and_leaves_the_curve_plain(world):
    from kdray.orchestration.trainer import settings_of

    plain = replace(SETTINGS, alpha=0.0)
    smoothed = settings_of({**vars(plain), "smoothing": 0.25})
    loops = [make_loop(world, settings=settings) for settings in (plain, smoothed)]
    first, other = (next(loop.steps()) for loop in loops)
    assert other["ce"] == pytest.approx(first["ce"], rel=1e-6), "cross-entropy with the labels, smoothed or not"
    uniform = (other["loss"] - 0.75 * other["ce"]) / 0.25
    least = math.log(loops[1].vocab_size)  # where the student's distribution is uniform itself
    assert least < uniform < 2 * least
    assert other["grad_norm"] != pytest.approx(first["grad_norm"], rel=1e-3)
