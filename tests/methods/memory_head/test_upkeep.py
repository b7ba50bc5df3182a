"""Scrambling, keys and counters, in the order of the released code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.methods.memory_head import matching, upkeep


def wins_of(winners: torch.Tensor, units: int) -> torch.Tensor:
    return matching.place(1, winners[:, :, None], torch.empty(*winners.shape, units))


def test_a_key_is_given_away_below_the_thresholds_only() -> None:
    best, mu, eta = torch.tensor([[0.5], [0.4]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[7.0, 9.0]])
    rows = upkeep.replacements(best, mu, eta, tau_alpha=0.45, tau_mu=5, tau_eta=7)
    assert rows == [(0, 1, 1)], "the oldest weak key goes to the worst matched sample"
    assert upkeep.replacements(best, mu, eta, tau_alpha=0.4, tau_mu=5, tau_eta=7) == [], "strictly below tau_alpha"
    assert upkeep.replacements(best, mu, eta, tau_alpha=0.45, tau_mu=4, tau_eta=7) == [(0, 0, 1)], "below tau_mu"
    assert upkeep.replacements(best, mu, eta, tau_alpha=0.45, tau_mu=3, tau_eta=7) == []
    assert upkeep.replacements(best, mu, eta, tau_alpha=0.45, tau_mu=5, tau_eta=9) == [(0, 1, 1)], "age may be equal"
    assert upkeep.replacements(best, mu, eta, tau_alpha=0.45, tau_mu=5, tau_eta=10) == []
    assert upkeep.replacements(best, mu, eta * 0 + 8, tau_alpha=0.45, tau_mu=5, tau_eta=7) == [(0, 0, 1)], "the first"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_each_bank_gives_away_by_itself(seed: int, banks: int, units: int, samples: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = torch.rand(samples, banks, generator=generator)
    mu, eta = (torch.randint(1, 12, (banks, units), generator=generator).float() for _ in range(2))
    expected = []
    for bank in range(banks):
        weak = [key for key in range(units) if mu[bank, key] < 5 and eta[bank, key] >= 6]
        if weak and best[:, bank].min() < 0.4:
            oldest = max(weak, key=lambda key: (eta[bank, key].item(), -key))  # noqa: B023
            expected.append((bank, oldest, int(best[:, bank].argmin())))
    assert upkeep.replacements(best, mu, eta, 0.4, 5, 6) == expected


def test_new_units_are_drawn_once_and_only_for_a_key_that_is_given_away() -> None:
    drawn = []

    def fresh() -> torch.Tensor:
        drawn.append(1)
        return torch.full((2, 1, 3), 7.0)

    keys, units, mu = torch.zeros(2, 4, 2), torch.zeros(2, 4, 3), torch.ones(2, 4)
    arguments = (keys, units, mu, torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.int64))
    upkeep.scramble(*arguments, [], fresh)
    assert not drawn
    upkeep.scramble(*arguments, [upkeep.Replacement(0, 1, 0), upkeep.Replacement(1, 3, 0)], fresh)
    assert len(drawn) == 1
    assert units.sum().item() == 7 * 6
    assert (units[0, 1] == 7).all()
    assert (units[1, 3] == 7).all()
    assert mu.sum().item() == 6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(matching.DISTANCES), st.integers(1, 3), st.integers(1, 6))
def test_keys_move_towards_what_they_won(seed: int, distance: str, banks: int, samples: int) -> None:
    torch.manual_seed(seed)
    keys, queries = matching.unit(torch.randn(banks, 5, 4)), matching.unit(torch.randn(samples, 4))
    winners, best = torch.randint(5, (samples, banks)), torch.rand(samples, banks)
    before, moved, beta, sigma = keys.clone(), keys.clone(), 0.1, 0.7
    for bank in range(banks):
        for sample in range(samples):
            key = winners[sample, bank]
            pull = {
                "cosine": queries[sample],
                "dot_scaled": queries[sample] / 2,
                "euclidean": best[sample, bank] * (queries[sample] - before[bank, key]) / (2 * sigma),
            }[distance]
            moved[bank, key] += beta * pull
    if distance == "cosine":
        moved = matching.unit(moved)
    upkeep.move_keys(keys, queries, best, wins_of(winners, 5), beta, distance, sigma)
    torch.testing.assert_close(keys, moved, rtol=1e-5, atol=1e-6)
    lost = wins_of(winners, 5).sum(dim=0) == 0
    if samples == 1 or distance != "cosine":
        assert keys[lost].equal(before[lost]), "keys that won nothing stay, to the last bit"


@pytest.mark.parametrize("samples", [1, 4])
def test_winners_end_with_the_age_of_the_batch(samples: int) -> None:
    torch.manual_seed(0)
    mu, eta, winners = torch.zeros(2, 5), torch.full((2, 5), 30.0), torch.randint(5, (samples, 2))
    counts = wins_of(winners, 5).sum(dim=0)
    upkeep.count_use(mu, eta, counts, samples)
    assert mu.sum(dim=1).tolist() == [samples, samples]
    assert (eta[counts > 0] == samples).all()
    assert (eta[counts == 0] == 30 + samples).all()
