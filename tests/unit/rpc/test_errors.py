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

import json
import pathlib

import ddt
from oslotest import base

from cinder_spdk_vhost.rpc import errors

# Every error that was recorded of a real target (SPDK v26.05): method, code,
# text and the type that callers get.
TABLE = json.loads(
    pathlib.Path(__file__).with_name('errors_by_method.json').read_text()
)


@ddt.ddt
class FromAnswerTest(base.BaseTestCase):
    @ddt.idata(TABLE)
    @ddt.unpack
    def test_recorded(self, method, code, text, expected):
        error = errors.from_answer(method, {'code': code, 'message': text})
        self.assertIs(getattr(errors, expected), type(error))
        self.assertEqual(
            (method, code, text), (error.method, error.code, error.message)
        )
        self.assertIn(method, str(error))
        self.assertIn(text, str(error))

    @ddt.data(None, 'text', [], {}, {'code': 'x', 'message': 3})
    def test_malformed(self, member):
        error = errors.from_answer('m', member)
        self.assertIs(errors.TargetError, type(error))

    @ddt.data(
        (-1, 'unheard of', errors.NotPermitted),
        (-28, 'unheard of', errors.NoSpace),
        (-32602, 'unheard of', errors.InvalidParams),
        (-32603, 'unheard of', errors.TargetError),
        (-32603, 'Unknown error -16', errors.Busy),
        (-32603, 'Unknown error -999', errors.TargetError),
        # The text says more than the code.
        (-32602, 'Input/output error', errors.TargetError),
        (-32602, 'a: b: No such device', errors.NotFound),
        (-32601, 'Method not found', errors.MethodNotFound),
    )
    @ddt.unpack
    def test_kind(self, code, text, expected):
        error = errors.from_answer('m', {'code': code, 'message': text})
        self.assertIs(expected, type(error))

    def test_whether_it_was_sent(self):
        self.assertFalse(errors.ConnectionFailed.sent)
        self.assertFalse(errors.Unauthorized.sent)
        for kind in (
            errors.ConnectionLost,
            errors.CallTimeout,
            errors.OutcomeUnknown,
            errors.ProtocolError,
        ):
            self.assertTrue(kind.sent)
