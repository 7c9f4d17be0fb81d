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

"""What happened beside the requests, for each recording."""

import base64
import signal
from typing import Any
import zlib

from tests.conformance.replay import Replay, Scenario, Step

_GIB = 1 << 30
_MIB = 1 << 20
_PORT = {'trtype': 'TCP', 'traddr': '127.0.0.1', 'trsvcid': '4420'}


def _make_mallocs(replay: Replay, *names: str, blocks: int = 16384) -> None:
    for name in names:
        replay.call(
            'bdev_malloc_create', name=name, num_blocks=blocks, block_size=512
        )


def _store(
    replay: Replay,
    name: str,
    base: str,
    file: str,
    block_size: int = 4096,
    cluster: int = 4 * _MIB,
) -> None:
    replay.file(file, _GIB)
    replay.call(
        'bdev_aio_create',
        name=base,
        filename=f'/var/lib/spdk/{file}',
        block_size=block_size,
    )
    replay.call(
        'bdev_lvol_create_lvstore',
        bdev_name=base,
        lvs_name=name,
        cluster_sz=cluster,
    )


def _tcp(replay: Replay) -> None:
    replay.call('nvmf_create_transport', trtype='TCP')


def _files(replay: Replay) -> None:
    for name in ('aio0.img', 'aio1.img', 'uring0.img'):
        replay.file(name, 2 * _GIB)
    replay.file('odd.img', _MIB + 100)
    replay.file('empty.img', 0)
    replay.file('small.img', _MIB)


def _uring(replay: Replay) -> None:
    # uring bdevs are not among the methods; an aio bdev stands in for one.
    replay.call(
        'bdev_aio_create',
        name='U0',
        filename='/var/lib/spdk/uring0.img',
        block_size=512,
    )


def _lvs0(replay: Replay) -> None:
    _store(replay, 'lvs0', 'A0', 'aio0.img')


def _keys(replay: Replay) -> None:
    for name in ('k1.key', 'k2.key', 'bad.key'):
        replay.key(name)
    replay.key('open.key', mode=0o644)


def _psk(size: int, hashed: str) -> str:
    key = bytes(range(size))
    key += zlib.crc32(key).to_bytes(4, 'little')
    return f'NVMeTLSkey-1:{hashed}:{base64.b64encode(key).decode()}:'


def _more_keys(replay: Replay) -> None:
    replay.key('dh.key', 'DHHC-1:00:')
    replay.key('open.key', mode=0o640)
    replay.key('exec.key', mode=0o700)
    replay.key('psk.key', _psk(32, '01'))
    replay.key('psk48.key', _psk(48, '02'))
    replay.key('badpsk.key', 'NVMeTLSkey-1:01:AAAA:')


def _nvmf(replay: Replay) -> None:
    _keys(replay)
    _lvs0(replay)
    replay.call(
        'bdev_lvol_create', lvs_name='lvs0', lvol_name='nssnap', size_in_mib=4
    )
    replay.restart()
    _make_mallocs(replay, 'NS0', 'NS1', 'NS2', 'NS3')


def _vhost(replay: Replay) -> None:
    _make_mallocs(replay, 'VH0', 'VH1', 'VH2', 'VH3', 'NS1')
    _lvs0(replay)


def _hotremove(replay: Replay) -> None:
    _make_mallocs(replay, 'NS0')
    _lvs0(replay)


def _pending_delete(replay: Replay) -> None:
    replay.background('vhost_delete_controller', ctrlr='hr')


def _deleted_when_left(replay: Replay) -> None:
    # The case itself is the delete that was waiting: it is sent while the
    # guest is there, and the guest leaves.
    client = replay.background('vhost_delete_controller', ctrlr='gl')
    try:
        client.receive(0.3)
    except TimeoutError:
        pass
    else:
        raise AssertionError('deleted under a connected guest')
    replay.disconnect('gl')
    answer = client.receive(10)
    assert answer['result'] is True, answer
    replay.call('vhost_create_blk_controller', ctrlr='gl', dev_name='lvs0/gl')


