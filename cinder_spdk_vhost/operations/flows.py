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

"""Operations of several steps that undo themselves.

A step that failed changed nothing and needs no undoing, with one exception:
where the answer was lost, it may have been done, and is undone as well. An
undoing that fails is handed on to be tried again later; it does not keep
the steps before it from being undone.
"""

from collections.abc import Callable
from typing import Any

from oslo_log import log as logging
from taskflow import engines, task
from taskflow.patterns import linear_flow
from taskflow.types import failure

from cinder_spdk_vhost import rpc

LOG = logging.getLogger(__name__)

Action = Callable[[], Any]
# Takes what is to be undone, in words, and the action that does it.
Later = Callable[[str, Action], None]


class Step(task.Task):
    """One action and what takes it back.

    :param name: what the action does, in words
    :param undo: must succeed where there is nothing to undo
    """

    def __init__(self, name: str, do: Action, undo: Action) -> None:
        super().__init__(name)
        self.do = do
        self.undo = undo
        self.later: Later | None = None

    def execute(self) -> None:
        try:
            self.do()
        except Exception as e:
            e.add_note(self.name)
            raise

    def revert(self, result: Any, **_kwargs: Any) -> None:
        if isinstance(result, failure.Failure) and not result.check(
            rpc.OutcomeUnknown
        ):
            return
        LOG.info('Undoing: %s', self.name)
        try:
            self.undo()
        except Exception as e:
            LOG.warning(
                'Could not undo "%(step)s", will try again: %(error)s',
                {'step': self.name, 'error': e},
            )
            if self.later is not None:
                self.later(self.name, self.undo)


def run(name: str, later: Later, *steps: Step) -> None:
    """Run the steps in order; on failure undo in the opposite order.

    :param later: takes over what could not be undone now
    :raises: the error of the step that failed
    """
    for step in steps:
        step.later = later
    if len(steps) == 1:
        _run_one(steps[0])
        return
    engines.run(linear_flow.Flow(name).add(*steps))


def _run_one(step: Step) -> None:
    """What the engine would do with one step, without its 3 ms."""
    try:
        step.execute()
    except Exception:
        step.revert(failure.Failure())
        raise
