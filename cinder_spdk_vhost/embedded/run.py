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

"""A target from start to stop."""

import asyncio
import logging
import os
import signal
import sqlite3

from cinder_spdk_vhost.embedded import errors, listen, pools, server
from cinder_spdk_vhost.embedded import target as targets
from cinder_spdk_vhost.embedded.qsd import daemon, plane

LOG = logging.getLogger(__name__)

#: Who keeps the bytes: QEMU's daemon where it is installed, nobody
#: otherwise; that daemon and nothing else; nobody.
AUTO, QSD, NONE = DATA = ('auto', 'qsd', 'none')


class Options:
    """What a target is started with."""

    def __init__(
        self,
        socket_path: str,
        state_dir: str,
        vhost_dir: str | None = None,
        core_mask: int = 1,
        wanted: tuple[pools.Pool, ...] = (),
        poll_ms: float = 4,
        data: str = AUTO,
        flush_to_disk: bool = True,
    ) -> None:
        self.socket_path = socket_path
        self.state_dir = state_dir
        self.vhost_dir = vhost_dir or os.path.join(state_dir, 'vhost')
        self.core_mask = core_mask
        self.pools = wanted
        self.poll_ms = poll_ms
        self.data = data
        self.flush_to_disk = flush_to_disk


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; StartError if that can't begin."""
    for directory in (options.state_dir, options.vhost_dir):
        listen.make_private_directory(directory)
    lock = listen.lock(
        os.path.join(options.state_dir, 'lock'),
        f'the state directory {options.state_dir}',
    )
    try:
        await _serve_locked(options)
    finally:
        os.close(lock)


async def _serve_locked(options: Options) -> None:
    data = await _data_plane(options)
    try:
        await _serve_data(options, data)
    finally:
        if data is not None:
            await data.close()


async def _data_plane(options: Options) -> plane.Plane | None:
    """Who keeps the bytes; None is nobody, and says so."""
    why = 'it was asked for'
    if options.data != NONE:
        try:
            return await plane.start(
                options.state_dir, no_flush=not options.flush_to_disk
            )
        except daemon.Unusable as error:
            if options.data == QSD:
                raise errors.StartError(str(error)) from error
            why = str(error)
        except OSError as error:
            raise errors.StartError(
                f'the state in {options.state_dir} can not be used: {error}'
            ) from error
    if plane.has_images(options.state_dir):
        raise errors.StartError(
            f'the volumes in {options.state_dir} have data, and nobody to '
            f'keep it: {why}; it takes {daemon.PROGRAM} '
            f'{daemon.OLDEST[0]}.{daemon.OLDEST[1]} or later'
        )
    LOG.warning('no data is kept, and guests are not served: %s', why)
    return None


async def _serve_data(options: Options, data: plane.Plane | None) -> None:
    try:
        target = targets.Target(
            options.state_dir, options.vhost_dir, options.core_mask, data
        )
    except (sqlite3.Error, OSError) as error:
        raise errors.StartError(
            f'the state in {options.state_dir} can not be used: {error}'
        ) from error
    try:
        for pool in options.pools:
            pool.ensure(target)
        rpc_socket = listen.RpcSocket(options.socket_path)
        try:
            await _serve_target(options, target, rpc_socket)
        finally:
            rpc_socket.close()
    finally:
        target.close()


async def _serve_target(
    options: Options, target: targets.Target, rpc_socket: listen.RpcSocket
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A failure of the loop itself is one of the state: answers stay away,
    # and the next start finds what was saved.
    failed: list[BaseException] = []

    def fail(_loop: object, context: dict[str, object]) -> None:
        LOG.error('%s', context.get('message'))
        error = context.get('exception')
        if isinstance(error, sqlite3.Error):
            failed.append(error)
            stop.set()
        elif isinstance(error, BaseException):
            LOG.error('unexpected', exc_info=error)

    loop.set_exception_handler(fail)
    service = server.Server(rpc_socket.socket, target, options.poll_ms / 1000)
    LOG.info('listening on %s', options.socket_path)
    try:
        await stop.wait()
    finally:
        service.close()
    if failed:
        raise errors.StartError(
            f'the state in {options.state_dir} can not be written: {failed[0]}'
        )
    LOG.info('stopped')
