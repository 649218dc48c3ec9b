"""On-policy steps: what is sampled, by which numbers, and the loss on it, against GKD's own formula in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from kdray.artifacts.rows import Answered, Rows
from kdray.distill.ensemble import Ensemble
from kdray.distill.signals.online import OnlineTeacher
from kdray.models.adapters import with_lora
from kdray.models.generation import uniforms
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from kdray.train.on_policy import draw_in_order
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS, assert_same, weights

NEW = 12  # tokens, where a response is cut
SAMPLING = {"temperature": 1.0, "top_k": None, "max_new_tokens": NEW}
MIXED = replace(SETTINGS, on_policy=0.5, sampling=SAMPLING)
SAMPLED = replace(MIXED, on_policy=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "student", layers=2, seed=2)
    write_model(folder / "teacher", layers=3, seed=1, pad_vocabulary=11)
    write_rows(folder / "rows", load_folder(folder / "student")[1])
    return folder


def make_loop(world, settings=SAMPLED, ranks=Ranks(), micro_batch=None, lora=False, teachers=1):  # noqa: B008 - frozen
    torch.set_num_threads(1)
    model, tokenizer = load_folder(world / "student")
    rows = Rows(world / "rows")
    asked = [
        OnlineTeacher(ResponseModel(load_folder(world / "teacher")[0]), rows, torch.float32) for _ in range(teachers)
    ]
    return Loop(
        ResponseModel(with_lora(model, 4) if lora else model),
        rows,
        settings,
        signal=asked[0] if teachers == 1 else Ensemble(asked, [1 / teachers] * teachers),
        vocab_size=len(tokenizer),
        ranks=ranks,
        tokenizer=tokenizer,
        micro_batch=micro_batch,
    )


def objective(loss, weighting="convex", **params):
    """GKD's: at alpha 1 the labels have no weight anywhere."""
    return {"loss": {"name": loss, "params": params}, "temperature": 1.0, "weighting": weighting}


def sampled_by_definition(loop, row, step, temperature=1.0, top_k=None):
    """Token by token, each by a pass of the model over all that stands before it."""
    ids = loop.rows.input_ids(row)[: int(loop.rows.prompt_lengths[row])]
    ends = loop.model.whole.generation_config.eos_token_id
    response = []
    loop.model.eval()
    for number in uniforms([step, row], loop.settings.seed, NEW).tolist():
        with torch.no_grad():
            logits = loop.model.whole(torch.tensor([ids + response])).logits[0, -1, : loop.vocab_size].double().numpy()
        logits = logits / temperature
        if top_k:
            logits[logits < np.sort(logits)[-top_k]] = -np.inf
        mass = np.cumsum(np.exp(logits - logits.max()))
        response.append(int(np.searchsorted(mass / mass[-1], number, side="right")))
        if response[-1] == ends:
            break
    return response


# what is drawn


def test_a_number_picks_the_token_in_whose_share_it_lies():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    picked = [
        int(draw_in_order(logits, torch.tensor([u]), 1.0, None))
        for u in (0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 1 - 1e-9)
    ]
    assert picked == [0, 0, 1, 1, 2, 2, 3, 3]
    of_two = [int(draw_in_order(logits, torch.tensor([u]), 1.0, 2)) for u in (0.0, 0.57, 0.58, 1 - 1e-9)]
    assert of_two == [1, 1, 3, 3]
    colder = draw_in_order(logits.expand(2, -1), torch.tensor([0.03, 0.035]), 0.5, None)  # 1, 16, 4 and 9 of 30
    assert colder.tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.7, 5)])
def test_responses_are_drawn_one_token_after_the_other_whatever_shares_their_batch(world, packing, temperature, top_k):
    sampling = {"temperature": temperature, "top_k": top_k, "max_new_tokens": NEW}
    loop = make_loop(world, replace(SAMPLED, packing=packing, sampling=sampling))
    chosen = [int(row) for row in loop.rows.train[:6]]
    assert len({int(loop.rows.prompt_lengths[row]) for row in chosen}) > 1, "no prompt is padded"
    found = loop.sampler.responses(loop.rows, chosen, 5)
    assert found == {row: sampled_by_definition(loop, row, 5, temperature, top_k) for row in chosen}
    assert loop.sampler.responses(loop.rows, chosen[2:4], 5) == {row: found[row] for row in chosen[2:4]}
    assert loop.sampler.responses(loop.rows, chosen, 6) != found
    assert max(token for response in found.values() for token in response) < loop.vocab_size, "padding of the head"


