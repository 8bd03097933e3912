"""StyleSwin: non-saturating logistic loss, R1 at every 16th step, Adam at two rates, a running average of the generator."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import Optimiser, Stepper as Base, affine, copies, either, pictures

BASE = {"batch": 8, "penalty": 10.0, "penalty_every": 16, "decay": 0.995, "shift": 0.125, "intensity": 0.2, "cutout": 0.4,
        "start": 4}
PRESETS = {
    "tiny": {**BASE, "latent": 8, "mapping": 2, "widths": [8, 8, 8], "heads": [2, 2, 2], "blocks": 1, "window": 4, "expansion": 2,
             "batch": 4, "decay": 0.9, "rate": 4e-3, "judge": [8, 8]},
    "ct64": {**BASE, "latent": 128, "mapping": 4, "widths": [128, 128, 128, 64, 32], "heads": [8, 8, 8, 4, 2], "blocks": 2,
             "window": 8, "expansion": 2, "rate": 8e-4, "judge": [128, 128, 128, 64]},
    "paper": {**BASE, "latent": 512, "mapping": 8, "widths": [512, 512, 512, 512, 256, 128, 64, 32, 16],
              "heads": [16, 16, 16, 16, 8, 4, 4, 4, 4], "blocks": 2, "window": 8, "expansion": 4, "batch": 32, "decay": 0.998,
              "rate": 2e-4, "judge": [512, 512, 512, 512, 512, 256, 128, 32]},
}


def linear(width, to, gain=1.0, bias=True):
    layer = nn.Linear(width, to, bias)
    nn.init.normal_(layer.weight, std=math.sqrt(gain / width))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Windows(nn.Module):
    """What the attention of a scale needs and does not learn, and the attention itself: half of the heads in shifted windows."""

    def __init__(self, side, heads, window):
        super().__init__()
        self.side, self.heads, self.window = side, heads // 2, min(window, side)
        self.shift = self.window // 2 if side > self.window else 0
        window, count, places = self.window, side // self.window, self.window ** 2
        row, column = torch.arange(places) // window, torch.arange(places) % window
        offset = lambda at: at[:, None] - at[None] + window - 1
        self.register_buffer("relative", (offset(row) * (2 * window - 1) + offset(column)).flatten())
        if self.shift:
            at = torch.arange(side)
            part = (at + window >= side).long() + (at + self.shift >= side).long()
            regions = (3 * part[:, None] + part).reshape(count, window, count, window).transpose(1, 2).reshape(-1, places)
            self.register_buffer("apart", -100.0 * (regions[:, :, None] != regions[:, None]).float())

    def windowed(self, features, bias):
        """`bias` [heads, p, p], or [windows, heads, p, p]: then windows are heads, so that nothing is repeated over images."""
        n, side, _, c = features.shape
        window, count, heads, places = self.window, self.side // self.window, self.heads, self.window ** 2
        width = c // 3 // heads
        parts = features.reshape(n, count, window, count, window, 3, heads, width).permute(5, 0, 1, 3, 6, 2, 4, 7)
        shape = (3, -1, heads, places, width) if bias.dim() == 3 else (3, n, count * count * heads, places, width)
        query, key, value = parts.reshape(shape).unbind(0)
        bias = bias.reshape(1, -1, places, places).expand(query.shape[0], -1, -1, -1).to(query.dtype)
        if query.is_cuda:
            mixed = F.scaled_dot_product_attention(query, key, value, bias)
        else:
            # The CPU's kernel does not know a bias that learns: what PyTorch falls back to takes 1.6 times as long as this.
            mixed = (query @ (key * width ** -0.5).transpose(2, 3) + bias).softmax(-1) @ value
        mixed = mixed.reshape(n, count, count, heads, window, window, width).permute(0, 1, 4, 2, 5, 3, 6)
        return mixed.reshape(n, side, side, c // 3)

    def forward(self, features, table):
        places, shift = self.window ** 2, self.shift
        bias = table.index_select(0, self.relative).reshape(places, places, -1).permute(2, 0, 1)
        plain, moved = features.chunk(2, 3)
        plain, of_moved = self.windowed(plain, bias[:self.heads]), bias[self.heads:]
        if not shift:
            return torch.cat([plain, self.windowed(moved, of_moved)], 3)
        moved = self.windowed(moved.roll((-shift, -shift), (1, 2)), of_moved + self.apart[:, None])
        return torch.cat([plain, moved.roll((shift, shift), (1, 2))], 3)


class Block(nn.Module):
    def __init__(self, width, heads, style, expansion, window):
        super().__init__()
        self.style0, self.style1 = linear(style, 2 * width), linear(style, 2 * width)
        for layer in (self.style0, self.style1):
            # Gain 1, shift 0.
            nn.init.ones_(layer.bias[:width])
        self.attention, self.projection = linear(width, 3 * width), linear(width, width)
        self.expand, self.contract = linear(width, expansion * width), linear(expansion * width, width)
        self.relative = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))

    def modulate(self, x, style):
        """AdaIN: each feature of each image to mean 0 and variance 1, then the style's gain and shift."""
        gain, shift = style[:, None, None].chunk(2, 3)
        variance, mean = torch.var_mean(x, (1, 2), correction=0, keepdim=True)
        gain = gain * (variance + 1e-5).rsqrt()
        return torch.addcmul(shift - mean * gain, x, gain)

    def forward(self, x, styles, windows):
        mixed = windows(self.attention(self.modulate(x, self.style0(styles))), self.relative)
        x = x + self.projection(mixed)
        return x + self.contract(F.gelu(self.expand(self.modulate(x, self.style1(styles)))))


