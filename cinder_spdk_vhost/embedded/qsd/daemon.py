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

"""The qemu-storage-daemon process and the QMP connection to it.

It is started again whenever it dies, and never outlives the target: what it
serves is worth nothing without the books.
"""

import asyncio
from collections.abc import Callable, Iterator
import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import socket
from typing import Any

from qemu import qmp

LOG = logging.getLogger(__name__)

PROGRAM = 'qemu-storage-daemon'

#: What is known to work; older ones lack exports of vhost-user-blk with
#: several queues that survive a guest's restart.
OLDEST = (7, 2)

#: One line for each of these on the daemon's standard error.
_TRACED = ('blk_co_preadv', 'blk_co_pwritev', 'bdrv_open_common')

_CORRUPTED = 'BLOCK_IMAGE_CORRUPTED'

_START_SECONDS = 10
_STOP_SECONDS = 5
_PIPE_BYTES = 1 << 20
#: A daemon that lived shorter is started again after a pause.
_YOUNG_SECONDS = 5
_PAUSE_SECONDS = 1.0


class Unusable(Exception):
    """There is no daemon that could be used; the text says why."""


class Refused(Exception):
    """The daemon refused a command; its text is for a log."""


class Gone(Exception):
    """The daemon died before it answered."""


class Daemon:
    """A daemon that is there again whenever it dies.

    :param directory: where it runs; names of sockets are relative to it
    :param on_line: called with each line of its standard error
    :param on_death: called when it has died, before it is started again
    :param on_corrupted: called with a node's name and what is wrong with its
        image when it can't be used any more
    """

    def __init__(
        self,
        directory: str,
        on_line: Callable[[str], None],
        on_death: Callable[[], None],
        on_corrupted: Callable[[str, str], None],
    ) -> None:
        self._directory = directory
        self._on_line = on_line
        self._on_death = on_death
        self._on_corrupted = on_corrupted
        self._process: asyncio.subprocess.Process | None = None
        self._client = qmp.QMPClient('target')
        self._ready = asyncio.Event()
        #: what an event will end: jobs that run, exports that go
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._pipe = -1
        self._rest = b''
        self._events: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self.version = ''

    @property
    def pid(self) -> int | None:
        """The daemon's process, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it; :class:`Unusable` if that is not possible."""
        if shutil.which(PROGRAM) is None:
            raise Unusable(f'{PROGRAM} is not installed')
        await self._launch()
        self._guard = asyncio.ensure_future(self._watch())

    async def ready(self) -> None:
        """Wait until it runs; it may just be started again."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Stop it for good."""
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()
        await self._forget()

    def kill(self) -> None:
        """Make it start again, from what the books say."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def take_away(self, command: str, **arguments: Any) -> None:
        """Run a command that removes something.

        A daemon that refuses is started again: it is without it then.
        """
        try:
            await self.execute(command, **arguments)
        except Gone:
            return
        except Refused as error:
            LOG.error('%s; %s is started again', error, PROGRAM)
            self.kill()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run one QMP command; underscores in names stand for dashes.

        :raises Refused: the daemon said no
        :raises Gone: it died, what became of the command is unknown
        """
        arguments = {
            name.replace('_', '-'): value for name, value in arguments.items()
        }
        client = self._client
        try:
            return await client.execute(command, arguments or None)
        except qmp.ExecuteError as error:
            raise Refused(f'{command}: {error}') from error
        except (qmp.QMPError, EOFError, OSError) as error:
            if client is self._client and self._ready.is_set():
                # Who can't be talked to is as good as dead.
                self._ready.clear()
                self.kill()
            raise Gone(f'{command}: the daemon is gone') from error

    async def run_job(self, command: str, **arguments: Any) -> None:
        """Run a command that starts a job, and wait for its end."""
        name = f'job{next(self._numbers)}'
        try:
            with self._event(name) as ended:
                await self.execute(command, job_id=name, **arguments)
                await ended
            for job in await self.execute('query-jobs'):
                if job['id'] == name and 'error' in job:
                    raise Refused(f'{command}: {job["error"]}')
        finally:
            with contextlib.suppress(Refused, Gone):
                await self.execute('job-dismiss', id=name)

    async def remove_export(self, name: str) -> None:
        """Take an export away, whoever is connected to it."""
        with self._event(name) as gone:
            await self.execute('block-export-del', id=name, mode='hard')
            await gone

    @contextlib.contextmanager
    def _event(self, name: str) -> Iterator[asyncio.Future[None]]:
        """What an event about a job or an export will complete."""
        future = self._awaited[name] = (
            asyncio.get_running_loop().create_future()
        )
        try:
            yield future
        finally:
            del self._awaited[name]
            future.cancel()

    def drain(self) -> None:
        """Take what it has written until now.

        It writes a line before it answers the command that caused it.
        """
        while True:
            try:
                data = os.read(self._pipe, _PIPE_BYTES)
            except (BlockingIOError, OSError):
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._pipe)
                return
            *lines, self._rest = (self._rest + data).split(b'\n')
            for line in lines:
                self._on_line(line.decode(errors='replace'))

    async def _launch(self) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise Unusable(f'{PROGRAM} can not be started: {error}') from error
        try:
            reading, writing = os.pipe()
        except OSError as error:
            ours.close()
            theirs.close()
            raise Unusable(f'{PROGRAM} can not be started: {error}') from error
        os.set_blocking(reading, False)
        try:
            # Who is not listened to waits, and its guests with it.
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._process = await asyncio.create_subprocess_exec(
                *('setpriv', '--pdeathsig', 'KILL', '--', PROGRAM),
                *('--chardev', f'socket,id=qmp,fd={theirs.fileno()}'),
                *('--monitor', 'chardev=qmp'),
                *(
                    argument
                    for event in _TRACED
                    for argument in ('--trace', f'enable={event}')
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=[theirs.fileno()],
                cwd=self._directory,
                # Signals of a terminal are the target's to handle.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(reading)
            raise Unusable(f'{PROGRAM} can not be started: {error}') from error
        finally:
            theirs.close()
            os.close(writing)
        self._pipe = reading
        self._rest = b''
        asyncio.get_running_loop().add_reader(reading, self.drain)
        client = qmp.QMPClient('target')
        ours.setblocking(False)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await client.connect(ours)
        except (qmp.QMPError, OSError, EOFError, TimeoutError) as error:
            self.kill()
            await self._process.wait()
            await self._forget()
            raise Unusable(f'{PROGRAM} does not answer: {error}') from error
        self._client = client
        try:
            self._look_at_version()
        except Unusable:
            self.kill()
            await self._process.wait()
            await self._forget()
            raise
        self._events = asyncio.ensure_future(self._follow(client))
        self._ready.set()

    def _look_at_version(self) -> None:
        greeting = self._client.greeting
        assert greeting is not None
        about: Any = greeting.QMP.version['qemu']
        version = (about['major'], about['minor'])
        self.version = f'{version[0]}.{version[1]}.{about["micro"]}'
        if version < OLDEST:
            raise Unusable(
                f'{PROGRAM} is {self.version}, needed is '
                f'{OLDEST[0]}.{OLDEST[1]} or later'
            )

    async def _follow(self, client: qmp.QMPClient) -> None:
        kinds = ('JOB_STATUS_CHANGE', 'BLOCK_EXPORT_DELETED', _CORRUPTED)
        with client.listener(kinds) as events:
            async for event in events:
                about: Any = event['data']
                if event['event'] == _CORRUPTED:
                    if about['fatal']:
                        self._on_corrupted(about['node-name'], about['msg'])
                    continue
                awaited = self._awaited.get(about['id'])
                if awaited is None or awaited.done():
                    continue
                if about.get('status', 'concluded') == 'concluded':
                    awaited.set_result(None)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            born = loop.time()
            code = await self._process.wait()
            LOG.error('%s ended (%d) and is started again', PROGRAM, code)
            await self._forget()
            try:
                self._on_death()
            except Exception:
                LOG.exception('after the death of %s', PROGRAM)
            if loop.time() - born < _YOUNG_SECONDS:
                await asyncio.sleep(_PAUSE_SECONDS)
            told = ''
            while True:
                try:
                    await self._launch()
                    break
                except Unusable as error:
                    if str(error) != told:
                        told = str(error)
                        LOG.error('%s; it is tried again and again', told)
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _forget(self) -> None:
        """Let go of a daemon that is not there any more."""
        self._ready.clear()
        self._process = None
        if self._pipe >= 0:
            self.drain()
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        if self._events is not None:
            self._events.cancel()
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(Gone('the daemon is gone'))
        with contextlib.suppress(Exception):
            await self._client.disconnect()
