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

"""Pools that the target is started with: a base bdev and a store on it."""

import os
import re

from cinder_spdk_vhost.embedded import basebdevs, bdevs, errors, lvols
from cinder_spdk_vhost.embedded import target as targets

AIO, MALLOC = 'aio', 'malloc'

#: What every guest and every disk image can live with.
_BLOCK_SIZE = 512
_UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
_SIZE = re.compile(r'([1-9][0-9]*)([KMGT]?)(?:i?B)?')


class Pool:
    """One ``--pool`` option."""

    def __init__(self, name: str, size: int, kind: str = AIO) -> None:
        self.name = name
        self.size = size
        self.kind = kind

    @classmethod
    def parse(cls, text: str) -> 'Pool':
        """From NAME=SIZE or NAME=SIZE:KIND; ValueError says what is wrong."""
        name, equals, rest = text.partition('=')
        size_text, _, kind = rest.partition(':')
        if not equals:
            raise ValueError(f'{text!r} is not NAME=SIZE[:aio|:malloc]')
        if (
            not 0 < len(name.encode()) <= lvols.NAME_MAX
            or '/' in name
            or '\0' in name
            or name in ('.', '..')
        ):
            raise ValueError(
                f'the pool name {name!r} must have 1 to {lvols.NAME_MAX} '
                'bytes and no "/"'
            )
        if kind not in ('', AIO, MALLOC):
            raise ValueError(
                f'{kind!r} is no kind of pool; known are {AIO}, {MALLOC}'
            )
        match = _SIZE.fullmatch(size_text)
        if match is None:
            raise ValueError(
                f'{size_text!r} is not a size; accepted are numbers of '
                'bytes with an optional K, M, G or T, such as 500M or 10G'
            )
        size = int(match[1]) * _UNITS[match[2]]
        return cls(name, size - size % _BLOCK_SIZE, kind or AIO)

    def ensure(self, target: targets.Target) -> None:
        """Make what is missing; what is there comes up as it was."""
        try:
            base = self._base(target)
            target.bdevs.register(base)
            lvstore = target.lvstores.by_name(self.name)
            if lvstore is None:
                target.keeper.create(base, self.name, 0, 0).finish()
            elif lvstore.base is base:
                target.keeper.grow(lvstore).finish()
            else:
                raise errors.StartError(f'two pools are called {self.name!r}')
            target.save()
        except (errors.Errno, OSError) as error:
            raise errors.StartError(
                f'the pool {self.name!r} of {self.size} bytes '
                f'({self.kind}) can not be made: {error}'
            ) from error

    def _base(self, target: targets.Target) -> bdevs.Bdev:
        name = f'{self.kind}_{self.name}'
        if self.kind == MALLOC:
            return basebdevs.Malloc(
                name, _BLOCK_SIZE, self.size // _BLOCK_SIZE, None
            )
        path = os.path.join(target.state_dir, f'{name}.img')
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size = os.fstat(fd).st_size
            if self.size < size:
                raise errors.StartError(
                    f'the pool {self.name!r} has {size} bytes in {path} and '
                    f'can not be made smaller ({self.size} asked)'
                )
            os.truncate(fd, self.size)
        finally:
            os.close(fd)
        return basebdevs.Aio(name, path, _BLOCK_SIZE)
