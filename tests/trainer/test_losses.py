import json

import numpy as np
import pytest
import tensorflow as tf

from trainer import losses


@pytest.fixture(scope="session")
def golden(shared):
    return json.loads((shared / "golden/losses_schedules_preprocessing.json").read_text())


def contrastive_oracle(first, second, temperature):
    """Equation 1 of the SimCLR paper, example by example, summed over both directions."""
    views = np.concatenate([first, second])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    count, total = len(first), 0.0
    for i in range(2 * count):
        similarity = np.exp(views @ views[i] / temperature)
        others = similarity.sum() - similarity[i]
        total -= np.log(similarity[(i + count) % (2 * count)] / others)
    return total / count


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_nt_xent_equals_the_reference(golden, temperature, normalize):
    hidden = np.float32(golden["ntxent_hidden"])
    loss = losses.nt_xent(*np.split(hidden, 2), temperature, normalize=normalize)
    expected = golden[f"ntxent_T{temperature}_norm{normalize}"]["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_nt_xent_equals_the_reference_at_other_shapes(shared):
    stored = np.load(shared / "golden/ntxent.npz")
    cases = sorted({key.split("/")[0] for key in stored})
    for case in cases:
        temperature = float(case.rsplit("t", 1)[1])
        loss = losses.nt_xent(*np.split(stored[f"{case}/hidden"], 2), temperature)
        np.testing.assert_allclose(loss, stored[f"{case}/loss"], rtol=1e-6, err_msg=case)


def test_nt_xent_equals_the_paper_transcribed():
    first, second = np.random.default_rng(0).normal(size=(2, 7, 5))
    np.testing.assert_allclose(
        losses.nt_xent(first, second, 0.3), contrastive_oracle(first, second, 0.3), rtol=1e-5
    )


def test_nt_xent_is_symmetric_and_blind_to_length():
    first, second = np.random.default_rng(1).normal(size=(2, 6, 4))
    loss = losses.nt_xent(first, second, 0.5)
    np.testing.assert_allclose(losses.nt_xent(second, first, 0.5), loss, rtol=1e-6)
    np.testing.assert_allclose(losses.nt_xent(3 * first, 0.1 * second, 0.5), loss, rtol=1e-6)


def test_nt_xent_of_orthogonal_pairs_is_analytic():
    """Pairs are equal, others orthogonal: one exp(1/T) against 2N - 2 ones, twice."""
    count, temperature = 8, 0.2
    basis = np.eye(count, dtype=np.float32)
    expected = 2 * np.log(1 + (2 * count - 2) * np.exp(-1 / temperature))
    np.testing.assert_allclose(losses.nt_xent(basis, basis, temperature), expected, rtol=1e-4)
    assert losses.contrastive_accuracy(basis, basis) == 1


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_nt_xent_of_equal_embeddings_is_chance(count, temperature):
    ones = np.ones((count, 3), np.float32)
    expected = 2 * np.log(2 * count - 1)
    np.testing.assert_allclose(
        losses.nt_xent(ones, ones, temperature), expected, rtol=1e-5, atol=1e-6
    )


def test_nt_xent_s_gradient_equals_differences_of_the_paper_s_loss():
    """Through length, both directions and every negative."""
    views = np.random.default_rng(9).normal(size=(2, 3, 2))
    hidden = tf.Variable(views, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = losses.nt_xent(hidden[0], hidden[1], 0.4)
    expected = np.zeros_like(views)
    for place in np.ndindex(views.shape):
        step = np.zeros_like(views)
        step[place] = 1e-5
        above, below = (contrastive_oracle(*(views + sign * step), 0.4) for sign in (1, -1))
        expected[place] = (above - below) / 2e-5
    np.testing.assert_allclose(tape.gradient(loss, hidden), expected, atol=1e-4)


def test_nt_xent_of_zero_embeddings_has_finite_gradients():
    hidden = tf.Variable(tf.zeros([4, 3]))
    with tf.GradientTape() as tape:
        loss = losses.nt_xent(hidden, hidden, 0.1)
    assert np.isfinite(tape.gradient(loss, hidden)).all()


def test_half_precision_embeddings_are_compared_in_single():
    first, second = tf.cast(np.random.default_rng(2).normal(size=(2, 6, 4)), tf.bfloat16)
    loss = losses.nt_xent(first, second, 0.1)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(
        loss, losses.nt_xent(tf.cast(first, "float32"), tf.cast(second, "float32"), 0.1), rtol=1e-6
    )


def test_contrastive_accuracy_counts_pairs_found():
    first, second = np.random.default_rng(3).normal(size=(2, 9, 4))
    views = np.concatenate([second, first])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    similarity = first @ views.T
    similarity[np.arange(9), np.arange(9) + 9] = -np.inf
    expected = (similarity.argmax(axis=1) == np.arange(9)).mean()
    np.testing.assert_allclose(losses.contrastive_accuracy(first, second), expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_distillation_equals_the_reference(golden, temperature):
    kd = golden["kd"]
    loss = losses.DistillationLoss(temperature, alpha=0.0)
    actual = loss(np.full(4, -1), np.float32(kd["student"]), np.float32(kd["teacher"]))
    np.testing.assert_allclose(actual, kd["loss"][str(temperature)], rtol=1e-5)


def test_distillation_weighs_truth_and_teacher():
    student, teacher = np.random.default_rng(4).normal(size=(2, 5, 3))
    labels = np.array([0, -1, 2, -1, 1])
    temperature, alpha = 3.0, 0.25
    truth = -np.log(softmax(student))[[0, 2, 4], labels[[0, 2, 4]]].mean()
    soft = -(softmax(teacher / temperature) * np.log(softmax(student / temperature))).sum(1).mean()
    np.testing.assert_allclose(
        losses.DistillationLoss(temperature, alpha)(labels, student, teacher),
        alpha * truth + (1 - alpha) * temperature**2 * soft,
        rtol=1e-5,
    )


def test_distillation_does_not_teach_the_teacher_and_bears_no_labels():
    student, teacher = tf.Variable(tf.ones([2, 3])), tf.Variable([[1.0, 0, 0], [0, 2, 0]])
    with tf.GradientTape() as tape:
        loss = losses.DistillationLoss(2.0, 0.5)([-1, -1], student, teacher)
    gradients = tape.gradient(loss, [student, teacher])
    assert gradients[1] is None
    assert np.isfinite(gradients[0]).all()
    assert np.abs(gradients[0]).max() > 0


def imitation_gradient(student, teacher, temperature):
    student = tf.Variable(student, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = losses.DistillationLoss(temperature, 0.0)(
            np.full(len(teacher), -1), student, teacher
        )
    return tape.gradient(loss, student).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_s_gradient_is_the_softened_difference(temperature):
    """T (softmax(s / T) - softmax(t / T)) / N: zero where the two say the same."""
    student, teacher = np.random.default_rng(6).normal(size=(2, 5, 3))
    difference = softmax(student / temperature) - softmax(teacher / temperature)
    np.testing.assert_allclose(
        imitation_gradient(student, teacher, temperature), temperature * difference / 5, atol=1e-6
    )
    np.testing.assert_allclose(imitation_gradient(teacher, teacher, temperature), 0, atol=1e-7)


def test_hot_distillation_matches_logits():
    """As T grows: squared differences of centred logits (Hinton, Vinyals & Dean 2015, section 2.1).

    Without the factor T² the gradient would vanish.
    """
    student, teacher = np.random.default_rng(7).normal(size=(2, 5, 4))
    centred = student - teacher - (student - teacher).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        imitation_gradient(student, teacher, 300.0), centred / (5 * 4), atol=5e-4
    )


@pytest.mark.parametrize("temperature", [1e-2, 1.0, 20.0])
def test_distillation_of_a_perfect_student_is_the_teacher_s_entropy(temperature):
    logits = np.random.default_rng(8).normal(size=(6, 3)).astype(np.float32)
    soft = softmax(logits.astype(np.float64) / temperature)
    entropy = -(soft * np.log(np.maximum(soft, 1e-300))).sum(axis=1).mean()
    loss = losses.DistillationLoss(temperature, 0.0)(np.full(6, -1), logits, logits)
    np.testing.assert_allclose(loss, temperature**2 * entropy, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("temperature", "alpha"), [(0, 0.5), (-1, 0.5), (1, -0.1), (1, 1.1)])
def test_distillation_refuses_bad_parameters(temperature, alpha):
    with pytest.raises(ValueError, match="temperature > 0 and alpha"):
        losses.DistillationLoss(temperature, alpha)


def test_cross_entropy_by_hand():
    logits = np.random.default_rng(5).normal(size=(4, 3))
    labels, smooth = np.array([2, 0, -1, 2]), 0.1
    targets = np.eye(3)[labels] * (1 - smooth) + smooth / 3
    each = -(targets * np.log(softmax(logits))).sum(axis=1)
    expected = (each[0] + each[1] + each[3]) / 3
    np.testing.assert_allclose(
        losses.cross_entropy(labels, logits, label_smoothing=smooth), expected, rtol=1e-5
    )
    assert losses.cross_entropy(np.array([-1]), logits[:1]) == 0