def _hr(replay: Replay) -> None:
    _hotremove(replay)
    replay.call(
        'bdev_lvol_create', lvs_name='lvs0', lvol_name='hr', size_in_mib=64
    )
    replay.call('vhost_create_blk_controller', ctrlr='hr', dev_name='lvs0/hr')
    replay.connect('hr')
    replay.call('bdev_lvol_delete', name='lvs0/hr')
    first = replay.background('vhost_delete_controller', ctrlr='hr')
    replay.disconnect('hr')
    assert first.receive(10)['result'] is True
    # The recorded answer is that one's; the case asks for another.
    replay.call('vhost_create_blk_controller', ctrlr='hr', dev_name='NS0')


def _config(replay: Replay) -> None:
    replay.file('cfg0.img', _GIB)


def _saved_config(replay: Replay, *, vhost: bool) -> None:
    """What the target was started with that had a saved configuration."""
    replay.restart()
    for name, blocks, uuid in (
        ('CM', 131072, '15613cc1-5d2c-474a-8b8c-8165e5559850'),
        ('CM2', 16384, '010d8eb1-0223-4d6d-819e-73cec77a2c12'),
    ):
        replay.call(
            'bdev_malloc_create',
            name=name,
            num_blocks=blocks,
            block_size=512,
            uuid=uuid,
        )
    replay.call(
        'bdev_aio_create',
        name='CA',
        filename='/var/lib/spdk/cfg0.img',
        block_size=4096,
        uuid='39e4e428-6e23-4f3b-9ccd-6b76a1c897bd',
    )
    replay.call(
        'bdev_set_qos_limit',
        name='clvs/v1',
        rw_ios_per_sec=2000,
        r_mbytes_per_sec=5,
    )
    replay.call('bdev_set_qos_limit', name='CM2', rw_ios_per_sec=4000)
    nqn = 'nqn.2016-06.io.spdk:cfg'
    _tcp(replay)
    replay.call('nvmf_create_subsystem', nqn=nqn, serial_number='CFG1')
    replay.call(
        'nvmf_subsystem_add_host', nqn=nqn, host='nqn.2016-06.io.spdk:h'
    )
    replay.call('nvmf_subsystem_add_listener', nqn=nqn, listen_address=_PORT)
    if vhost:
        replay.call(
            'vhost_create_blk_controller', ctrlr='cv', dev_name='clvs/v1'
        )
        replay.call(
            'vhost_create_blk_controller',
            ctrlr='cv2',
            dev_name='CM2',
            readonly=True,
        )


def _qos(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'l.img', 512, _MIB)
    for name, uuid in (
        ('a', '50ecf584-d657-4c11-bdc3-e771d90a765e'),
        ('c', '43447051-c1a2-4786-b2e8-053e844087bd'),
        ('d', 'faaa5a10-ba05-4a3c-b149-1e5f418c5e94'),
    ):
        replay.lvol(uuid, lvs_name='L', lvol_name=name, size_in_mib=32)


def _chain(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'x2-j.img')
    uuid = '333cbeb7-cd7d-456b-b6df-c2f50e396874'
    replay.lvol(uuid, lvs_name='L', lvol_name='v', size_in_mib=64)


def _live(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'x2-f.img', 512)
    uuid = '524fb827-f9fd-488b-9f0d-713183f13572'
    replay.lvol(uuid, lvs_name='L', lvol_name='v', size_in_mib=64)


def _live_polled(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'x2-f.img', 512)
    for name, uuid in (
        ('v', '4bd190c2-f986-44e6-8925-452a34209e9b'),
        ('w', 'affa3a5e-7551-46f2-a29d-2bea9d30392b'),
    ):
        replay.lvol(uuid, lvs_name='L', lvol_name=name, size_in_mib=64)


def _bdevperf(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'l.img')
    uuid = 'a10b0d9a-27b7-452f-abb6-ead0a02c3e04'
    replay.lvol(uuid, lvs_name='L', lvol_name='v', size_in_mib=64)
    replay.call('vhost_create_blk_controller', ctrlr='v', dev_name='L/v')
    replay.connect('v')


