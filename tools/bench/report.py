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

"""The figures as tables (reStructuredText) and as files."""

from collections.abc import Iterable, Sequence
import json
import pathlib
from typing import Any

import plot

_KINDS = {'spdk': 'a real SPDK target', 'embedded': 'the embedded target'}


def write_json(results: dict[str, Any], file: pathlib.Path) -> None:
    file.write_text(json.dumps(results, indent=1) + '\n')


def write(results: dict[str, Any], directory: pathlib.Path) -> None:
    """The page, its plot and the figures, named after the kind of target."""
    directory.mkdir(parents=True, exist_ok=True)
    kind = results['target']['kind']
    write_json(results, directory / f'{kind}.json')
    plot.write(results, directory / f'{kind}.svg')
    page = [
        text(results),
        '',
        f'.. figure:: {kind}.svg',
        '   :alt: Time of each operation over the number of volumes',
        '',
        '   Medians, and the 95th percentile as a bar above (logarithmic).',
    ]
    (directory / f'{kind}.rst').write_text('\n'.join(page) + '\n')


def text(results: dict[str, Any]) -> str:
    """Everything but the plot."""
    sizes = [str(size) for size in results['sizes']]
    parts = [
        *_title(f'Control plane on {_KINDS[results["target"]["kind"]]}', '='),
        _conditions(results),
        '',
        *_title('Round trips', '-'),
        *_round_trips(results, sizes),
        '',
        *_title('Time of one operation', '-'),
        *_times(results, sizes),
        '',
        *_title('Creates from many threads', '-'),
        *_concurrency(results, sizes),
        '',
        *_title("Beside Cinder's in-tree SPDKDriver", '-'),
        *_comparison(results, sizes),
    ]
    return '\n'.join(parts)


def _title(title: str, line: str) -> list[str]:
    return [title, line * len(title), '']


def _conditions(results: dict[str, Any]) -> str:
    host = results['host']
    return '\n'.join(
        (
            f'* {results["target"]["version"]}',
            f'* {host["cpus"]} CPUs ({host["machine"]}), of which the '
            f'target has its share; load average when it began: '
            f'{results["load_before"]}',
            f'* Python {host["python"]}, Cinder {host["cinder"]}',
            f'* {results["date"]}',
        )
    )


def _round_trips(results: dict[str, Any], sizes: list[str]) -> list[str]:
    rows = []
    for name, figures in results['operations'].items():
        counts = [_numbers(figures[size]['round_trips']) for size in sizes]
        rows.append(
            [
                name,
                *counts,
                'yes' if len(set(counts)) == 1 else 'NO',
                _numbers({n for s in sizes for n in figures[s]['background']}),
            ]
        )
    return [
        *table(['operation', *map(_volumes, sizes), 'same', 'later'], rows),
        '',
        'Counted on the wire; "later" is what the operation leaves to the',
        'background, counted apart.',
    ]


def _times(results: dict[str, Any], sizes: list[str]) -> list[str]:
    rows = [
        [
            name,
            *(
                f'{_ms(figures[size]["median_ms"])} / '
                f'{_ms(figures[size]["p95_ms"])}'
                for size in sizes
            ),
        ]
        for name, figures in results['operations'].items()
    ]
    first = next(iter(results['operations'].values()))
    return [
        *table(['operation', *map(_volumes, sizes)], rows),
        '',
        f'Milliseconds, median / 95th percentile of '
        f'{first[sizes[0]]["repetitions"]}.',
    ]


def _concurrency(results: dict[str, Any], sizes: list[str]) -> list[str]:
    rows = []
    for size in sizes:
        figures = results['concurrency'][size]
        rows.append(
            [
                _volumes(size),
                f'{figures["driver_per_second"]:,}/s',
                f'{figures["bare_per_second"]:,}/s',
                f'{figures["ratio"]:.2f}',
            ]
        )
    any_size = results['concurrency'][sizes[0]]
    return [
        *table(['in the pool', 'driver', 'bare client', 'ratio'], rows),
        '',
        f'{any_size["creates"]} creates through the driver from '
        f'{any_size["threads"]} threads, and the same requests',
        'pipelined by the bare client, 64 in flight; medians of '
        f'{any_size["rounds"]} rounds in turn.',
    ]


def _comparison(results: dict[str, Any], sizes: list[str]) -> list[str]:
    lines = []
    for size in sizes:
        rows = []
        for name, figures in results['in_tree'].items():
            theirs, ours = figures[size], results['operations'][name][size]
            rows.append(
                [
                    name,
                    _numbers(ours['round_trips']),
                    _numbers(theirs['round_trips']),
                    _ms(ours['median_ms']),
                    _ms(theirs['median_ms']),
                    _ms(theirs['median_without_copies_ms']),
                    _ratio(theirs['median_ms'], ours),
                    _ratio(theirs['median_without_copies_ms'], ours),
                ]
            )
        repetitions = next(iter(results['in_tree'].values()))[size][
            'repetitions'
        ]
        lines += [
            f'With {_volumes(size)} in the pool (in-tree driver: '
            f'{repetitions} repetitions):',
            '',
            *table(
                [
                    'operation',
                    'round trips',
                    'in-tree',
                    'ms',
                    'in-tree ms',
                    'less copying',
                    'ratio',
                    'less copying',
                ],
                rows,
            ),
            '',
        ]
    return [
        *lines,
        'Medians. The ratio is how many times as long the in-tree driver',
        'takes. It copies whatever it snapshots, clones or creates from a',
        'snapshot ("inflate"); "less copying" leaves out the time which it',
        'waits for that.',
    ]


def _ratio(theirs: float, ours: dict[str, Any]) -> str:
    return f'{theirs / ours["median_ms"]:.1f}'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A simple table; every cell has a text."""
    rows = list(rows)
    widths = [
        max(map(len, column)) for column in zip(header, *rows, strict=True)
    ]
    rule = '  '.join('=' * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return '  '.join(
            [first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]
        )

    return [rule, line(header), rule, *map(line, rows), rule]


def _volumes(size: str) -> str:
    return f'{int(size):,} volumes'


def _numbers(numbers: Iterable[int]) -> str:
    """One number, if they are all the same."""
    return ' or '.join(map(str, sorted(set(numbers))))


def _ms(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.1f}'
