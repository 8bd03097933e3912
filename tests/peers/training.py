"""The training steps of the project in PyTorch eager: same architecture, batch and threads as shared/models/examples/steps.rs.

usage: training.py hdfb|singan STEPS THREADS; prints {"seconds", "peak_mb"}: the median step, peak resident memory.
       training.py lesion SIDE STEPS THREADS; prints {"seconds", "iterations_s", "peak_mb"}: what 2,000 iterations of every scale of a SIDE px
       exemplar take, from the median iteration of each, coarse to fine.
"""
import json
import math
import pathlib
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import networks


def waves(side):
    y, x = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    return 0.6 * torch.sin(x / 7) * torch.cos(y / 11) + 0.3 * torch.sin(x * y / 97)


class Hdfb:
    """L1 + MSE + 0.1 (commitment + 0.33 codebook), Adam, the gradient's norm clipped at 1, average of the weights, dead codes
    seeded anew: a step of the preset ct512-light, batch 2 of 192 x 192."""

    def __init__(self):
        torch.manual_seed(1)
        self.net = networks.Vqgan(networks.packages("vqgan")[0][1]["configuration"])
        self.codes = self.net.quantiser["codes"]
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-3, betas=(0.9, 0.99))
        self.average = [parameter.detach().clone() for parameter in self.net.parameters()]
        self.ages = torch.zeros(len(self.codes))
        self.image = waves(512)

    def crop(self):
        top, left = torch.randint(0, 512 - 192, (2,)).tolist()
        return torch.rot90(self.image[top:top + 192, left:left + 192], int(torch.randint(0, 4, ())))[None]

    def step(self):
        x = torch.stack([self.crop(), self.crop()]).contiguous()
        z = self.net.encoder(x)
        n, d, h, w = z.shape
        scale = math.sqrt(d)
        unit = F.normalize(z.permute(0, 2, 3, 1).reshape(-1, d), dim=1)
        codes = F.normalize(self.codes, dim=1)
        with torch.no_grad():
            index = (unit @ codes.t()).argmax(1)
        quantised, flat = F.embedding(index, codes) * scale, unit * scale
        loss = F.mse_loss(flat, quantised.detach()) + 0.33 * F.mse_loss(quantised, flat.detach())
        straight = flat + (quantised - flat).detach()
        y = self.net.decoder(straight.reshape(n, h, w, d).permute(0, 3, 1, 2).contiguous())
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 0.1 * loss
        loss.item()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.net.parameters()), 0.005)
            self.ages += 1
            self.ages[index] = 0
            dead = (self.ages > 20).nonzero().flatten()
            if len(dead):
                self.codes[dead] = unit.detach()[torch.randint(0, len(unit), (len(dead),))] * scale
                for moment in ("exp_avg", "exp_avg_sq"):
                    self.optimiser.state[self.codes][moment][dead] = 0
                self.ages[dead] = 0


def pyramid(side, coarsest=25, factor=0.75):
    """Sides of the published pyramid, coarse to fine; the factor is recomputed so that the coarsest is met."""
    last = math.ceil(math.log(coarsest / side) / math.log(factor)) + 1
    factor = (coarsest / side) ** (1 / last)
    return [math.ceil(side * factor ** (last - scale) - 1e-6) for scale in range(last + 1)]


class Singan:
    """One iteration of the finest scale of an exemplar: three critic steps with gradient penalty, three generator steps."""

    def __init__(self, sizes=(25, 31, 37, 44)):
        torch.manual_seed(1)
        self.sizes = list(sizes)
        side = self.sizes[-1]
        self.shape = (1, 2, side, side)
        widths = [min(32 << scale // 4, 128) for scale in range(len(self.sizes))]
        self.finished = [networks.Stack(width).requires_grad_(False) for width in widths[:-1]]
        self.generator, self.critic = networks.Stack(widths[-1]), networks.Stack(widths[-1], 1)
        make = lambda net: torch.optim.Adam(net.parameters(), lr=5e-4, betas=(0.5, 0.999))
        self.generator_adam, self.critic_adam = make(self.generator), make(self.critic)
        y, x = torch.meshgrid(*[torch.arange(float(side)) - (side - 1) / 2] * 2, indexing="ij")
        mask = (0.3 * side - (x * x + y * y).sqrt()).clamp(-1, 1)
        self.real = torch.stack([waves(side), mask])[None]
        self.previous, self.noise = torch.zeros_like(self.real), torch.zeros_like(self.real)

    def fresh(self):
        with torch.no_grad():
            x = torch.zeros(1, 2, 25, 25)
            for at, stack in enumerate(self.finished):
                side = self.sizes[at]
                noise = torch.randn(1, 1 if at == 0 else 2, side, side).expand(-1, 2, -1, -1)
                x = networks.generate(stack, noise, x)
                x = F.interpolate(x, size=(self.sizes[at + 1],) * 2, mode="bicubic", align_corners=False)
            if not self.finished:
                # The coarsest scale: one map for both channels, and nothing before it.
                return torch.randn(1, 1, *self.shape[2:]).expand(self.shape), torch.zeros(self.shape)
        return torch.randn(self.shape), x

    def step(self):
        for _ in range(3):
            noise, previous = self.fresh()
            with torch.no_grad():
                fake = networks.generate(self.generator, noise, previous)
            share = torch.rand(())
            between = (self.real * share + fake * (1 - share)).requires_grad_(True)
            gradient = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)[0]
            penalty = ((gradient.square().sum(1) + 1e-12).sqrt() - 1).square().mean()
            loss = self.critic(fake).mean() - self.critic(self.real).mean() + 0.1 * penalty
            self.critic_adam.zero_grad()
            loss.backward()
            self.critic_adam.step()
        for _ in range(3):
            noise, previous = self.fresh()
            adversarial = -self.critic(networks.generate(self.generator, noise, previous)).mean()
            rebuilt = networks.generate(self.generator, self.noise, self.previous)
            loss = adversarial + 10 * F.mse_loss(rebuilt, self.real)
            self.generator_adam.zero_grad()
            loss.backward(inputs=list(self.generator.parameters()))
            self.generator_adam.step()


def median_step(trainer, steps):
    for _ in range(3):
        trainer.step()
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main():
    model, steps, threads = sys.argv[1], int(sys.argv[-2]), int(sys.argv[-1])
    torch.set_num_threads(threads)
    if model == "lesion":
        sizes = pyramid(int(sys.argv[2]))
        each = [median_step(Singan(sizes[:scale + 1]), steps) for scale in range(len(sizes))]
        result = {"seconds": 2000 * sum(each), "iterations_s": each}
    else:
        result = {"seconds": median_step({"hdfb": Hdfb, "singan": Singan}[model](), steps)}
    # As the other side reads it: ru_maxrss of a fresh process can carry its parent's.
    peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({**result, "peak_mb": int(peak.split()[1]) // 1024}))


if __name__ == "__main__":
    main()
