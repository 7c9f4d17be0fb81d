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

"""How NVMe-oF subsystems are reached, and by whom."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, outcome, reactors
from cinder_spdk_vhost.embedded.methods import nvmf_common as common
from cinder_spdk_vhost.embedded.nvmf import names, subsystems, transports
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_ANA_STATE = decode.one_of(
    subsystems.OPTIMIZED, 'non_optimized', 'inaccessible'
)
_STARTUP_ONLY = (
    'Method may only be called before framework is initialized. Use '
    '--wait-for-rpc command line parameter and then issue this RPC before '
    'the framework_start_init RPC.'
)


@method('nvmf_get_targets', decode.Params(may_be_absent=True, relaxed=True))
def nvmf_get_targets(_target: 'Target', p: dict[str, Any]) -> Any:
    """The one there is."""
    if p is not decode.ABSENT:
        raise errors.RpcError(
            errors.INVALID_PARAMS, 'nvmf_get_targets has no parameters.'
        )
    return [names.TARGET]


def _as_it_is(value: Any) -> Any:
    return value


@method(
    'nvmf_create_transport',
    common.params(
        {'trtype': decode.string},
        {
            **dict.fromkeys(
                ('max_queue_depth', 'max_io_qpairs_per_ctrlr', 'kas'),
                decode.uint16,
            ),
            **dict.fromkeys(
                (
                    'in_capsule_data_size',
                    'max_io_size',
                    'max_aq_depth',
                    'iobuf_small_cache_size',
                    'iobuf_large_cache_size',
                    'abort_timeout_sec',
                    'acceptor_poll_rate',
                    'ack_timeout',
                    'data_wr_pool_size',
                    'min_kato',
                ),
                decode.uint32,
            ),
            **dict.fromkeys(
                ('dif_insert_or_strip', 'zcopy', 'disable_command_passthru'),
                decode.boolean,
            ),
            # The transport itself looks at these, and others it ignores.
            'c2h_success': _as_it_is,
            'sock_priority': _as_it_is,
        },
        relaxed=True,
    ),
)
def nvmf_create_transport(target: 'Target', p: dict[str, Any]) -> Any:
    """TCP, once."""
    common.check_target(p)
    name = p['trtype']
    made = target.nvmf.transports
    if name.upper() != transports.TCP:
        raise errors.RpcError(
            errors.INVALID_PARAMS, f"Invalid transport type '{name}'"
        )
    if name in made:
        raise errors.RpcError(
            errors.INTERNAL_ERROR, f"Transport type '{name}' already exists"
        )
    failed: transports.CreateFailed | None = None
    options: dict[str, Any] = {}
    try:
        options = transports.tcp_options(p)
    except transports.CreateFailed as error:
        if not error.late:
            raise errors.RpcError(
                errors.INTERNAL_ERROR, f"Transport type '{name}' create failed"
            ) from error
        failed = error

    def finish() -> bool:
        if failed is not None:
            raise errors.RpcError(
                errors.INTERNAL_ERROR, 'Failed to create transport.'
            )
        try:
            made.add(name, options)
        except errors.Errno as error:
            # Another request that arrived with this one was first.
            raise errors.RpcError(
                errors.INTERNAL_ERROR,
                f'Failed to add transport to tgt.(-{error.number})',
            ) from error
        return True

    return outcome.Deferred(finish)


@method(
    'nvmf_get_transports',
    common.params(optional={'trtype': decode.string}, may_be_absent=True),
)
def nvmf_get_transports(target: 'Target', p: dict[str, Any]) -> Any:
    """One transport, or all."""
    common.check_target(p)
    return target.nvmf.transports.describe(p.get('trtype'))


@method(
    'nvmf_subsystem_add_listener',
    common.params(
        {**common.NQN, **common.ADDRESS},
        {
            'secure_channel': decode.boolean,
            'ana_state': _ANA_STATE,
            'sock_impl': decode.string,
        },
        relaxed=True,
    ),
)
def nvmf_subsystem_add_listener(target: 'Target', p: dict[str, Any]) -> Any:
    """Say where a subsystem is reached."""
    subsystem = common.find(target, p)
    address = common.address(p)
    if subsystem.any_host and p.get('secure_channel'):
        raise errors.RpcError(
            errors.INTERNAL_ERROR,
            "Cannot establish secure channel, when 'allow_any_host' is set",
        )

    def listen() -> bool:
        if address.transport not in target.nvmf.transports:
            raise common.INVALID
        state = p.get('ana_state', subsystems.OPTIMIZED)
        subsystem.listen(address, state)
        return True

    return common.when_paused(subsystem, listen)


@method(
    'nvmf_subsystem_remove_listener',
    common.params({**common.NQN, **common.ADDRESS}),
)
def nvmf_subsystem_remove_listener(target: 'Target', p: dict[str, Any]) -> Any:
    """Take such an address back."""
    subsystem = common.find(target, p)
    address = common.address(p)
    if address.transport not in target.nvmf.transports:
        raise common.INVALID
    return common.when_paused(
        subsystem, common.done(lambda: subsystem.stop_listening(address))
    )


@method(
    'nvmf_subsystem_listener_set_ana_state',
    common.params(
        {**common.NQN, **common.ADDRESS, 'ana_state': _ANA_STATE},
        {'anagrpid': decode.uint32},
    ),
)
def nvmf_subsystem_listener_set_ana_state(
    target: 'Target', p: dict[str, Any]
) -> Any:
    """Say how good a way an address is."""
    subsystem = common.find(
        target,
        p,
        errors.RpcError(
            errors.INVALID_PARAMS,
            f'Unable to find subsystem with NQN {p["nqn"]}',
        ),
    )
    address = common.address(p)
    return common.when_paused(
        subsystem,
        common.done(
            lambda: subsystem.set_ana_state(
                address, p['ana_state'], p.get('anagrpid', 0)
            )
        ),
        errors.RpcError(errors.INTERNAL_ERROR, 'error setting ANA state: -22'),
    )


_KEYS: dict[str, decode.Decoder] = {
    'dhchap_key': decode.string,
    'dhchap_ctrlr_key': decode.string,
}
_HOST: dict[str, decode.Decoder] = {**common.NQN, 'host': decode.string}


def _keys(target: 'Target', p: dict[str, Any]) -> dict[str, str]:
    wanted = {use: p[use] for use in _KEYS if use in p}
    if not all(name in target.keyring for name in wanted.values()):
        raise common.INVALID
    return wanted


@method(
    'nvmf_subsystem_add_host',
    common.params(_HOST, {**_KEYS, 'psk': _as_it_is}, relaxed=True),
)
def nvmf_subsystem_add_host(target: 'Target', p: dict[str, Any]) -> Any:
    """Let a host connect."""
    subsystem = common.find(target, p)
    keys = _keys(target, p)
    psk = p.get('psk')
    if transports.TCP not in target.nvmf.transports:
        # Nobody else wants to know about it.
        psk = None
    if psk is not None and psk.__class__ is not str:
        raise common.INTERNAL
    host = subsystems.Host(p['host'], target.keyring)
    try:
        subsystem.allow(host, keys, psk)
    except errors.Errno:
        raise common.INTERNAL from None
    return True


@method(
    'nvmf_subsystem_remove_host',
    common.params(_HOST, {'timeout_ms': decode.uint64}),
)
def nvmf_subsystem_remove_host(target: 'Target', p: dict[str, Any]) -> Any:
    """Don't let a host connect any more."""
    subsystem = common.find(target, p)
    try:
        subsystem.disallow(p['host'])
    except errors.Errno:
        raise common.INTERNAL from None
    return outcome.Deferred(lambda: True)


