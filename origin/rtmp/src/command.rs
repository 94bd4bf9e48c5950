//! RTMP commands: a name, a transaction, a command object and arguments, in AMF0.
#![deny(clippy::disallowed_methods)]

use bytes::{Bytes, BytesMut};

use crate::amf0::{self, Decoder, Value};
use crate::message::{COMMAND_AMF0, Message};
use crate::{Limits, SessionError};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    pub(crate) name: String,
    /// Zero when no answer is expected.
    pub(crate) transaction: f64,
    pub(crate) object: Value,
    pub(crate) arguments: Vec<Value>,
}

impl Command {
    pub(crate) fn new(name: &str, transaction: f64, object: Value, arguments: Vec<Value>) -> Self {
        Self { name: name.to_owned(), transaction, object, arguments }
    }

    /// Tells the peer the state of its connection or stream: `level` is `status` or `error`.
    pub(crate) fn on_status(level: &str, code: &str, description: &str) -> Self {
        Self::new("onStatus", 0.0, Value::Null, vec![status(level, code, description, &[])])
    }

    /// The answer to `connect`. Encoders expect the version and capability fields of the reference server.
    pub(crate) fn connect_success(transaction: f64) -> Self {
        let server = Value::Object(vec![
            ("fmsVer".to_owned(), Value::text("FMS/3,0,1,123")),
            ("capabilities".to_owned(), Value::Number(31.0)),
        ]);
        let code = "NetConnection.Connect.Success";
        let success = status("status", code, "connected", &[("objectEncoding", Value::Number(0.0))]);
        Self::new("_result", transaction, server, vec![success])
    }

    pub(crate) fn decode(message: &Message, limits: &Limits) -> Result<Self, SessionError> {
        let (bytes, limit) = (message.payload.len(), limits.max_command_bytes);
        if bytes > limit {
            return Err(SessionError::CommandTooLarge { bytes, limit });
        }
        let mut values = Decoder::new(message.amf0_bytes());
        let Some(Value::String(name)) = values.next_value()? else {
            return Err(SessionError::MissingField { command: "command", field: "name" });
        };
        let transaction = values.next_value()?.and_then(|value| value.as_number()).unwrap_or(0.0);
        let object = values.next_value()?.unwrap_or(Value::Null);
        let mut arguments = Vec::new();
        while let Some(value) = values.next_value()? {
            arguments.push(value);
        }
        Ok(Self { name, transaction, object, arguments })
    }

    pub(crate) fn into_message(self, stream_id: u32) -> Message {
        let mut payload = BytesMut::new();
        amf0::encode(&Value::String(self.name), &mut payload);
        amf0::encode(&Value::Number(self.transaction), &mut payload);
        amf0::encode(&self.object, &mut payload);
        self.arguments.iter().for_each(|argument| amf0::encode(argument, &mut payload));
        Message { timestamp_ms: 0, type_id: COMMAND_AMF0, stream_id, payload: Bytes::from(payload) }
    }

    /// The argument at `index` as text, if it is text and not empty.
    pub(crate) fn text_argument(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// The object with which answers and `onStatus` describe an outcome.
pub(crate) fn status(level: &str, code: &str, description: &str, more: &[(&str, Value)]) -> Value {
    let mut fields = vec![
        ("level".to_owned(), Value::text(level)),
        ("code".to_owned(), Value::text(code)),
        ("description".to_owned(), Value::text(description)),
    ];
    fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Value::Object(fields)
}
