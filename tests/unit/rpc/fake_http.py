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

"""An HTTP server like SPDK's rpc_http_proxy.py, and worse ones."""

import base64
from collections.abc import Callable
import datetime

# By its full name: importing eventlet (as Cinder does) leaves a patched copy
# of the module as the attribute of the package "http", and a server from
# there never ends where nothing else is patched.
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import json
import pathlib
import ssl
import threading
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
import fixtures

USERNAME = 'admin'
PASSWORD = 'pa55-wörd€'


class Handler(BaseHTTPRequestHandler):
    """One POST; what is done with it is the fixture's matter."""

    server: 'Server'
    timeout = 20

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers['Content-Length']))
        proxy = self.server.proxy
        expected = base64.b64encode(f'{USERNAME}:{PASSWORD}'.encode())
        if self.headers['Authorization'] != f'Basic {expected.decode()}':
            proxy.unauthorized += 1
            self.reply(401)
            return
        request = json.loads(body)
        with proxy.lock:
            proxy.requests.append(request)
            proxy.under_way += 1
            proxy.most = max(proxy.most, proxy.under_way)
        try:
            proxy.behave(self, request)
        finally:
            with proxy.lock:
                proxy.under_way -= 1

    def reply(
        self, status: int = 200, body: bytes = b'', **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.protocol_version == 'HTTP/1.1':
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, request: dict[str, Any], result: Any = True) -> None:
        answer = {'jsonrpc': '2.0', 'id': request['id'], 'result': result}
        self.reply(200, json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: 'FakeProxy'

    def handle_error(self, *_: Any) -> None:
        pass  # clients hang up on purpose


def echo(handler: Handler, request: dict[str, Any]) -> None:
    handler.answer(request, request.get('params'))


class FakeProxy(fixtures.Fixture):
    """Serves on a free port of the loopback interface.

    :param behave: answers one authenticated request
    :ivar requests: those that were let in
    :ivar most: the most that were under way at once
    """

    def __init__(
        self,
        behave: Callable[[Handler, Any], None] = echo,
        tls: 'Authority | None' = None,
        version: str = 'HTTP/1.0',
    ) -> None:
        super().__init__()
        self.behave = behave
        self._tls = tls
        self._version = version
        self.lock = threading.Lock()
        self.requests: list[Any] = []
        self.unauthorized = self.under_way = self.most = 0

    def _setUp(self) -> None:
        handler = type(
            'Versioned', (Handler,), {'protocol_version': self._version}
        )
        self._server = Server(('127.0.0.1', 0), handler)
        self._server.proxy = self
        scheme = 'http'
        if self._tls:
            scheme = 'https'
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls.server_pem)
            self._server.socket = context.wrap_socket(
                self._server.socket,
                server_side=True,
                do_handshake_on_connect=False,
            )
        self.url = f'{scheme}://127.0.0.1:{self._server.server_port}'
        thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self._server.server_close)
        self.addCleanup(self._server.shutdown)


class Authority(fixtures.Fixture):
    """A certificate authority of our own and a server's certificate."""

    def _setUp(self) -> None:
        where = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in '12')
        ca_name, name = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
            for text in ('test CA', 'test server')
        )
        address = ipaddress.ip_address('127.0.0.1')
        ca = _certificate(
            ca_name,
            ca_name,
            ca_key.public_key(),
            ca_key,
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_CA_USAGE, True),
        )
        leaf = _certificate(
            name,
            ca_name,
            key.public_key(),
            ca_key,
            (x509.SubjectAlternativeName([x509.IPAddress(address)]), False),
        )
        pem = serialization.Encoding.PEM
        self.ca_file = str(where / 'ca.pem')
        self.server_pem = str(where / 'server.pem')
        (where / 'ca.pem').write_bytes(ca.public_bytes(pem))
        (where / 'server.pem').write_bytes(
            leaf.public_bytes(pem)
            + key.private_bytes(
                pem,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    signed_with: ec.EllipticCurvePrivateKey,
    *extensions: tuple[x509.ExtensionType, bool],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signed_with, hashes.SHA256())
