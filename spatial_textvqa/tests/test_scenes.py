"""The synthetic scenes: as they are described, the same whatever is drawn beside them, and without leaks."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from shared.errors import UserError
from spatial_textvqa.data import scenes as S
from spatial_textvqa.data.words import ALL_WORDS, SECOND_WORDS, WORDS
from spatial_textvqa.metrics import flip_question, is_spatial

N = 8000
SCENES = S.draw(S.Settings(), 0, range(N))
MANY = [
    S.draw(S.Settings(objects=k, kinds=S.KINDS, two_tokens=True), 3, range(300)) for k in (6, 12, 30)
]  # every kind of question


def centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]).astype(float) / 2


def slots(scenes: S.Scenes = SCENES) -> np.ndarray:
    return np.array([scenes.target_tokens(i)[0] for i in range(len(scenes))])


def at_most_chance(hits: np.ndarray) -> bool:
    """Not above one in six by more than three standard errors."""
    return bool(hits.mean() <= 1 / 6 + 3 * np.sqrt(5 / 36 / len(hits)))


def test_a_scene_is_the_same_alone_and_among_others() -> None:
    alone = S.draw(S.Settings(), 0, [4711, 5])
    among = SCENES.take(np.array([4711, 5]))
    for name in ("boxes", "token_boxes", "word", "kind", "reference", "target", "answer"):
        assert (getattr(alone, name) == getattr(among, name)).all()
    for ours, theirs in zip(S.features(alone, 0, 32, "object"), S.features(among, 0, 32, "object")):
        assert ours is not None
        assert theirs is not None
        assert (ours == theirs).all()
    other = S.draw(S.Settings(), 1, [4711, 5])
    assert not (other.boxes == alone.boxes).any()


@pytest.mark.parametrize("scenes", [SCENES, *MANY], ids=["quick", "6", "12", "30"])
def test_every_token_lies_inside_its_own_object_and_in_no_other(scenes: S.Scenes) -> None:
    boxes, tokens = scenes.boxes[:, None], scenes.token_boxes[:, :, None]
    inside = (tokens[..., :2] > boxes[..., :2]).all(-1) & (tokens[..., 2:] < boxes[..., 2:]).all(-1)
    valid = scenes.word >= 0
    own = np.take_along_axis(inside, np.maximum(scenes.carrier, 0)[..., None], 2)[..., 0]
    assert own[valid].all()
    assert (inside.sum(2)[valid] == 1).all()
    assert scenes.boxes.min() >= 0
    assert scenes.boxes.max() <= 1
    assert (scenes.token_boxes[~valid] == 0).all()


@pytest.mark.parametrize("scenes", [SCENES, *MANY], ids=["quick", "6", "12", "30"])
def test_answers_are_right_by_another_reading_of_the_rules(scenes: S.Scenes) -> None:
    middle, scale = centres(scenes.boxes), scenes.settings.scale
    for i in range(min(len(scenes), 1000)):
        kind, at = S.KINDS[scenes.kind[i]], middle[i]
        looks = [(S.COLOURS[c], S.SHAPES[s]) for c, s in zip(scenes.colour[i], scenes.shape[i])]
        asked = (S.COLOURS[scenes.colour_asked[i]], S.SHAPES[scenes.shape_asked[i]])
        if kind in ("on", *S.RELATIONS):
            assert [n for n, look in enumerate(looks) if look == asked] == [scenes.reference[i]]
        if kind == "on":
            assert scenes.target[i] == scenes.reference[i]
        elif kind in S.RELATIONS:
            dx, dy = (at - at[scenes.reference[i]]).T
            away = {"left": -dx, "right": dx, "above": -dy, "below": dy}[kind]
            found = (away > 0) & (np.abs(dx) + np.abs(dy) <= 2 * away) & (np.hypot(dx, dy) < 0.7)
            near = sorted((np.hypot(dx[n], dy[n]), n) for n in np.flatnonzero(found))
            assert near[0][1] == scenes.target[i]
            assert len(near) == 1 or near[1][0] >= near[0][0] + 0.05 * scale
        elif kind in S.SUPERLATIVES:
            place = {"top": at[:, 1], "bottom": -at[:, 1], "leftmost": at[:, 0], "rightmost": -at[:, 0]}[kind]
            assert place.argmin() == scenes.target[i]
        elif kind == "yesno":
            assert scenes.answer_text(i) == ("yes" if asked in looks else "no")
        elif kind == "count":
            assert scenes.answer_text(i) == str(sum(colour == asked[0] for colour, _ in looks))
        else:
            assert [colour for colour, shape in looks if shape == asked[1]] == [scenes.answer_text(i)]


def test_question_only_stays_at_chance() -> None:
    """The most frequent answer, or slot, to the same question in other scenes."""
    questions = [SCENES.question(i) for i in range(N)]
    target = slots()
    by_question: dict[str, Counter] = defaultdict(Counter)
    words: dict[str, Counter] = defaultdict(Counter)
    for i in range(N // 2):
        by_question[questions[i]][target[i]] += 1
        words[questions[i]][SCENES.answer_text(i)] += 1
    rest = range(N // 2, N)
    assert at_most_chance(np.array([by_question[questions[i]].most_common(1)[0][0] == target[i] for i in rest]))
    said = np.mean([words[questions[i]].most_common(1)[0][0] == SCENES.answer_text(i) for i in rest])
    assert said < 0.02  # 223 words


def test_order_only_stays_at_chance() -> None:
    target = slots()
    for number in range(5):
        of_kind = target[SCENES.kind == number]
        for slot in range(6):
            assert at_most_chance(of_kind == slot)
    order = np.argmax(SCENES.carrier == SCENES.target[:, None], 1)
    assert (order == target).all()
    assert at_most_chance(SCENES.target == 0)  # nor is the object's number a hint
    assert at_most_chance(SCENES.carrier[np.arange(N), SCENES.target] == SCENES.target)  # nor is it the token's


def test_nearest_to_centre_stays_at_chance() -> None:
    """Central objects have more neighbours; the target's rank in centrality is uniform all the same."""
    nearest = np.hypot(*np.moveaxis(centres(SCENES.token_boxes) - 0.5, -1, 0)).argmin(1)
    hits = nearest == slots()
    for number in range(5):
        assert at_most_chance(hits[SCENES.kind == number])
    assert at_most_chance(hits)
    rank = np.hypot(*np.moveaxis(centres(SCENES.boxes) - 0.5, -1, 0)).argsort(1).argsort(1)
    counts = np.bincount(rank[np.arange(N), SCENES.target], minlength=6) / N
    assert np.abs(counts - 1 / 6).max() < 4 * np.sqrt(5 / 36 / N)


