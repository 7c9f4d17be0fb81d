#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Time over the number of volumes, one small diagram an operation (SVG)."""

from collections.abc import Iterator, Sequence
import dataclasses
import math
import pathlib
from typing import Any
from xml.sax import saxutils

_COLUMNS = 5
_WIDTH, _HEIGHT = 170, 130  # of one diagram
_GAP_X, _GAP_Y = 30, 52
_LEFT, _TOP = 60, 66
_OURS, _THEIRS = '#1f5fa8', '#d1660f'
_GRID, _TEXT = '#dddddd', '#333333'


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from ``low`` to ``high``, ``length`` pixels."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        span = math.log10(self.high / self.low)
        return self.length * math.log10(value / self.low) / span

    def powers(self) -> Iterator[float]:
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        yield from (10.0**n for n in range(first, last + 1))


def write(results: dict[str, Any], file: pathlib.Path) -> None:
    file.write_text(_draw(results))


def _draw(results: dict[str, Any]) -> str:
    ours, theirs = results['operations'], results['in_tree']
    sizes = [max(size, 1) for size in results['sizes']]
    points = [
        point
        for figures in (*ours.values(), *theirs.values())
        for at in figures.values()
        for point in (at['median_ms'], at['p95_ms'])
    ]
    across = _Axis(sizes[0] / 1.5, sizes[-1] * 1.5, _WIDTH)
    up = _Axis(
        10 ** math.floor(math.log10(max(min(points), 0.1))),
        10 ** math.ceil(math.log10(max(points))),
        _HEIGHT,
    )
    rows = math.ceil(len(ours) / _COLUMNS)
    width = _LEFT + _COLUMNS * (_WIDTH + _GAP_X)
    height = _TOP + rows * (_HEIGHT + _GAP_Y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(
            _LEFT,
            20,
            f'Milliseconds an operation, over the volumes in the pool '
            f'({results["target"]["version"].partition(" git")[0]})',
            size=13,
        ),
        f'<rect x="{_LEFT}" y="31" width="18" height="4" fill="{_OURS}"/>',
        _text(_LEFT + 24, 37, 'this driver'),
        f'<rect x="{_LEFT + 110}" y="31" width="18" height="4" '
        f'fill="{_THEIRS}"/>',
        _text(_LEFT + 134, 37, "Cinder's in-tree SPDKDriver"),
    ]
    for number, name in enumerate(ours):
        row, column = divmod(number, _COLUMNS)
        x = _LEFT + column * (_WIDTH + _GAP_X)
        y = _TOP + row * (_HEIGHT + _GAP_Y)
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _frame(name, across, up, sizes, labelled=not column)
        if name in theirs:
            parts += _line(theirs[name], across, up, _THEIRS)
        parts += _line(ours[name], across, up, _OURS)
        parts.append('</g>')
    return '\n'.join([*parts, '</svg>', ''])


def _frame(
    name: str,
    across: _Axis,
    up: _Axis,
    sizes: Sequence[int],
    *,
    labelled: bool,
) -> Iterator[str]:
    yield _text(0, -6, name)
    for value in up.powers():
        y = _HEIGHT - up.at(value)
        yield (
            f'<line x1="0" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}" '
            f'stroke="{_GRID}"/>'
        )
        if labelled:
            yield _text(-6, y + 4, f'{value:,g}', anchor='end')
    for size in sizes:
        x = across.at(size)
        yield (
            f'<line x1="{x:.1f}" y1="{_HEIGHT}" x2="{x:.1f}" '
            f'y2="{_HEIGHT + 4}" stroke="{_TEXT}"/>'
        )
        yield _text(x, _HEIGHT + 16, f'{size:,}', anchor='middle')
    yield (
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        f'stroke="{_TEXT}"/>'
    )


def _line(
    figures: dict[str, Any], across: _Axis, up: _Axis, colour: str
) -> Iterator[str]:
    points = []
    for size, at in figures.items():
        x = across.at(max(int(size), 1))
        y, top = (
            _HEIGHT - up.at(max(at[key], up.low))
            for key in ('median_ms', 'p95_ms')
        )
        points.append(f'{x:.1f},{y:.1f}')
        yield (
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{top:.1f}" '
            f'stroke="{colour}"/>'
        )
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    yield (
        f'<polyline points="{" ".join(points)}" fill="none" '
        f'stroke="{colour}" stroke-width="2"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = 'start', size: int = 11
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-size="{size}" fill="{_TEXT}">{saxutils.escape(text)}</text>'
    )
