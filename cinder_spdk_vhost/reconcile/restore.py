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

"""After a restart of the target: attach again what the database says.

One thread waits for another incarnation of the target. It is woken when a
connection was lost, and then looks until the target is back; what the stats
poll sees reaches it as well. A few threads attach again, volume by volume.
They only add: what stands there beside is nobody's business here.

A volume's turn comes when its pool is up. A store that still loads shows
its lvols one after another, for minutes after an unclean stop: what is not
found is not there yet, nothing is made in its place, and it is tried again,
as is everything that fails, for as long as the database wants it.
"""

from collections.abc import Callable, Iterable
import dataclasses
import threading
import time

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.reconcile import incarnation

LOG = logging.getLogger(__name__)

# Volumes at a time. Each has a request under way most of the time, and the
# client has 64 places, which others want as well.
WORKERS = 16

# Seconds between two looks for a target that is away.
AWAY_SECONDS = 0.5
# Seconds until what failed is tried again: at first, and at most.
RETRY_SECONDS = (0.5, 60.0)
# The same while a pool is not up; looking for that is one request.
LOADING_SECONDS = (0.2, 5.0)
# What fails no longer than that is not worth a warning.
PATIENCE_SECONDS = 10.0

_SAY_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Item:
    """A volume that the database says is attached.

    :ivar volume: its id
    :ivar pool: name of the pool that it is in
    :ivar lvol: name of its lvol there
    """

    volume: str
    pool: str
    lvol: str


@dataclasses.dataclass(frozen=True)
class Doing:
    """What the restorer cannot know by itself.

    :ivar refresh: looks at the target and its pools; whether it answered
    :ivar pools: names of the pools that are up
    :ivar wanted: what is to be restored, as of now
    :ivar restore: attaches one volume again, under its lock, if that is
        still wanted; raises Postponed where that will be clear soon, and
        anything else where it failed
    """

    refresh: Callable[[], bool]
    pools: Callable[[], set[str]]
    wanted: Callable[[], Iterable[Item]]
    restore: Callable[[Item], object]


class Restorer:
    """Restores what a restarted target lost.

    :param watch: tells one incarnation of the target from the next
    """

    def __init__(
        self,
        target: spdk_target.Target,
        watch: incarnation.Watch,
        doing: Doing,
    ) -> None:
        self._watch = watch
        self._doing = doing
        self._url = target.url
        self._changed = threading.Condition()
        self._lost = True
        self._stopped = False
        # Which incarnation is, or is being, restored; 0 is none.
        self._current = 0
        self._run: _Run | None = None
        self._idle = False
        self._thread: threading.Thread | None = None
        watch.changed = self._wake
        target.when_lost(self._note_loss)

    def start(self) -> None:
        self._lost = self._watch.count == 0
        self._thread = threading.Thread(
            target=self._work, name='spdk-vhost-restorer', daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the volumes that are under way, and begin no other."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is left to do, as far as is known."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._idle and not self._news(), timeout
            )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _note_loss(self) -> None:
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def _news(self) -> bool:
        """Whether what is known of the target is not so any more."""
        return (
            self._stopped or self._lost or self._watch.count != self._current
        )

    def _work(self) -> None:
        seconds: float | None = 0
        while self._wait(seconds):
            try:
                seconds = self._step()
            except Exception:
                LOG.exception('Restoring attachments, will try again')
                seconds = LOADING_SECONDS[1]

    def _wait(self, seconds: float | None) -> bool:
        """Wait until there is something to do; False when all is to end.

        :param seconds: until there is, if nothing happens; None is for ever
        """
        with self._changed:
            self._idle = seconds is None
            self._changed.notify_all()
            self._changed.wait_for(self._news, seconds)
            self._idle = False
            return not self._stopped

    def _step(self) -> float | None:
        """Do what can be done now; seconds until there is more, or None."""
        if not self._find():
            return 0
        if self._watch.count != self._current:
            self._current = self._watch.count
            self._run = _Run(self._doing, self._url)
        if self._run is None:
            return None
        seconds = self._run.attempt(self._news)
        if seconds is None:
            self._run = None
        return seconds

    def _find(self) -> bool:
        """See which pools there are; waits for a target that is away."""
        while self._lost or self._run is not None:
            self._lost = False
            if self._doing.refresh():
                break
            with self._changed:
                self._lost = True
                if self._changed.wait_for(lambda: self._stopped, AWAY_SECONDS):
                    return False
        return True


class _Run:
    """The restoring after one restart, until nothing is left to do."""

    def __init__(self, doing: Doing, url: str) -> None:
        self._doing = doing
        self._url = url
        self._begin = self._said = time.monotonic()
        self._lock = threading.Lock()
        # Volumes that are left to do; None until they were looked up.
        self._left: set[str] | None = None
        self._restored = 0
        self._failures: dict[str, str] = {}
        self._tries = 0

    def attempt(self, disturbed: Callable[[], bool]) -> float | None:
        """Try all that is left.

        :param disturbed: whether to give up
        :returns: seconds until the next attempt; None where all is done
        """
        items = list(self._doing.wanted())
        if self._left is None:
            LOG.info(
                '%(url)s was started, or this service was: attaching '
                '%(count)d volumes again',
                {'url': self._url, 'count': len(items)},
            )
        else:
            items = [item for item in items if item.volume in self._left]
        self._left = {item.volume for item in items}
        before, up = self._restored, self._doing.pools()
        self._restore([item for item in items if item.pool in up], disturbed)
        if not self._left:
            LOG.info(
                '%(url)s: %(count)d volumes are attached again after '
                '%(seconds).1f s',
                {
                    'url': self._url,
                    'count': self._restored,
                    'seconds': time.monotonic() - self._begin,
                },
            )
            return None
        self._tries = 0 if self._restored > before else self._tries + 1
        loading = any(item.pool not in up for item in items)
        first, most = LOADING_SECONDS if loading else RETRY_SECONDS
        return min(first * 2 ** min(self._tries, 16), most)

    def _restore(
        self, items: list[Item], disturbed: Callable[[], bool]
    ) -> None:
        todo = iter(items)

        def work() -> None:
            for item in todo:  # a list's iterator is safe to share
                if disturbed():
                    return
                self._restore_one(item)

        workers = [
            threading.Thread(
                target=work, name='spdk-vhost-restorer', daemon=True
            )
            for _ in range(min(WORKERS, len(items)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _restore_one(self, item: Item) -> None:
        try:
            self._doing.restore(item)
        except exceptions.Postponed as e:
            LOG.debug('Volume %s: not now: %s', item.volume, e)
        except Exception as e:
            self._note_failure(item, e)
        else:
            self._note_success(item)

    def _note_success(self, item: Item) -> None:
        with self._lock:
            assert self._left is not None
            self._left.discard(item.volume)
            self._restored += 1
            now = time.monotonic()
            if not self._left or now < self._said + _SAY_SECONDS:
                return
            self._said = now
        LOG.info(
            '%(url)s: %(done)d volumes are attached again, %(left)d are left',
            {
                'url': self._url,
                'done': self._restored,
                'left': len(self._left),
            },
        )

    def _note_failure(self, item: Item, error: Exception) -> None:
        """Say it, but of each volume once, and not what soon passes."""
        why = str(error)
        patient = time.monotonic() < self._begin + PATIENCE_SECONDS
        if patient or self._failures.get(item.volume) == why:
            LOG.debug('Volume %s: not attached again: %s', item.volume, why)
            return
        self._failures[item.volume] = why
        LOG.warning(
            'Volume %(volume)s cannot be attached again now: %(why)s',
            {'volume': item.volume, 'why': why},
        )
