"""The loop: two iterations of the authors' training, the average of G, what may and may not get gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from diggan.gradient_gap import DIGRegularizer
from diggan.kernels.fused_diffaugment import draw
from diggan.losses import d_losses, g_loss
from diggan.rivals import R1, LeCam
from diggan.training import AutoWeight, Batch, Clock, Game, adam
from shared.errors import UserError

from diggan import nets


def test_two_iterations_are_the_authors(golden, loaded) -> None:
    file = golden("train_two_iterations")
    g, d = nets.build("biggan_cifar", width=2, classes=4, latent=8)
    g, d = loaded(file, "dig/G0/", g), loaded(file, "dig/D0/", d)
    reg = DIGRegularizer("official", float(file["lam"]))
    game = Game(g, d, [reg], ema=0.0)
    betas = (float(file["beta1"]), float(file["beta2"]))
    opt_g, opt_d = (adam(net, float(file["lr"]), betas, float(file["eps"])) for net in (g, d))
    for i in range(2):
        x, y = file["dig/x"][i].unflatten(0, (2, 2)), file["dig/y"][i].unflatten(0, (2, 2))
        terms = game.iterate(Batch(x, y, file["dig/z"][i], file["dig/gy"][i]), opt_g, opt_d)
        got = torch.stack([terms.d_real, terms.d_fake, terms.g])
        torch.testing.assert_close(got, file["dig/metrics"][i], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(reg.s_real, file["dig/ema_real"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(reg.s_fake, file["dig/ema_fake"], rtol=1e-5, atol=1e-7)
    checked = 0
    for prefix, net in (("dig/G1/", g), ("dig/D1/", d)):
        for name, value in net.state_dict().items():
            expected = file[prefix + name]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
            checked += 1
    assert checked == sum(key.startswith(("dig/G1/", "dig/D1/")) for key in file)


def toy(seed: int = 0, weight: float | None = None, policy: str = "", ema: float = 0.0, **kwargs) -> Game:
    torch.manual_seed(seed)
    g, d = nets.build("mlp64", 16)
    return Game(g, d, [] if weight is None else [DIGRegularizer(weight=weight)], policy=policy, ema=ema, **kwargs)


def batch(k: int, steps: int = 2, policy: str = "", n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(k)
    x = torch.rand(steps, n, 1, 8, 8, generator=generator) * 2 - 1
    z = torch.randn(steps + 1, n, 32, generator=generator)
    augment = [draw(policy, 2 * n if s < steps else n, 8, 8, generator) for s in range(steps + 1)]
    return Batch(x, None, z, None, augment)


def play(game: Game, iterations: int, policy: str = "") -> Game:
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    for k in range(iterations):
        game.iterate(batch(k, policy=policy), *opts)
    return game


def test_weight_zero_is_bit_identical_to_none() -> None:
    plain, zero, some = play(toy(), 50), play(toy(weight=0.0), 50), play(toy(weight=1.0), 50)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), zero.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), some.parameters()))


def test_the_penalty_reaches_d_only_and_only_at_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    game = toy(weight=1.0)
    calls = []
    monkeypatch.setattr(DIGRegularizer, "penalty", lambda self, at: calls.append(game.iteration) or at.fake.sum() * 0)
    play(game, 3)
    assert calls == [1, 2, 3]


def test_g_is_untouched_by_d_updates_and_d_by_g_updates() -> None:
    game = toy(weight=1.0)
    before = copy.deepcopy(game.g.state_dict())
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    step, seen = game.update_g, []

    def update_g(*args):
        assert all(torch.equal(before[k], v) for k, v in game.g.state_dict().items())
        d_before = copy.deepcopy(game.d.state_dict())
        out = step(*args)
        assert all(torch.equal(d_before[k], v) for k, v in game.d.state_dict().items())
        seen.append(True)
        return out

    game.update_g = update_g  # type: ignore[method-assign]
    game.iterate(batch(0), *opts)
    assert seen
    assert not all(torch.equal(before[k], v) for k, v in game.g.state_dict().items())


def test_g_learns_through_the_augmentation() -> None:
    """With a hole over the whole image nothing comes through."""
    game = toy(policy="cutout")
    one = batch(0, policy="cutout")
    middle = [torch.full_like(d.offset_h, 4) for d in one.augment]
    whole = [d._replace(offset_h=four, offset_w=four) for d, four in zip(one.augment, middle)]
    import diggan.kernels.fused_diffaugment.reference as reference

    before = reference.HOLE
    try:
        reference.HOLE = 1.0
        game.iterate(Batch(one.x, None, one.z, None, whole), adam(game.g, 1e-3), adam(game.d, 1e-3))
        assert all((p.grad == 0).all() for p in game.g.parameters())
    finally:
        reference.HOLE = before
    game.iterate(one, adam(game.g, 1e-3), adam(game.d, 1e-3))
    assert any((p.grad != 0).any() for p in game.g.parameters())


def test_the_average_is_a_copy_before_its_start_and_covers_buffers() -> None:
    torch.manual_seed(0)
    g, d = nets.build("biggan_cifar", width=2, classes=3, latent=8)
    game = Game(g, d, ema=0.9, ema_start=3)
    opts = adam(g, 1e-2), adam(d, 1e-2)
    expected: dict[str, torch.Tensor] = {}
    for t in range(1, 6):
        y = torch.tensor([[0, 1], [2, 0]])
        game.iterate(Batch(torch.rand(1, 2, 3, 32, 32), y[:1], torch.randn(2, 2, 8), y), *opts)
        for name, value in g.state_dict().items():
            old = expected.get(name, value)
            expected[name] = value.clone() if t < 3 else 0.9 * old + 0.1 * value
    for name, value in game.average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.allclose(game.sampler.blocks[0][0].bn1.stored_mean, g.blocks[0][0].bn1.stored_mean)


@pytest.mark.parametrize("start", [0, 1])
def test_an_average_without_copies_starts_from_the_first_weights(start: int) -> None:
    """Where it starts at iteration 1 the first update averages, too: with what G was initialised to."""
    game = toy(ema=0.9, ema_start=start)
    before = [p.clone() for p in game.g.parameters()]
    play(game, 1)
    for first, now, average in zip(before, game.g.parameters(), game.sampler.parameters()):
        assert not torch.equal(first, now)
        torch.testing.assert_close(average, 0.9 * first + 0.1 * now.detach())


def test_losses(golden) -> None:
    file = golden("losses_metrics")
    real, fake = file["lecam_d_real"].flatten(), file["lecam_d_fake"].flatten()
    for kind, prefix in (("hinge", "hinge"), ("nonsaturating", "ns")):
        at_real, at_fake = d_losses(real, fake, kind)
        for got, key in ((at_real, "d_real"), (at_fake, "d_fake"), (g_loss(fake, kind), "g")):
            torch.testing.assert_close(got, file[f"{prefix}_{key}"], rtol=1e-10, atol=1e-12)


def test_an_automatic_weight_keeps_the_ratio() -> None:
    auto = AutoWeight(0.25, decay=0.5)
    assert auto(torch.tensor(2.0), torch.tensor(0.1)) == pytest.approx(0.25 * 2 / 0.1)
    assert auto(torch.tensor(4.0), torch.tensor(0.3)) == pytest.approx(0.25 * 3 / 0.2)
    game = toy(weight=1.0, auto=AutoWeight(0.25, decay=0.0))
    terms = game.iterate(batch(0, steps=1), adam(game.g, 1e-3), adam(game.d, 1e-3))
    assert (terms.weight * terms.penalty / (terms.d_real + terms.d_fake)).item() == pytest.approx(0.25, rel=1e-5)


def test_an_automatic_weight_waits_for_a_loss() -> None:
    """A D that is right by more than the margin has a hinge loss of 0: that is no scale, and no end of the penalty."""
    auto = AutoWeight(0.25, decay=0.5)
    first = auto(torch.tensor(0.0), torch.tensor(0.1))
    assert 0 < first < 1e-9
    assert auto(torch.tensor(2.0), torch.tensor(0.1)) == pytest.approx(0.25 * 2 / 0.1)
    for _ in range(200):  # averages that have shrunk to 0 in float32
        assert auto(torch.tensor(0.0), torch.tensor(0.1)) > 0
    assert auto(torch.tensor(2.0), torch.tensor(0.1)) == pytest.approx(0.25 * 1 / 0.1)
    game = toy(weight=1.0, auto=AutoWeight(0.25, decay=0.0))
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    kept = game.d.forward
    game.d.forward = lambda x: 9 * x.flatten(1).mean(1).sign() + 0 * kept(x).flatten()  # type: ignore[method-assign]
    sure = batch(0, steps=1)
    sure.x = sure.x.abs()
    game.generate = lambda z, y: -torch.ones(len(z), 1, 8, 8) + 0 * game.g(z)  # type: ignore[method-assign]
    terms = game.iterate(sure, *opts)
    assert float(terms.d_real + terms.d_fake) == 0
    del game.d.forward, game.generate
    terms = game.iterate(batch(1, steps=1), *opts)
    assert (terms.weight * terms.penalty / (terms.d_real + terms.d_fake)).item() == pytest.approx(0.25, rel=1e-5)


def test_lecam_sees_every_update_of_d() -> None:
    game = toy()
    lecam = LeCam(decay=0.5, start=2)
    game.regularisers.append(lecam)
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    calls = 0
    observe = lecam.observe

    def counted(*args):
        nonlocal calls
        calls += 1
        observe(*args)

    lecam.observe = counted  # type: ignore[method-assign]
    for k in range(3):
        game.iterate(batch(k), *opts)
    assert calls == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "wasserstein"}, "unknown loss 'wasserstein': there are hinge, nonsaturating"),
        ({"ema": 1.0}, "ema is 1.0"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Game(*nets.build("mlp64", 4), **settings)
    with pytest.raises(UserError, match="target of an automatic weight is 0"):
        AutoWeight(0)


def test_the_last_penalty_is_told_until_there_is_another() -> None:
    game, opts = toy(weight=1.0), None
    game.regularisers[0].every = 4
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    terms = [game.iterate(batch(k), *opts) for k in range(5)]
    assert len({float(t.penalty) for t in terms[:4]}) == 1
    assert terms[4].penalty != terms[3].penalty
    assert {t.weight for t in terms} == {1.0}
    plain = toy().iterate(batch(0), adam(game.g, 1e-3), adam(game.d, 1e-3))
    assert (plain.penalty, plain.weight) == (None, 0.0)


@pytest.mark.parametrize(("every", "steps", "known"), [(4, 1, True), (4, 2, True), ("first_d_step", 2, True),
                                                       ("first_d_step", 1, False)])  # fmt: skip
def test_the_penalty_takes_time_where_updates_without_it_can_be_timed(every, steps: int, known: bool) -> None:
    """Each update takes a second, those with the penalty three: 2 of 3 + 3 seconds where one of four has it."""
    game = toy(weight=1.0)
    game.regularisers[0].every = every
    opts = adam(game.g, 1e-3), adam(game.d, 1e-3)
    game.iterate(batch(0, steps), *opts)
    assert game.clock.share() is None  # nothing but what warms up
    for k in range(1, 9):
        game.iterate(batch(k, steps), *opts)
    assert (game.clock.share() is not None) == known
    clock = Clock()
    for penalised in (True, False, True, False, False, False):  # the first of each is left out
        clock.add(penalised, 10.0, 13.0 if penalised else 11.0)
    assert clock.share() == pytest.approx(2 / 6)


class Event:
    """As CUDA's: recorded in the queue, whose time passes later than the launches'."""

    queue, done = 0.0, 0.0  # ms: where the queue will be, and where the device is

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Event.queue

    def query(self) -> bool:
        return Event.done >= self.at

    def synchronize(self) -> None:
        Event.done = max(Event.done, self.at)

    def elapsed_time(self, other: Event) -> float:
        assert self.query()
        assert other.query(), "asked before it has happened"
        return other.at - self.at


def test_on_a_gpu_the_clock_is_the_device_s_and_is_waited_for_where_it_is_read_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    device, clock = torch.device("cuda"), Clock()
    for penalised in (True, False, True, False, False, False):
        started = clock.now(device)
        Event.queue += 3000.0 if penalised else 1000.0
        clock.add(penalised, started, clock.now(device))
    assert Event.done == 0  # nothing has waited
    assert len(clock.pending) == 6
    assert clock.share() == pytest.approx(2 / 6)
    assert Event.done == Event.queue
    Event.queue, started = Event.queue + 1000, clock.now(device)
    clock.add(False, started, clock.now(device))
    Event.done = Event.queue
    clock.add(False, clock.now(device), clock.now(device))  # what is over is not kept
    assert len(clock.pending) == 0
    assert isinstance(clock.now(torch.device("cpu")), float)


@pytest.mark.parametrize("kind", ["plain", "pair", "r1"])
def test_accumulated_batches_are_one_large_batch(kind: str) -> None:
    """Of networks without batch statistics, and penalties of single images or pairs."""
    games = []
    for parts in (1, 2):
        game = toy(accumulate=parts, ema=0.9, ema_start=1)
        if kind != "plain":
            game.regularisers.append(R1(10.0) if kind == "r1" else DIGRegularizer("pair", 10.0))
        games.append(game.double())
    opts = [(adam(game.g, 1e-3), adam(game.d, 1e-3)) for game in games]
    for k in range(5):
        one = batch(k)
        x, z = one.x.double(), one.z.double()
        halves = Batch(x.view(4, 3, 1, 8, 8), None, z.view(6, 3, 32), None)
        terms = [game.iterate(b, *o) for game, b, o in zip(games, (Batch(x, None, z, None), halves), opts)]
        for name in ("d_real", "d_fake", "g"):
            torch.testing.assert_close(getattr(terms[1], name), getattr(terms[0], name))
    for (name, a), b in zip(games[0].named_parameters(), games[1].parameters()):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
