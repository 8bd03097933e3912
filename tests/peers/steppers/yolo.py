"""YOLO11: task-aligned assignment, binary cross-entropy, CIoU and distribution focal loss, AdamW, the gradient's norm clipped at
10, a running average of weights and batch statistics."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .common import PICTURES, Optimiser, Stepper as Base, affine, copies, either, pictures, warm_cosine

N = {"classes": 1, "channels": 1, "width": 16, "repeats": 1, "bins": 16, "finest": 8, "side": 640, "steps": 20_000, "batch": 16,
     "crop": 640, "rate": 1e-3, "warm_up": 300, "decay": 0.999, "decay_warm_up": 500.0, "mirror": False, "zoom": 1.4,
     "degrees": 8.0, "intensity": 0.2, "noise": 0.03}
PRESETS = {
    "tiny": {**N, "width": 4, "bins": 8, "finest": 4, "side": 64, "steps": 60, "batch": 2, "crop": 64, "rate": 5e-3, "warm_up": 5,
             "decay": 0.95, "decay_warm_up": 20.0, "zoom": 1.1, "degrees": 2.0},
    "stone": {**N, "width": 8, "bins": 8, "finest": 4, "side": 416, "steps": 1_700, "batch": 8, "crop": 256, "rate": 2e-3,
              "warm_up": 100, "decay": 0.998, "decay_warm_up": 300.0, "mirror": True},
    "n": N,
}
PADDING = 114 / 255
STRIDES = (4, 8, 16, 32)
LESIONS = 3
CELLS_PER_LESION = 10


class Conv(nn.Module):
    def __init__(self, width, to, kernel=1, stride=1, groups=1, silu=True):
        super().__init__()
        self.convolution = nn.Conv2d(width, to, kernel, stride, kernel // 2, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight)
        self.norm, self.silu = nn.BatchNorm2d(to, 1e-3, 0.03), silu
        # Not counted: nobody reads the number, and each would be a kernel.
        self.norm.num_batches_tracked = None

    def forward(self, x):
        x = self.norm(self.convolution(x))
        return F.silu(x) if self.silu else x


class Bottleneck(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.first, self.second = Conv(width, hidden, 3), Conv(hidden, width, 3)

    def forward(self, x):
        return x + self.second(self.first(x))


class C3k(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.deep = nn.Sequential(Conv(width, half), Bottleneck(half, half), Bottleneck(half, half))
        self.short, self.join = Conv(width, half), Conv(2 * half, width)

    def forward(self, x):
        return self.join(torch.cat([self.deep(x), self.short(x)], 1))


class C3k2(nn.Module):
    def __init__(self, width, to, inner, repeats):
        super().__init__()
        middle = to // (4 if inner == "quarter" else 2)
        self.split, self.join = Conv(width, 2 * middle), Conv((2 + repeats) * middle, to)
        self.inner = nn.ModuleList(C3k(middle) if inner == "nested" else Bottleneck(middle, middle // 2) for _ in range(repeats))

    def forward(self, x):
        steps = list(self.split(x).chunk(2, 1))
        for inner in self.inner:
            steps.append(inner(steps[-1]))
        return self.join(torch.cat(steps, 1))


class Sppf(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.split, self.join = Conv(width, width // 2), Conv(2 * width, width)

    def forward(self, x):
        steps = [self.split(x)]
        for _ in range(3):
            steps.append(F.max_pool2d(steps[-1], 5, 1, 2))
        return self.join(torch.cat(steps, 1))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.count = max(1, width // 64)
        self.value, self.key = width // self.count, width // self.count // 2
        self.mixed = Conv(width, width + 2 * self.key * self.count, silu=False)
        self.position, self.projection = Conv(width, width, 3, groups=width, silu=False), Conv(width, width, silu=False)
        self.grow, self.shrink = Conv(width, 2 * width), Conv(2 * width, width, silu=False)

    def forward(self, x):
        mixed = self.mixed(x).reshape(len(x), self.count, 2 * self.key + self.value, -1)
        query, key, values = mixed.split([self.key, self.key, self.value], 2)
        attended = F.scaled_dot_product_attention(*(part.transpose(2, 3) for part in (query, key, values))).transpose(2, 3)
        x = x + self.projection(attended.reshape(x.shape) + self.position(values.reshape(x.shape)))
        return x + self.shrink(self.grow(x))


class C2psa(nn.Module):
    def __init__(self, width, repeats):
        super().__init__()
        self.split, self.join = Conv(width, width), Conv(width, width)
        self.attention = nn.Sequential(*(Attention(width // 2) for _ in range(repeats)))

    def forward(self, x):
        first, second = self.split(x).chunk(2, 1)
        return self.join(torch.cat([first, self.attention(second)], 1))


class Head(nn.Module):
    def __init__(self, width, boxes, classes, preset, stride):
        super().__init__()
        self.distances = nn.Sequential(Conv(width, boxes, 3), Conv(boxes, boxes, 3), nn.Conv2d(boxes, 4 * preset["bins"], 1))
        self.classes = nn.Sequential(Conv(width, width, 3, groups=width), Conv(width, classes),
                                     Conv(classes, classes, 3, groups=classes), Conv(classes, classes),
                                     nn.Conv2d(classes, preset["classes"], 1))
        for branch in (self.distances, self.classes):
            nn.init.normal_(branch[-1].weight, std=0.1 * math.sqrt(2 / branch[-1].in_channels))
            nn.init.zeros_(branch[-1].bias)
        # Scores start as low as five lesions in 640 x 640 px.
        nn.init.constant_(self.classes[-1].bias, math.log(5 / preset["classes"] / (640 / stride) ** 2))

    def forward(self, x):
        return self.distances(x).flatten(2), self.classes(x).flatten(2)


class Yolo(nn.Module):
    def __init__(self, preset):
        super().__init__()
        w, repeats, self.bins = preset["width"], preset["repeats"], preset["bins"]
        c3k2 = lambda width, to, inner="half": C3k2(width, to, inner, repeats)
        self.p2 = nn.Sequential(Conv(preset["channels"], w, 3, 2), Conv(w, 2 * w, 3, 2), c3k2(2 * w, 4 * w, "quarter"))
        self.p3 = nn.Sequential(Conv(4 * w, 4 * w, 3, 2), c3k2(4 * w, 8 * w, "quarter"))
        self.p4 = nn.Sequential(Conv(8 * w, 8 * w, 3, 2), c3k2(8 * w, 8 * w, "nested"))
        self.p5 = nn.Sequential(Conv(8 * w, 16 * w, 3, 2), c3k2(16 * w, 16 * w, "nested"), Sppf(16 * w), C2psa(16 * w, repeats))
        self.up4, self.up3 = c3k2(24 * w, 8 * w), c3k2(16 * w, 4 * w)
        self.fine = preset["finest"] == 4
        if self.fine:
            self.up2, self.halve3, self.down3 = c3k2(8 * w, 2 * w), Conv(2 * w, 2 * w, 3, 2), c3k2(6 * w, 4 * w)
        self.halve4, self.down4 = Conv(4 * w, 4 * w, 3, 2), c3k2(12 * w, 8 * w)
        self.halve5, self.down5 = Conv(8 * w, 8 * w, 3, 2), c3k2(24 * w, 16 * w, "nested")
        finest = 2 * w if self.fine else 4 * w
        boxes, classes = max(finest // 4, 4 * self.bins, 16), max(finest, min(preset["classes"], 100))
        levels = [stride for stride in STRIDES if stride >= preset["finest"]]
        self.heads = nn.ModuleList(Head(w * stride // 2, boxes, classes, preset, stride) for stride in levels)

    def forward(self, images):
        join = lambda x, skip: torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1)
        p2 = self.p2(images)
        p3 = self.p3(p2)
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        up4 = self.up4(join(p5, p4))
        up3 = self.up3(join(up4, p3))
        levels = []
        if self.fine:
            levels.append(self.up2(join(up3, p2)))
            up3 = self.down3(torch.cat([self.halve3(levels[0]), up3], 1))
        levels.append(up3)
        levels.append(self.down4(torch.cat([self.halve4(levels[-1]), up4], 1)))
        levels.append(self.down5(torch.cat([self.halve5(levels[-1]), p5], 1)))
        distances, classes = zip(*(head(x) for head, x in zip(self.heads, levels)))
        return torch.cat(distances, 2).unflatten(1, (4, self.bins)), torch.cat(classes, 2)


def sides(boxes):
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0), (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def overlaps(boxes, others):
    """IoU of boxes [.., 4] (left, top, right, bottom), 0 where both are empty."""
    first, last = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both, area, other = (torch.mul(*sides(part)) for part in (torch.cat([first, last], -1), boxes, others))
    return both / (area + other - both).clamp(min=1e-12)


def ciou(found, expected, tiny=1e-7):
    size = lambda boxes: (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    (width, height), (expected_width, expected_height) = size(found), size(expected)
    inner = (torch.minimum(found[..., 2:], expected[..., 2:]) - torch.maximum(found[..., :2], expected[..., :2])).clamp(min=0)
    outer = torch.maximum(found[..., 2:], expected[..., 2:]) - torch.minimum(found[..., :2], expected[..., :2])
    apart = (found[..., :2] + found[..., 2:] - expected[..., :2] - expected[..., 2:]) / 2
    both = inner.prod(-1)
    overlap = both / (width * height + expected_width * expected_height - both + tiny)
    far = apart.square().sum(-1) / (outer.square().sum(-1) + tiny)
    angle = lambda width, height: (width / (height + tiny)).atan()
    shape = (angle(expected_width, expected_height) - angle(width, height)).square() * (4 / math.pi ** 2)
    with torch.no_grad():
        weight = shape / (shape - overlap + (1 + tiny))
    return overlap - far - shape * weight


class Stepper(Base):
    def __init__(self, options):
        super().__init__(options, PRESETS[options.preset])
        preset = self.preset
        self.exported = self.place(Yolo(preset))
        self.network = self.compiled(self.exported)
        statistics = list(self.exported.buffers())
        self.followed, self.average = [*self.exported.parameters(), *statistics], copies(self.exported, statistics)
        convolution = lambda name, tensor: tensor.dim() == 4
        self.optimiser = Optimiser(self.exported.named_parameters(), (0.9, 0.999), 0.05, convolution)
        side = preset["side"]
        self.data, self.boxes, self.lesions = self.spotted(side)
        centres, steps = [], []
        for stride in (stride for stride in STRIDES if stride >= preset["finest"]):
            at = (torch.arange(preset["crop"] // stride) + 0.5) * stride
            centres.append(torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(-1, 2))
            steps.append(torch.full((len(centres[-1]),), float(stride)))
        self.centres, self.strides = self.send(torch.cat(centres)), self.send(torch.cat(steps))
        self.numbers = torch.arange(preset["bins"], device=self.device, dtype=torch.float32)

    def spotted(self, side):
        """Pictures in [0, 1], less the letterbox's grey, with bright discs; boxes [pictures, LESIONS, 4] and which there are."""
        middle = torch.rand(PICTURES, LESIONS, 2) * 0.7 * side + 0.15 * side
        radius = (torch.rand(PICTURES, LESIONS, 1) * 0.03 + 0.015) * side
        there = torch.arange(LESIONS) <= torch.randint(0, LESIONS, (PICTURES, 1))
        at = torch.arange(side) + 0.5
        apart = torch.hypot(at[None, None, None] - middle[:, :, :1, None], at[None, None, :, None] - middle[:, :, 1:, None])
        inside = ((apart < radius[..., None]) & there[:, :, None, None]).any(1, keepdim=True)
        images = torch.where(inside, 0.9, 0.2 + 0.1 * pictures(side))
        return images - PADDING, torch.cat([middle - radius, middle + radius], 2), there

    def cut(self):
        """A random cut-out of each image: images [N, channels, crop, crop], boxes and which there are."""
        preset, n, side, crop = self.preset, self.batch, float(self.preset["side"]), self.preset["crop"]
        zoom = preset["zoom"] ** either(1, n)
        angle = either(math.radians(preset["degrees"]), n)
        sine, cosine = angle.sin(), angle.cos()
        mirror = either(1, n).sign() if preset["mirror"] else torch.ones(n)
        x, y = (side / 2 + (side - crop / zoom).abs() / 2 * either(1, n) for _ in "xy")
        share = crop / zoom / side
        rows = [cosine * mirror * share, -sine * share, 2 * x / side - 1, sine * mirror * share, cosine * share, 2 * y / side - 1]
        shades = [1 + either(preset["intensity"], n), either(preset["intensity"] / 2, n), either(preset["noise"], n)]
        index = torch.randint(0, PICTURES, (n,))

        boxes, there = self.boxes[index], self.lesions[index]
        each = lambda values: values[:, None]
        middle_x, middle_y = ((boxes[..., axis] + boxes[..., axis + 2]) / 2 - each(of) for axis, of in ((0, x), (1, y)))
        width, height = sides(boxes)
        column = each(zoom * mirror) * (each(cosine) * middle_x + each(sine) * middle_y) + crop / 2
        row = each(zoom) * (each(cosine) * middle_y - each(sine) * middle_x) + crop / 2
        columns = each(zoom) * torch.hypot(each(cosine) * width, each(sine) * height) / 2
        lines = each(zoom) * torch.hypot(each(sine) * width, each(cosine) * height) / 2
        there = there & (column >= 0) & (column < crop) & (row >= 0) & (row < crop)
        boxes = torch.stack([column - columns, row - lines, column + columns, row + lines], -1).clamp(0, crop)

        drawn, boxes, there = self.send(torch.stack([*rows, *shades], 1)), self.send(boxes), self.send(there)
        grid = F.affine_grid(drawn[:, :6].reshape(n, 2, 3), (n, 1, crop, crop), align_corners=False)
        contrast, brightness, deviation = drawn[:, 6:].reshape(n, 3, 1, 1, 1).unbind(1)
        images = F.grid_sample(self.send(self.data[index]), grid, align_corners=False) + PADDING
        images = (images * contrast + brightness + self.normal(n, 1, crop, crop) * deviation).clamp(0, 1)
        return self.laid_out(images.expand(-1, preset["channels"], -1, -1)), boxes, there

    def corners(self, logits, cells=slice(None)):
        """Boxes [N, P, 4] in pixels of distances' logits [N, 4, bins, P] at cells."""
        centres, strides = self.centres[cells], self.strides[cells]
        distances = (logits.softmax(2) * self.numbers[:, None]).sum(2).transpose(1, 2) * strides[..., None]
        return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)

    @torch.no_grad()
    def assign(self, distances, scores, boxes, there):
        """Cells [N, lesions · most] that may answer for each lesion, and the scores that they are to give, 0 for those that do
        not: a fixed number, so that nothing waits for the device."""
        n, lesions, _ = boxes.shape
        overlap = overlaps(self.corners(distances)[:, None], boxes[:, :, None])
        alignment = scores.sqrt()[:, None] * overlap.pow(6)
        middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        apart = self.centres - middle[:, :, None]
        half = size.clamp(min=2.0 * self.preset["finest"])[:, :, None] / 2
        inside = ((apart >= -half) & (apart < half)).all(-1) & there[:, :, None]
        # Of those that nothing overlaps yet the nearest.
        key = torch.where(alignment > 0, alignment, -apart.square().sum(-1)).masked_fill_(~inside, -torch.inf)
        best, cells = key.topk(CELLS_PER_LESION, 2)
        own = best > -torch.inf
        overlap, alignment = overlap.gather(2, cells), alignment.gather(2, cells)
        # A cell that two lesions want answers for the one that it overlaps more, of equals for the first.
        flat, wanted = cells.flatten(1), torch.where(own, overlap, -1.0).flatten(1)
        most = wanted.new_full((n, len(self.centres)), -1).scatter_reduce(1, flat, wanted, "amax")
        lesion = torch.arange(lesions, device=boxes.device)[None, :, None].expand_as(cells).flatten(1)
        lesion = torch.where(own.flatten(1) & (wanted == most.gather(1, flat)), lesion, lesions)
        first = lesion.new_full((n, len(self.centres)), lesions).scatter_reduce(1, flat, lesion, "amin")
        own = ((lesion < lesions) & (first.gather(1, flat) == lesion)).reshape(own.shape)
        greatest, reached = ((part * own).amax(2, keepdim=True) for part in (alignment, overlap))
        share = torch.where(greatest > 0, alignment / greatest.clamp(min=1e-38), 1.0)
        return flat, ((share * reached).clamp(1e-4, 1) * own).flatten(1)

    def losses(self, distances, classes, boxes, there):
        preset = self.preset
        assert preset["classes"] == 1, "targets are of one class"
        cells, weights = self.assign(distances, classes[:, 0].sigmoid(), boxes, there)
        total = weights.sum().clamp(min=1)
        targets = torch.zeros_like(classes[:, 0]).scatter_add(1, cells, weights)
        of_class = F.binary_cross_entropy_with_logits(classes[:, 0], targets, reduction="sum") / total
        # Of the rest of the cells no box is needed with a gradient.
        logits = distances.gather(3, cells[:, None, None].expand(-1, 4, preset["bins"], -1))
        expected = boxes.repeat_interleave(CELLS_PER_LESION, 1)
        weights = weights / total
        overlap = ((1 - ciou(self.corners(logits, cells), expected)) * weights).sum()
        centres, strides = self.centres[cells], self.strides[cells][..., None]
        apart = torch.cat([centres - expected[..., :2], expected[..., 2:] - centres], -1) / strides
        apart = apart.clamp(0, preset["bins"] - 1.01)
        below = apart.floor()
        above, below = apart - below, below.long()
        logarithms = logits.permute(0, 3, 1, 2).log_softmax(-1)
        pair = logarithms.gather(-1, torch.stack([below, below + 1], -1))
        distance = (-(pair[..., 0] * (1 - above) + pair[..., 1] * above).mean(-1) * weights).sum()
        return 7.5 * overlap + 0.5 * of_class + 1.5 * distance, overlap.detach()

    def step(self):
        images, boxes, there = self.cut()
        with self.autocast():
            distances, classes = self.network(images)
        loss, overlap = self.losses(distances.float(), classes.float(), boxes, there)
        preset = self.preset
        self.optimiser.step(loss, warm_cosine(preset["rate"], preset["warm_up"], preset["steps"], 0.01, self.at), 10.0)
        self.follow(self.average, self.followed, preset["decay"] * (1 - math.exp(-(self.at + 1) / preset["decay_warm_up"])))
        self.at += 1
        return overlap
