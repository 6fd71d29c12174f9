import json

import keras
import numpy as np
import pytest

from trainer.config import OptimizerSettings
from trainer.schedules import WarmupCosine, scaled_learning_rate

# name in the golden file → settings, batch, examples, epochs
RUNS = {
    "lr_linear_bs512_ep100_warm10_n50000": (
        {"learning_rate": 1.0, "lr_scaling": "linear", "warmup_epochs": 10},
        (512, 50_000, 100),
    ),
    "lr_sqrt_bs64_ep30_warm0_n5000": (
        {"learning_rate": 0.005, "lr_scaling": "sqrt"},
        (64, 5000, 30),
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_rates_equal_the_reference(shared, run):
    stored = json.loads((shared / "golden/losses_schedules_preprocessing.json").read_text())[run]
    fields, (batch, examples, epochs) = RUNS[run]
    settings = OptimizerSettings(**fields)
    total = examples * epochs // batch + 1
    assert total == stored["total"]
    schedule = WarmupCosine(
        scaled_learning_rate(settings, batch),
        warmup_steps=round(settings.warmup_epochs * examples // batch),
        total_steps=total,
    )
    for step, rate in stored["lr"].items():
        np.testing.assert_allclose(schedule(int(step)), rate, rtol=2e-5, atol=1e-7, err_msg=step)


def test_scaling_of_the_rate():
    rates = [
        scaled_learning_rate(OptimizerSettings(learning_rate=0.3, lr_scaling=scaling), 1024)
        for scaling in ("none", "linear", "sqrt")
    ]
    np.testing.assert_allclose(rates, [0.3, 1.2, 9.6])


def test_peak_middle_and_end():
    schedule = WarmupCosine(2.0, warmup_steps=10, total_steps=30)
    np.testing.assert_allclose(
        [schedule(step) for step in (0, 5, 10, 20, 30, 99)], [0, 1, 2, 1, 0, 0], atol=1e-6
    )


def test_values_of_the_paper():
    """Linear from nothing, then half a cosine: √3 / 2 and 1 / 2 of the way have closed forms."""
    schedule = WarmupCosine(1.0, warmup_steps=4, total_steps=4 + 12)
    rising = [schedule(step) for step in range(5)]
    np.testing.assert_allclose(rising, [0, 0.25, 0.5, 0.75, 1], rtol=1e-6)
    falling = [schedule(4 + step) for step in (2, 4, 6, 8, 10, 12)]
    expected = [0.5 + 3**0.5 / 4, 0.75, 0.5, 0.25, 0.5 - 3**0.5 / 4, 0]
    np.testing.assert_allclose(falling, expected, atol=1e-6)


def test_no_step_is_wasted():
    """Without warm-up every step learns: the rate is 0 only past the end."""
    schedule = WarmupCosine(1.0, warmup_steps=0, total_steps=50)
    rates = np.array([schedule(step) for step in range(50)])
    assert (rates > 0).all()
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (11, 10), (-1, 10), (0, 0)])
def test_a_warm_up_that_fills_the_training_is_refused(warmup, total):
    with pytest.raises(ValueError, match="Lower warmup_epochs"):
        WarmupCosine(1.0, warmup, total)


def test_configuration_survives():
    schedule = WarmupCosine(0.5, 3, 9)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(again(i)) for i in range(10)] == [float(schedule(i)) for i in range(10)]
