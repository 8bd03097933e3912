"""Denoising diffusion: mean squared error of the noise, Adam, the gradient's norm clipped at 1, a running average of the
weights."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import Optimiser, Stepper as Base, affine, copies, pictures, rise_then_cosine

PAPER = {"side": 128, "widths": [128, 128, 256, 256, 512], "blocks": 2, "groups": 32, "attention": [16], "time_width": 512,
         "times": 1000, "beta": (1e-4, 0.02), "steps": 500_000, "batch": 64, "rate": 2e-5, "least": 1.0, "warm_up": 5_000,
         "decay": 0.9999, "shift": 4}
CT64 = {**PAPER, "side": 64, "widths": [16, 32, 64, 96], "blocks": 1, "groups": 8, "attention": [8], "time_width": 128,
        "steps": 4_000, "batch": 16, "rate": 1.5e-3, "least": 0.02, "warm_up": 50}
PRESETS = {
    "tiny": {**CT64, "side": 16, "widths": [8, 16], "groups": 4, "time_width": 16, "steps": 60, "batch": 4, "rate": 3e-3,
             "warm_up": 5, "shift": 1},
    "ct64": CT64,
    "paper": PAPER,
}


def filled(layer, zero=False):
    nn.init.normal_(layer.weight, std=0 if zero else layer.weight[0].numel() ** -0.5)
    nn.init.zeros_(layer.bias)
    return layer


def conv(width, to, kernel=3, stride=1, zero=False):
    return filled(nn.Conv2d(width, to, kernel, stride, kernel // 2), zero)


class Block(nn.Module):
    def __init__(self, width, to, groups, time):
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(groups, width, 1e-6), nn.GroupNorm(groups, to, 1e-6)
        self.conv0, self.conv1 = conv(width, to), conv(to, to, zero=True)
        self.time = filled(nn.Linear(time, to))
        self.short = conv(width, to, 1) if width != to else nn.Identity()

    def forward(self, x, time):
        h = self.conv0(F.silu(self.norm0(x))) + self.time(time)[:, :, None, None]
        return self.short(x) + self.conv1(F.silu(self.norm1(h)))


class Attention(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.mixed, self.projection = conv(width, 3 * width, 1), conv(width, width, 1, zero=True)

    def forward(self, x):
        n, c, h, w = x.shape
        query, key, value = self.mixed(self.norm(x)).reshape(n, 3, c, h * w).transpose(2, 3).unsqueeze(2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.projection(mixed.squeeze(1).transpose(1, 2).reshape(n, c, h, w))


class Denoiser(nn.Module):
    def __init__(self, preset):
        super().__init__()
        widths, groups, time = preset["widths"], preset["groups"], preset["time_width"]
        count = time // 8
        self.register_buffer("frequencies", torch.tensor([1e-4 ** (at / max(count - 1, 1)) for at in range(count)]))
        self.first, self.second = filled(nn.Linear(2 * count, time)), filled(nn.Linear(time, time))

        def level(at, width, to):
            attends = preset["side"] >> at in preset["attention"]
            return nn.ModuleList([Block(width, to, groups, time), Attention(to, groups) if attends else nn.Identity()])

        width, skips = widths[0], []
        self.stem = conv(1, width)
        self.halve, self.down = nn.ModuleList(), nn.ModuleList()
        for at, to in enumerate(widths):
            self.halve.append(conv(width, width, stride=2) if at else nn.Identity())
            self.down.append(nn.ModuleList())
            for _ in range(preset["blocks"]):
                self.down[-1].append(level(at, width, to))
                width = to
                skips.append(width)
        first, last = (Block(width, width, groups, time) for _ in "ab")
        self.middle = nn.ModuleList([first, Attention(width, groups), last])
        self.enlarge, self.up = nn.ModuleList(), nn.ModuleList()
        for at, to in reversed(list(enumerate(widths))):
            last = at + 1 == len(widths)
            self.enlarge.append(nn.Identity() if last else nn.Sequential(nn.Upsample(scale_factor=2.0), conv(width, to)))
            width = width if last else to
            self.up.append(nn.ModuleList())
            for _ in range(preset["blocks"]):
                self.up[-1].append(level(at, width + skips.pop(), to))
                width = to
        self.norm, self.output = nn.GroupNorm(groups, width, 1e-6), conv(width, 1, zero=True)

    def forward(self, x, times):
        angles = times.float()[:, None] * self.frequencies
        time = F.silu(self.second(F.silu(self.first(torch.cat([angles.sin(), angles.cos()], 1)))))
        x, skips = self.stem(x), []
        for halve, blocks in zip(self.halve, self.down):
            x = halve(x)
            for block, attention in blocks:
                x = attention(block(x, time))
                skips.append(x)
        first, attention, last = self.middle
        x = last(attention(first(x, time)), time)
        for enlarge, blocks in zip(self.enlarge, self.up):
            x = enlarge(x)
            for block, attention in blocks:
                x = attention(block(torch.cat([x, skips.pop()], 1), time))
        return self.output(F.silu(self.norm(x)))


class Stepper(Base):
    def __init__(self, options):
        super().__init__(options, PRESETS[options.preset])
        preset = self.preset
        self.exported = self.place(Denoiser(preset))
        self.network = self.compiled(self.exported)
        self.parameters, self.average = list(self.exported.parameters()), copies(self.exported)
        self.optimiser = Optimiser(self.exported.named_parameters(), (0.9, 0.999))
        kept = (1 - torch.linspace(*preset["beta"], preset["times"], dtype=torch.float64)).cumprod(0)
        self.of_image, self.of_noise = kept.sqrt().float(), (1 - kept).sqrt().float()
        self.data = pictures(preset["side"]) + 1

    def images(self):
        """Mirrored and moved by whole pixels; what comes in is air."""
        n, side, most = self.batch, self.preset["side"], self.preset["shift"]
        mirror, zero = 1.0 - 2 * torch.randint(0, 2, (n,)), torch.zeros(n)
        dx, dy = 2 / side * torch.randint(-most, most + 1, (2, n))
        grid = F.affine_grid(self.send(affine([mirror, zero, dx, zero, zero + 1, dy])), (n, 1, side, side), align_corners=False)
        return F.grid_sample(self.drawn(self.data), grid, mode="nearest", align_corners=False) - 1

    def step(self):
        images = self.images()
        times = torch.randint(0, self.preset["times"], (self.batch,))
        of_image, of_noise = (self.send(shares[times].reshape(-1, 1, 1, 1)) for shares in (self.of_image, self.of_noise))
        noise = torch.randn_like(images)
        with self.autocast():
            found = self.network(self.laid_out(of_image * images + of_noise * noise), self.send(times)).float()
        loss = F.mse_loss(found, noise)
        preset = self.preset
        rate = rise_then_cosine(preset["rate"], preset["warm_up"], preset["steps"], preset["least"], self.at)
        self.optimiser.step(loss, rate, 1.0)
        self.follow(self.average, self.parameters, min(preset["decay"], (1 + self.at) / (10 + self.at)))
        self.at += 1
        return loss.detach()
