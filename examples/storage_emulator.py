"""A Google Cloud Storage of this machine, for `make pod` and for tests.

  with storage_emulator.serve():
    subprocess.run([..., '--workdir=gs://bucket/run'])

It takes the packages of `pip install -e .[dev]`. Files are kept in memory, as
long as the block lasts.
"""

import contextlib
import functools
import http.server
import io
import json
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from unittest import mock

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = 'bucket'
# Whatever is asked of it, it answers that this account may not.
FORBIDDEN = 'forbidden'
# Its files may be used, and nothing may be asked about itself.
CLOSED = 'closed'


class _Handler(RequestHandler):
  """Adds to the emulator what TensorStore relies on, and a bucket of no use."""

  def parse_request(self):
    if not super().parse_request():
      return False
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    names = re.match(r'.*/b/([^/]+)/o(?:/(.*))?$', url.path)
    bucket, name = names.groups() if names else (None, None)
    name = urllib.parse.unquote(name or query.get('name', ''))
    if query.get('uploadType') == 'multipart':
      # The first of two parts says which file the second is.
      body = self.rfile.read(int(self.headers['Content-Length']))
      self.rfile = io.BytesIO(body)  # a connection has one request
      name = json.loads(re.search(rb'\r\n\r\n(.*)\r\n', body)[1])['name']
    try:
      generation = self.storage.get_file_obj(bucket, name)['generation']
    except NotFound:
      generation = '0'
    self._generation = generation if query.get('alt') == 'media' else '0'
    wanted = query.get('ifGenerationMatch', generation)
    if f'/b/{FORBIDDEN}' in url.path:
      self._refuse(403, 'This account does not have storage.objects.list.')
    elif url.path.endswith(f'/b/{CLOSED}'):
      self._refuse(403, 'This account does not have storage.buckets.get.')
    elif wanted != generation:
      self._refuse(412, 'The object has another generation.')
    else:
      return True
    return False

  def end_headers(self):
    if self._generation != '0':
      self.send_header('x-goog-generation', self._generation)
    super().end_headers()

  def _refuse(self, code, message):
    self.rfile.read(int(self.headers.get('Content-Length') or 0))
    self._generation = '0'
    body = json.dumps({'error': {'code': code, 'message': message}}).encode()
    self.send_response(code)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)


class _Server(http.server.HTTPServer):
  def handle_error(self, request, client_address):
    """Says nothing: who asked has not waited for the answer."""


@contextlib.contextmanager
def serve() -> Iterator[None]:
  """Has this process, and those that it starts, take the emulator for Google's.

  It has an empty bucket of the name `BUCKET`, to which anybody may write.
  """
  for name in ('api.object', 'gcp_storage_emulator'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  storage = Storage(use_memory_fs=True)
  for name in (BUCKET, CLOSED):
    buckets.create_bucket(name, storage)
  handler = functools.partial(_Handler, storage)
  with _Server(('localhost', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f'http://localhost:{server.server_port}'
    environment = {
      'STORAGE_EMULATOR_HOST': url,
      'TENSORSTORE_GCS_HTTP_URL': url,
      # What looks for credentials, and whether the bucket is of another kind.
      'NO_GCE_CHECK': 'true',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    }
    try:
      with mock.patch.dict(os.environ, environment):
        yield
    finally:
      server.shutdown()
      thread.join()
