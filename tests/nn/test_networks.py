"""Networks: what a decoder gives for some features is what it gives for all."""

from __future__ import annotations

import pytest
import torch

from omicvae.nn import Decoder, NetworkConfig


@pytest.mark.parametrize("n_layers", [0, 2])
@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize("columns", [[], [3], [4, 0, 2]])
def test_some_features_of_a_decoder(n_layers, n_heads, columns):
    torch.manual_seed(0)
    decoder = Decoder(3, 2, 5, n_heads, NetworkConfig(n_layers=n_layers).resolve(100)).eval()
    z, design = torch.randn(2, 7, 3), torch.randn(7, 2)
    wanted = decoder(z, design)[..., columns]
    torch.testing.assert_close(decoder(z, design, torch.tensor(columns, dtype=torch.long)), wanted)


@pytest.mark.parametrize("n_layers", [0, 2])
@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize("shape", [(7,), (2, 7), (1, 0)])
def test_around_is_the_output_less_its_mean_over_a_reference(n_layers, n_heads, shape):
    torch.manual_seed(0)
    decoder = Decoder(3, 0, 5, n_heads, NetworkConfig(n_layers=n_layers).resolve(100)).eval()
    torch.nn.init.normal_(decoder.linear.bias)
    z, reference = torch.randn(*shape, 3), torch.randn(11, 3)
    found = decoder.around(z, reference)
    assert found.shape == (*shape, n_heads, 5)
    torch.testing.assert_close(found, decoder(z, None) - decoder(reference, None).mean(0))