class Generator(nn.Module):
    def __init__(self, preset):
        super().__init__()
        style, widths, start = preset["latent"], preset["widths"], preset["start"]
        self.mapping = nn.ModuleList(linear(style, style, 2.0) for _ in range(preset["mapping"]))
        self.constant = nn.Parameter(torch.randn(start, start, widths[0]))
        self.windows, self.blocks, self.images = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[:-1])
        self.projects = nn.ModuleList(linear(width, to, bias=False) for width, to in zip(widths, widths[1:]))
        for at, (width, heads) in enumerate(zip(widths, preset["heads"])):
            side = start << at
            self.windows.append(Windows(side, heads, preset["window"]))
            window = self.windows[-1].window
            shape = (width, heads, style, preset["expansion"], window)
            self.blocks.append(nn.ModuleList(Block(*shape) for _ in range(preset["blocks"])))
            self.images.append(linear(width, 1, 0.01))
            angles = torch.arange(side)[:, None] / 10_000 ** (torch.arange(width // 4) / (width // 4))
            places = torch.cat([angles.sin(), angles.cos()], 1)
            rows, columns = places[:, None].expand(side, side, -1), places[None].expand(side, side, -1)
            self.register_buffer(f"place{at}", torch.cat([rows, columns], 2))

    def styles(self, latents):
        w = latents * (latents.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            w = F.leaky_relu(layer(w), 0.2)
        return w

    def forward(self, latents):
        styles, x, image = self.styles(latents), self.constant[None], None
        for at, (windows, blocks, to_image) in enumerate(zip(self.windows, self.blocks, self.images)):
            if at:
                x = self.projects[at - 1](self.norms[at - 1](x)).permute(0, 3, 1, 2)
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
            x = x + getattr(self, f"place{at}")
            for block in blocks:
                x = block(x, styles, windows)
            part = to_image(x).permute(0, 3, 1, 2)
            image = part if image is None else F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False) + part
        return image


class Discriminator(nn.Module):
    """Haar bands of the image at every scale enter by a matrix; weights over their spectral norms' estimates are made once for all passes
    between two changes: see `normalised`."""

    def __init__(self, widths, start):
        super().__init__()
        widths = widths[::-1]
        shapes = {f"bands{at}": (width, 4, 1, 1) for at, width in enumerate(widths)}
        for at, (width, coarser) in enumerate(zip(widths, widths[1:])):
            shapes |= {f"first{at}": (width, width, 3, 3), f"second{at}": (coarser, width, 3, 3)}
        last, self.levels = widths[-1], len(widths)
        shapes |= {"last": (last, last + 1, 3, 3), "dense": (last, last * start ** 2), "logit": (1, last)}
        normal = lambda shape: nn.Parameter(torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:])))
        self.weights = nn.ParameterDict({name: normal(shape) for name, shape in shapes.items()})
        self.biases = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape[0])) for name, shape in shapes.items()})
        self.left = {name: F.normalize(torch.randn(shape[0]), dim=0) for name, shape in shapes.items()}
        self.right = {}
        signs = torch.tensor([[1, 1, 1, 1], [-1, -1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1]])
        self.register_buffer("haar", 0.5 * signs.reshape(4, 1, 2, 2))
        taps = torch.tensor([0.125, 0.375, 0.375, 0.125])
        self.register_buffer("binomial", taps.outer(taps)[None, None])

    @torch.no_grad()
    def iterate(self):
        for name, weight in self.weights.items():
            matrix = weight.flatten(1)
            self.right[name] = F.normalize(matrix.t().mv(self.left[name].to(weight.device)), dim=0)
            self.left[name] = F.normalize(matrix.mv(self.right[name]), dim=0)

    def normalised(self):
        norm = lambda name, weight: self.left[name].dot(weight.flatten(1).mv(self.right[name]))
        # The gain of the rectifier before, in the weight.
        gain = lambda name: 1.0 if name.startswith("bands") else math.sqrt(2)
        return {name: weight * (gain(name) / norm(name, weight)) for name, weight in self.weights.items()}

    def forward(self, images, weights):
        def bands(image, name):
            x = F.conv2d(image, self.haar, stride=2)
            return F.leaky_relu(F.conv2d(x, weights[name], self.biases[name]), 0.2)

        def convolve(x, name):
            return F.leaky_relu(F.conv2d(x, weights[name], self.biases[name], padding=1), 0.2)

        def halve(x, name):
            x = F.conv2d(x, self.binomial.expand(x.shape[1], -1, -1, -1), padding=2, groups=x.shape[1])
            return F.leaky_relu(F.conv2d(x, weights[name], self.biases[name], stride=2), 0.2)

        x = bands(images, "bands0")
        for at in range(1, self.levels):
            coarser = halve(convolve(x, f"first{at - 1}"), f"second{at - 1}")
            images = F.conv2d(images, self.binomial, stride=2, padding=1)
            x = coarser + bands(images, f"bands{at}")
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean().to(x.dtype).expand(len(x), 1, *x.shape[2:])
        x = convolve(torch.cat([x, deviation], 1), "last").flatten(1)
        x = F.leaky_relu(F.linear(x, weights["dense"], self.biases["dense"]), 0.2)
        return F.linear(x, weights["logit"], self.biases["logit"])


