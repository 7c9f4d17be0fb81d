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

from collections.abc import Callable
import dataclasses
from typing import Any

import ddt
from oslotest import base

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.operations import flows
from tests.unit import scripted

# What a step fails with, and whether it is undone then.
FAILURES = (
    (rpc.OutcomeUnknown('m', 'lost'), True),
    (rpc.NotFound('m', -19, 'No such device'), False),
    (rpc.ConnectionFailed('m', 'nobody listens'), False),
    (rpc.ConnectionLost('m', 'a read'), False),
    (rpc.CallTimeout('m', 'a read'), False),
    (exceptions.Conflict('no'), False),
    (ValueError('a bug'), False),
)


class Log:
    """What was done and undone, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.later: list[tuple[str, Callable[[], Any]]] = []

    def step(
        self,
        name: str,
        do: Exception | None = None,
        undo: Exception | None = None,
    ) -> flows.Step:
        return flows.Step(
            name, self._does(name, do), self._does(f'undo {name}', undo)
        )

    def _does(self, line: str, error: Exception | None) -> flows.Action:
        def action() -> None:
            self.lines.append(line)
            if error is not None:
                raise error

        return action

    def postpone(self, what: str, undo: flows.Action) -> None:
        self.later.append((what, undo))

    def run(self, *steps: flows.Step) -> Exception | None:
        try:
            flows.run(self.postpone, *steps)
        except Exception as e:
            return e
        return None


@ddt.ddt
class Flows(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = Log()

    def test_all_well(self) -> None:
        steps = [self.log.step(name) for name in 'abc']
        self.assertIsNone(self.log.run(*steps))
        self.assertEqual(['a', 'b', 'c'], self.log.lines)

    def test_undone_backwards_and_nothing_after(self) -> None:
        error = ValueError('no')
        raised = self.log.run(
            self.log.step('a'),
            self.log.step('b'),
            self.log.step('c', error),
            self.log.step('d'),
        )
        self.assertIs(error, raised)
        self.assertEqual(['a', 'b', 'c', 'undo b', 'undo a'], self.log.lines)

    def test_what_may_have_been_done_is_undone_first(self) -> None:
        lost = rpc.OutcomeUnknown('m', 'lost')
        raised = self.log.run(
            self.log.step('a'), self.log.step('b', lost), self.log.step('c')
        )
        self.assertIs(lost, raised)
        self.assertEqual(['a', 'b', 'undo b', 'undo a'], self.log.lines)

    def test_undoing_that_fails_does_not_stop_the_others(self) -> None:
        error = ValueError('no')
        raised = self.log.run(
            self.log.step('a'),
            self.log.step('b', undo=rpc.ConnectionFailed('m', 'away')),
            self.log.step('c'),
            self.log.step('d', error),
        )
        self.assertIs(error, raised)
        self.assertEqual(
            ['a', 'b', 'c', 'd', 'undo c', 'undo b', 'undo a'],
            self.log.lines,
        )
        self.assertEqual(['b'], [what for what, _ in self.log.later])

    def test_what_is_handed_on_is_the_undoing(self) -> None:
        self.log.run(
            self.log.step('a', undo=ValueError('x')),
            self.log.step('b', ValueError('y')),
        )
        self.log.lines.clear()
        [(_, undo)] = self.log.later
        self.assertRaises(ValueError, undo)
        self.assertEqual(['undo a'], self.log.lines)

    def test_nothing_to_do(self) -> None:
        self.assertIsNone(self.log.run())

    def test_error_says_in_which_step(self) -> None:
        for steps in (
            [self.log.step('b', ValueError('x'))],
            [self.log.step('a'), self.log.step('b', ValueError('x'))],
        ):
            self.assertEqual(['b'], self.log.run(*steps).__notes__)

    def test_undoing_is_logged(self) -> None:
        logged = self.useFixture(scripted.Logged())
        self.log.run(
            self.log.step('make it', undo=ValueError('why not')),
            self.log.step('b', ValueError('x')),
        )
        [warning] = logged.at('WARNING')
        self.assertIn('make it', warning)
        self.assertIn('why not', warning)


@ddt.ddt
class OneStepAndMany(base.BaseTestCase):
    """A step fails the same way alone and after another."""

    def _result(
        self, others: bool, do: Exception | None, undo: Exception | None
    ) -> Any:
        log = Log()
        steps = [log.step('it', do, undo)]
        if others:
            steps.insert(0, log.step('before'))
        raised = log.run(*steps)
        lines = [line for line in log.lines if 'before' not in line]
        notes = getattr(raised, '__notes__', None)
        if raised is not None:
            del raised.__notes__
        return raised, notes, lines, [what for what, _ in log.later]

    @ddt.data(False, True)
    def test_well(self, others: bool) -> None:
        self.assertEqual(
            (None, None, ['it'], []), self._result(others, None, None)
        )

    @ddt.data(
        *((others, *row) for row in FAILURES for others in (False, True))
    )
    @ddt.unpack
    def test_fails(self, others, error, undone) -> None:
        lines = ['it', 'undo it'] if undone else ['it']
        self.assertEqual(
            (error, ['it'], lines, []), self._result(others, error, None)
        )

    @ddt.data(
        *((others, *row) for row in FAILURES for others in (False, True))
    )
    @ddt.unpack
    def test_fails_and_so_does_its_undoing(
        self, others, error, undone
    ) -> None:
        lines = ['it', 'undo it'] if undone else ['it']
        later = ['it'] if undone else []
        self.assertEqual(
            (error, ['it'], lines, later),
            self._result(others, error, ValueError('undo')),
        )


class _Host:
    """What a target of a few names is asked for, and has."""

    def __init__(self, **refusals: Exception) -> None:
        self.has: list[str] = []
        self.refusals = refusals
        self.script = scripted.Script(make=self._make)
        self.target = scripted.target(self.script)
        self.later: list[str] = []
        self.own: list[str] = []

    def _make(self, params: Any) -> Any:
        error = self.refusals.get(params['name'])
        if not isinstance(error, scripted.Refused | scripted.Away):
            self.has.append(params['name'])
        if error is not None:
            raise error
        return True

    def sent(self, name: str, own: bool = False) -> flows.Sent:
        def undo() -> None:
            if name == 'stuck':
                raise ValueError('undo')
            if name in self.has:
                self.has.remove(name)

        return flows.Sent(
            name,
            (rpc.Request('make', {'name': name}), lambda: name in self.has),
            undo,
            (lambda what, _: self.own.append(what)) if own else None,
        )

    def flow(self) -> flows.Flow:
        return flows.Flow(lambda what, _: self.later.append(what))


@ddt.ddt
class Together(base.BaseTestCase):
    """Steps in one round trip."""

    def test_all_well(self) -> None:
        host = _Host()
        with host.flow() as flow:
            flow.together(host.target, [host.sent('a'), host.sent('b')])
            flow.together(host.target, [])
        self.assertEqual(['a', 'b'], host.has)
        self.assertEqual(1, len(host.script.trips))

    @ddt.data('a', 'b', 'c')
    def test_one_is_refused(self, bad: str) -> None:
        host = _Host(**{bad: scripted.EXISTS})
        steps = [host.sent(name) for name in 'abc']
        with self.assertRaises(rpc.Exists) as caught, host.flow() as flow:
            flow.together(host.target, steps)
        self.assertEqual([bad], caught.exception.__notes__)
        self.assertEqual([], host.has)
        self.assertEqual(3, len(host.script.sent))

    def test_the_first_failure_counts(self) -> None:
        host = _Host(b=scripted.EXISTS, c=scripted.NOT_FOUND)
        with self.assertRaises(rpc.Exists), host.flow() as flow:
            flow.together(host.target, [host.sent(n) for n in 'abc'])

    def test_lost_and_done(self) -> None:
        host = _Host(a=scripted.Lost())
        with host.flow() as flow:
            flow.together(host.target, [host.sent('a')])
        self.assertEqual(['a'], host.has)

    def test_what_is_not_known_is_undone(self) -> None:
        host = _Host(a=scripted.Lost())
        sent = dataclasses.replace(
            host.sent('a'),
            mutation=(rpc.Request('make', {'name': 'a'}), lambda: False),
        )
        with self.assertRaises(rpc.OutcomeUnknown), host.flow() as flow:
            flow.together(host.target, [sent])
        self.assertEqual([], host.has)

    def test_what_fails_afterwards_takes_them_back(self) -> None:
        host = _Host()
        with self.assertRaises(ValueError), host.flow() as flow:
            flow.together(host.target, [host.sent('a'), host.sent('b')])
            raise ValueError('x')
        self.assertEqual([], host.has)

    @ddt.data(False, True)
    def test_who_takes_over_an_undoing(self, own: bool) -> None:
        host = _Host()
        with self.assertRaises(ValueError), host.flow() as flow:
            flow.together(
                host.target, [host.sent('a'), host.sent('stuck', own)]
            )
            raise ValueError('x')
        self.assertEqual(['stuck'], host.own if own else host.later)
        self.assertEqual([], host.later if own else host.own)
        self.assertEqual(['stuck'], host.has)
