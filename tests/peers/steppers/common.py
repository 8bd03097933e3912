"""What the steps share: pictures, random geometry, and a step's end from the loss to the running average."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

PICTURES = 32


def pictures(side, count=PICTURES, cells=8):
    """Smooth pictures in [-1, 1], f32 [count, 1, side, side]."""
    return F.interpolate(torch.randn(count, 1, cells, cells), size=(side, side), mode="bicubic").clamp(-1, 1)


def either(limit, count):
    """Uniform within `limit` each way, f32 [count]; on the host, where a loader draws."""
    return limit * (2 * torch.rand(count) - 1)


def affine(grid_rows):
    """Six rows of [N] to the matrices [N, 2, 3] of affine_grid."""
    return torch.stack(grid_rows, 1).reshape(-1, 2, 3)


def warm_cosine(rate, warm_up, steps, least, step):
    """U-Net's and YOLO's: a cosine from the first step on, under a linear warm-up."""
    cosine = least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
    return rate * min((step + 1) / warm_up, 1) * cosine


def rise_then_cosine(rate, warm_up, steps, least, step):
    """The diffusion model's and the prior's: a cosine that begins behind the warm-up."""
    if step < warm_up:
        return rate * (step + 1) / warm_up
    share = min((step - warm_up) / max(steps - warm_up, 1), 1)
    return rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * share)))


class Stepper:
    """One model in training. A subclass makes its networks, sets `exported`, and has `step()` give the first figure of the
    project's step as a tensor, so that nothing waits for the device."""

    def __init__(self, options, preset):
        self.options, self.preset, self.device, self.at = options, preset, torch.device(options.device), 0
        self.batch = options.batch or preset["batch"]

    def place(self, network):
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.options.channels_last else network

    def compiled(self, call):
        return torch.compile(call, mode=self.options.compile) if self.options.compile else call

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")

    def send(self, tensor):
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def drawn(self, data):
        """A batch of the host's `data`, now on the device."""
        return self.send(data[torch.randint(0, len(data), (self.batch,))])

    def normal(self, *shape):
        return torch.randn(*shape, device=self.device)

    def laid_out(self, images):
        return images.contiguous(memory_format=torch.channels_last) if self.options.channels_last else images

    def follow(self, average, network, decay):
        """The average of the weights, drawn towards the network's."""
        with torch.no_grad():
            torch._foreach_lerp_(average, network, 1 - decay)


class Optimiser:
    """Adam, decoupled decay of what `decays` names, and the gradient's norm clipped. Fused: one kernel a step, on the CPU too."""

    def __init__(self, named, beta, decay=0.0, decays=lambda name, tensor: False):
        named = list(named)
        self.parameters = [tensor for _, tensor in named]
        groups = [{"params": [tensor for name, tensor in named if decays(name, tensor) == has],
                   "weight_decay": decay if has else 0.0} for has in (True, False)]
        make = torch.optim.AdamW if decay else torch.optim.Adam
        self.adam = make([group for group in groups if group["params"]], betas=beta, eps=1e-8, fused=True)

    def step(self, loss, rate, clip=None):
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, clip)
        self.adam.step()


def copies(network, buffers=()):
    """Storage for a running average: the parameters', and those of `buffers`."""
    return [tensor.detach().clone() for tensor in [*network.parameters(), *buffers]]
