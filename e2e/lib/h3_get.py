"""One GET over HTTP/3 with aioquic, redirects followed, as a line of JSON. `--early URL`: once more, in 0-RTT."""
import asyncio
import hashlib
import json
import ssl
import sys
from urllib.parse import urljoin, urlsplit

from aioquic.asyncio import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.headers, self.body, self.ended = [], b"", self._loop.create_future()

    def get(self, url):
        parts = urlsplit(url)
        path = parts.path + ("?" + parts.query if parts.query else "")
        stream = self._quic.get_next_available_stream_id()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", parts.netloc.encode()), (b":path", path.encode())]
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        return self.ended

    def quic_event_received(self, event):
        if isinstance(event, (ConnectionTerminated, StreamReset)) and not self.ended.done():
            self.ended.set_exception(RuntimeError(f"{event}"))
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.headers += found.headers
            elif isinstance(found, DataReceived):
                self.body += found.data
            if getattr(found, "stream_ended", False) and not self.ended.done():
                self.ended.set_result(None)


async def fetch(url, ticket=None, keep=None):
    parts = urlsplit(url)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, session_ticket=ticket)
    early = ticket is not None
    async with connect(parts.hostname, parts.port, configuration=configuration, create_protocol=Client,
                       session_ticket_handler=keep, wait_connected=not early) as client:
        await asyncio.wait_for(client.get(url), 20)
        if keep:
            # The ticket may come after the answer.
            await asyncio.wait_for(client.ping(), 10)
        accepted = client._quic.tls.early_data_accepted
    headers = {name.decode(): value.decode() for name, value in client.headers}
    return {"url": url, "status": int(headers.pop(":status")), "headers": headers, "early_data": accepted,
            "sha256": hashlib.sha256(client.body).hexdigest(), "bytes": len(client.body)}


async def main(url, early):
    tickets = []
    answer = await fetch(url, keep=tickets.append)
    if answer["status"] == 302:
        return await main(urljoin(url, answer["headers"]["location"]), early)
    return await fetch(url, ticket=tickets[-1]) if early else answer


print(json.dumps(asyncio.run(main(sys.argv[-1], "--early" in sys.argv))))
