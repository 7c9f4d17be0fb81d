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

"""Whether two answers say the same.

What can't be the same (UUIDs, paths, clocks, process ids, version texts) is
mapped or left out; everything else, members and their order in lists
included, must be equal.
"""

import re
from typing import Any

UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_NGUID = re.compile(r'[0-9A-F]{32}')
_FILES_DIR = re.compile(r'"(?:/var/lib/spdk|/dev/shm|/run/spdk)/')
_VHOST_DIR = re.compile(r'/run/spdk/[0-9a-z]+\.vhost')

#: Members that tell a time, a process or a build.
_OWN = frozenset(
    (
        'tick_rate',
        'ticks',
        'elapsed',
        'busy',
        'idle',
        'pid',
        'tid',
        'sys',
        'usr',
        'version',
        'suffix',
        'commit',
    )
)


class Names:
    """Which UUID of a recording is which of ours, one to one."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}

    def bind(self, theirs: str, ours: str) -> bool:
        """They mean the same thing, as far as is known."""
        return (
            self._ours.setdefault(theirs, ours) == ours
            and self._theirs.setdefault(ours, theirs) == theirs
        )

    def translate(self, text: str) -> str:
        """A text of the recording, with our UUIDs."""
        return UUID.sub(
            lambda match: self._ours.get(match.group(), match.group()), text
        )


class Paths:
    """Which directory of a recording is which of ours."""

    def __init__(self, files: str, vhost_dir: str) -> None:
        self._files = files
        self._vhost_dir = vhost_dir

    def to_ours(self, text: str) -> str:
        """A text of the recording, with our directories."""
        return _FILES_DIR.sub(lambda _match: f'"{self._files}/', text)

    def neutral(self, text: str) -> str:
        """A path of either side, comparable."""
        text = _VHOST_DIR.sub('VHOST', text)
        text = text.replace(self._vhost_dir, 'VHOST')
        for directory in (
            self._files,
            '/var/lib/spdk',
            '/dev/shm',
            '/run/spdk',
        ):
            text = text.replace(directory, 'FILES')
        return text


def difference(
    theirs: Any, ours: Any, names: Names, paths: Paths, where: str = ''
) -> str | None:
    """The first place where two answers differ, or None."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if list(theirs) != list(ours):
            return f'{where}: members {list(theirs)} != {list(ours)}'
        pairs = [
            (theirs[name], ours[name], f'{where}.{name}')
            for name in theirs
            if name not in _OWN
        ]
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            return f'{where}: {len(theirs)} elements != {len(ours)}'
        pairs = [
            (one, other, f'{where}[{index}]')
            for index, (one, other) in enumerate(
                zip(theirs, ours, strict=True)
            )
        ]
    elif isinstance(theirs, str) and isinstance(ours, str):
        return _text_difference(theirs, ours, names, paths, where)
    elif theirs == ours and type(theirs) is type(ours):
        return None
    else:
        return f'{where}: {theirs!r} != {ours!r}'
    for one, other, place in pairs:
        found = difference(one, other, names, paths, place)
        if found is not None:
            return found
    return None


def _text_difference(
    theirs: str, ours: str, names: Names, paths: Paths, where: str
) -> str | None:
    if _NGUID.fullmatch(theirs) and _NGUID.fullmatch(ours):
        theirs, ours = _dashed(theirs), _dashed(ours)
    theirs, ours = paths.neutral(theirs), paths.neutral(ours)
    known = UUID.findall(theirs), UUID.findall(ours)
    if UUID.sub('UUID', theirs) != UUID.sub('UUID', ours) or not all(
        names.bind(one, other) for one, other in zip(*known, strict=True)
    ):
        return f'{where}: {theirs!r} != {ours!r}'
    return None


def _dashed(text: str) -> str:
    text = text.lower()
    cuts = (0, 8, 12, 16, 20, 32)
    return '-'.join(
        text[low:high] for low, high in zip(cuts, cuts[1:], strict=False)
    )