class Stepper(Base):
    def __init__(self, options):
        super().__init__(options, PRESETS[options.preset])
        preset = self.preset
        self.side = preset["start"] << len(preset["widths"]) - 1
        self.exported = self.place(Generator(preset))
        self.judge = self.place(Discriminator(preset["judge"], preset["start"]))
        self.generate, self.judged = self.compiled(self.exported), self.compiled(self.judge)
        # Its own mapping, which the mean style is from.
        self.mean_generator = self.place(Generator(preset))
        self.mean_generator.load_state_dict(self.exported.state_dict())
        self.average = list(self.mean_generator.requires_grad_(False).parameters())
        self.parameters = list(self.exported.parameters())
        self.mean_style = torch.zeros(preset["latent"], device=self.device)
        self.of_generator = Optimiser(self.exported.named_parameters(), (0.0, 0.99))
        self.of_judge = Optimiser(self.judge.named_parameters(), (0.0, 0.99))
        self.data = pictures(self.side)

    def augmented(self, images):
        """Shifted, changed in contrast and brightness, a square blanked; differentiable by the images."""
        n, side, preset = len(images), self.side, self.preset
        one, zero = torch.ones(n), torch.zeros(n)
        move = [(either(preset["shift"], n) * side).round() * 2 / side for _ in "xy"]
        size = round(preset["cutout"] * side)
        first = (torch.rand(2, n) * side).floor() - size // 2
        contrast, brightness = 1 + either(preset["intensity"], n), either(preset["intensity"], n)
        drawn = [one, zero, move[0], zero, one, move[1], contrast, brightness, *first]
        drawn = self.send(torch.stack(drawn, 1))
        contrast, brightness, top, left = drawn[:, 6:].reshape(n, 4, 1).unbind(1)
        at = torch.arange(side, device=self.device)
        blank = ((at >= top) & (at < top + size))[:, :, None] & ((at >= left) & (at < left + size))[:, None]
        grid = F.affine_grid(drawn[:, :6].reshape(n, 2, 3), (n, 1, side, side), align_corners=False)
        shifted = F.grid_sample(images + 1, grid, align_corners=False) - 1
        changed = torch.addcmul(brightness[..., None, None], shifted, contrast[..., None, None])
        return self.laid_out(changed.masked_fill(blank[:, None], 0))

    def real(self):
        images = self.drawn(self.data)
        mirrored = self.send(torch.rand(len(images), 1, 1, 1) < 0.5)
        return torch.where(mirrored, images.flip(3), images)

    def discriminate(self, made):
        preset, judge = self.preset, self.judge.requires_grad_(True)
        real, made = self.augmented(self.real()), self.augmented(made.detach())
        judge.iterate()
        weights = judge.normalised()
        with self.autocast():
            of_real, of_made = self.judged(real, weights).float(), self.judged(made, weights).float()
        loss = F.softplus(-of_real).mean() + F.softplus(of_made).mean()
        if self.at % preset["penalty_every"] == 0:
            # Compiled functions have no second derivative.
            images = real.detach().requires_grad_(True)
            with self.autocast():
                logits = judge(images, weights).float().sum()
            gradient = torch.autograd.grad(logits, images, create_graph=True)[0]
            loss = loss + gradient.float().square().sum() * (0.5 / len(images) * preset["penalty"] * preset["penalty_every"])
        self.of_judge.step(loss, preset["rate"])

    def step(self):
        preset = self.preset
        latents = self.send(torch.randn(self.batch, preset["latent"]))
        with self.autocast():
            made = self.generate(latents).float()
        self.discriminate(made)
        self.judge.requires_grad_(False)
        seen, weights = self.augmented(made), self.judge.normalised()
        with self.autocast():
            logits = self.judged(seen, weights).float()
        loss = F.softplus(-logits).mean()
        self.of_generator.step(loss, preset["rate"] / 4)
        decay = min(preset["decay"], (1 + self.at) / (10 + self.at))
        self.follow(self.average, self.parameters, decay)
        with torch.no_grad():
            self.mean_style.lerp_(self.mean_generator.styles(latents).mean(0), 1 - decay)
        self.at += 1
        return loss.detach()