@pytest.mark.slow
def test_an_end_is_the_last_token_and_counted(world):
    loop = make_loop(world)
    eos = loop.model.whole.generation_config.eos_token_id
    rows = [int(row) for row in loop.rows.train]
    found = [response for step in range(8) for response in loop.sampler.responses(loop.rows, rows, step).values()]
    ended = [response for response in found if eos in response]
    assert ended, "no response has ended"
    assert all(response.index(eos) == len(response) - 1 for response in ended)
    assert {len(response) for response in found if eos not in response} == {NEW}


def test_steps_are_on_policy_by_a_coin_of_seed_and_step(world):
    loops = [make_loop(world, replace(MIXED, on_policy=share)) for share in (0.0, 0.3, 1.0)]
    never, some, always = ([loop.sampler.samples_at(step) for step in range(2000)] for loop in loops)
    assert not any(never)
    assert all(always)
    assert np.mean(some) == pytest.approx(0.3, abs=0.04)
    reseeded = make_loop(world, replace(MIXED, on_policy=0.3, seed=4))
    assert [reseeded.sampler.samples_at(step) for step in range(2000)] != some


def test_rows_with_other_responses_keep_their_prompts_and_leave_the_others_alone(world):
    rows = Rows(world / "rows")
    other = Answered(rows, {3: [7, 8]})
    prompt = int(rows.prompt_lengths[3])
    assert other.input_ids(3) == [*rows.input_ids(3)[:prompt], 7, 8]
    assert other.response_lengths[3] == 2
    assert other.input_ids(4) == rows.input_ids(4)
    assert (np.delete(other.lengths, 3) == np.delete(rows.lengths, 3)).all()
    assert (other.train == rows.train).all()


# the loss


def gkd_loss(student, teacher, beta):
    """TRL's `generalized_jsd_loss` of [N, V] logits of response tokens, in its own words."""
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    if beta == 0:
        divergence = log_t.exp() * (log_t - log_s)
    elif beta == 1:
        divergence = log_s.exp() * (log_s - log_t)
    else:
        mixed = torch.stack([log_s + np.log(1 - beta), log_t + np.log(beta)]).logsumexp(0)
        divergence = beta * log_t.exp() * (log_t - mixed) + (1 - beta) * log_s.exp() * (log_s - mixed)
    return divergence.sum() / len(student)


def trls_loss(student, teacher, beta):
    gkd = pytest.importorskip("trl.experimental.gkd")
    return gkd.GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta)


def responses_by_definition(loop, step=0):
    return {row: sampled_by_definition(loop, row, step) for row in loop.order.batch_at(step)}


def logits_of(model, loop, sampled):
    """[N, V] at the response tokens of all rows, each in a pass of its own."""
    parts = []
    for row, response in sampled.items():
        prompt = loop.rows.input_ids(row)[: int(loop.rows.prompt_lengths[row])]
        logits = model(torch.tensor([prompt + response])).logits[0, :, : loop.vocab_size]
        parts.append(logits[len(prompt) - 1 : -1])
    return torch.cat(parts)


LOSSES = [("forward_kl", {}, 0), ("reverse_kl", {}, 1), ("jsd", {"beta": 0.5}, 0.5), ("jsd", {"beta": 0.1}, 0.1)]


