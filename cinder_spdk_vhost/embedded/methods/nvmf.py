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

"""NVMe-oF subsystems and their namespaces."""

import errno
import re
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, outcome
from cinder_spdk_vhost.embedded.methods import nvmf_common as common
from cinder_spdk_vhost.embedded.nvmf import subsystems
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_SERIAL_MAX = 20
_MODEL_MAX = 40


def _hex(digits: int) -> decode.Decoder:
    pattern = re.compile(f'[0-9a-fA-F]{{{digits}}}')

    def decoder(value: Any) -> str:
        text = decode.string(value)
        if pattern.fullmatch(text) is None:
            raise decode.DecodeFailed
        return text

    return decoder


def _printable(limit: int) -> decode.Decoder:
    pattern = re.compile(f'[ -~]{{,{limit}}}')

    def decoder(value: Any) -> str:
        text = decode.string(value)
        if pattern.fullmatch(text) is None:
            raise decode.DecodeFailed
        return text

    return decoder


def _zeroes_exponent(kib: int) -> int:
    """What a size in KiB is as a power of two of pages of 4 KiB."""
    if kib and (kib < 8 or kib & (kib - 1)):
        raise errors.RpcError(
            errors.INVALID_PARAMS, f'Invalid max_write_zeroes_size_kib {kib}'
        )
    return (kib >> 2).bit_length() - 1 if kib else 0


@method(
    'nvmf_create_subsystem',
    common.params(
        common.NQN,
        {
            'serial_number': _printable(_SERIAL_MAX),
            'model_number': _printable(_MODEL_MAX),
            'max_namespaces': decode.uint32,
            'allow_any_host': decode.boolean,
            'ana_reporting': decode.boolean,
            'min_cntlid': decode.uint16,
            'max_cntlid': decode.uint16,
            'max_discard_size_kib': decode.uint64,
            'max_write_zeroes_size_kib': decode.uint64,
            'dmrsl': decode.uint32,
            'wzsl': decode.uint8,
            'passthrough': decode.boolean,
            'enable_nssr': decode.boolean,
        },
    ),
)
def nvmf_create_subsystem(target: 'Target', p: dict[str, Any]) -> Any:
    """A new subsystem; it is there at once, and starts a little later."""
    common.check_target(
        p,
        errors.RpcError(
            errors.INTERNAL_ERROR,
            f'Unable to find target {p.get("tgt_name")}',
        ),
    )
    options = dict(p)
    if 'max_discard_size_kib' in p:
        options['dmrsl'] = p['max_discard_size_kib'] * 2 & decode.U32
    if 'max_write_zeroes_size_kib' in p:
        options['wzsl'] = _zeroes_exponent(p['max_write_zeroes_size_kib'])
    low = p.get('min_cntlid', subsystems.MIN_CNTLID)
    high = p.get('max_cntlid', subsystems.MAX_CNTLID)
    try:
        subsystem = target.nvmf.create(p['nqn'], options)
    except errors.Errno as error:
        raise errors.RpcError(
            errors.INTERNAL_ERROR, f'Unable to create subsystem {p["nqn"]}'
        ) from error
    if not subsystems.MIN_CNTLID <= low <= high <= subsystems.MAX_CNTLID:
        target.nvmf.delete(subsystem)
        raise errors.RpcError(
            errors.INVALID_PARAMS, f'Invalid cntlid range [{low}-{high}]'
        )
    return outcome.Deferred(lambda: True)


@method('nvmf_delete_subsystem', common.params(common.NQN))
def nvmf_delete_subsystem(target: 'Target', p: dict[str, Any]) -> Any:
    """Delete a subsystem and give its bdevs up.

    It can be seen until that is done, and its name is taken as long.
    """
    subsystem = common.find(target, p)
    if subsystem.deleted:
        raise errors.RpcError(
            errors.INTERNAL_ERROR, 'Subsystem is already being destroyed.'
        )
    subsystem.deleted = True
    return outcome.Deferred(common.done(lambda: target.nvmf.delete(subsystem)))


@method(
    'nvmf_get_subsystems',
    common.params(optional=common.NQN, may_be_absent=True),
)
def nvmf_get_subsystems(target: 'Target', p: dict[str, Any]) -> Any:
    """One subsystem, or all."""
    common.check_target(p)
    if 'nqn' not in p:
        return [subsystem.describe() for subsystem in target.nvmf.all()]
    subsystem = target.nvmf.find(p['nqn'])
    if subsystem is None:
        raise errors.Errno(errno.ENODEV)
    return [subsystem.describe()]


_NAMESPACE = decode.Params(
    {'bdev_name': decode.string},
    {
        'nsid': decode.uint32,
        'nguid': _hex(32),
        'eui64': _hex(16),
        'uuid': decode.uuid_text,
        'ptpl_file': decode.string,
        'anagrpid': decode.uint32,
        'no_auto_visible': decode.boolean,
        'hide_metadata': decode.boolean,
    },
)


@method(
    'nvmf_subsystem_add_ns',
    common.params(
        {**common.NQN, 'namespace': _NAMESPACE.members}, relaxed=True
    ),
)
def nvmf_subsystem_add_ns(target: 'Target', p: dict[str, Any]) -> Any:
    """Put a bdev into a subsystem: it is claimed, and has a channel."""
    subsystem = common.find(target, p)
    wanted = p['namespace']

    def add() -> int:
        bdev = target.bdevs.get(wanted['bdev_name'])
        return subsystem.add(bdev, wanted)

    return common.when_paused(subsystem, add)


@method(
    'nvmf_subsystem_remove_ns',
    common.params({**common.NQN, 'nsid': decode.uint32}),
)
def nvmf_subsystem_remove_ns(target: 'Target', p: dict[str, Any]) -> Any:
    """Take a bdev out of a subsystem."""
    subsystem = common.find(target, p)
    return common.when_paused(
        subsystem, common.done(lambda: subsystem.remove(p['nsid']))
    )


@method(
    'nvmf_subsystem_set_ns_ana_group',
    common.params(
        {**common.NQN, 'nsid': decode.uint32, 'anagrpid': decode.uint32}
    ),
)
def nvmf_subsystem_set_ns_ana_group(
    target: 'Target', p: dict[str, Any]
) -> Any:
    """Move a namespace to another group."""
    subsystem = common.find(target, p)
    return common.when_paused(
        subsystem,
        common.done(lambda: subsystem.set_ana_group(p['nsid'], p['anagrpid'])),
    )


def _visibility(name: str, *, visible: bool) -> None:
    def change(target: 'Target', p: dict[str, Any]) -> Any:
        subsystem = common.find(target, p)
        return common.when_paused(
            subsystem,
            common.done(
                lambda: subsystem.show_to(
                    p['nsid'], p['host'], visible=visible
                )
            ),
        )

    takes = common.params(
        {**common.NQN, 'nsid': decode.uint32, 'host': decode.string}
    )
    method(name, takes)(change)


_visibility('nvmf_ns_add_host', visible=True)
_visibility('nvmf_ns_remove_host', visible=False)