@method('nvmf_subsystem_set_keys', common.params(_HOST, _KEYS))
def nvmf_subsystem_set_keys(target: 'Target', p: dict[str, Any]) -> Any:
    """Give a host other keys, or none."""
    subsystem = common.find(
        target,
        p,
        no_target=errors.RpcError(
            errors.INTERNAL_ERROR, common.INVALID.message
        ),
    )
    keys = _keys(target, p)
    subsystem.host(p['host']).set_keys(keys)
    return True


@method(
    'nvmf_subsystem_allow_any_host',
    common.params({**common.NQN, 'allow_any_host': decode.boolean}),
)
def nvmf_subsystem_allow_any_host(target: 'Target', p: dict[str, Any]) -> Any:
    """Let everybody connect, or only who is listed."""
    common.find(target, p).any_host = p['allow_any_host']
    return True


def _query(
    name: str, tell: Callable[[subsystems.Subsystem], list[Any]]
) -> None:
    no_target = errors.RpcError(
        errors.INTERNAL_ERROR, 'Unable to find a target'
    )

    def query(target: 'Target', p: dict[str, Any]) -> Any:
        subsystem = common.find(target, p, no_target=no_target)
        return common.when_paused(subsystem, lambda: tell(subsystem))

    method(name, common.params(common.NQN))(query)


_query(
    'nvmf_subsystem_get_listeners',
    lambda subsystem: subsystem.describe_listeners(),
)
# Nobody can be connected.
_query('nvmf_subsystem_get_controllers', lambda _subsystem: [])
_query('nvmf_subsystem_get_qpairs', lambda _subsystem: [])


@method('nvmf_get_stats', common.params(may_be_absent=True))
def nvmf_get_stats(target: 'Target', p: dict[str, Any]) -> Any:
    """One poll group a core, and nothing done in any."""
    common.check_target(p)
    counts = dict.fromkeys(
        (
            'admin_qpairs',
            'io_qpairs',
            'current_admin_qpairs',
            'current_io_qpairs',
            'current_unassociated_qpairs',
            'pending_bdev_io',
            'completed_nvme_io',
        ),
        0,
    )
    kinds = target.nvmf.transports.kinds()
    groups = [
        {
            'name': f'nvmf_tgt_poll_group_{index:03}',
            **counts,
            'transports': kinds,
        }
        for index, _ in enumerate(reactors.cores(target.reactors.mask))
    ]
    return {'tick_rate': reactors.TICK_RATE, 'poll_groups': groups}


def _startup_only(_target: 'Target', _p: dict[str, Any]) -> Any:
    raise errors.RpcError(-1, _STARTUP_ONLY)


for _name in ('nvmf_set_config', 'nvmf_set_crdt', 'nvmf_set_max_subsystems'):
    method(_name, decode.Params(may_be_absent=True, relaxed=True))(
        _startup_only
    )