def test_a_guard_would_see_a_leak() -> None:
    """Were tokens in their objects' order, the number of the object would name the token."""
    ordered = np.sort(SCENES.carrier, 1)
    assert not at_most_chance(ordered[np.arange(N), SCENES.target] == SCENES.target)


def test_flipped_questions_have_the_other_answer() -> None:
    flipped = SCENES.flipped()
    assert 0.2 < len(flipped) / N < 0.5
    back = flipped.flipped()
    assert (back.kind == SCENES.take(SCENES.flipped_target >= 0).kind).all()
    for i in range(200):
        sample = flipped.sample(i)
        assert sample.kind in S.RELATIONS
        assert sample.flipped is not None
        assert flip_question(sample.question) == sample.flipped[0]
        assert is_spatial(sample.question)
        assert sample.flipped[1] != sample.answers[0]
        original = SCENES.sample(int(flipped.index[i]))
        assert original.flipped == (sample.question, sample.answers[0])


def test_every_spatial_kind_is_a_spatial_question_that_flips() -> None:
    for kind in S.KINDS:
        question = S.TEMPLATES[kind].format(colour="red", shape="star")
        assert is_spatial(question) == (kind in S.SPATIAL)
        flipped = flip_question(question)
        if kind in S.SPATIAL:
            assert flipped == S.TEMPLATES[S.OPPOSITE[kind]].format(colour="red", shape="star")


def test_yes_is_as_frequent_as_no() -> None:
    scenes = S.draw(S.Settings(kinds=("yesno",)), 0, range(1000))
    assert 0.45 < np.mean([scenes.answer_text(i) == "yes" for i in range(1000)]) < 0.55


def test_two_tokens_are_read_from_left_to_right() -> None:
    scenes = S.draw(S.Settings(kinds=("on",), two_tokens=True), 0, range(500))
    two = scenes.word[:, 6] >= 0
    assert 0.15 < two.mean() < 0.25
    i = int(np.flatnonzero(two)[0])
    sample = scenes.sample(i)
    assert len(sample.ocr_tokens) == 12
    first, second = sample.target_ocr
    assert sample.ocr_boxes[first, 2] < sample.ocr_boxes[second, 0]
    assert sample.answers[0] == f"{sample.ocr_tokens[first]} {sample.ocr_tokens[second]}"
    assert set(sample.ocr_tokens) <= set(SECOND_WORDS)


def test_word_halves_have_nothing_in_common() -> None:
    drawn = [S.draw(S.Settings(words=half), 0, range(300)) for half in ("first", "second")]
    used = [{ALL_WORDS[w] for w in scenes.word.ravel()} for scenes in drawn]
    assert not used[0] & used[1]
    assert len(WORDS) >= 200
    assert sum(word.isdigit() for word in WORDS) >= 20
    assert not set(ALL_WORDS) & set(S.FIXED_WORDS)


def test_noisy_answers_leave_the_right_one_its_full_score() -> None:
    answers = S.draw(S.Settings(noisy=True), 0, [0]).answers(0)
    assert len(answers) == 10
    assert Counter(answers).most_common(1)[0][1] == 7
    assert len(set(answers)) == 4


def test_with_object_a_token_looks_like_its_carrier_and_with_none_like_nothing() -> None:
    scenes = SCENES.take(np.arange(50))
    objects, tokens = S.features(scenes, 0, 256, "object")
    assert tokens is not None
    best = np.einsum("nkf,ntf->ntk", objects, tokens).argmax(2)
    looks = scenes.colour * 4 + scenes.shape
    assert (np.take_along_axis(looks, best, 1) == np.take_along_axis(looks, scenes.carrier, 1)).mean() > 0.99
    assert not np.array_equal(objects, np.take_along_axis(tokens, scenes.carrier.argsort(1)[..., None], 1))
    assert S.features(scenes, 0, 256, "none")[1] is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objects": 40}, "objects is 40"),
        ({"kinds": ("on", "behind")}, "kinds: behind given"),
        ({"kinds": ()}, "kinds: none given"),
        ({"words": "third"}, "words is 'third'"),
    ],
)
def test_settings_that_mean_nothing_say_so(wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        S.Settings(**wrong)


def test_another_appearance_says_so() -> None:
    with pytest.raises(UserError, match="ocr_appearance is 'all'"):
        S.features(SCENES.take(np.arange(2)), 0, 8, "all")