def _more(replay: Replay) -> None:
    _store(replay, 'L', 'A', 'l.img')
    for name, uuid in (
        ('k', 'ddce2571-93ef-46e9-abb4-c3545bd946d8'),
        ('i', '963da788-9e65-48b6-bcfb-58a250ea86d5'),
    ):
        replay.lvol(uuid, lvs_name='L', lvol_name=name, size_in_mib=64)


def _more_again(replay: Replay) -> None:
    replay.restart()
    replay.call(
        'bdev_aio_create',
        name='A',
        filename='/var/lib/spdk/l.img',
        block_size=4096,
    )


def _remote_guest(replay: Replay) -> None:
    nqn = 'nqn.2016-06.io.spdk:k'
    replay.call('nvmf_create_subsystem', nqn=nqn)
    replay.call(
        'nvmf_subsystem_add_ns', nqn=nqn, namespace={'bdev_name': 'L/k'}
    )


_ONE = '6f0c7d1e-1111-4222-8333-0123456789ab'
_HOSTS = ('nqn.2016-06.io.spdk:host1', 'nqn.2016-06.io.spdk:self')


def _export(
    replay: Replay, volume: str, bdev: str, *hosts: str, **options: Any
) -> None:
    nqn = f'nqn.2016-06.io.spdk:{volume}'
    replay.call(
        'nvmf_create_subsystem',
        nqn=nqn,
        serial_number='V1',
        max_namespaces=1,
        **options,
    )
    namespace = {
        'bdev_name': bdev,
        'uuid': volume,
        'nguid': volume.replace('-', ''),
    }
    replay.call('nvmf_subsystem_add_ns', nqn=nqn, namespace=namespace)
    for host in hosts:
        replay.call('nvmf_subsystem_add_host', nqn=nqn, host=host)
    replay.call('nvmf_subsystem_add_listener', nqn=nqn, listen_address=_PORT)


def _two_volumes(replay: Replay) -> None:
    _tcp(replay)
    _store(replay, 'L', 'A', 'x2-s.img')
    for name, uuid in (
        ('v', 'c6dcb174-5729-41aa-b014-661c530aec12'),
        ('w', 'da47d48d-599e-4f86-b403-bfa11a759d27'),
    ):
        replay.lvol(uuid, lvs_name='L', lvol_name=name, size_in_mib=64)


def _two_volumes_again(replay: Replay) -> None:
    replay.restart()
    _tcp(replay)
    replay.call(
        'bdev_aio_create',
        name='A',
        filename='/var/lib/spdk/x2-s.img',
        block_size=4096,
    )


def _late_placeholder(replay: Replay) -> None:
    _tcp(replay)
    _store(replay, 'L', 'A', 'x2-s.img')
    uuid = '7c9bb118-4236-40c4-8103-045c752179ca'
    replay.lvol(uuid, lvs_name='L', lvol_name='v', size_in_mib=64)
    _export(replay, _ONE, 'L/v', *_HOSTS)


def _with_ana(replay: Replay) -> None:
    replay.call('nvmf_delete_subsystem', nqn=f'nqn.2016-06.io.spdk:{_ONE}')
    replay.call('vhost_delete_controller', ctrlr=_ONE)
    _export(replay, _ONE, 'L/v', *_HOSTS, ana_reporting=True)


def _two_hosts(replay: Replay) -> None:
    _tcp(replay)
    _make_mallocs(replay, 'M')
    _export(replay, _ONE, 'M')


def _small_pool(replay: Replay) -> None:
    _store(replay, 'p', 'aio_p', 'p.img')


def _guest_was_on(controller: str) -> Step:
    def step(replay: Replay) -> None:
        replay.connect(controller)
        replay.disconnect(controller)

    return step


def _guest_on(controller: str) -> Step:
    return lambda replay: replay.connect(controller)


def _guest_off(controller: str) -> Step:
    return lambda replay: replay.disconnect(controller)


def _restart(replay: Replay) -> None:
    replay.restart()


def _stop(replay: Replay) -> None:
    replay.restart(signal.SIGTERM)


