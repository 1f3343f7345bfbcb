"""The length of a call follows from measured times."""

from rd_elbo.training import loop


def lengths_of_calls(overhead, slope, most=512, calls=12):
    """Lengths of the first calls where one of n steps takes `overhead + slope * n` seconds."""
    pace, lengths = loop.Pace(most), []
    for _ in range(calls):
        lengths.append(pace.steps)
        pace.measure(pace.steps, overhead + slope * pace.steps)
    return lengths


def test_the_length_of_a_call_follows_from_the_time_of_a_step_alone():
    assert lengths_of_calls(0.0, 0.03)[-1] == 100
    # What a call costs whatever its length does not make it short.
    assert lengths_of_calls(5.7, 0.03)[-1] == 100
    assert lengths_of_calls(0.0, 1.0)[-1] == 8
    assert lengths_of_calls(0.0, 100.0)[-1] == 1
    assert lengths_of_calls(0.001, 1e-6)[-1] == 512
    assert lengths_of_calls(0.0, 0.2)[5:] == [15] * 7
    # However slow the machine, no call is much longer than wanted while the time is found out.
    assert max(lengths_of_calls(0.0, 1.0)) <= 8
