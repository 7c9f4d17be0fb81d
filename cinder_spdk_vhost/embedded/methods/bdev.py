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

"""What all bdevs can be asked for."""

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import (
    bdevs,
    decode,
    errors,
    outcome,
    qos,
    reactors,
)
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_MAX_NAMES = 256
_RESET_MODES = decode.one_of('all', 'maxmin', 'none')


@method(
    'bdev_get_bdevs',
    decode.Params(
        optional={'name': decode.string, 'timeout': decode.uint64},
        may_be_absent=True,
    ),
    late_code=None,
)
def bdev_get_bdevs(target: 'Target', p: dict[str, Any]) -> Any:
    """One bdev by name, or all; one that is to come can be waited for."""
    target.plane.refresh()
    name = p.get('name')
    if name is None:
        return [bdev.describe() for bdev in target.bdevs]
    bdev = target.bdevs.find(name)
    if bdev is not None:
        return outcome.soon([bdev.describe()])
    if not p.get('timeout'):
        return outcome.Deferred(_no_such_device, soon=True)
    return _wait_for(target, name, p['timeout'] / 1000)


def _no_such_device() -> None:
    raise errors.Errno(errno.ENODEV)


def _wait_for(target: 'Target', name: str, timeout: float) -> outcome.Waiting:
    waiting = outcome.Waiting()
    loop = asyncio.get_running_loop()

    def expire() -> None:
        target.bdevs.waiters.discard(look)
        waiting.fail(errors.Errno(errno.ETIMEDOUT))

    timer = loop.call_later(timeout, expire)

    def look(bdev: bdevs.Bdev) -> None:
        if target.bdevs.find(name) is bdev:
            target.bdevs.waiters.discard(look)
            timer.cancel()
            waiting.resolve([bdev.describe()])

    target.bdevs.waiters.add(look)
    return waiting


@method('bdev_wait_for_examine')
def bdev_wait_for_examine(_target: 'Target', _p: dict[str, Any]) -> Any:
    """A bdev is examined before the request that made it is answered."""
    return outcome.Deferred(lambda: True)


@method('bdev_examine', decode.Params({'name': decode.string}))
def bdev_examine(target: 'Target', p: dict[str, Any]) -> Any:
    """Bdevs are examined by themselves; asking again changes nothing."""
    if target.bdevs.find(p['name']) is None:
        raise errors.Errno(errno.EINVAL)
    return True


@method(
    'bdev_get_iostat',
    decode.Params(
        optional={
            'names': decode.strings(_MAX_NAMES),
            'per_channel': decode.boolean,
            'reset_mode': _RESET_MODES,
        },
        may_be_absent=True,
    ),
)
def bdev_get_iostat(target: 'Target', p: dict[str, Any]) -> Any:
    """What was done to some bdevs, or to all."""
    names = p.get('names')
    if p.get('per_channel') and (names is None or len(names) != 1):
        raise errors.Errno(errno.EINVAL)
    chosen = (
        list(target.bdevs)
        if names is None
        else [target.bdevs.get(name) for name in names]
    )
    target.plane.refresh()
    about = {'tick_rate': reactors.TICK_RATE, 'ticks': reactors.ticks()}
    if p.get('per_channel'):
        return outcome.soon({**about, 'name': chosen[0].name, 'channels': []})
    counted = [{'name': bdev.name, **bdev.io.describe()} for bdev in chosen]
    if p.get('reset_mode') == 'all':
        for bdev in chosen:
            bdev.io.reset()
    return outcome.soon({**about, 'bdevs': counted})


@method(
    'bdev_reset_iostat',
    decode.Params(
        optional={'name': decode.string, 'mode': _RESET_MODES},
        may_be_absent=True,
    ),
)
def bdev_reset_iostat(target: 'Target', p: dict[str, Any]) -> Any:
    """Count one bdev's I/O, or that of all, from here on.

    The other modes are about latencies.
    """
    target.plane.refresh()
    chosen = (
        [target.bdevs.get(p['name'])] if 'name' in p else list(target.bdevs)
    )
    if p.get('mode', 'all') == 'all':
        for bdev in chosen:
            bdev.io.reset()
    return outcome.soon(True)


@method(
    'bdev_set_qos_limit',
    decode.Params(
        {'name': decode.string}, dict.fromkeys(qos.NAMES, decode.uint64)
    ),
)
def bdev_set_qos_limit(target: 'Target', p: dict[str, Any]) -> Any:
    """Set some or all of a bdev's limits."""
    bdev = target.bdevs.get(p.pop('name'))
    asked = {name: limit for name, limit in p.items() if limit != qos.UNSET}
    if not asked:
        raise errors.RpcError(-errno.EINVAL, 'No rate limits specified')
    try:
        if not bdev.qos.begin(asked, bdev.channels):
            return True
    except errors.Errno as error:
        raise errors.RpcError(
            errors.INVALID_PARAMS, f'Failed to configure rate limit: {error}'
        ) from error

    def finish() -> bool:
        bdev.qos.finish()
        return True

    return outcome.Deferred(
        finish, undo=bdev.qos.finish, around=target.plane.limit(bdev)
    )
