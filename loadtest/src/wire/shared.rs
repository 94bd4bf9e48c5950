//! The connection that all lanes of a viewer share: HTTP/2, or HTTP/3.
//!
//! Invariant: one that takes nothing any more gets no new requests, and what is under way on it goes on.

use super::refusal;
use super::{Answer, Ask, Reading, Wire, WireError, closed, h3, truncated, with_headers};
use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::dial::Protocol;
use bytes::{Buf, Bytes};
use http::Request;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

type H2 = h2::client::SendRequest<Bytes>;

#[derive(Default)]
pub(super) enum Shared {
    #[default]
    None,
    H2(H2),
    H3(h3::Sender),
}

impl Wire {
    /// The shared connection of that number takes nothing any more; what is under way on it goes on.
    async fn retire(&self, number: u32) {
        let mut shared = self.shared.lock().await;
        if self.dialled.get() == number {
            *shared = Shared::None;
        }
    }

    /// A failure before there was a response.
    async fn failed(&self, number: u32, error: WireError) -> WireError {
        if matches!(error, WireError::Refused(_)) {
            self.retire(number).await;
        }
        error
    }

    pub(super) async fn over_h2(
        &self,
        ask: &Ask<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Answer, WireError> {
        let (mut sender, dialled) = self.h2().await?;
        let number = self.dialled.get();
        let ready = poll_fn(|cx| sender.poll_ready(cx)).await;
        let request = with_headers(Request::get(self.uri(ask.path)?), ask).body(())?;
        let sent = Instant::now();
        let asked = ready.and_then(|()| sender.send_request(request, true));
        drop(sender);
        let answered = match asked {
            Ok((response, _)) => response.await,
            Err(error) => Err(error),
        };
        let (head, mut body) = match answered {
            Ok(response) => response.into_parts(),
            Err(error) => return Err(self.failed(number, refusal::of_h2(error)).await),
        };
        let first_byte = self.arrived();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(truncated)?;
            reading.take(&chunk)?;
            body.flow_control().release_capacity(chunk.len()).map_err(truncated)?;
        }
        Ok(self.answer((head.status.as_u16(), &head.headers), (sent, dialled, first_byte), reading))
    }

    async fn h2(&self) -> Result<(H2, bool), WireError> {
        let mut shared = self.shared.lock().await;
        // A sender says at `poll_ready` that its connection has gone; then there is a new one.
        if let Shared::H2(sender) = &mut *shared
            && !poll_fn(|cx| Poll::Ready(matches!(sender.poll_ready(cx), Poll::Ready(Err(_))))).await
        {
            return Ok((sender.clone(), false));
        }
        *shared = Shared::None;
        let sender = Box::pin(self.dial_h2()).await?;
        self.dialled.set(self.dialled.get().wrapping_add(1));
        *shared = Shared::H2(sender.clone());
        Ok((sender, true))
    }

    async fn dial_h2(&self) -> Result<H2, WireError> {
        let stream = self.dial().await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .header_table_size(0)
            .max_concurrent_reset_streams(8)
            .handshake(stream);
        let (sender, mut connection) = handshake.await.map_err(closed)?;
        // An async block has room for what it awaits twice: 1.6 KB a viewer.
        let driver = poll_fn(move |cx| Pin::new(&mut connection).poll(cx).map(drop));
        self.fresh.borrow_mut().push(Box::pin(driver));
        Ok(sender)
    }

    pub(super) async fn over_h3(
        &self,
        ask: &Ask<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Answer, WireError> {
        let (mut sender, dialled) = {
            let mut shared = self.shared.lock().await;
            match &*shared {
                Shared::H3(sender) if sender.is_open() => (sender.clone(), false),
                _ => {
                    let address = self.dialer.resolve(&self.authority).await?;
                    let config = self.dialer.tls_config(Protocol::H3)?;
                    let (sender, driver) = self.quic.dial(config, address, &self.authority.host).await?;
                    self.fresh.borrow_mut().push(driver);
                    self.dialled.set(self.dialled.get().wrapping_add(1));
                    *shared = Shared::H3(sender.clone());
                    (sender, true)
                }
            }
        };
        let number = self.dialled.get();
        let request = with_headers(Request::get(self.uri(ask.path)?), ask).body(())?;
        let sent = Instant::now();
        let asked = async {
            let mut stream = sender.requests.send_request(request).await?;
            stream.finish().await?;
            let response = stream.recv_response().await?;
            Ok((response, stream))
        };
        let (head, mut stream) = match asked.await {
            Ok((response, stream)) => (response.into_parts().0, stream),
            Err(error) => return Err(self.failed(number, refusal::of_h3(error)).await),
        };
        let first_byte = self.arrived();
        while let Some(mut chunk) = stream.recv_data().await.map_err(truncated)? {
            while chunk.has_remaining() {
                let piece = chunk.chunk();
                reading.take(piece)?;
                let length = piece.len();
                chunk.advance(length);
            }
        }
        Ok(self.answer((head.status.as_u16(), &head.headers), (sent, dialled, first_byte), reading))
    }
}
