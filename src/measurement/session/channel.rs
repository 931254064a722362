//! The control plane: one JSON object a line over a Unix socket, with memory passed as file descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::SessionError;
use super::error::MOST_QUOTED;
use crate::base::printable::{excerpt, printable_lines};

/// Longest message that is accepted from a sidecar.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Characters of an error message that are kept: vLLM's longest are a tenth of it.
const MAX_TEXT_CHARACTERS: usize = 16 << 10;

/// One connection to a sidecar or to an engine process.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// How much of the buffer is known to have no end of a message in it.
    searched: usize,
}

impl Channel {
    /// Over a connected socket.
    pub(super) fn new(stream: UnixStream) -> Channel {
        Channel { stream, buffer: Vec::new(), searched: 0 }
    }

    /// Over our end of a socket pair; must be called inside the runtime.
    pub(super) fn from_std(stream: StdUnixStream) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel::new(UnixStream::from_std(stream)?))
    }

    /// Sends one message; `fds` arrive with its first byte.
    pub(super) async fn send(&mut self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut sent = 0;
        if !fds.is_empty() {
            let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            sent = self.stream.async_io(Interest::WRITABLE, || send_with_fds(&self.stream, &line, &raw)).await?;
        }
        self.stream.write_all(&line[sent..]).await
    }

    /// The next message; `None` when the peer has closed its end. Cancelling it loses nothing.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SessionError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                return parse(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(SessionError::Protocol(format!("a message of more than {MAX_LINE_BYTES} bytes")));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(err) => return Err(SessionError::io("reading from the sidecar")(err)),
            }
        }
    }
}

/// One message. serde_json refuses values that are nested more than 128 deep.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, SessionError> {
    serde_json::from_slice(line).map_err(|err| {
        // An error may repeat a whole text of the message.
        let (err, line) = (err.to_string(), String::from_utf8_lossy(line));
        let (err, line) = (excerpt(&err, MOST_QUOTED), excerpt(line.trim_end(), MOST_QUOTED));
        SessionError::Protocol(format!("{err}, in {line}"))
    })
}

/// A text that ends on a screen or in a report: without control characters, and cut where nobody reads on.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let mut text = String::deserialize(from)?;
    let end = text.char_indices().nth(MAX_TEXT_CHARACTERS).map(|(end, _)| end);
    text.truncate(end.unwrap_or(text.len()));
    Ok(printable_lines(&text).into_owned())
}

fn send_with_fds(stream: &UnixStream, line: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let parts = [IoSlice::new(line)];
    Ok(sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn received(bytes: &[u8]) -> Result<Option<serde_json::Value>, SessionError> {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        let bytes = bytes.to_owned();
        let writer = std::thread::spawn(move || theirs.write_all(&bytes)); // an error if nobody reads on
        let message = Channel::from_std(ours).unwrap().receive().await;
        let _ = writer.join().unwrap();
        message
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hostile_messages_are_errors_of_a_bounded_length() {
        let deep = [vec![b'['; 200_000], vec![b'\n']].concat();
        let unknown = format!("{{\"event\": \"{}\u{1b}[2J\"}}\n", "x".repeat(1 << 20)).into_bytes();
        for bytes in [deep, unknown, b"\xff\xfe\n".to_vec(), b"{\"event\":\n".to_vec()] {
            let err = match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(_) => parse::<u8>(&bytes).unwrap_err(),
                Err(_) => received(&bytes).await.unwrap_err(),
            };
            let said = err.to_string();
            assert!(said.len() < 1_000 && !said.contains('\u{1b}'), "{} bytes", said.len());
        }
        let endless = vec![b' '; MAX_LINE_BYTES + (1 << 20)];
        assert!(received(&endless).await.unwrap_err().to_string().contains("a message of more than"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn messages_that_come_together_are_told_apart() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        theirs.write_all(b"1\n2\n3").unwrap();
        let mut channel = Channel::from_std(ours).unwrap();
        for expected in [1, 2] {
            assert_eq!(channel.receive::<u8>().await.unwrap(), Some(expected));
        }
        theirs.write_all(b"4\n").unwrap();
        assert_eq!(channel.receive::<u8>().await.unwrap(), Some(34));
    }
}
