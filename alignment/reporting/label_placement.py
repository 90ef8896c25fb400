"""Where to put the names of points so that they cover neither each other nor what they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Pixel = tuple[float, float]
Segment = tuple[Pixel, Pixel]


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def centre(self) -> Pixel:
        """Its middle."""
        return ((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    def overlap(self, other: Box) -> float:
        """Common area."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0.0) * max(height, 0.0)

    def grown(self, amount: float) -> Box:
        """The box with a margin around it."""
        return Box(self.x0 - amount, self.y0 - amount, self.x1 + amount, self.y1 + amount)

    def nearest(self, point: Pixel) -> Pixel:
        """The point of the box nearest to `point`."""
        return (min(max(point[0], self.x0), self.x1), min(max(point[1], self.y0), self.y1))

    def distance(self, point: Pixel) -> float:
        """From `point` to the box; 0 inside."""
        return math.dist(point, self.nearest(point))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def crossed(self, segment: Segment, steps: int = 16) -> float:
        """Share of the segment that runs through the box."""
        (ax, ay), (bx, by) = segment
        hits = 0
        for step in range(steps + 1):
            t = step / steps
            x, y = ax + t * (bx - ax), ay + t * (by - ay)
            hits += self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1
        return hits / (steps + 1)


def place_labels(
    anchors: Sequence[Pixel],
    sizes: Sequence[tuple[float, float]],
    segments: Sequence[Segment],
    frame: Box,
    *,
    mark: float = 9.0,
    rounds: int = 4,
) -> list[Box]:
    """A box for each label of `sizes` (width, height) near its anchor, all in pixels.

    Candidates lie around the anchor in 16 directions at growing distances. Each label in turn
    takes the cheapest one given the others; a few rounds settle it. Covering a label or a mark and
    leaving the frame cost most, then lying on a path, then distance.
    """
    marks = [Box(x, y, x, y).grown(mark) for x, y in anchors]
    options: list[list[tuple[float, Box]]] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        priced = []
        for box in _candidates(anchor, size, mark):
            covered = sum(box.overlap(other) for other in marks)
            crossed = sum(box.crossed(segment) for segment in segments)
            bad = covered + box.area - box.overlap(frame)
            priced.append((10 * bad + 200 * crossed + box.distance(anchor), box))
        options.append(priced)
    chosen = [min(priced, key=lambda option: option[0])[1] for priced in options]
    for _ in range(rounds):
        before = list(chosen)
        for index, priced in enumerate(options):
            others = [box for other, box in enumerate(chosen) if other != index]
            best = float("inf")
            for price, box in priced:
                if price < best:
                    price += 10 * sum(box.grown(2).overlap(other) for other in others)
                if price < best:
                    best, chosen[index] = price, box
        if chosen == before:
            break
    return chosen


def _candidates(anchor: Pixel, size: tuple[float, float], mark: float) -> list[Box]:
    width, height = size
    boxes = []
    for distance in (4.0, 12.0, 24.0, 40.0, 60.0, 85.0):
        for direction in range(16):
            angle = 2 * math.pi * direction / 16
            dx, dy = math.cos(angle), math.sin(angle)
            reach = mark + distance
            # The box touches the circle of radius `reach` from outside.
            x = anchor[0] + dx * (reach + width / 2 * abs(dx))
            y = anchor[1] + dy * (reach + height / 2)
            boxes.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return boxes
