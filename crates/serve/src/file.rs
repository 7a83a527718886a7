//! A file as the body of an answer, read piece by piece.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

use super::connections::Connection;

/// Bytes that are read at a time.
pub const PIECE: usize = 64 * 1024;

/// The next `left` bytes of a file.
pub struct FilePart {
    file: File,
    left: u64,
    piece: Vec<u8>,
    connection: Arc<Connection>,
}

impl FilePart {
    pub fn new(file: File, left: u64, connection: Arc<Connection>) -> Self {
        Self { file, left, piece: vec![0; PIECE], connection }
    }
}

impl Body for FilePart {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = self.get_mut();
        if part.left == 0 {
            return Poll::Ready(None);
        }
        // More is asked for when the peer has taken what came before.
        part.connection.answers();
        let most = usize::try_from(part.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = ReadBuf::new(&mut part.piece[..most]);
        ready!(Pin::new(&mut part.file).poll_read(context, &mut piece))?;
        let read = piece.filled();
        // A file that shrinks meanwhile ends the connection: its peer must not take the part for the whole.
        if read.is_empty() {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        part.left -= read.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(read)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for FilePart {
    fn drop(&mut self) {
        self.connection.waits();
    }
}
