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

"""The driver's methods against what Cinder's interfaces ask for.

Cinder's own compliance test passes for a class without any methods.
"""

from collections.abc import Iterator
import importlib
import inspect
import pkgutil
from typing import Any

from cinder import interface
from cinder.interface import base as interface_base
from cinder.interface import volume_driver
from cinder.volume import driver as cinder_driver
import ddt
from oslotest import base

from cinder_spdk_vhost.volume import driver

OURS = 'cinder_spdk_vhost.'

# What the manager gives by keyword although no interface has it.
KEYWORDS = {
    'initialize_connection': {},
    'terminate_connection': {'force': True},
}

# What the manager does itself where a driver doesn't.
OPTIONAL = ('update_migrated_volume',)

POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def interfaces() -> dict[str, type]:
    """Cinder's interfaces of volume drivers, by name."""
    found = {}
    for info in pkgutil.iter_modules(interface.__path__):
        if not info.name.startswith('volume_'):
            continue
        module = importlib.import_module(f'{interface.__name__}.{info.name}')
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if (
                issubclass(cls, interface_base.CinderInterface)
                and cls.__module__ == module.__name__
            ):
                found[name] = cls
    return found


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """What an interface asks for: methods and properties."""
    for one in cls.__mro__:
        if one in (interface_base.CinderInterface, object):
            continue
        for name, value in vars(one).items():
            if inspect.isfunction(value) or isinstance(value, property):
                yield name, value


def definer(cls: type, name: str) -> type | None:
    """The class that a method comes from."""
    return next((one for one in cls.__mro__ if name in vars(one)), None)


def is_ours(cls: type, name: str) -> bool:
    """Whether a method comes from this package, or a test's subclass."""
    found = definer(cls, name)
    return found is not None and not found.__module__.startswith('cinder.')


def claimed(cls: type) -> dict[str, type]:
    """The core, and every interface that we have methods of."""
    return {
        name: one
        for name, one in interfaces().items()
        if one is volume_driver.VolumeDriverCore
        or any(
            inspect.isfunction(value) and is_ours(cls, method)
            for method, value in vars(one).items()
        )
    }


def parameters(function: Any) -> list[inspect.Parameter]:
    """Without ``self``."""
    return list(inspect.signature(function).parameters.values())[1:]


def disagreements(name: str, wanted: Any, has: Any) -> list[str]:
    """Why a method can't be called as another one is.

    What is optional there may be taken by keyword only, or be swallowed.
    """
    if not inspect.isfunction(has):
        return [f'{name} is no method']
    asked = [p for p in parameters(wanted) if p.kind in POSITIONAL]
    required = [p.name for p in asked if p.default is p.empty]
    optional = [p.name for p in asked if p.default is not p.empty]
    got = [p for p in parameters(has) if p.kind in POSITIONAL]
    names = [p.name for p in got]
    faults = []
    if names[: len(required)] != required:
        faults.append(f'{name} takes {names}, not {required}')
    faults += [
        f'{name} insists on {p.name}'
        for p in got[len(required) :]
        if p.default is p.empty and p.name not in optional
    ]
    signature = inspect.signature(has)
    keywords = dict.fromkeys(optional) | KEYWORDS.get(name, {})
    for calls in ((), tuple(keywords)):
        chosen = {key: keywords[key] for key in calls}
        try:
            signature.bind('self', *required, **chosen)
        except TypeError as e:
            faults.append(f'{name} cannot be called: {e}')
    return faults


def only_raises(method: Any) -> bool:
    return inspect.isfunction(method) and (
        'raise NotImplementedError' in inspect.getsource(method)
    )


def faults_of(cls: type) -> list[str]:
    """Everything in which a driver is not what it claims to be."""
    faults = []
    for one in claimed(cls).values():
        for name, wanted in methods(one):
            place = definer(cls, name)
            if place is None:
                faults.append(f'{name} is missing')
            elif isinstance(wanted, property):
                if not isinstance(vars(place)[name], property):
                    faults.append(f'{name} is no property')
            elif is_ours(cls, name):
                faults += disagreements(name, wanted, vars(place)[name])
            elif name not in OPTIONAL and only_raises(vars(place)[name]):
                faults.append(f'{name} is not implemented')
    return faults


