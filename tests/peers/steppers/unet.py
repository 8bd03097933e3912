"""U-Net danger zones: Dice + binary cross-entropy, Adam, the gradient's norm clipped at 5."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import Optimiser, Stepper as Base, affine, either, pictures, warm_cosine

LUNG = {"widths": [16, 32, 64, 128], "side": 256, "steps": 400, "batch": 4, "rate": 3e-3, "warm_up": 20, "mirror": True,
        "zoom": 1.5, "shift": 0.12, "degrees": 15.0, "intensity": 0.2, "noise": 0.12}
PRESETS = {
    "tiny": {**LUNG, "widths": [4, 8], "side": 32, "steps": 60, "batch": 2, "rate": 1e-2, "warm_up": 2},
    "lung": LUNG,
    "kub": {**LUNG, "mirror": False, "zoom": 1.25, "degrees": 8.0},
}


def pair(width, to):
    layers = []
    for width in (width, to):
        convolution = nn.Conv2d(width, to, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        layers += [convolution, nn.GroupNorm(max(1, min(8, to // 4)), to), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Unet(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.down = nn.ModuleList(pair(width, to) for width, to in zip([1] + widths, widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(width, to, 2, 2) for width, to in zip(widths[:0:-1], widths[-2::-1]))
        self.up = nn.ModuleList(pair(2 * to, to) for to in widths[-2::-1])
        self.output = nn.Conv2d(widths[0], 1, 1)
        for layer in [*self.grow, self.output]:
            fan_in = layer.weight.shape[0] if layer is not self.output else widths[0]
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        skips = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for grow, up in zip(self.grow, self.up):
            x = up(torch.cat([grow(x), skips.pop()], 1))
        return self.output(x)


class Stepper(Base):
    def __init__(self, options):
        super().__init__(options, PRESETS[options.preset])
        self.exported = self.place(Unet(self.preset["widths"]))
        self.network = self.compiled(self.exported)
        self.optimiser = Optimiser(self.exported.named_parameters(), (0.9, 0.999))
        images = pictures(self.preset["side"])
        # Shifted by one: what comes in from outside, zero, is air. The mask beside it, so that one pass samples both.
        self.data = torch.cat([images + 1, (images > 0).float()], 1)

    def matrices(self):
        preset, n = self.preset, self.batch
        zoom = preset["zoom"] ** either(1, n)
        angle = either(math.radians(preset["degrees"]), n)
        flip_x, flip_y = (either(1, n).sign() if preset["mirror"] else torch.ones(n) for _ in "xy")
        sine, cosine = angle.sin() / zoom, angle.cos() / zoom
        shift_x, shift_y = (either(2 * preset["shift"], n) for _ in "xy")
        return affine([flip_x * cosine, -flip_x * sine, shift_x, flip_y * sine, flip_y * cosine, shift_y])

    def drawn_pairs(self):
        preset, n, side = self.preset, self.batch, self.preset["side"]
        shades = torch.stack([1 + either(preset["intensity"], n), either(preset["intensity"], n), either(preset["noise"], n)])
        contrast, brightness, deviation = self.send(shades).reshape(3, n, 1, 1, 1)
        grid = F.affine_grid(self.send(self.matrices()), (n, 1, side, side), align_corners=False)
        both = F.grid_sample(self.drawn(self.data), grid, align_corners=False)
        images = (both[:, :1] - 1) * contrast + brightness + self.normal(n, 1, side, side) * deviation
        return self.laid_out(images.clamp(-1, 1)), (both[:, 1:] > 0.5).float()

    def step(self):
        images, masks = self.drawn_pairs()
        with self.autocast():
            logits = self.network(images).float()
        share = logits.sigmoid()
        dice = 1 - (2 * (share * masks).sum() + 1) / (share.sum() + masks.sum() + 1)
        loss = dice + F.binary_cross_entropy_with_logits(logits, masks)
        preset = self.preset
        self.optimiser.step(loss, warm_cosine(preset["rate"], preset["warm_up"], preset["steps"], 0.01, self.at), 5.0)
        self.at += 1
        return dice.detach()
