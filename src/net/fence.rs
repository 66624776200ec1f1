//! Cuts our connections to a node at once, from any thread, and keeps new ones from being made.

use std::net::Shutdown;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use socket2::Socket;

use super::stream::Stream;

/// The connections to one node. It is lowered at first.
#[derive(Debug, Default)]
pub struct Fence(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    raised: bool,
    /// Of each connection a descriptor of our own: the stream belongs to another thread.
    sockets: HashMap<u64, Socket>,
    made: u64,
}

impl Fence {
    /// From when this returns no connection to the node carries anything any more, and none is made. Whoever uses one
    /// sees it closed.
    pub fn raise(&self) {
        let mut inside = self.0.lock();
        inside.raised = true;
        for (_, socket) in inside.sockets.drain() {
            // It can only fail when the connection is gone.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// New connections may be made.
    pub fn lower(&self) {
        self.0.lock().raised = false;
    }

    pub fn is_raised(&self) -> bool {
        self.0.lock().raised
    }

    /// Lets a connection in. `None`: the fence is raised, and the connection must be closed.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn admit(self: &Arc<Self>, stream: &Stream) -> std::io::Result<Option<Admission>> {
        let socket = stream.duplicate()?;
        let mut inside = self.0.lock();
        if inside.raised {
            return Ok(None);
        }
        inside.made += 1;
        let number = inside.made;
        inside.sockets.insert(number, socket);
        Ok(Some(Admission { fence: Arc::clone(self), number }))
    }
}

/// To be kept as long as the connection lives, and no longer: the connection ends when both are dropped.
#[derive(Debug)]
pub struct Admission {
    fence: Arc<Fence>,
    number: u64,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.fence.0.lock().sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::BytesMut;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_raised_fence_ends_what_is_inside_and_lets_nothing_in() {
        let fence = Arc::new(Fence::default());
        let connection = || {
            let (ours, its) = UnixStream::pair().unwrap();
            (Stream::unix(ours), Stream::unix(its))
        };
        let (mut ours, mut its) = connection();
        let (left, _) = connection();
        let admission = fence.admit(&ours).unwrap().unwrap();
        drop((fence.admit(&left).unwrap(), left));
        fence.raise();
        for end in [&mut ours, &mut its] {
            let read = poll_fn(|cx| end.poll_read(cx, &mut BytesMut::with_capacity(8))).await;
            assert_eq!(read.unwrap(), 0, "both ends see it closed");
        }
        assert!(ours.write_all(b"x").await.is_err());
        let (late, mut its) = connection();
        assert!(fence.admit(&late).unwrap().is_none());
        fence.lower();
        let admitted = fence.admit(&late).unwrap();
        assert!(admitted.is_some());
        drop((late, admission, admitted));
        let read = poll_fn(|cx| its.poll_read(cx, &mut BytesMut::with_capacity(8))).await;
        assert_eq!(read.unwrap(), 0, "nothing of ours keeps it open");
        assert!(fence.0.lock().sockets.is_empty());
    }
}
