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

from cinder_spdk_vhost.embedded import decode, errors, nvmf, outcome
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_SERIAL_MAX = 20
_MODEL_MAX = 40

_INVALID = errors.RpcError(errors.INVALID_PARAMS, 'Invalid parameters')


def _params(
    required: dict[str, decode.Decoder] | None = None,
    optional: dict[str, decode.Decoder] | None = None,
    *,
    may_be_absent: bool = False,
) -> decode.Params:
    return decode.Params(
        required,
        optional,
        may_be_absent=may_be_absent,
        code=_INVALID.code,
        message=_INVALID.message,
    )


def _hex(digits: int) -> decode.Decoder:
    pattern = re.compile(f'[0-9a-fA-F]{{{digits}}}')

    def decoder(value: Any) -> str:
        text = decode.string(value)
        if pattern.fullmatch(text) is None:
            raise decode.DecodeFailed
        return text

    return decoder


def _check_target(p: dict[str, Any]) -> None:
    name = p.get('tgt_name', nvmf.TARGET)
    if name != nvmf.TARGET:
        raise errors.RpcError(
            errors.INTERNAL_ERROR, f'Unable to find target {name}'
        )


def _find(target: 'Target', p: dict[str, Any]) -> nvmf.Subsystem:
    _check_target(p)
    subsystem = target.nvmf.find(p['nqn'])
    if subsystem is None:
        raise _INVALID
    if subsystem.changing:
        raise errors.RpcError(errors.INTERNAL_ERROR, 'Internal error')
    return subsystem


def _printable(text: str, limit: int) -> bool:
    return len(text) <= limit and all(' ' <= letter <= '~' for letter in text)


@method(
    'nvmf_create_subsystem',
    _params(
        {'nqn': decode.string},
        {
            'serial_number': decode.string,
            'model_number': decode.string,
            'tgt_name': decode.string,
            'max_namespaces': decode.uint32,
            'allow_any_host': decode.boolean,
            'ana_reporting': decode.boolean,
            'min_cntlid': decode.uint16,
            'max_cntlid': decode.uint16,
            'max_discard_size_kib': decode.uint64,
            'max_write_zeroes_size_kib': decode.uint64,
            'passthrough': decode.boolean,
            'enable_nssr': decode.boolean,
        },
    ),
)
def nvmf_create_subsystem(target: 'Target', p: dict[str, Any]) -> Any:
    """A new subsystem."""
    _check_target(p)
    low = p.get('min_cntlid', 1)
    high = p.get('max_cntlid', nvmf.MAX_CNTLID)
    try:
        subsystem = target.nvmf.create(p['nqn'], p)
    except errors.Errno as error:
        raise errors.RpcError(
            errors.INTERNAL_ERROR, f'Unable to create subsystem {p["nqn"]}'
        ) from error
    refused = None
    if not _printable(p.get('serial_number', ''), _SERIAL_MAX) or (
        not _printable(p.get('model_number', ''), _MODEL_MAX)
    ):
        refused = _INVALID
    elif not 0 < low <= high <= nvmf.MAX_CNTLID:
        refused = errors.RpcError(
            errors.INVALID_PARAMS, f'Invalid cntlid range [{low}-{high}]'
        )
    if refused is not None:
        target.nvmf.delete(subsystem)
        raise refused

    def finish() -> bool:
        subsystem.changing = False
        return True

    return outcome.Deferred(finish)


@method(
    'nvmf_delete_subsystem',
    _params({'nqn': decode.string}, {'tgt_name': decode.string}),
)
def nvmf_delete_subsystem(target: 'Target', p: dict[str, Any]) -> Any:
    """Delete a subsystem and give its bdevs up."""
    _check_target(p)
    subsystem = target.nvmf.find(p['nqn'])
    if subsystem is None:
        raise _INVALID
    target.nvmf.delete(subsystem)
    return outcome.Deferred(lambda: True)


@method(
    'nvmf_get_subsystems',
    _params(
        optional={'nqn': decode.string, 'tgt_name': decode.string},
        may_be_absent=True,
    ),
)
def nvmf_get_subsystems(target: 'Target', p: dict[str, Any]) -> Any:
    """One subsystem, or all."""
    _check_target(p)
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
    _params(
        {'nqn': decode.string, 'namespace': _NAMESPACE.members},
        {'tgt_name': decode.string},
    ),
)
def nvmf_subsystem_add_ns(target: 'Target', p: dict[str, Any]) -> Any:
    """Put a bdev into a subsystem: it is claimed, and has a channel."""
    subsystem = _find(target, p)
    namespace = p['namespace']
    bdev = target.bdevs.find(namespace['bdev_name'])
    if (
        bdev is None
        or namespace.get('anagrpid', 1) > subsystem.max_namespaces
        or namespace.get('anagrpid', 1) == 0
    ):
        raise _INVALID
    ids = {
        name: namespace[name]
        for name in ('nguid', 'eui64', 'uuid')
        if name in namespace
    }
    try:
        number = subsystem.add(bdev, namespace.get('nsid'), ids)
    except errors.Errno:
        raise _INVALID from None
    return outcome.Deferred(lambda: number)


@method(
    'nvmf_subsystem_remove_ns',
    _params(
        {'nqn': decode.string, 'nsid': decode.uint32},
        {'tgt_name': decode.string},
    ),
)
def nvmf_subsystem_remove_ns(target: 'Target', p: dict[str, Any]) -> Any:
    """Take a bdev out of a subsystem."""
    subsystem = _find(target, p)
    try:
        subsystem.remove(p['nsid'])
    except errors.Errno:
        raise _INVALID from None
    return outcome.Deferred(lambda: True)
