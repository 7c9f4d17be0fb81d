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

"""The life of a volume, step by step."""

import time
from typing import Any
import uuid

from account import Account
import visit

from tests.fixtures import guest
from tests.fixtures.cinder_services import gone, settled
from tests.fixtures.tap import Tap
from tests.fixtures.target import Target

TYPE = 'spdk-limited'
QOS_SPECS = {'total_iops_sec': '5000', 'total_bytes_sec': str(200 * 1024**2)}
_EMPTY_SECONDS = 10
_CLEAN_UP_SECONDS = 30
_LOOK_SECONDS = 0.5


class Life:
    """Every step leaves what it made to the next, the last ones remove it."""

    def __init__(
        self, account: Account, target: Target, tap: Tap, cinder: Any
    ) -> None:
        self._account = account
        self._target = target
        self._tap = tap
        self._cinder = cinder
        self._before = target.dump()
        self._attachment = ''
        # What exists, oldest first: (manager, id).
        self._made: list[tuple[Any, str]] = []

    def run(self, keep_type: bool = False) -> None:
        self._make_type()
        volume = self._create()
        snapshot = self._snapshot(volume)
        self._create_from(snapshot)
        self._clone(volume)
        self._extend(volume)
        self._attach(volume)
        self._boot_guest(volume)
        self._detach(volume)
        self._delete_all()
        self._show_empty()
        if not keep_type:
            self._delete_type()

    def _step(self, name: str) -> Any:
        return self._account.step(name, self._tap)

    def _make_type(self) -> None:
        with self._step('make a QoS spec and a type') as step:
            self._specs = self._cinder.qos_specs.create(
                TYPE, {'consumer': 'back-end', **QOS_SPECS}
            )
            self._type = self._cinder.volume_types.create(TYPE)
            self._type.set_keys({'volume_backend_name': 'spdk'})
            self._cinder.qos_specs.associate(self._specs, self._type.id)
            limits = ', '.join(f'{k}={v}' for k, v in QOS_SPECS.items())
            step.note(f'type {TYPE}: {limits}, consumer back-end')

    def _create(self) -> Any:
        with self._step('create a volume of 1 GiB') as step:
            volume = self._new_volume(1, volume_type=TYPE)
            self._account.facts['volume_id'] = volume.id
            step.note(f'{volume.id} in pool {_pool(volume)}')
            step.note(self._describe(volume))
        return volume

    def _snapshot(self, volume: Any) -> Any:
        manager = self._cinder.volume_snapshots
        with self._step('snapshot it') as step:
            snapshot = manager.create(volume.id)
            self._made.append((manager, snapshot.id))
            settled(manager, snapshot.id)
            step.note(f'{snapshot.id}, no data copied')
        return snapshot

    def _create_from(self, snapshot: Any) -> None:
        with self._step('create a volume from the snapshot') as step:
            volume = self._new_volume(1, snapshot_id=snapshot.id)
            step.note(f'{volume.id}, {self._describe(volume)}')

    def _clone(self, source: Any) -> None:
        with self._step('clone the volume') as step:
            volume = self._new_volume(1, source_volid=source.id)
            step.note(f'{volume.id}, {self._describe(volume)}')

    def _extend(self, volume: Any) -> None:
        with self._step('extend it to 2 GiB') as step:
            self._extend_to(volume, 2)
            step.note(self._describe(volume))

    def _extend_to(self, volume: Any, size: int) -> None:
        """Extend a volume, attached or not, to so many GiB."""
        self._cinder.volumes.extend(volume.id, size)
        settled(self._cinder.volumes, volume.id)

    def _attach(self, volume: Any) -> None:
        attachments = self._cinder.attachments
        connector = self._connector()
        with self._step('attach it') as step:
            attachment = attachments.create(
                volume.id, None, str(uuid.uuid4()), 'rw'
            )
            self._attachment = attachment['id']
            attachment = attachments.update(self._attachment, connector)
            attachments.complete(self._attachment)
            info = attachment.connection_info
            vhost = info['vhost']
            step.note(f'driver_volume_type: {info["driver_volume_type"]}')
            step.note(f'socket: {vhost["socket"]}')
            node = info.get('numa_node')
            step.note(f'NUMA node: {"unknown" if node is None else node}')
        with self._account.step("look at the target's side") as step:
            alias = self._alias(volume)
            limits = self._target.limits(alias)
            controller = self._target.controllers()[vhost['name']]
            if controller['socket'] != vhost['socket']:
                raise RuntimeError(f'the socket is {controller["socket"]}')
            in_force = {k: v for k, v in limits.items() if v}
            if not in_force:
                raise RuntimeError(f'no limits are in force on {alias}')
            step.note(f'limits in force: {in_force}')
            step.note(f'vhost controller: {controller["ctrlr"]}')
        self._account.facts.update(
            socket_path=vhost['socket'],
            numa_node=info.get('numa_node'),
            assigned_rate_limits=limits,
        )

    def _boot_guest(self, volume: Any) -> None:
        facts = self._account.facts
        if reason := guest.unavailable():
            print(f'no guest boots here: {reason}')
            facts['no_guest'] = reason
            return
        with visit.Visit(self._account, facts['socket_path']) as guest_visit:
            guest_visit.look()
            guest_visit.write()
            guest_visit.read_back()
            guest_visit.load(facts['assigned_rate_limits'])
            guest_visit.grow(lambda size: self._extend_to(volume, size), 3)
            guest_visit.leave()

    def _connector(self) -> dict[str, Any]:
        """What the connector on the target's own host would send.

        Its SPDK holds the volume's lvstore: that is what makes it local.
        """
        version = self._target.rpc.call('spdk_get_version')['fields']
        reactors: dict[str, list[int]] = {}
        for reactor in self._target.rpc.call('framework_get_reactors')[
            'reactors'
        ]:
            node = str(reactor.get('numa_id', 0))
            reactors.setdefault(node, []).append(reactor['lcore'])
        return {
            'host': 'compute',
            'ip': '127.0.0.1',
            'initiator': 'iqn.1993-08.org.debian:01:compute',
            'mode': 'rw',
            'multipath': False,
            'os_type': 'linux',
            'platform': 'x86_64',
            'spdk_vhost': {
                'lvstores': self._target.lvstore_uuids(),
                'version': f'{version["major"]}.{version["minor"]:02}',
                'reactors': reactors,
            },
        }

    def _detach(self, volume: Any) -> None:
        with self._step('detach it'):
            self._cinder.attachments.delete(self._attachment)
            settled(self._cinder.volumes, volume.id)
        if self._new('controllers'):
            raise RuntimeError('its vhost controller is still there')

    def _delete_all(self) -> None:
        kinds = {
            'SnapshotManager': 'the snapshot',
            'VolumeManager': 'a volume',
        }
        while self._made:
            manager, identifier = self._made[-1]
            with self._step(f'delete {kinds[type(manager).__name__]}') as step:
                manager.delete(identifier)
                gone(manager, identifier)
                step.note(identifier)
            self._made.pop()

    def _delete_type(self) -> None:
        with self._step('delete the type and the QoS spec'):
            self._cinder.volume_types.delete(self._type)
            self._cinder.qos_specs.delete(self._specs, force=True)

    def _show_empty(self) -> None:
        with self._account.step('the target is as it was') as step:
            deadline = time.monotonic() + _EMPTY_SECONDS
            while left := [*self._new('lvols'), *self._new('controllers')]:
                if time.monotonic() > deadline:
                    raise RuntimeError(f'left behind: {", ".join(left)}')
                time.sleep(0.1)
            dump = self._target.dump()
            step.note(
                f'{len(dump["lvols"])} lvols, {len(dump["controllers"])} '
                'vhost controllers; free clusters: '
                + ', '.join(
                    f'{name} {store["free_clusters"]}'
                    for name, store in dump['lvstores'].items()
                )
            )

    def _new_volume(self, size: int, **arguments: Any) -> Any:
        volumes = self._cinder.volumes
        volume = volumes.create(size, **arguments)
        self._made.append((volumes, volume.id))
        return settled(volumes, volume.id)

    def _alias(self, volume: Any) -> str:
        return f'{_pool(volume)}/volume-{volume.id}'

    def _describe(self, volume: Any) -> str:
        """What the target says the volume is."""
        bdev = self._target.lvol(self._alias(volume))
        if bdev is None:
            raise RuntimeError(f'{self._alias(volume)} is not on the target')
        size = bdev['num_blocks'] * bdev['block_size'] // 1024**3
        details = bdev['driver_specific']['lvol']
        kind = 'thin' if details['thin_provision'] else 'thick'
        text = f'{size} GiB, {kind} on the target'
        if 'base_snapshot' in details:
            text += f', stands on {details["base_snapshot"]}'
        return text

    def _new(self, kind: str) -> list[str]:
        """Lvols or controllers that were not there at the beginning."""
        return sorted(set(self._target.dump()[kind]) - set(self._before[kind]))

    def clean_up(self) -> None:
        """Put away what a failed run left on a target that lives on.

        First as a user would, then, for what Cinder can't delete, on the
        target itself; only what carries an id of this run.
        """
        ids = self._delete_what_cinder_has()
        rpc = self._target.rpc
        for name in _of(ids, self._new('controllers')):
            attempt(rpc.call, 'vhost_delete_controller', ctrlr=name)
        # What others stand on can only go after them.
        for _ in ids:
            for alias in _of(ids, self._new('lvols')):
                attempt(rpc.call, 'bdev_lvol_delete', name=alias)

    def _delete_what_cinder_has(self) -> list[str]:
        """Empty these services, which are the demo's own.

        A request that was just sent when the run was interrupted may show
        its volume a moment later, so look until there is none twice.
        """
        ids = []
        volumes = self._cinder.volumes
        empty_looks = 0
        deadline = time.monotonic() + _CLEAN_UP_SECONDS
        while empty_looks < 2 and time.monotonic() < deadline:
            left = volumes.list()
            empty_looks = 0 if left else empty_looks + 1
            snapshots = self._cinder.volume_snapshots.list()
            ids += [resource.id for resource in [*left, *snapshots]]
            for attachment in self._cinder.attachments.list():
                attempt(self._cinder.attachments.delete, attachment.id)
            for volume in left:
                attempt(settled, volumes, volume.id, 10)
                attempt(volumes.reset_state, volume.id, 'error')
                attempt(volumes.delete, volume.id, cascade=True)
                attempt(gone, volumes, volume.id, 10)
            time.sleep(_LOOK_SECONDS)
        return ids


def _of(ids: list[str], names: list[str]) -> list[str]:
    return [name for name in names if any(i in name for i in ids)]


def attempt(function: Any, *arguments: Any, **keywords: Any) -> None:
    """Call it, and go on if that fails."""
    try:
        function(*arguments, **keywords)
    except Exception as e:
        print(f'    while cleaning up: {e}')


def _pool(volume: Any) -> str:
    return getattr(volume, 'os-vol-host-attr:host').partition('#')[2]
