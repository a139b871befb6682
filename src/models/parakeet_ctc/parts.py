"""Parts of transformers' Parakeet, put as parts that methods know; they compute the same.

- A pointwise convolution is a linear over the channels of a frame; so is the head, whose kernel is one frame wide.
- A batch norm that no longer learns scales and shifts the channels of the depthwise convolution before it: it is folded
  into that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class ConvolutionModule(nn.Module):
    """Pointwise convolution with a gate, depthwise convolution over time, activation, pointwise convolution.

    Attributes:
        pointwise_conv1: makes two values a channel, of which the second is the gate of the first.
        depthwise_conv: with the batch norm behind it.
        pointwise_conv2: writes into the residual stream.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.pointwise_conv1 = linear_of(module.pointwise_conv1)
        self.depthwise_conv = _normed(module.depthwise_conv, module.norm)
        self.activation = module.activation
        self.pointwise_conv2 = linear_of(module.pointwise_conv2)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Of ``hidden_states`` [batch, frames, d]; frames that ``attention_mask`` [batch, 1, frames, frames] (bool)
        lets see nothing are padding, of which the others shall not hear."""
        hidden = nn.functional.glu(self.pointwise_conv1(hidden_states), dim=-1)
        if attention_mask is not None:
            hidden = hidden.masked_fill(~attention_mask.any(dim=-1).transpose(1, 2), 0.0)
        hidden = self.activation(self.depthwise_conv(hidden.transpose(1, 2)).transpose(1, 2))
        output: Tensor = self.pointwise_conv2(hidden)
        return output


def prepare(module: PreTrainedModel) -> None:
    """Rewrites ``module`` in place; see the head of this file."""
    for layer in module.encoder.layers:
        layer.conv = ConvolutionModule(layer.conv)
    module.ctc_head = linear_of(module.ctc_head)


def linear_of(conv: nn.Module) -> nn.Linear:
    """The linear that does to the last axis what ``conv``, one frame wide, does to the channels."""
    weight, bias = _weights(conv)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.squeeze(-1))
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


def _normed(conv: nn.Module, norm: nn.Module) -> nn.Conv1d:
    """``conv`` followed by the batch norm ``norm``, which goes by the statistics that it stores, as one convolution."""
    if not isinstance(conv, nn.Conv1d) or not isinstance(norm, nn.BatchNorm1d):
        raise TypeError(f"a {type(conv).__name__} and a {type(norm).__name__}")
    weight, bias = _weights(conv)
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise TypeError("a batch norm that stores no statistics")
    scale = norm.weight.detach().double() * torch.rsqrt(variance.double() + norm.eps)
    shift = (0 if bias is None else bias.double()) - mean.double()
    folded = nn.Conv1d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        padding=conv.kernel_size[0] // 2,
        groups=conv.groups,
        device="meta",
    )
    folded.weight = nn.Parameter((weight.double() * scale[:, None, None]).to(weight.dtype))
    folded.bias = nn.Parameter((shift * scale + norm.bias.detach().double()).to(weight.dtype))
    return folded


def _weights(conv: nn.Module) -> tuple[Tensor, Tensor | None]:
    parameters = dict(conv.named_parameters(recurse=False))
    return parameters["weight"].detach(), parameters["bias"].detach() if "bias" in parameters else None
