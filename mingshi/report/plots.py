"""Figures as inline SVG that reflow with the page.

A figure is laid out in percentages of its own box and its curves in a nested, stretched box, so that text, dots and
lines keep their size at any width; colours are the page's own, so dark mode and print need nothing; labels are text
in both languages. There are no ids and no scripts in it, and equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mingshi.report.numbers import figure
from mingshi.report.words import Both, plain, word

Point = tuple[float, float]
POINTS_AT_MOST = 900  # per curve: about one for each pixel of a wide screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A stretch of numbers along an axis; `logarithmic` where it spans many sizes."""

    low: float
    high: float
    logarithmic: bool = False
    marks: tuple[float, ...] = ()
    """What is labelled along it, in the place of round numbers."""

    def place(self, value: float) -> float:
        """Where `value` lies between `low` (0) and `high` (1); outside of that for values outside."""
        if self.logarithmic:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers in the stretch, or its own marks."""
        if self.marks:
            return list(self.marks)
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            if len(powers) >= 2:
                return [10.0**power for power in powers][:: math.ceil(len(powers) / count)]
        step = round_step(self.high - self.low, count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def round_step(span: float, count: int) -> float:
    """The round number (1, 2 or 5 times a power of ten) that cuts `span` into about `count` parts."""
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def scale(values: Iterable[float], *, margin: float = 0.06, floor: float | None = None, logs: bool = False) -> Scale:
    """The stretch that holds `values` with some air around them; `floor` is where it starts."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if logs and low > 0 and high / low > 30:
        return Scale(low=low / 1.3, high=high * 1.3, logarithmic=True)
    air = (high - low) * margin or max(abs(high) * 0.1, 1e-9)
    return Scale(low=low - air if floor is None or floor >= high else floor, high=high + air)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The two axes that the parts of one figure share."""

    across: Scale
    up: Scale
    marks_across: int = 6
    marks_up: int = 4

    def spot(self, point: Point) -> tuple[str, str]:
        """A point as percentages from the left and from the top."""
        return _percent(self.across.place(point[0])), _percent(1 - self.up.place(point[1]))

    def curve(self, points: Sequence[Point], style: str) -> Markup:
        """A line through the points, broken where one is not finite."""
        path, pen = [], "M"
        for x, y in thinned(points):
            if not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{1000 * self.across.place(x):.1f} {1000 * (1 - self.up.place(y)):.1f}")
            pen = "L"
        drawn = Markup('<path class="{}" vector-effect="non-scaling-stroke" d="{}"/>').format(style, "".join(path))
        return _STRETCHED.format(drawn)

    def band(self, spans: Sequence[tuple[float, float, float]], style: str) -> Markup:
        """The area between two lines: (across, low, high) each."""
        edge = [*((x, high) for x, _, high in spans), *((x, low) for x, low, _ in reversed(spans))]
        spots = [f"{1000 * self.across.place(x):.1f} {1000 * (1 - self.up.place(y)):.1f}" for x, y in edge]
        return _STRETCHED.format(Markup('<path class="{}" d="M{}Z"/>').format(style, "L".join(spots)))

    def dots(self, points: Sequence[Point], style: str) -> Markup:
        dot = Markup('<circle class="{}" cx="{}" cy="{}" r="3.5"/>')
        return _join(dot.format(style, *self.spot(point)) for point in points)

    def label(self, point: Point, text: Both, style: str) -> Markup:
        """A text beside a point, on the side that has room."""
        x, y = self.spot(point)
        shift, anchor = ("-9", "end") if self.across.place(point[0]) > 0.5 else ("9", "start")
        return _text(text, x=x, y=y, dx=shift, dy="4", anchor=anchor, style=style)

    def whiskers(self, spans: Sequence[tuple[float, float, float]], style: str) -> Markup:
        """Upright bars: (across, low, high) each."""
        bar = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        spots = ((*self.spot((x, low)), self.spot((x, high))[1]) for x, low, high in spans)
        return _join(bar.format(style, x, x, bottom, top) for x, bottom, top in spots)

    def bars(self, spans: Sequence[tuple[float, float, float]], style: str) -> Markup:
        """Columns from the floor: (left, right, height) each."""
        column = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
        parts = []
        for left, right, height in spans:
            x, y = self.spot((left, height))
            width = _percent(0.94 * (self.across.place(right) - self.across.place(left)))
            parts.append(column.format(style, x, y, width, _percent(self.up.place(height))))
        return _join(parts)

    def upright(self, x: float, style: str, label: Both | None = None) -> Markup:
        """A line from top to bottom with its label above the figure."""
        place = self.across.place(x)
        line = Markup('<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="100%"/>').format(style, _percent(place))
        if label is None:
            return line
        anchor = "start" if place < 0.25 else "end" if place > 0.75 else "middle"
        return line + _text(label, x=_percent(place), y="0", dy="-6", anchor=anchor, style=style)

    def level(self, y: float, style: str) -> Markup:
        """A line from left to right."""
        return Markup('<line class="{0}" x1="0" x2="100%" y1="{1}" y2="{1}"/>').format(style, self.spot((0, y))[1])

    def draw(self, *parts: Markup, height: int = 240) -> Markup:
        """The parts over a quiet grid, with tick labels outside on the left and below."""
        grid = []
        for value in self.up.ticks(self.marks_up):
            y = _percent(1 - self.up.place(value))
            grid.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(y))
            grid.append(_text(plain(tick(value)), x="0", y=y, dx="-7", dy="4", anchor="end"))
        for value in self.across.ticks(self.marks_across):
            x = _percent(self.across.place(value))
            grid.append(_text(plain(tick(value)), x=x, y="100%", dy="18", anchor="middle"))
        grid.append(Markup('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'))
        return Markup('<div class="plot"><svg width="100%" height="{}" aria-hidden="true">{}</svg></div>').format(
            height, _join(grid) + _join(parts)
        )


_STRETCHED = Markup('<svg width="100%" height="100%" viewBox="0 0 1000 1000" preserveAspectRatio="none">{}</svg>')


def tick(value: float) -> str:
    """A short label: 250, 1,500, 20k, 0.25, 2×10⁻⁴."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.10g}k" if abs(value) < 1e6 else f"{value / 1e6:,.10g}M"
    if value and abs(value) < 1e-3:
        return figure(value)
    return f"{round(value, 10):,.10g}".replace("-", "−")


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """The points, or the lowest and the highest of each bin where there are more than a screen can show."""
    if len(points) <= POINTS_AT_MOST:
        return points
    size = math.ceil(2 * len(points) / POINTS_AT_MOST)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        inside = points[start : start + size]
        finite = [point for point in inside if math.isfinite(point[1])] or inside[:1]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def strip(before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> Markup:
    """Two dots with whiskers on one scale, the earlier one hollow and above: (value, low, high) each."""
    spans = [span for span in (before, after) if span is not None]
    alike = len({span[0] for span in spans}) == 1  # nothing to tell apart: short whiskers in the middle
    across = scale((value for span in spans for value in span), margin=1.0 if alike else 0.12)
    parts = []
    for span, style, y in ((before, "before", "32%"), (after, "after", "68%")):
        if span is None:
            continue
        value, low, high = (_percent(across.place(number)) for number in span)
        parts.append(Markup('<line class="{0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>').format(style, low, high, y))
        parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(style, value, y))
    return Markup('<svg class="strip" width="100%" height="34" aria-hidden="true">{}</svg>').format(_join(parts))