@pytest.mark.slow
@pytest.mark.parametrize("formula", [gkd_loss, trls_loss])
@pytest.mark.parametrize(("loss", "params", "beta"), LOSSES)
def test_loss_and_gradient_are_gkds_on_the_sampled_tokens(world, formula, loss, params, beta):
    loop = make_loop(world, replace(SAMPLED, clip=None, objective=objective(loss, **params)), micro_batch=3)
    sampled = responses_by_definition(loop)
    student, teacher = (load_folder(world / name)[0].double() for name in ("student", "teacher"))
    with torch.no_grad():
        theirs = logits_of(teacher, loop, sampled)
    expected = formula(logits_of(student, loop, sampled), theirs, beta)
    expected.backward()
    loop.engine.optimiser.zero_grad = lambda **_: None  # so that they can be looked at afterwards
    metrics = next(loop.steps())
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["tokens"] == sum(map(len, sampled.values()))
    assert metrics["sampled_length"] == metrics["tokens"] / SETTINGS.batch
    ours = dict(loop.model.whole.named_parameters())
    for name, parameter in student.named_parameters():
        assert (ours[name].grad - parameter.grad).norm() / parameter.grad.norm() < 1e-4, name


@pytest.mark.parametrize(("weighting", "weight"), [("sum", 0.5), ("ratio", 1 / 3), ("convex", 0.5)])
def test_a_sampled_token_has_no_label_and_the_soft_term_its_weight(world, weighting, weight):
    settings = replace(SAMPLED, alpha=0.5, smoothing=0.1, objective=objective("cross_entropy", weighting))
    metrics = next(make_loop(world, settings).steps())
    assert metrics["loss"] == pytest.approx(weight * metrics["soft"], rel=1e-6)
    assert "ce" not in metrics, "there are no labels for it"
    assert 0 < metrics["sampled_nll"] < 10


# the same run, run otherwise


def test_recomputed_activations_change_nothing_of_what_is_sampled(world):
    plain, recomputed = make_loop(world), make_loop(world)
    recomputed.model.whole.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert next(recomputed.steps()) == pytest.approx(next(plain.steps()), rel=1e-6)


@pytest.mark.slow
def test_a_share_of_0_is_word_level_kd_bit_for_bit(world):
    plain = make_loop(world, SETTINGS)
    sampling = make_loop(world, replace(MIXED, on_policy=0.0))
    assert list(sampling.steps()) == list(plain.steps())
    assert_same(weights(sampling), weights(plain))


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "dtype"), [(False, "float32"), (True, "float32"), (False, "bfloat16")])
def test_a_resumed_run_samples_and_learns_as_the_straight_one_bit_for_bit(world, tmp_path, lora, dtype):
    straight, broken, resumed = (make_loop(world, replace(MIXED, dtype=dtype), lora=lora) for _ in range(3))
    curve = list(straight.steps())
    on_policy = ["sampled_length" in metrics for metrics in curve]
    assert {*on_policy[:3]} == {*on_policy[3:]} == {True, False}, "another seed has both kinds before and after"
    for metrics in broken.steps():
        if metrics["step"] == 3:
            break
    save_checkpoint(broken, tmp_path / "attempt-001")
    torch.rand(7)  # something else of this process that draws
    load_checkpoint(resumed, newest_checkpoint(tmp_path, "ddp"))
    list(resumed.steps())
    assert resumed.history == curve
    assert_same(straight.engine.weights(), resumed.engine.weights())


@pytest.mark.slow
def test_an_average_of_teachers_that_are_one_is_that_one(world):
    one, three = (make_loop(world, replace(MIXED, length=3.0), teachers=count) for count in (1, 3))
    for a, b in zip(one.steps(), three.steps(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_time_is_told_apart_only_where_the_student_samples(world):
    plain, sampling = make_loop(world, replace(SETTINGS, length=1.0)), make_loop(world)
    next(plain.steps()), next(sampling.steps())
    assert plain.spent == {}
    assert sampling.spent["sampling"] > sampling.spent["teacher"] > 0


def rank_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    loop = make_loop(folder, MIXED, Ranks(rank, 2), micro_batch=1)
    torch.save({"curve": list(loop.steps()), "weights": weights(loop)}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_sample_and_learn_as_one(world):
    torch.multiprocessing.spawn(rank_process, (world,), nprocs=2)
    alone = make_loop(world, MIXED, micro_batch=1)
    curve = list(alone.steps())
    for rank in (0, 1):
        found = torch.load(world / f"rank{rank}.pt")
        for a, b in zip(curve, found["curve"], strict=True):
            assert a["tokens"] == b["tokens"], "other tokens are sampled"
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert_same(weights(alone), found["weights"], 1e-4)
