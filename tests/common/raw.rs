//! Messages as bytes, for what a later version of the protocol may say and this one has no words for.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its own part, and what a test cannot build must fail it"
)]

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Hands the bytes of messages through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// A field that no version knows yet, with text in it.
pub fn later_field(number: u32) -> Vec<u8> {
    let text = b"of a later version";
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(text.len() as u64, &mut field);
    field.extend(text);
    field
}

/// A message with fields that no version knows yet.
pub fn extended(message: &impl Message) -> Vec<u8> {
    [message.encode_to_vec(), later_field(90), later_field(1_000)].concat()
}

/// A message of a session whose body, in field `number`, is these bytes.
pub fn body(number: u32, bytes: &[u8]) -> Bytes {
    let mut message = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut message);
    encode_varint(bytes.len() as u64, &mut message);
    message.extend(bytes);
    message.extend(later_field(91));
    message.into()
}
