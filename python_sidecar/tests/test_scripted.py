"""How the runs of a scripted engine differ from its script."""

import itertools
import statistics

from bench_sidecar.scripted import pace


def runs(growth_ppm: int, noise: dict[str, int] | None, number: int) -> list[int]:
    return list(itertools.islice(pace(growth_ppm, noise), number))


def test_without_noise_the_runs_grow_evenly() -> None:
    assert runs(0, None, 3) == [0, 0, 0]
    assert runs(20_000, None, 3) == [0, 20_000, 40_000]


def test_noise_has_the_spread_and_the_memory_that_were_asked_for() -> None:
    own = runs(0, {"run_ppm": 4_000, "session_ppm": 0, "seed": 1}, 4_000)
    assert abs(statistics.mean(own)) < 250
    assert 3_800 < statistics.stdev(own) < 4_200
    assert abs(statistics.correlation(own[1:], own[:-1])) < 0.05
    shared = runs(0, {"run_ppm": 0, "session_ppm": 10_000, "seed": 1}, 4_000)
    assert 9_300 < statistics.stdev(shared) < 10_700
    assert 0.55 < statistics.correlation(shared[1:], shared[:-1]) < 0.65


def test_the_same_seed_gives_the_same_runs_and_another_one_others() -> None:
    noise = {"run_ppm": 4_000, "session_ppm": 10_000, "seed": 1}
    assert runs(0, noise, 5) == runs(0, noise, 5)
    assert runs(0, noise, 5) != runs(0, noise | {"seed": 2}, 5)