def shares(used: int, rejected: int) -> Markup:
    """A thin bar: what part of the rows was used."""
    whole = max(1, used + rejected)
    return Markup(
        '<svg class="shares" width="100%" height="6" aria-hidden="true">'
        '<rect class="rejected" width="100%" height="6"/><rect class="used" width="{}" height="6"/></svg>'
    ).format(_percent(used / whole))


def histogram(
    lengths: Sequence[int], *, limit: int | None, each: float = 1.0
) -> tuple[Markup, list[tuple[int, int, int]]]:
    """Columns of round width, the limit as a line. Also the bins: from, to (inclusive), count.

    `each` is how many samples one of `lengths` stands for.
    """
    longest, most = max(1, *lengths), max(1, sorted(lengths)[int(0.99 * (len(lengths) - 1))])
    width = max(1, int(max(round_step(most, 28), round_step(longest, 120))))  # fine for most, though one be huge
    counts = [0] * (longest // width + 1)
    for length in lengths:
        counts[length // width] += 1
    bins = [(index * width, (index + 1) * width - 1, round(count * each)) for index, count in enumerate(counts)]
    shown = limit is not None and limit <= 1.6 * longest
    right = max(len(counts) * width, (limit or 0) * 1.04 if shown else 0)
    frame = Frame(across=Scale(low=0, high=right), up=scale([0, *(count for _, _, count in bins)], floor=0))
    spans = [(first, last + 1, count) for first, last, count in bins if count]
    parts = [frame.bars(spans, "column")]
    if limit is not None and shown:
        parts.append(frame.upright(limit, "cut", word("lengths.cut", limit=f"{limit:,}")))
    return frame.draw(*parts, height=170), bins


def _text(label: Both, *, x: str, y: str, anchor: str, dx: str = "0", dy: str = "0", style: str = "") -> Markup:
    text = Markup('<text class="{}" x="{}" y="{}" dx="{}" dy="{}" text-anchor="{}">{}</text>')
    if label.en == label.zh:
        return text.format(style, x, y, dx, dy, anchor, label.en)
    styles = (f"{style} en".strip(), f"{style} zh".strip())
    return text.format(styles[0], x, y, dx, dy, anchor, label.en) + text.format(
        styles[1], x, y, dx, dy, anchor, label.zh
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