SCENARIOS = {
    '01-core': Scenario(),
    '02-batch': Scenario(),
    '03-bdev': Scenario(prologue=_files, before={52: _uring}),
    '04-lvol': Scenario(
        after=('03-bdev',),
        before={171: lambda replay: replay.file('aio1.img', 3 * _GIB)},
    ),
    '04b-lvol-more': Scenario(after=('03-bdev', '04-lvol')),
    '05-qos': Scenario(after=('03-bdev', '04-lvol', '04b-lvol-more')),
    '05b-qos-idle-vs-open': Scenario(
        after=('03-bdev', '04-lvol', '04b-lvol-more', '05-qos')
    ),
    '06-nvmf-target': Scenario(prologue=_nvmf),
    '06c-masking-dhchap-target': Scenario(prologue=_keys),
    '08-vhost': Scenario(
        prologue=_vhost,
        before={25: lambda replay: replay.vhost_file('plain')},
    ),
    '09-vhost-live-guest': Scenario(
        prologue=_lvs0, before={3: _guest_on('gl'), 22: _deleted_when_left}
    ),
    '10-vhost-hotremove': Scenario(
        prologue=_hotremove,
        before={2: _guest_on('hr'), 5: _pending_delete},
    ),
    '10b-vhost-delete-pending': Scenario(prologue=_hr),
    '11-config-restart': Scenario(
        prologue=_config,
        before={
            42: _stop,
            69: lambda replay: _saved_config(replay, vhost=True),
            84: lambda replay: _saved_config(replay, vhost=False),
            91: _restart,
        },
    ),
    '13-followups': Scenario(
        prologue=lambda replay: _make_mallocs(
            replay, 'HB', 'a', 'b', 'd', 'e', blocks=2048
        )
    ),
    '14-shrink-busy': Scenario(),
    '20-vperf': Scenario(
        prologue=lambda replay: replay.file('uring0.img', _GIB),
        before={5: _uring},
    ),
    '21-migr-storage': Scenario(
        prologue=lambda replay: replay.file('x2-s.img', _GIB),
        before={5: _guest_on('v1'), 11: _guest_off('v1')},
    ),
    '22-loopback': Scenario(after=('21-migr-storage',)),
    '24-qemu-migration-storage': Scenario(
        prologue=lambda replay: replay.file('x2-s.img', _GIB),
        before={5: _guest_on(_ONE), 10: _guest_off(_ONE), 12: _guest_on(_ONE)},
    ),
    '25-qos-sequences': Scenario(
        prologue=_qos,
        before={
            8: _guest_was_on('a'),
            31: _guest_was_on('c'),
            39: _guest_on('d'),
            48: _guest_off('d'),
            71: _guest_was_on('d'),
        },
    ),
    '28-many': Scenario(prologue=_tcp),
    '29-chain-restart': Scenario(
        prologue=_chain,
        before={
            76: _stop,
            78: _restart,
            80: _restart,
            82: _stop,
            84: _restart,
            86: _restart,
        },
    ),
    '30-live-intr': Scenario(
        prologue=_live, before={12: _restart, 14: _restart, 16: _restart}
    ),
    '31-remote-restart-storage': Scenario(
        prologue=_two_volumes,
        before={10: _two_volumes_again, 20: _two_volumes_again},
    ),
    '33-identity-notify': Scenario(
        before={4: _restart, 7: _bdevperf, 8: _guest_off('v')}
    ),
    '34-live-polled': Scenario(
        prologue=_live_polled, before={0: _restart, 3: _restart, 6: _restart}
    ),
    '35-more-storage': Scenario(
        prologue=_more, before={1: _remote_guest, 12: _more_again}
    ),
    '37-late-placeholder-storage': Scenario(
        prologue=_late_placeholder, before={5: _with_ana}
    ),
    '38-crash-metadata': Scenario(
        prologue=lambda replay: replay.file('x2-n.img', _GIB),
        before=dict.fromkeys(range(11), _restart),
    ),
    '40-two-hosts-storage': Scenario(prologue=_two_hosts),
    '42-nbd': Scenario(prologue=_small_pool),
    '43-nvmf': Scenario(prologue=_more_keys),
}
