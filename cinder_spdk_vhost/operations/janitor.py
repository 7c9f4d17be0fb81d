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

"""Work that nobody waits for: one thread beside the driver's calls.

A job that fails is kept and tried again with every sweep. A sweep also asks
the target for what earlier lives of the service left to do, so nothing here
needs to be written down.
"""

from collections.abc import Callable
import dataclasses
import functools
import threading
import time

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.operations import flows, locks

LOG = logging.getLogger(__name__)

Action = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class _Job:
    """Something to do.

    :ivar guard: the lvols that are locked meanwhile, for undoings
    :ivar host: whom alone an undoing concerns; None is anybody
    """

    action: Action
    guard: tuple[str, ...] = ()
    host: str | None = None


class Janitor:
    """Runs jobs one after another, and a sweep every so often.

    :param sweep: called first and then every ``interval`` seconds
    """

    def __init__(self, sweep: Action, interval: float) -> None:
        self._sweep = sweep
        self._interval = interval
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._waiting: dict[str, _Job] = {}
        self._busy = False
        self._undoing: tuple[str, ...] = ()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._busy = True
        self._thread = threading.Thread(
            target=self._work, name='spdk-vhost-janitor', daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the job that runs, if any, and start no other."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def soon(self, name: str, action: Action) -> None:
        """Have a job done. One that waits under that name is replaced."""
        self._add(name, _Job(action))

    def undo_later(self, *lvols: str, host: str | None = None) -> flows.Later:
        """Where a flow hands the undoings that it could not do.

        They run under the locks of these lvols, which are those that the
        flow holds, unless somebody says :meth:`forget` of the first.

        :param host: whom alone they concern
        """

        def later(what: str, undo: flows.Action) -> None:
            job = _Job(undo, guard=lvols, host=host)
            with self._changed:
                self._waiting[f'undo {what}'] = job

        return later

    def forget(self, lvol: str, host: str | None = None) -> None:
        """Drop undoings on an lvol: what they would undo is wanted now.

        When it returns, none runs either. The caller may hold the lvol's
        lock or not.

        :param host: who wants it; what concerns others alone stays
        """
        with self._changed:
            for jobs in (self._jobs, self._waiting):
                for name in [
                    n
                    for n, j in jobs.items()
                    if lvol in j.guard[:1] and j.host in (None, host)
                ]:
                    del jobs[name]
            self._changed.wait_for(lambda: lvol not in self._undoing[:1])

    def drop(self, name: str) -> None:
        """A job is not wanted any more. One that runs is not stopped."""
        with self._changed:
            self._jobs.pop(name, None)
            self._waiting.pop(name, None)

    def pending(self) -> list[str]:
        """Names of the jobs that are left to do."""
        with self._changed:
            return [*self._jobs, *self._waiting]

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is left that can be done now."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._jobs and not self._busy, timeout
            )

    def sweep(self) -> None:
        """Look for things to do now, and try again what failed."""
        with self._changed:
            self._jobs.update(self._waiting)
            self._waiting.clear()
        self._guarded('sweep', self._sweep)
        with self._changed:
            self._changed.notify_all()

    def _add(self, name: str, job: _Job) -> None:
        with self._changed:
            self._waiting.pop(name, None)
            self._jobs[name] = job
            self._changed.notify_all()

    def _work(self) -> None:
        next_sweep = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or self._jobs,
                    max(0, next_sweep - time.monotonic()),
                )
                if self._stopped:
                    return
                name = next(iter(self._jobs), None)
                self._busy = True
            try:
                if name is not None:
                    self._do(name)
                if time.monotonic() >= next_sweep:
                    self.sweep()
                    next_sweep = time.monotonic() + self._interval
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _do(self, name: str) -> None:
        with self._changed:
            job = self._jobs.get(name)
        if job is None:
            return
        action = job.action
        if job.guard:
            action = functools.partial(self._undo, name, job)
        done = self._guarded(name, action)
        with self._changed:
            if self._jobs.get(name) is job:
                del self._jobs[name]
                if not done:
                    self._waiting[name] = job

    def _undo(self, name: str, job: _Job) -> None:
        with locks.holding(*job.guard):
            with self._changed:
                if self._jobs.get(name) is not job:
                    return
                self._undoing = job.guard
            try:
                job.action()
            finally:
                with self._changed:
                    self._undoing = ()
                    self._changed.notify_all()

    @staticmethod
    def _guarded(name: str, action: Action) -> bool:
        """Whether it was done; a failure must not end the thread."""
        try:
            action()
        except exceptions.Postponed as e:
            LOG.debug('%(job)s: not now: %(why)s', {'job': name, 'why': e})
            return False
        except Exception as e:
            LOG.warning(
                'In the background, %(job)s failed and will be tried again: '
                '%(error)s',
                {'job': name, 'error': e},
            )
            return False
        return True
