"""The project's networks as plain PyTorch modules, filled from the shipped packages' ONNX initialisers, which carry the
training variables' names. Images are float32 in [-1, 1], [N, 1, H, W]."""
import json
import math
import pathlib

import numpy
import onnx
import torch
import torch.nn as nn
import torch.nn.functional as F

MODELS = pathlib.Path(__file__).resolve().parents[2] / "infra" / "pack" / "models"


def norm(width):
    return nn.GroupNorm(max(1, min(32, width // 4)), width, eps=1e-6)


class Enhancement(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = norm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, h):
        return h + self.pointwise(self.depthwise(F.gelu(self.conv(self.norm(h)))))


class Excitation(nn.Module):
    def __init__(self, width):
        super().__init__()
        inner = max(1, width // 4)
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """HDFB of unchanged width."""

    def __init__(self, width, excite=False):
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.enhance = Enhancement(width)
        self.excite = Excitation(width) if excite else None

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.enhance(F.silu(self.norm2(h)))
        return (self.excite(h) if self.excite is not None else h) + x


class LightBlock(nn.Module):
    """Light HDFB of unchanged width."""

    def __init__(self, width, excite=False):
        super().__init__()
        self.norm1 = norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.excite = Excitation(width) if excite else None

    def forward(self, x):
        h = self.pointwise(self.depthwise(F.gelu(self.conv1(F.silu(self.norm1(x))))))
        return (self.excite(h) if self.excite is not None else h) + x


BLOCKS = {"hdfb": Block, "hdfb-light": LightBlock}


class Up(nn.Module):
    def __init__(self, width, to, stride):
        super().__init__()
        self.deconvolution = nn.ConvTranspose2d(width, to, 2 * stride, stride, stride // 2)
        self.shortcut = nn.Conv2d(width, to, 1)
        self.stride = float(stride)

    def forward(self, x):
        return self.deconvolution(x) + F.interpolate(self.shortcut(x), scale_factor=self.stride, mode="nearest")


def stage(**parts):
    return nn.ModuleDict(parts)


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        stages, width, block = [], config["channels"], BLOCKS[config["block"]]
        for to, stride in zip(config["widths"], config["strides"]):
            stages.append(stage(down=nn.Conv2d(width, to, 2 * stride, stride, stride // 2), block=block(to)))
            width = to
        self.stages = nn.ModuleList(stages)
        self.middle = nn.ModuleList(block(width) for _ in range(config["middle_blocks"]))
        self.norm, self.out = norm(width), nn.Conv2d(width, config["latent"], 1)

    def forward(self, x):
        for part in self.stages:
            x = part["block"](part["down"](x))
        for block in self.middle:
            x = block(x)
        return self.out(F.silu(self.norm(x)))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, block = config["widths"][-1], BLOCKS[config["block"]]
        self.add_module("in", nn.Conv2d(config["latent"], width, 1))
        self.middle = nn.ModuleList(block(width) for _ in range(config["middle_blocks"]))
        stages = []
        for to, stride in zip(config["widths"][-2::-1] + [config["output_width"]], config["strides"][::-1]):
            stages.append(stage(up=Up(width, to, stride), block=block(to, config["squeeze_excitation"])))
            width = to
        self.stages = nn.ModuleList(stages)
        self.norm, self.out = norm(width), nn.Conv2d(width, config["channels"], 3, padding=1)

    def forward(self, codes):
        x = getattr(self, "in")(codes)
        for block in self.middle:
            x = block(x)
        for part in self.stages:
            x = part["block"](part["up"](x))
        return self.out(F.silu(self.norm(x)))


class Vqgan(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantiser = nn.ParameterDict({"codes": torch.randn(config["codes"], config["latent"])})

    def tokens(self, x):
        h = self.encoder(x).permute(0, 2, 3, 1)
        return (h @ F.normalize(self.quantiser["codes"], dim=1).t()).argmax(-1)

    def decode(self, tokens):
        codes = self.quantiser["codes"]
        h = F.embedding(tokens, F.normalize(codes, dim=1) * math.sqrt(codes.shape[1])).permute(0, 3, 1, 2)
        return self.decoder(h).clamp(-1, 1)

    def forward(self, x):
        return self.decode(self.tokens(x))


class Unet(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = config["widths"]

        def pair(width, to, **more):
            def group():
                return nn.GroupNorm(max(1, min(8, to // 4)), to, eps=1e-5)
            return stage(convolution0=nn.Conv2d(width, to, 3, padding=1, bias=False), norm0=group(),
                         convolution1=nn.Conv2d(to, to, 3, padding=1, bias=False), norm1=group(), **more)

        self.levels = len(widths)
        for level, (width, to) in enumerate(zip([1] + widths, widths)):
            self.add_module(f"down{level}", pair(width, to))
        for level in range(self.levels - 2, -1, -1):
            to = widths[level]
            self.add_module(f"up{level}", pair(2 * to, to, transposed=nn.ConvTranspose2d(widths[level + 1], to, 2, 2)))
        self.output = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x):
        def pair(part, x):
            for at in "01":
                x = F.relu(part["norm" + at](part["convolution" + at](x)))
            return x

        skips = []
        for level in range(self.levels):
            x = pair(getattr(self, f"down{level}"), F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for level in range(self.levels - 2, -1, -1):
            part = getattr(self, f"up{level}")
            x = pair(part, torch.cat([part["transposed"](x), skips.pop()], 1))
        return self.output(x)


class Stack(nn.Module):
    """Five valid 3 x 3 convolutions; an instance norm and LeakyReLU after the first four."""

    def __init__(self, width, out=2):
        super().__init__()
        for at in range(5):
            parts = {"convolution": nn.Conv2d(2 if at == 0 else width, out if at == 4 else width, 3)}
            if at < 4:
                parts["norm"] = nn.InstanceNorm2d(width, eps=1e-5, affine=True)
            self.add_module(f"layer{at}", stage(**parts))

    def forward(self, x):
        for at in range(5):
            part = getattr(self, f"layer{at}")
            x = part["convolution"](x)
            x = F.leaky_relu(part["norm"](x), 0.2) if at < 4 else x
        return x


def generate(stack, noise, previous):
    padded = F.pad(noise, (5, 5, 5, 5))
    if previous is None:
        return torch.tanh(stack(padded))
    return torch.tanh(stack(padded + F.pad(previous, (5, 5, 5, 5), mode="replicate"))) + previous


class Singan(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        for at, width in enumerate(config["widths"]):
            self.add_module(f"scale{at}", Stack(width))

    def forward(self, noises):
        """From N(0, 1) maps [N, 1 or 2, h, w], one a scale, to image and mask [N, 2, h, w]."""
        x = None
        for at, (noise, amplitude) in enumerate(zip(noises, self.config["noise_amplitudes"])):
            if x is not None and x.shape[2:] != noise.shape[2:]:
                x = F.interpolate(x, size=noise.shape[2:], mode="bicubic", align_corners=False)
            x = generate(getattr(self, f"scale{at}"), (noise * amplitude).expand(-1, 2, -1, -1), x)
        return x


def packages(kind):
    """The shipped packages of a kind: folder and description, those for CT first, by name; the first is the default."""
    folders = [path for path in (MODELS / kind).iterdir() if (path / "model.json").is_file()]
    found = [(folder, json.loads((folder / "model.json").read_text())) for folder in folders]
    return sorted(found, key=lambda package: (package[1].get("modality") is not None, package[1]["name"], package[0]))


def load(module, folder, description):
    values = {}
    for name in description["graphs"].values():
        for initialiser in onnx.load(folder / name).graph.initializer:
            array = numpy.array(onnx.numpy_helper.to_array(initialiser))
            # Large weights of packages that travel are in half precision.
            name = initialiser.name.removesuffix(".f16")
            values[name] = torch.from_numpy(array).float() if array.dtype == numpy.float16 else torch.from_numpy(array)
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in values]
    if missing:
        raise SystemExit(f"{folder}: the graphs have no initialisers {missing}")
    module.load_state_dict({name: values[name] for name in wanted})
    return module.eval().requires_grad_(False)


def shipped(vqgan=None):
    """The networks of the pack: VQGAN (the default one, or the one of that name), U-Net, SinGANs."""
    def one(make, kind, name=None):
        folder, description = next(package for package in packages(kind) if name in (None, package[1]["name"]))
        return load(make(description["configuration"]), folder, description)

    singans = [load(Singan(description["configuration"]), folder, description) for folder, description in packages("singan")]
    return one(Vqgan, "vqgan", vqgan), one(Unet, "unet"), singans
