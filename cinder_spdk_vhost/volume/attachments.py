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

"""Who is attached to a volume how: the kind of export for a connector.

A connector with our key gets a vhost-user socket where its own SPDK holds
the volume's lvstore; elsewhere its SPDK gets the volume over NVMe-oF. One
without our key gets it over NVMe-oF as os-brick's own connector takes it, or
a block device where it is of this very host and the target is too. Everybody
else is refused.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
from typing import Any

from cinder import context as cinder_context
from cinder import objects
from cinder.volume import volume_utils
from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import base, exports, nvmeof
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.qos import specs as qos_specs
from cinder_spdk_vhost.spdk import qos
from cinder_spdk_vhost.volume import attached, connectors, pools, subjects

LOG = logging.getLogger(__name__)


class Attachments:
    """Attaches volumes to hosts and detaches them.

    :param exporter: what can be done on the target
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        pool_keeper: pools.Pools,
        exporter: exports.Exports,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._pools = pool_keeper
        self._exports = exporter

    # What a connector gets

    def validate(self, connector: Any) -> None:
        """Check a connector before it is known for which volume it is.

        :raises Conflict: no volume could be attached with it
        """
        parsed = connectors.Connector.parse(connector)
        remote = self._comes_over_nvmeof(parsed)
        if not (parsed.stock or remote or parsed.lvstores & self._held()):
            self._pools.refresh()
        held = self._held()
        if not held:
            raise exceptions.Conflict('no pool of this back end is up')
        if parsed.lvstores & held:
            return
        if remote:
            parsed.nvmeof_host()
        elif parsed.stock:
            self._check_here(connector)
        else:
            raise exceptions.Conflict(parsed.why_not_local('this back end'))

    def _held(self) -> set[str]:
        """UUIDs of the lvstores that are up."""
        return {pool.store.uuid for pool in self._pools.up()}

    def _check_here(self, connector: Mapping[str, Any]) -> None:
        connectors.check_here(
            connector, self._target.url, self._target.on_this_host
        )

    def _comes_over_nvmeof(self, parsed: connectors.Connector) -> bool:
        """Whether that is how it gets what its own SPDK does not hold."""
        if not self._exports.nvmeof.portals:
            return False
        return not parsed.stock or parsed.nqn is not None

    def attach(
        self,
        volume: Any,
        connector: Any,
        pool: pools.Pool,
        limits: qos_specs.Limits,
        shared: bool,
    ) -> dict[str, Any]:
        """Attach a volume; gives the connection info.

        :param limits: of the volume's type
        :param shared: whether several guests may have it at a time
        :raises Conflict: where it cannot be attached to that host
        :raises InUse: where it is, and not to be shared
        """
        subject = subjects.Subject.volume(volume)
        parsed = connectors.Connector.parse(connector)
        wanted = base.Wanted(
            store=pool.name,
            volume=subject.lvol,
            mode=parsed.mode,
            limits=limits.rates,
            shared=shared,
            reads_zeros=pool.base.reads_zeros,
        )
        info = self._attach(subject, connector, parsed, pool, wanted)
        for rounded in limits.rounded:
            LOG.info(
                'Volume %(volume)s: QoS %(rounded)s',
                {'volume': volume.id, 'rounded': rounded},
            )
        return info

    def attach_snapshot(
        self, snapshot: Any, connector: Any, pool: pools.Pool
    ) -> dict[str, Any]:
        """Attach a snapshot to read it; gives the connection info.

        :raises Conflict: where it cannot be attached to that host
        """
        subject = subjects.Subject.snapshot(snapshot)
        wanted = base.Wanted(
            store=pool.name,
            volume=subject.lvol,
            mode='ro',
            limits=qos.RateLimits(),
            shared=True,
            reads_zeros=pool.base.reads_zeros,
        )
        parsed = connectors.Connector.parse(connector)
        return self._attach(subject, connector, parsed, pool, wanted)

    def _attach(
        self,
        subject: subjects.Subject,
        connector: Mapping[str, Any],
        parsed: connectors.Connector,
        pool: pools.Pool,
        wanted: base.Wanted,
    ) -> dict[str, Any]:
        local = pool.store.uuid in parsed.lvstores
        if not local and self._comes_over_nvmeof(parsed):
            return self._as_namespace(subject, parsed, wanted)
        if parsed.stock:
            self._check_here(connector)
            return self._as_block_device(subject, wanted)
        parsed.check_local(pool.name, pool.store.uuid)
        return self._as_socket(subject, wanted, pool)

    def _as_socket(
        self, subject: subjects.Subject, wanted: base.Wanted, pool: pools.Pool
    ) -> dict[str, Any]:
        export = self._exports.vhost_user.attach(wanted)
        return {
            'driver_volume_type': 'spdk_vhost',
            'data': {
                'volume_id': subject.id,
                'transport': 'local',
                'vhost': export.as_dict(),
                'numa_node': pool.base.numa_node,
                'assigned_rate_limits': export.limits.as_dict(),
            },
        }

    def _as_namespace(
        self,
        subject: subjects.Subject,
        parsed: connectors.Connector,
        wanted: base.Wanted,
    ) -> dict[str, Any]:
        host = parsed.nvmeof_host()
        subject.check_alone(host)
        if parsed.stock:
            subject.check_plain()
            _check_writable(subject, wanted)
        export = self._exports.nvmeof.attach(wanted, host)
        data = {
            'volume_id': subject.id,
            'target_nqn': export.nqn,
            'vol_uuid': export.uuid,
            'host_nqn': host.nqn,
            'assigned_rate_limits': export.limits.as_dict(),
        }
        if parsed.stock:
            return {
                'driver_volume_type': 'nvmeof',
                'data': {
                    **data,
                    'portals': _portals(export, rdma='RoCEv2'),
                    'access_mode': wanted.mode,
                },
            }
        return {
            'driver_volume_type': 'spdk_vhost',
            'data': {
                **data,
                'transport': 'nvmeof',
                'portals': _portals(export, rdma='rdma'),
                'vhost': {
                    'name': names.controller(wanted.volume, wanted.mode),
                    'kind': 'blk',
                    'readonly': wanted.mode == 'ro',
                },
            },
        }

    def _as_block_device(
        self, subject: subjects.Subject, wanted: base.Wanted
    ) -> dict[str, Any]:
        """What os-brick's own connector for local devices takes."""
        subject.check_plain()
        export = self._exports.block.attach(wanted)
        return {
            'driver_volume_type': 'local',
            'data': {
                'volume_id': subject.id,
                'device_path': export.path,
                'access_mode': wanted.mode,
                'assigned_rate_limits': export.limits.as_dict(),
            },
        }

    def restorable(
        self, volume: Any, rows: Iterable[attached.Attachment]
    ) -> list[Mapping[str, Any]]:
        """The connectors that are to be attached again after a restart.

        Each once, sockets first: a read-only one could not be made beside a
        namespace.

        A block device is not made again: whoever had the old one open could
        not use a new one, and under its old name it could be another's by
        now.
        """
        uuid = self._uuid(volume_utils.extract_host(volume.host, 'pool'))
        found: list[Mapping[str, Any]] = []
        remote: list[Mapping[str, Any]] = []
        for row in rows:
            parsed = subjects.parsed(row.connector)
            if parsed and parsed.stock and not self._comes_over_nvmeof(parsed):
                continue
            local = parsed is not None and subjects.is_local(parsed, uuid)
            kind = found if local else remote
            if row.connector not in kind:
                kind.append(row.connector)
        return found + remote

    # Who has it still

    def detach(
        self, volume: Any, connector: Any, path: str, force: bool
    ) -> bool:
        """Remove an export, unless another attachment uses it.

        :param connector: None for all of the volume's
        :param path: the volume's lvol, ``STORE/NAME``
        :returns: whether one does
        :raises InUse: a guest is connected, and it is not forced
        """
        subject = subjects.Subject.volume(volume)
        return self._detach(subject, connector, path, force)

    def detach_snapshot(
        self, snapshot: Any, connector: Any, pool: str, force: bool
    ) -> None:
        """Remove the export of a snapshot.

        :param connector: None for all of them
        :raises InUse: a host or guest is connected, and it is not forced
        """
        subject = subjects.Subject.snapshot(snapshot)
        path = names.path(pool, subject.lvol)
        self._detach(subject, connector, path, force)

    def _detach(
        self, subject: subjects.Subject, connector: Any, path: str, force: bool
    ) -> bool:
        """:returns: whether another attachment uses the export"""
        lvol = subject.lvol
        if connector is None:
            self._detach_all(lvol, path, force)
            return False
        try:
            parsed = connectors.Connector.parse(connector)
        except exceptions.Conflict as e:
            LOG.info('Nothing was attached with that connector: %s', e)
            return False
        uuid = self._uuid(path.partition('/')[0])
        if subjects.is_local(parsed, uuid):
            mode = 'ro' if names.is_snapshot(lvol) else parsed.mode
            if subject.sockets(mode, uuid) > 1:
                self._tidy_later(subject, path)
                return True
            self._exports.vhost_user.detach(lvol, mode, force)
            return False
        if self._comes_over_nvmeof(parsed):
            return self._detach_host(subject, connector, parsed, path, force)
        return self._detach_block_device(subject, connector, path)

    def _detach_all(self, lvol: str, path: str, force: bool) -> None:
        self._exports.nvmeof.detach_all(lvol, force=force)
        for mode in names.MODES:
            self._exports.vhost_user.detach(lvol, mode, force)
        self._exports.block.detach(path, lvol)

    def _uuid(self, pool: str | None) -> str | None:
        """The lvstore of a pool, which may be down; None if never seen."""
        known = self._pools.uuid(pool) if pool is not None else None
        if known is None:
            with contextlib.suppress(exceptions.PoolDown):
                return self._pools.get(pool).store.uuid
        return known

    def _detach_host(
        self,
        subject: subjects.Subject,
        connector: Mapping[str, Any],
        parsed: connectors.Connector,
        path: str,
        force: bool,
    ) -> bool:
        try:
            nqn = parsed.nvmeof_host().nqn
        except exceptions.Conflict as e:
            LOG.info('Nothing was attached with that connector: %s', e)
            return False
        uuid = self._uuid(path.partition('/')[0])

        def uses_it(other: connectors.Connector) -> bool:
            return other.nqn == nqn and not subjects.is_local(other, uuid)

        if self._is_kept(subject, connector, path, uses_it):
            return True
        mode = names.placeholder_mode(subject.lvol)
        listed = self._exports.nvmeof.detach(
            subject.lvol,
            nqn,
            force=force,
            keep_socket=subject.sockets(mode, uuid) > 0,
        )
        if not listed and parsed.stock:
            # From before there were portals.
            return self._detach_block_device(subject, connector, path)
        return False

    def _detach_block_device(
        self,
        subject: subjects.Subject,
        connector: Mapping[str, Any],
        path: str,
    ) -> bool:
        """A host with our key has none, so another's may stay."""

        def uses_it(other: connectors.Connector) -> bool:
            return other.stock and not self._comes_over_nvmeof(other)

        if self._is_kept(subject, connector, path, uses_it):
            return True
        self._exports.block.detach(path, subject.lvol)
        return False

    def _is_kept(
        self,
        subject: subjects.Subject,
        connector: Mapping[str, Any],
        path: str,
        uses_it: Callable[[connectors.Connector], bool],
    ) -> bool:
        """Whether an export stays for somebody else.

        :param uses_it: whether a host that sent a connector has that export
        """
        others, transfer = subject.is_kept(connector, uses_it)
        if others:
            self._tidy_later(subject, path)
        elif transfer:
            LOG.info('What a transfer may use of %s stays till its end', path)
        return others or transfer

    def _tidy_later(self, subject: subjects.Subject, path: str) -> None:
        """Look again when Cinder has removed the rows that it is to remove.

        Two that are detached at the same time each see the other, and of a
        reserved attachment that is given up the driver never hears.
        """

        def tidy() -> None:
            rows = objects.VolumeAttachmentList.get_all_by_volume_id(
                cinder_context.get_admin_context(), subject.id
            )
            if rows:
                raise exceptions.Postponed(f'{subject.id} is attached')
            self._exports.remove_unused(path, subject.lvol)

        self._janitor.soon(f'tidy the exports of {subject.lvol}', tidy)

    def remove_unused(self, volume: Any, path: str) -> None:
        """Remove what is left when the last attachment is gone.

        Cinder also asks for it after a failed attachment and after
        transfers of its own, so while the database knows of any attachment
        this does nothing: detaching has removed, or will remove, its own
        export. A host that is still connected is looked for later.
        """
        if volume.volume_attachment:
            return
        subject = subjects.Subject.volume(volume)
        try:
            self._exports.remove_unused(path, subject.lvol)
        except exceptions.Postponed as e:
            LOG.info('What is left is removed later: %s', e)
            self._tidy_later(subject, path)

    def remove_unused_snapshot(self, snapshot: Any, pool: str) -> None:
        """Remove what is left of a snapshot's exports.

        :raises Postponed: a host is still connected
        """
        lvol = names.snapshot(snapshot.id)
        self._exports.remove_unused(names.path(pool, lvol), lvol)


def _portals(export: nvmeof.Export, rdma: str) -> list[list[Any]]:
    """As connectors take them: address, port and transport.

    :param rdma: what that one is called
    """
    return [
        [p.address, p.port, rdma if p.transport == 'rdma' else p.transport]
        for p in export.portals
    ]


def _check_writable(subject: subjects.Subject, wanted: base.Wanted) -> None:
    """:raises Conflict: it could not be kept read-only"""
    if wanted.mode == 'ro' and not names.is_snapshot(wanted.volume):
        raise exceptions.Conflict(
            f'{subject.what} is wanted ro, and a host with a namespace can '
            f'write on it; rw is accepted, and ro with the "{connectors.KEY}" '
            f"connector, whose host's SPDK keeps guests from writing"
        )
