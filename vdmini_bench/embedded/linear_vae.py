"""Start a video VAE as the best linear one: principal components of patches, where random weights take hours."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResidualBlock, patchify
from torch import Tensor, nn

# In a channel of its own, so large that the last norm divides all others by all but a constant.
CONSTANT = 100.0
LOG_VARIANCE = -6.0


@torch.no_grad()
def start_linear(vae: AutoencoderKLWan, pixels: Tensor) -> Tensor:
    """Let a VAE without resampling project frames' patches on their principal components, as many as it has latents.

    `pixels` B C T H W in [-1, 1] are what the components are of; latents have unit variance over them. Residual blocks
    begin as the identity, and other channels as they were drawn. Returns the deviation of each component: how much of
    a frame its latent is.
    """
    patches = patchify(pixels, vae.config.patch_size).movedim(1, -1).flatten(0, -2)
    mean, latents = patches.mean(0), vae.config.z_dim
    variances, components = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    basis, scale = components[:, -latents:], variances[-latents:].sqrt()
    for module in vae.modules():
        if isinstance(module, WanResidualBlock):
            _zero(module.conv2)
        elif isinstance(module, WanAttentionBlock):
            _zero(module.proj)
    encoder, decoder = vae.encoder, vae.decoder
    _set_linear(encoder.conv_in, _twice(basis.T / scale[:, None]), _twice(-(mean @ basis) / scale))
    _set_linear(decoder.conv_in, _twice(torch.eye(latents)), torch.zeros(2 * latents))
    for network, last in ((encoder, encoder.mid_block.resnets[-1]), (decoder, decoder.up_blocks[-1].resnets[-1])):
        _zero(network.conv_in, slice(-1, None))
        last.conv2.bias[-1] = CONSTANT
        gamma = network.norm_out.gamma
        gamma[:-1], gamma[-1] = CONSTANT / math.sqrt(len(gamma)), 0.0
        _zero(network.conv_out)
    _set_linear(encoder.conv_out, _twice(torch.eye(latents)).T, torch.zeros(latents))
    encoder.conv_out.bias[latents:] = LOG_VARIANCE
    _set_linear(decoder.conv_out, _twice((basis * scale).T).T, mean)
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        size = convolution.out_channels
        _set_linear(convolution, torch.eye(size), torch.zeros(size))
    return scale


def _twice(signals: Tensor) -> Tensor:
    """Signals and their negatives: SiLU(u) - SiLU(-u) is u."""
    return torch.cat([signals, -signals])


def _zero(layer: nn.Conv2d | nn.Conv3d, channels: slice = slice(None)) -> None:
    assert layer.bias is not None
    layer.weight[channels], layer.bias[channels] = 0.0, 0.0


def _set_linear(layer: nn.Conv3d, matrix: Tensor, bias: Tensor) -> None:
    """Let the first channels of a causal convolution be a linear map of the first ones of the place itself."""
    outputs, inputs = matrix.shape
    _, _, time, height, width = layer.weight.shape
    layer.weight[:outputs] = 0.0
    layer.weight[:outputs, :inputs, time - 1, height // 2, width // 2] = matrix
    assert layer.bias is not None
    layer.bias[:outputs] = bias
