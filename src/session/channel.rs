//! The control plane: one JSON object a line over a Unix socket, with memory passed as file descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::SessionError;

/// Longest message that is accepted from a sidecar.
const MAX_LINE_BYTES: usize = 16 << 20;

/// One connection to a sidecar or to an engine process.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Channel {
    /// Over a connected socket.
    pub(super) fn new(stream: UnixStream) -> Channel {
        Channel { stream, buffer: Vec::new() }
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
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let message = serde_json::from_slice(&line)
                    .map_err(|err| SessionError::Protocol(format!("{err} in {}", String::from_utf8_lossy(&line))))?;
                return Ok(Some(message));
            }
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

fn send_with_fds(stream: &UnixStream, line: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let parts = [IoSlice::new(line)];
    Ok(sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
}
