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

"""What the scheduler is told of each pool."""

from typing import Any

from cinder_spdk_vhost.volume import pools

GIB = 1024**3
MIB = 1024**2


def report(
    known: pools.Pools,
    *,
    thin: bool,
    free_exports: int | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Capabilities of every pool; one that is down has no capacity.

    There is no ``provisioned_capacity_gb``: adding up what was promised
    would mean listing every lvol, and the scheduler keeps that sum itself.

    :param thin: whether volumes may be thin by default; where they are not,
        the scheduler must not promise more than there is
    :param free_exports: how many more volumes can be exported over NVMe-oF;
        None where none can
    :param settings: ``reserved``, ``over_subscription``,
        ``filter_function`` and ``goodness_function`` of the back end
    """
    more = {}
    if free_exports is not None:
        more['spdk_free_exports'] = free_exports
    return [
        {**_up(pool, thin=thin, **settings), **more} for pool in known.up()
    ] + [_down(name, why, **settings) for name, why in known.down().items()]


def _up(pool: pools.Pool, *, thin: bool, **settings: Any) -> dict[str, Any]:
    store = pool.store
    return {
        **_common(store.name, 'up', **settings),
        'total_capacity_gb': round(store.total / GIB, 2),
        'free_capacity_gb': round(store.free / GIB, 2),
        'thin_provisioning_support': thin and pool.base.reads_zeros,
        'thick_provisioning_support': True,
        'numa_node': pool.base.numa_node,
        'cluster_size_mib': store.cluster_size / MIB,
        'lvstore_uuid': store.uuid,
    }


def _down(name: str, why: str, **settings: Any) -> dict[str, Any]:
    return {
        **_common(name, 'down', **settings),
        'total_capacity_gb': 0,
        'free_capacity_gb': 0,
        'thin_provisioning_support': False,
        'thick_provisioning_support': False,
        'down_reason': why,
    }


def _common(
    name: str,
    state: str,
    *,
    reserved: int,
    over_subscription: float,
    filter_function: str | None,
    goodness_function: str | None,
) -> dict[str, Any]:
    return {
        'pool_name': name,
        'backend_state': state,
        'reserved_percentage': reserved,
        'max_over_subscription_ratio': over_subscription,
        'multiattach': True,
        'QoS_support': True,
        'online_extend_support': True,
        'filter_function': filter_function,
        'goodness_function': goodness_function,
    }
