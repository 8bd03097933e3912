"""Token prior with the masked objective: cross-entropy of the hidden tokens, AdamW, the gradient's norm clipped at 1, a running
average of the weights. Tokens are given: the encoder that makes them does not run in libtorch in the project either."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import PICTURES, Optimiser, Stepper as Base, copies, pictures, rise_then_cosine

CT512 = {"rows": 128, "codes": 1024, "patch": 8, "embedding": 40, "local": 2, "width": 160, "layers": 4, "heads": 5,
         "modalities": 1, "views": 3, "steps": 3_000, "batch": 1, "repeats": 1, "rate": 6e-4, "warm_up": 100, "decay": 0.998,
         "dropout": 0.1}
PRESETS = {
    "tiny": {**CT512, "rows": 8, "codes": 32, "patch": 2, "embedding": 8, "local": 1, "width": 16, "layers": 2, "heads": 2,
             "steps": 60, "batch": 2, "rate": 3e-3, "warm_up": 5, "decay": 0.9, "dropout": 0.0},
    "ct512": CT512,
    "ct512-coarse": {**CT512, "rows": 32, "patch": 2, "width": 192, "layers": 5, "heads": 6, "steps": 8_000, "batch": 2,
                     "repeats": 3, "rate": 1e-3},
    "kub1024": {**CT512, "rows": 64, "patch": 4, "width": 192, "heads": 6, "views": 1, "steps": 1_500, "batch": 2, "rate": 4e-4},
}


def linear(width, to):
    layer = nn.Linear(width, to)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def table(rows, width):
    return nn.Embedding.from_pretrained(0.02 * torch.randn(rows, width), freeze=False)


class Local(nn.Module):
    """Depth-wise 5 x 5, norm, GELU between two matrices, and the way around: [N, h, w, e] to the same."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        nn.init.normal_(self.depthwise.weight, std=0.2)
        nn.init.zeros_(self.depthwise.bias)
        self.norm, self.expand, self.contract = nn.LayerNorm(width), linear(width, 2 * width), linear(2 * width, width)

    def forward(self, x):
        y = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.contract(F.gelu(self.expand(self.norm(y))))


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm0, self.norm1 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.projection = linear(width, 3 * width), linear(width, width)
        self.expand, self.contract = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x):
        n, t, w = x.shape
        query, key, value = self.attention(self.norm0(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, t, w)
        x = x + F.dropout(self.projection(mixed), self.dropout)
        return x + F.dropout(self.contract(F.gelu(self.expand(self.norm1(x)))), self.dropout)


class Prior(nn.Module):
    def __init__(self, preset):
        super().__init__()
        self.rows, self.patch = preset["rows"], preset["patch"]
        e, w, square = preset["embedding"], preset["width"], preset["patch"] ** 2 * preset["embedding"]
        self.codes = table(preset["codes"] + 1, e)
        self.modality, self.view = table(preset["modalities"] + 1, w), table(preset["views"] + 1, w)
        self.position = nn.Parameter(0.02 * torch.randn((self.rows // self.patch) ** 2, w))
        self.inward, self.outward, self.head = linear(square, w), linear(w, square), linear(e, preset["codes"])
        self.before, self.after = (nn.Sequential(*(Local(e) for _ in range(preset["local"]))) for _ in "ab")
        self.blocks = nn.Sequential(*(Block(w, preset["heads"], preset["dropout"]) for _ in range(preset["layers"])))
        self.norm, self.head_norm = nn.LayerNorm(w), nn.LayerNorm(e)

    def forward(self, tokens, conditions):
        n, rows, patch = len(tokens), self.rows, self.patch
        side = rows // patch
        local = self.before(self.codes(tokens))
        squares = local.reshape(n, side, patch, side, patch, -1).transpose(2, 3).reshape(n, side * side, -1)
        condition = self.modality(conditions[:, 0]) + self.view(conditions[:, 1])
        x = self.blocks(self.inward(squares) + (self.position + condition[:, None]))
        back = self.outward(self.norm(x)).reshape(n, side, side, patch, patch, -1).transpose(2, 3).reshape(n, rows, rows, -1)
        return self.head_norm(self.after(local + back)).flatten(0, 2)


class Stepper(Base):
    def __init__(self, options):
        super().__init__(options, PRESETS[options.preset])
        preset = self.preset
        self.exported = self.place(Prior(preset))
        self.features = self.compiled(self.exported)
        self.parameters, self.average = list(self.exported.parameters()), copies(self.exported)
        # Matrices decay; codes, conditions, positions, norms and biases do not.
        tables = ("codes.", "modality.", "view.")
        matrix = lambda name, tensor: name.endswith(".weight") and tensor.dim() == 2 and not name.startswith(tables)
        self.optimiser = Optimiser(self.exported.named_parameters(), (0.9, 0.96), 0.05, matrix)
        shades = pictures(preset["rows"]).flatten(1)
        self.data = ((shades + 1) / 2 * (preset["codes"] - 1)).round().long()
        assert len(self.data) == PICTURES

    def hidden(self, count, tokens):
        """Places of [count, tokens] that are hidden: of each a share whose arc cosine is uniform, at random."""
        shares = (math.pi / 2 * torch.rand(count)).cos()
        wanted = (tokens * shares).ceil().clamp(1, tokens).long()
        order = torch.rand(count, tokens).argsort(1) + tokens * torch.arange(count)[:, None]
        # On the host, as a loader would: on the device their number would have to be waited for.
        return order[torch.arange(tokens) < wanted[:, None]]

    def step(self):
        preset = self.preset
        drawn = self.data[torch.randint(0, len(self.data), (self.batch,))].repeat_interleave(preset["repeats"], 0)
        places = self.hidden(*drawn.shape)
        targets = drawn.flatten()[places]
        tokens = drawn.flatten().index_fill(0, places, preset["codes"]).reshape(-1, preset["rows"], preset["rows"])
        conditions = (torch.rand(len(drawn), 2) >= 0.1).long()
        places, targets, tokens, conditions = map(self.send, (places, targets, tokens, conditions))
        with self.autocast():
            logits = self.exported.head(self.features(tokens, conditions).index_select(0, places))
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=0.05)
        self.optimiser.step(loss, rise_then_cosine(preset["rate"], preset["warm_up"], preset["steps"], 0.02, self.at), 1.0)
        self.follow(self.average, self.parameters, min(preset["decay"], (1 + self.at) / (10 + self.at)))
        self.at += 1
        return loss.detach()
