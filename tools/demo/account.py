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

"""What is said about each step, on the screen and as JSON."""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

from tests.fixtures.tap import Tap

_TITLE_WIDTH = 34
_QUIET_SECONDS = 0.15
_QUIET_AT_MOST = 2.0


@dataclasses.dataclass
class Step:
    """One step; the round trips are the driver's, as the tap saw them."""

    name: str
    ok: bool = False
    ms: float = 0.0
    round_trips: int | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a line to what is shown under the step."""
        self.notes.append(text)


class Account:
    """The steps so far, and the facts that a reader of the JSON wants."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.facts: dict[str, Any] = {
            'volume_id': None,
            'socket_path': None,
            'numa_node': None,
            'assigned_rate_limits': None,
            'guest_disk_id': None,
            # Why no guest was booted, if none was.
            'no_guest': None,
        }

    @contextlib.contextmanager
    def step(self, name: str, tap: Tap | None = None) -> Iterator[Step]:
        """Time a block, and count what it did on the wire."""
        step = Step(name)
        self.steps.append(step)
        print(f'{name:<{_TITLE_WIDTH}}', end='', flush=True)
        window = tap.mark() if tap else None
        begin = time.monotonic()
        try:
            yield step
            step.ok = True
        finally:
            step.ms = round((time.monotonic() - begin) * 1000, 1)
            figures = f'{step.ms:7.0f} ms'
            if window is not None:
                window.close()
                step.round_trips = window.round_trips
                figures += f'   {_round_trips(step.round_trips)}'
            print(figures if step.ok else f'{figures}   FAILED')
            for note in step.notes:
                print(f'    {note}')
            if tap:
                _wait_until_quiet(tap)

    def table(self) -> None:
        """Close with all the steps in one view."""
        rule = '-' * (_TITLE_WIDTH + 26)
        print(f'\n{"step":<{_TITLE_WIDTH}}{"ms":>8}{"round trips":>14}  ok')
        print(rule)
        for step in self.steps:
            trips = '' if step.round_trips is None else step.round_trips
            ok = 'yes' if step.ok else 'NO'
            print(
                f'{step.name:<{_TITLE_WIDTH}}{step.ms:8.0f}{trips:>14}  {ok}'
            )
        print(rule)
        total = sum(step.ms for step in self.steps)
        trips = sum(step.round_trips or 0 for step in self.steps)
        print(f'{"together":<{_TITLE_WIDTH}}{total:8.0f}{trips:>14}')
        print(
            '\nms: until the API says so. Round trips: on the wire to the '
            'target, with what\nthe driver tidies up in the background at '
            'the same time.'
        )

    def write(self, path: pathlib.Path) -> None:
        """The same as JSON."""
        steps = [
            {
                'name': step.name,
                'ok': step.ok,
                'ms': step.ms,
                'round_trips': step.round_trips,
            }
            for step in self.steps
        ]
        text = json.dumps({**self.facts, 'steps': steps}, indent=2)
        path.write_text(text + '\n')


def _wait_until_quiet(tap: Tap) -> None:
    """Let the driver tidy up, so that no step pays for the one before."""
    deadline = time.monotonic() + _QUIET_AT_MOST
    while time.monotonic() < deadline:
        window = tap.mark()
        time.sleep(_QUIET_SECONDS)
        if not window.requests:
            return


def _round_trips(count: int) -> str:
    return '1 round trip' if count == 1 else f'{count} round trips'