@ddt.ddt
class Interface(base.BaseTestCase):
    def test_there_are_interfaces(self) -> None:
        found = interfaces()
        self.assertIn('VolumeDriverCore', found)
        self.assertIn('VolumeSnapshotRevertDriver', found)
        self.assertGreater(len(dict(methods(found['VolumeDriverCore']))), 20)

    def test_registered(self) -> None:
        self.assertIn(driver.SPDKVhostDriver, interface._volume_register)

    def test_claims_the_core(self) -> None:
        self.assertIn('VolumeDriverCore', claimed(driver.SPDKVhostDriver))

    def test_is_what_it_claims(self) -> None:
        self.assertEqual([], faults_of(driver.SPDKVhostDriver))

    def test_overrides_as_cinders_base_class_has_them(self) -> None:
        faults = []
        for name, has in vars(driver.SPDKVhostDriver).items():
            wanted = inspect.getattr_static(
                cinder_driver.VolumeDriver, name, None
            )
            if inspect.isfunction(wanted) and not name.startswith('__'):
                faults += disagreements(name, wanted, has)
        self.assertEqual([], faults)

    def test_what_the_core_needs_is_ours(self) -> None:
        """Cinder's base class has these too, but they only raise."""
        for name in (
            'check_for_setup_error',
            'create_export',
            'create_snapshot',
            'create_volume',
            'create_volume_from_snapshot',
            'create_cloned_volume',
            'delete_snapshot',
            'delete_volume',
            'do_setup',
            'ensure_export',
            'extend_volume',
            'initialize_connection',
            'remove_export',
            'terminate_connection',
        ):
            self.assertTrue(is_ours(driver.SPDKVhostDriver, name), name)

    def test_no_public_method_that_nobody_calls(self) -> None:
        """A name with a slip of the pen would never be called."""
        known = set(dir(cinder_driver.VolumeDriver))
        for one in interfaces().values():
            known |= {name for name, _ in methods(one)}
        public = {
            name
            for name, value in vars(driver.SPDKVhostDriver).items()
            if inspect.isfunction(value) and not name.startswith('_')
        }
        self.assertEqual(set(), public - known)


class Wrong(driver.SPDKVhostDriver):
    """Everything that the check is for."""

    def create_volume(self, vol):  # another name
        pass

    def delete_volume(self):  # one too few
        pass

    def extend_volume(self, new_size, volume):  # another order
        pass

    def create_snapshot(self, snapshot, hurry):  # one too many
        pass

    def terminate_connection(self, volume, connector):  # no force
        pass

    def migrate_volume(self, context, volume, host, hurry=False):
        """Like this it can be."""

    initialized = True
    retype = None

    def revert_to_snapshot(self, context, snapshot, volume):
        """Another interface; another order."""

    def manage_existing(self, volume, existing_ref):
        """Of several, one only."""


class TheCheckItself(base.BaseTestCase):
    def test_finds_what_is_wrong(self) -> None:
        faults = faults_of(Wrong)
        for fault in (
            "create_volume takes ['vol'], not ['volume']",
            "delete_volume takes [], not ['volume']",
            "extend_volume takes ['new_size', 'volume'], not "
            "['volume', 'new_size']",
            'create_snapshot insists on hurry',
            'initialized is no method',
            'retype is no method',
            "revert_to_snapshot takes ['context', 'snapshot', 'volume'], not "
            "['context', 'volume', 'snapshot']",
            'manage_existing_get_size is not implemented',
        ):
            self.assertIn(fault, faults)
        self.assertTrue(
            any('terminate_connection cannot' in fault for fault in faults)
        )
        self.assertFalse(any('migrate_volume' in fault for fault in faults))

    def test_finds_what_is_missing(self) -> None:
        class Nothing:
            pass

        faults = faults_of(Nothing)
        self.assertIn('create_volume is missing', faults)
        self.assertIn('supported is missing', faults)
        self.assertEqual(
            {name for name, _ in methods(volume_driver.VolumeDriverCore)},
            {fault.split()[0] for fault in faults},
        )
